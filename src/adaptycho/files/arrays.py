"""Imports plain arrays: NumPy, HDF5 and text files that hold patterns and positions, with the geometry given by hand."""

import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from adaptycho.files.recording import CHUNK, Recording, check
from adaptycho.forward import Measurement
from adaptycho.grid import Grid
from adaptycho.optics import Aberrations, Setup, object_grid
from adaptycho.optics import wavelength as electron_wavelength

PIXEL_TOLERANCE = 0.005  # relative, between a real-space pixel and a detector pixel that are both given


def from_arrays(
    path: str | Path,
    *,
    semiangle: float,
    energy: float | None = None,
    wavelength: float | None = None,
    defocus: float = 0.0,
    detector_pixel: float | None = None,
    pixel: float | None = None,
    scan_step: float | tuple[float, float] | None = None,
    positions: str | Path | np.ndarray | None = None,
    rotation: float = 0.0,
    dose: float | None = None,
    counts_per_electron: float = 1.0,
    key: str | None = None,
    crop: int | None = None,
    swap: bool = False,
    title: str = "",
    source: str = "",
    licence: str = "",
) -> Recording:
    """Makes a recording of the patterns in an .npy, .npz or HDF5 file, (scan_y, scan_x, ky, kx) or (N, ky, kx).

    Args:
        path: the file with the patterns, zero frequency in the centre pixel Q // 2.
        semiangle: convergence semi-angle in mrad.
        energy: electrons' beam energy in eV; or give `wavelength`.
        wavelength: in Å, of X-rays or light.
        defocus: in Å, positive = underfocus.
        detector_pixel: angle in mrad of one detector pixel; or give `pixel`.
        pixel: real-space pixel in Å, wavelength / (Q x detector pixel).
        scan_step: in Å, one number or (y, x), where the patterns are a raster.
        positions: in Å, (N, 2) as (y, x): an array, or an .npy, .csv or .txt file; needed where the patterns are (N, ky, kx).
        rotation: degrees, counter-clockwise, that turn detector (row, column) into scan (row, column).
        dose: counts of a pattern if nothing missed the detector; by default the mean of the patterns' sums.
        counts_per_electron: detector counts that one electron makes.
        key: name of the array in an .npz or HDF5 file that holds several.
        crop: keep the central crop x crop detector pixels.
        swap: exchange the detector's rows and columns.
        title: what was recorded.
        source: where it comes from.
        licence: the terms it is under.

    Raises:
        ValueError: naming the file and the option at fault; also for files with Python objects (pickles), which are never opened.
    """
    path = Path(path)
    beam = _beam(path, energy, wavelength)
    _check_positive(path, semiangle=semiangle, counts_per_electron=counts_per_electron)
    for name, value in (("rotation", rotation), ("defocus", defocus)):
        if not math.isfinite(value):
            raise ValueError(f"{path}: {name}: expected a finite number, found {value}")
    stored = load(path, key)
    if stored.ndim not in (3, 4) or 0 in stored.shape:
        raise ValueError(
            f"{path}: patterns: expected an array (scan_y, scan_x, ky, kx) or (N, ky, kx) with no axis empty, found shape {stored.shape}"
        )
    where = _positions(path, stored.shape[:-2], scan_step, positions)
    patterns = corner_first(stored.reshape(-1, *stored.shape[-2:]), path, crop=crop, swap=swap)
    q = patterns.shape[-1]
    window = Grid((q, q), _pixel(path, q, beam, detector_pixel, pixel))
    where = where - where.min(0)
    # A line scan still has a field: one pixel across.
    field = max(float(where[:, 0].max()), window.pixel), max(float(where[:, 1].max()), window.pixel)
    if dose is None:
        dose = float(patterns.sum(dtype=torch.float64)) / len(patterns)
    grid = object_grid(field, window, rotation)
    detector = window.shape
    setup = Setup(field, grid, window, detector, semiangle, energy, beam, aberrations=Aberrations(C10=-defocus), rotation=rotation)
    measurement = Measurement(
        torch.from_numpy(where / np.array(field)).float().clamp(0, 1)[None],
        patterns[None],
        torch.full((1, len(patterns)), dose, dtype=torch.float32),
        torch.full((1, len(patterns)), defocus, dtype=torch.float32),
    )
    check(measurement, setup, str(path))
    return Recording(setup, measurement, title or path.stem, source, licence, counts_per_electron, path)


def load(path: Path, key: str | None = None) -> np.ndarray:
    """The array in an .npy, .npz or HDF5 file; where there are several, the one of name `key`, else the only one with 3 or 4 axes."""
    if not path.is_file():
        raise ValueError(f"{path}: expected an .npy, .npz or HDF5 file, found {'a folder' if path.is_dir() else 'no such file'}")
    if h5py.is_hdf5(path):
        return _load_hdf5(path, key)
    try:
        # Never pickles: a data file must not be able to run code.
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files if key is None or name == key or key not in loaded.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        if "pickle" in str(error) or "Python objects" in str(error):
            raise ValueError(f"{path}: expected plain numbers, found Python objects (pickle) or no array; these are not opened") from error
        raise ValueError(f"{path}: expected a complete .npy, .npz or HDF5 file, found one that cannot be read ({error})") from error
    return arrays[_choose(path, key, {name: array.shape for name, array in arrays.items()})]


