"""Reads py4DSTEM data cubes: EMD 1.0, as emdfile writes it.

Axes: `data` is (Rx, Ry, Qx, Qy), and py4DSTEM calls the *rows* x, so that it is (scan_y, scan_x, ky, kx) already. Units are words beside
each size (`R_pixel_units` "A", `Q_pixel_units` "A^-1" or "mrad"); "pixels" is not calibrated. `QR_flip` says that the detector's axes are
exchanged, which is undone here, and `QR_rotation_degrees` turns the detector counter-clockwise into the scan after that, as py4DSTEM does
with Bragg vectors; `compare_QR_rotation`, which only draws, has it the other way. `probe_semiangle` is in detector pixels. Neither beam
energy nor defocus has a place in the format.

Source: py4DSTEM 0.14.18, `data/calibration.py` and `braggvectors/braggvectors.py`; emdfile 0.0.16, `classes/array.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from adaptycho.formats import stored
from adaptycho.formats.raw import Raw, Said
from adaptycho.formats.readers import calibration, facts
from adaptycho.formats.readers.views import Turned
from adaptycho.formats.stored import Stored

name = "py4DSTEM"
needs = "an HDF5 file whose emd_group_type is file, with an array of 4 axes (EMD 1.0)"
KEYS = ("R_pixel_size", "R_pixel_units", "Q_pixel_size", "Q_pixel_units", "QR_rotation_degrees", "QR_flip", "probe_semiangle")


def can_read(path: Path) -> bool:
    """Whether it is an EMD 1.0 file with patterns."""
    return facts.holds(path, lambda file: facts.text(facts.attribute(file, "emd_group_type")) == "file" and bool(_cubes(file)))


@contextmanager
def opened(path: Path, key: str | None = None) -> Iterator[Raw]:
    """Patterns and calibration; `key` is the name of the array where there are several.

    Raises:
        ValueError: naming the file; there are no patterns, or they cannot be read.
    """
    with stored.hdf5(path) as file:
        found = facts.patterns(file, facts.choose(path, key, _cubes(file)), path)
        flipped, said = _said(file, found)
        if flipped:
            order = [*range(len(found.shape) - 2), len(found.shape) - 1, len(found.shape) - 2]
            found = found._replace(values=Turned(found.values, order))
        yield Raw(patterns=found, said=said)


def _cubes(file: h5py.File) -> list[str]:
    """Arrays that can be scans; pictures and virtual detectors have two axes, and point lists are no arrays."""
    names = [each for each in facts.arrays(file, (4,)) if each.endswith("/data")]
    return [each for each in names if facts.text(facts.attribute(file[each].parent, "emd_group_type")) == "array"]


def _said(file: h5py.File, found: Stored) -> tuple[bool, Said]:
    """Whether the detector's axes are exchanged, and the rest."""
    cube, root = found.values.parent, found.values.name.strip("/").split("/")[0]
    made = {key: facts.here(file, f"{root}/metadatabundle/calibration/{key}") for key in KEYS}
    axes = [_axis(cube, axis, found.shape[axis]) for axis in range(4)]
    scales, spelled = [scale for scale, _ in axes], [unit for _, unit in axes]
    for letter, pair in (("R", (0, 1)), ("Q", (2, 3))):
        unit, size = facts.text(made[f"{letter}_pixel_units"]), facts.number(made[f"{letter}_pixel_size"])
        for axis in pair if unit and size else ():
            scales[axis], spelled[axis] = size, unit
    angle, pixel = calibration.detector(scales[2:], spelled[2:], found.shape[2:])
    radius = calibration.positive(facts.number(made["probe_semiangle"]))
    flip = made["QR_flip"]
    flipped = isinstance(flip, h5py.Dataset) and flip.size == 1 and flip.dtype.kind in "biu" and bool(np.asarray(flip[()]).reshape(()))
    said = Said(
        semiangle=None if radius is None or angle is None else radius * (angle[0] + angle[1]) / 2,
        detector_pixel=_turned(angle) if flipped else angle,
        pixel=_turned(pixel) if flipped else pixel,
        scan_step=calibration.step(scales[:2], spelled[:2]),
        rotation=facts.number(made["QR_rotation_degrees"]),
        title=root,
    )
    return flipped, said


def _turned(pair: calibration.Pair | None) -> calibration.Pair | None:
    return None if pair is None else (pair[1], pair[0])


def _axis(cube: h5py.Group, axis: int, size: int) -> tuple[float | None, str]:
    """Step and unit of an axis, whose vector is written whole or as its first two numbers."""
    vector = facts.here(cube, f"dim{axis}")
    if not isinstance(vector, h5py.Dataset) or vector.shape not in ((2,), (size,)) or vector.dtype.kind not in "iuf" or vector.size < 2:
        return None, ""
    first, second = (float(v) for v in vector[:2])
    return facts.number(second - first), facts.text(facts.attribute(vector, "units"))
