"""Reads CXI files, and those of NXcxi_ptycho, which are CXI files as well: the community's format with a position for each pattern.

Everything is in SI units. Axes: `data` is (N, ky, kx). `translation` (N, 3) is where the *object* was, as (x, y, z) in m in the
laboratory: z along the beam, y up, x so that the three are right-handed. The probe moved the opposite way over the object. Positions
(y, x) are its way along the detector's rows and columns, `basis_vectors`, which are (0, -y_pixel_size, 0) and (-x_pixel_size, 0, 0)
unless the file has others. `mask` is 0 for good pixels, and 0x1000 marks signal. `energy` is that of photons in J, unless
`source_1/probe` says electrons.

Source: CXI file format 1.6 (cxidb.org), NXcxi_ptycho of NeXus; conventions as cdtools 0.3.2 has them, `tools/data/data.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from adaptycho.formats import stored
from adaptycho.formats.raw import Raw, Said
from adaptycho.formats.readers import calibration, facts

name = "CXI"
needs = "an HDF5 file with entry_1/data_1/data or entry_1/instrument_1/detector_1/data"
DETECTOR, SOURCE = "entry_1/instrument_1/detector_1", "entry_1/instrument_1/source_1"
DATA = (f"{DETECTOR}/data", "entry_1/data_1/data")
TRANSLATIONS = ("entry_1/sample_1/geometry_1/translation", "entry_1/data_1/translation", f"{DETECTOR}/translation")
# The second is ptychodus's; in files of others, image_1 is the object.
PROBES = ((f"{SOURCE}/illumination", ""), ("entry_1/image_1/data", "coherent:"))
SIGNAL = 0x1000
DEFAULT_BASIS = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])


def can_read(path: Path) -> bool:
    """Whether there are patterns where CXI has them."""
    return facts.holds(path, lambda file: bool(_data(file)))


@contextmanager
def opened(path: Path, key: str | None = None) -> Iterator[Raw]:
    """Patterns, positions and geometry; `key` may name the array of patterns.

    Raises:
        ValueError: naming the file; there are no patterns, or what belongs to them does not fit.
    """
    with stored.hdf5(path) as file:
        found = facts.patterns(file, facts.choose(path, key, _data(file)), path)
        yield Raw(patterns=found, said=_said(file, path, found.shape))


def _data(file: h5py.File) -> list[str]:
    """The array of patterns itself; elsewhere there are links to it, and two names of one array are one."""
    return [place for place in DATA if facts.array_here(file, place, (3, 4))][:1]


def _said(file: h5py.File, path: Path, shape: tuple[int, ...]) -> Said:
    electrons, beam = _beam(file)
    where = _translation(file, path, int(np.prod(shape[:-2])))
    return Said(
        energy=electrons,
        wavelength=beam,
        detector_pixel=_angles(file),
        positions=None if where is None else 1e10 * where,
        mask=_mask(file, path, shape[-2:]),
        probe=_probe(file, path, shape[-2:]),
        title=facts.text(facts.here(file, "entry_1/title")) or facts.text(facts.here(file, "entry_1/sample_1/name")),
    )


def _beam(file: h5py.File) -> tuple[float | None, float | None]:
    """Energy in eV of electrons, or wavelength in Å of photons."""
    joules = calibration.positive(facts.number(facts.here(file, f"{SOURCE}/energy")))
    energy = None if joules is None else joules * calibration.JOULE
    if "electron" in facts.text(facts.here(file, f"{SOURCE}/probe")).lower():
        return energy, None
    metres = calibration.positive(facts.number(facts.here(file, f"{SOURCE}/wavelength")))
    return None, calibration.photon_wavelength(energy) if metres is None else 1e10 * metres


def _basis(file: h5py.File) -> np.ndarray:
    """Vectors (2, 3) along which the detector's rows and columns are counted; some write them as columns, some for each pattern."""
    item = facts.here(file, f"{DETECTOR}/basis_vectors")
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "iuf":
        return DEFAULT_BASIS
    if item.shape in ((2, 3), (3, 2)):
        found = np.asarray(item[()], np.float64)
    elif item.shape is not None and len(item.shape) == 3 and item.shape[1:] == (2, 3) and item.shape[0]:
        found = np.asarray(item[0], np.float64)
    else:
        return DEFAULT_BASIS
    found = found.T if found.shape == (3, 2) else found
    lengths = np.linalg.norm(found, axis=1)
    return found if np.isfinite(lengths).all() and lengths.all() else DEFAULT_BASIS


def _angles(file: h5py.File) -> calibration.Pair | None:
    y, x = (calibration.positive(facts.number(facts.here(file, f"{DETECTOR}/{each}"))) for each in ("y_pixel_size", "x_pixel_size"))
    if facts.here(file, f"{DETECTOR}/basis_vectors") is not None and (basis := _basis(file)) is not DEFAULT_BASIS:
        y, x = (float(v) for v in np.linalg.norm(basis, axis=1))
    y, x = y or x, x or y  # square pixels are often written once
    distance = calibration.positive(facts.number(facts.here(file, f"{DETECTOR}/distance")))
    return None if y is None or x is None or distance is None else (1e3 * y / distance, 1e3 * x / distance)


def _translation(file: h5py.File, path: Path, count: int) -> np.ndarray | None:
    """Where the probe was on the object, (N, 2) as (y, x) in m."""
    place = next((each for each in TRANSLATIONS if isinstance(facts.here(file, each), h5py.Dataset)), None)
    if place is None:
        return None
    moved = stored.dataset(file, place, path)
    if moved.shape != (count, 3):
        raise ValueError(f"{path}: {place}: expected {count} translations (x, y, z) in m, one for each pattern, found shape {moved.shape}")
    basis = _basis(file)
    where: np.ndarray = -stored.whole(moved).astype(np.float64) @ (basis / np.linalg.norm(basis, axis=1, keepdims=True)).T
    return where


def _mask(file: h5py.File, path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    item = facts.here(file, f"{DETECTOR}/mask")
    if not isinstance(item, h5py.Dataset) or item.shape != shape or item.dtype.kind not in "iu":
        return None
    bits = stored.whole(stored.dataset(file, f"{DETECTOR}/mask", path))
    good: np.ndarray = (bits == 0) | (bits == SIGNAL)
    return good


def _probe(file: h5py.File, path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The illumination, (modes, Q, Q); one of another size than the patterns is left out."""
    for place, axes in PROBES:
        item = facts.here(file, place)
        if not isinstance(item, h5py.Dataset) or not facts.text(facts.attribute(item, "axes")).startswith(axes):
            continue
        if item.dtype.kind == "c" and item.shape is not None and 0 not in item.shape and item.shape[-2:] == shape:
            found = stored.whole(stored.dataset(file, place, path, "c"))
            found = found[0] if found.ndim == 4 else found  # the first of those that vary from position to position
            return found.reshape(-1, *shape) if len(set(shape)) == 1 and found.ndim < 4 else None
    return None