def corner_first(stored: np.ndarray, path: Path, *, crop: int | None = None, swap: bool = False) -> torch.Tensor:
    """Patterns (N, Q, Q) with zero frequency moved from the centre to the corner, cropped to the central `crop` pixels."""
    n, qy, qx = stored.shape
    if stored.dtype.kind not in "iuf" or stored.dtype.itemsize > 8:
        raise ValueError(f"{path}: patterns: expected integer or real numbers, found {stored.dtype}")
    q = qy if crop is None else crop
    if (crop is None and qy != qx) or q % 2 or not 2 <= q <= min(qy, qx):
        raise ValueError(
            f"{path}: patterns: expected square patterns with an even number of pixels, found {qy} x {qx}"
            + (f" cropped to {crop}" if crop is not None else f"; crop={min(qy, qx) // 2 * 2} would keep the centre")
        )
    patterns = np.empty((n, q, q), stored.dtype.newbyteorder("="))
    top, left = qy // 2 - q // 2, qx // 2 - q // 2
    for first in range(0, n, CHUNK):
        part = stored[first : first + CHUNK, top : top + q, left : left + q]
        patterns[first : first + CHUNK] = np.fft.ifftshift(part.swapaxes(-2, -1) if swap else part, (-2, -1))
    return torch.from_numpy(patterns)


def _load_hdf5(path: Path, key: str | None) -> np.ndarray:
    found: dict[str, Any] = {}
    try:
        with h5py.File(path, "r") as file:
            file.visititems(lambda name, item: found.update({name: item.shape}) if isinstance(item, h5py.Dataset) else None)
            return file[_choose(path, key, found)][...]
    except OSError as error:
        raise ValueError(f"{path}: expected a complete HDF5 file, found one that cannot be read ({error})") from error


def _choose(path: Path, key: str | None, shapes: dict[str, tuple[int, ...]]) -> str:
    listing = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"
    if key is not None:
        if key not in shapes:
            raise ValueError(f"{path}: key: expected one of the arrays in the file ({listing}), found {key!r}")
        return key
    candidates = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
    if len(candidates) != 1:
        raise ValueError(f"{path}: patterns: expected one array with 3 or 4 axes, or its name as key, found {listing}")
    return candidates[0]


def _beam(path: Path, energy: float | None, wavelength: float | None) -> float:
    """The wavelength in Å, from whichever of the two is given."""
    if (energy is None) == (wavelength is None):
        found = "neither" if energy is None else "both"
        raise ValueError(f"{path}: energy: expected a beam energy in eV or a wavelength in Å, found {found}")
    _check_positive(path, energy=energy, wavelength=wavelength)
    if energy is not None:
        return electron_wavelength(energy)
    assert wavelength is not None
    return wavelength


def _check_positive(path: Path, **values: float | None) -> None:
    units = {"energy": "energy in eV", "wavelength": "length in Å", "pixel": "length in Å", "counts_per_electron": "number"}
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{path}: {name}: expected a positive {units.get(name, 'angle in mrad')}, found {value}")


def _positions(
    path: Path, scan: tuple[int, ...], step: float | tuple[float, float] | None, given: str | Path | np.ndarray | None
) -> np.ndarray:
    if given is not None:
        from_file = isinstance(given, str | Path)
        where = _load_table(Path(given)) if from_file else np.asarray(given, np.float64)  # type: ignore[arg-type]
        if where.shape != (math.prod(scan), 2) or not np.isfinite(where).all():
            name, found = given if from_file else path, f"shape {where.shape}"
            if not np.isfinite(where).all():
                found += " with NaN or infinity"
            raise ValueError(f"{name}: positions: expected {math.prod(scan)} finite pairs (y, x) in Å, found {found}")
        return where
    if len(scan) != 2:
        raise ValueError(f"{path}: positions: expected positions in Å, because the patterns are (N, ky, kx), found none")
    if step is None:
        raise ValueError(f"{path}: scan_step: expected the distance of neighbouring positions in Å (or positions), found none")
    dy, dx = step if isinstance(step, tuple) else (step, step)
    if not (0 < dy < math.inf and 0 < dx < math.inf):
        raise ValueError(f"{path}: scan_step: expected a positive length in Å, found {step}")
    return np.stack(np.meshgrid(np.arange(scan[0]) * dy, np.arange(scan[1]) * dx, indexing="ij"), -1).reshape(-1, 2)


def _load_table(path: Path) -> np.ndarray:
    if path.suffix in (".npy", ".npz", ".h5", ".hdf5"):
        return np.asarray(load(path), np.float64)
    try:
        lines = [line.replace(",", " ").replace(";", " ") for line in path.read_text(encoding="utf-8").splitlines()]
        first = 1 if lines and any(c.isalpha() and c not in "eE" for c in lines[0]) else 0
        return np.loadtxt(lines[first:], ndmin=2)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: positions: expected two columns of numbers (y, x) in Å, found something else ({error})") from error


def _pixel(path: Path, q: int, beam: float, detector_pixel: float | None, pixel: float | None) -> float:
    if detector_pixel is None and pixel is None:
        raise ValueError(f"{path}: detector_pixel: expected the angle of a detector pixel in mrad (or pixel in Å), found neither")
    _check_positive(path, detector_pixel=detector_pixel, pixel=pixel)
    if detector_pixel is None:
        assert pixel is not None
        return pixel
    implied = 1e3 * beam / (q * detector_pixel)
    if pixel is not None and not abs(implied / pixel - 1) <= PIXEL_TOLERANCE:
        raise ValueError(
            f"{path}: pixel: expected {implied:.5g} Å, the wavelength over {q} pixels of {detector_pixel:.5g} mrad, found {pixel:.5g} Å"
        )
    return implied
