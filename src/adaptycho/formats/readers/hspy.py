"""Reads HyperSpy's `.hspy`: HDF5 with a group for each signal below `Experiments`.

Axes: `data` is in NumPy's order, and `axis-0` is its first; HyperSpy only *shows* them the other way round. `navigate` tells the axes of
the scan from those of the detector, each with `scale` and `units`. `metadata/Acquisition_instrument/TEM` has `beam_energy` in keV,
`convergence_angle` in mrad and `camera_length` in mm; the last says nothing of the angle of a pixel without the pixel's size, and is
not read. Defocus has no agreed place.

Source: HyperSpy 2.5.0, "Metadata structure"; rosettasciio 0.15, `_hierarchical.py`, format version 3.3.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from adaptycho.formats import stored
from adaptycho.formats.raw import Raw, Said
from adaptycho.formats.readers import calibration, facts
from adaptycho.formats.readers.views import Turned
from adaptycho.formats.stored import Stored

name = "HyperSpy"
needs = "an HDF5 file with a group Experiments, in which a signal has data and axis-0"
AXIS = ("navigate", "scale", "units", "size")
TEM = ("beam_energy", "convergence_angle")


def can_read(path: Path) -> bool:
    """Whether it has signals with patterns."""
    return facts.holds(path, lambda file: bool(_signals(file)))


@contextmanager
def opened(path: Path, key: str | None = None) -> Iterator[Raw]:
    """Patterns and what is known of the axes; `key` is such as Experiments/name/data where there are several.

    Raises:
        ValueError: naming the file; there are no patterns, or they cannot be read.
    """
    with stored.hdf5(path) as file:
        chosen = facts.choose(path, key, _signals(file))
        found = facts.patterns(file, chosen, path)
        signal = found.values.parent
        axes = [_attributes(facts.here(signal, f"axis-{axis}"), AXIS) for axis in range(len(found.shape))]
        about = {"TEM": _attributes(facts.here(signal, "metadata/Acquisition_instrument/TEM"), TEM)}
        title = facts.text(facts.attribute(facts.here(signal, "metadata/General"), "title"))
        yield described(found, axes, {"Acquisition_instrument": about, "General": {"title": title}})


def described(found: Stored, axes: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]) -> Raw:
    """Patterns with the axes of the scan first, from HyperSpy's description of axes and instrument.

    Args:
        found: as they are stored.
        axes: for each axis of the array, `navigate`, `scale` and `units`.
        metadata: HyperSpy's, of which `Acquisition_instrument.TEM` and `General.title` are read.

    Raises:
        ValueError: it is marked as something else than patterns, such as spectra.
    """
    count = len(found.shape)
    signal = [axis for axis in range(count) if not bool(axes[axis].get("navigate", axis < count - 2))]
    if len(signal) == count:  # nobody marked them
        signal = [count - 2, count - 1]
    if len(signal) != 2:
        raise ValueError(f"{found.name}: axes: expected two that do not navigate, those of the detector, found {len(signal)}")
    order = [axis for axis in range(count) if axis not in signal] + signal
    if order != list(range(count)):
        found = found._replace(values=Turned(found.values, order))
    scales = [facts.number(axes[axis].get("scale")) for axis in order]
    spelled = [facts.text(axes[axis].get("units")) for axis in order]
    tem = facts.at(metadata, "Acquisition_instrument", "TEM")
    volts = calibration.positive(facts.number(facts.at(tem, "beam_energy")))
    energy = None if volts is None else 1e3 * volts
    angle, pixel = calibration.detector(scales[-2:], spelled[-2:], found.shape[-2:], energy)
    return Raw(
        patterns=found,
        said=Said(
            energy=energy,
            semiangle=calibration.positive(facts.number(facts.at(tem, "convergence_angle"))),
            detector_pixel=angle,
            pixel=pixel,
            scan_step=calibration.step(scales[:2], spelled[:2]) if count == 4 else None,
            title=facts.text(facts.at(metadata, "General", "title")),
        ),
    )


def _signals(file: h5py.File) -> list[str]:
    experiments = facts.here(file, "Experiments")
    names = list(experiments) if isinstance(experiments, h5py.Group) else []
    there = [f"Experiments/{each}" for each in names if facts.array_here(file, f"Experiments/{each}/data", (3, 4))]
    return sorted(f"{each}/data" for each in there if facts.here(file, f"{each}/axis-0") is not None)


def _attributes(item: h5py.Group | h5py.Dataset | None, names: tuple[str, ...]) -> dict[str, Any]:
    return {} if item is None else {each: item.attrs[each] for each in item.attrs if each in names}
