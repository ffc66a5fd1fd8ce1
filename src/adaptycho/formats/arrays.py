"""Imports plain arrays: NumPy, HDF5 and text files that hold patterns and positions, with the geometry given by hand."""

import math
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from adaptycho.formats import stored
from adaptycho.formats.plausible import LENGTH, check_energy, plausible, within
from adaptycho.formats.recording import CHUNK, MOST, Recording, check_recording
from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Aberrations, Setup, object_grid
from adaptycho.physics.optics import wavelength as electron_wavelength
from adaptycho.support.reading import check_size, reading, regular
from adaptycho.types import Measurement

SMALLEST = 1e-4  # Å, of a pixel
PIXEL_TOLERANCE = 0.005  # relative, between a real-space pixel and a detector pixel that are both given


def from_arrays(
    path: str | Path,
    *,
    patterns: np.ndarray | None = None,
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
        patterns: the patterns themselves, for a reader that has got them out of the file already; `key` then says nothing.
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
        crop: keep the central crop x crop detector pixels; no more than these are read of an .npy or HDF5 file.
        swap: exchange the detector's rows and columns.
        title: what was recorded.
        source: where it comes from.
        licence: the terms it is under.

    Raises:
        ValueError: naming the file and the option at fault; also for files with Python objects (pickles), which are never opened, for
            values that lie in another file, for more than fits into memory, and for a beam and a geometry that no microscope has.
    """
    path = Path(path)
    if dose is not None:
        within(str(path), "dose", dose, 0, MOST, "counts")
    beam = _beam(path, energy, wavelength)
    _check_positive(path, semiangle=semiangle, counts_per_electron=counts_per_electron)
    for name, value in (("rotation", rotation), ("defocus", defocus)):
        if not math.isfinite(value):
            raise ValueError(f"{path}: {name}: expected a finite number, found {value}")
    held = stored.array(path, key) if patterns is None else nullcontext(stored.Stored.of(patterns, f"{path}: patterns"))
    with held as found:
        where, counts = _scan(path, found, scan_step, positions, crop=crop, swap=swap)
    q = counts.shape[-1]
    window = Grid((q, q), _pixel(path, q, beam, detector_pixel, pixel))
    field = _field(path, where, window)
    grid, aberrations = object_grid(field, window, rotation), Aberrations(C10=-defocus)
    setup = Setup(field, grid, window, window.shape, semiangle, energy, beam, aberrations=aberrations, rotation=rotation)
    plausible(setup, str(path))
    measurement = _measurement((where - where.min(0)) / np.array(field), counts, mean_counts(counts) if dose is None else dose, defocus)
    recording = Recording(setup, measurement, title or path.stem, source, licence, counts_per_electron, path)
    check_recording(recording, str(path))
    return recording


def corner_first(found: stored.Stored, path: Path, *, crop: int | None = None, swap: bool = False) -> torch.Tensor:
    """Patterns (N, Q, Q) with zero frequency moved from the centre to the corner, cropped to the central `crop` pixels."""
    *scan, qy, qx = found.shape
    stored.check_numbers(found.values.dtype, f"{path}: patterns")
    q = qy if crop is None else crop
    if (crop is None and qy != qx) or q % 2 or not 2 <= q <= min(qy, qx):
        raise ValueError(
            f"{path}: patterns: expected square patterns with an even number of pixels, found {qy} x {qx}"
            + (f" cropped to {crop}" if crop is not None else f"; crop={min(qy, qx) // 2 * 2} would keep the centre")
        )
    patterns = np.empty((math.prod(scan), q, q), stored.native(found.values.dtype))
    top, left = qy // 2 - q // 2, qx // 2 - q // 2
    for first, part in _parts(tuple(scan)):
        taken = np.asarray(found.values[(*part, slice(top, top + q), slice(left, left + q))])
        patterns[first : first + len(taken)] = np.fft.ifftshift(taken.swapaxes(-2, -1) if swap else taken, (-2, -1))
    return torch.from_numpy(patterns)


def mean_counts(patterns: torch.Tensor) -> float:
    """Counts of a pattern on average, in double precision without a copy of them all."""
    return sum(float(part.sum(dtype=torch.float64)) for part in patterns.split(CHUNK)) / len(patterns)


def _scan(
    path: Path,
    found: stored.Stored,
    step: float | tuple[float, float] | None,
    positions: str | Path | np.ndarray | None,
    *,
    crop: int | None,
    swap: bool,
) -> tuple[np.ndarray, torch.Tensor]:
    """Positions (N, 2) in Å, and patterns (N, Q, Q) with zero frequency in the corner."""
    shape = found.shape
    if len(shape) not in (3, 4) or 0 in shape:
        raise ValueError(
            f"{path}: patterns: expected an array (scan_y, scan_x, ky, kx) or (N, ky, kx) with no axis empty, found shape {shape}"
        )
    kept = tuple(n if crop is None else min(max(crop, 1), n) for n in shape[-2:])
    found.check_size((*shape[:-2], *kept))
    where = _positions(path, shape[:-2], step, positions)
    return where, corner_first(found, path, crop=crop, swap=swap)


def _field(path: Path, where: np.ndarray, window: Grid) -> tuple[float, float]:
    """Height and width in Å of what the positions cover; a line scan still has a field, one pixel across."""
    if not (span := float(np.ptp(where, 0).max())) <= LENGTH:
        raise ValueError(f"{path}: positions: expected them within {LENGTH:g} Å of each other, found {span:g} Å")
    height, width = (where - where.min(0)).max(0)
    return max(float(height), window.pixel), max(float(width), window.pixel)


def _measurement(positions: np.ndarray, counts: torch.Tensor, dose: float, defocus: float) -> Measurement:
    """One data set, of positions in fractions of the field."""
    return Measurement(
        torch.from_numpy(positions).float().clamp(0, 1)[None],
        counts[None],
        torch.full((1, len(counts)), dose, dtype=torch.float32),
        torch.full((1, len(counts)), defocus, dtype=torch.float32),
    )


def _parts(scan: tuple[int, ...]) -> Iterator[tuple[int, tuple[int | slice, ...]]]:
    """Indices of up to `CHUNK` patterns at a time along the last axis of a scan, each with the number of the first of them."""
    for row, before in enumerate(np.ndindex(*scan[:-1])):
        for first in range(0, scan[-1], CHUNK):
            yield row * scan[-1] + first, (*before, slice(first, first + CHUNK))


def _beam(path: Path, energy: float | None, wavelength: float | None) -> float:
    """The wavelength in Å, from whichever of the two is given."""
    if (energy is None) == (wavelength is None):
        found = "neither" if energy is None else "both"
        raise ValueError(f"{path}: energy: expected a beam energy in eV or a wavelength in Å, found {found}")
    _check_positive(path, energy=energy, wavelength=wavelength)
    if energy is not None:
        check_energy(str(path), energy)
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
        name = str(given) if isinstance(given, str | Path) else str(path)
        where = _load_table(Path(given)) if isinstance(given, str | Path) else np.asarray(given)
        stored.check_numbers(where.dtype, f"{name}: positions")
        if where.shape != (math.prod(scan), 2) or not np.isfinite(where).all():
            found = f"shape {where.shape}" + ("" if np.isfinite(where).all() else " with NaN or infinity")
            raise ValueError(f"{name}: positions: expected {math.prod(scan)} finite pairs (y, x) in Å, found {found}")
        return where.astype(np.float64)
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
        with stored.array(path, axes=(2,), what="positions") as found:
            return stored.whole(found)
    regular(path, "a file of positions")
    size = path.stat().st_size
    check_size(f"{path}: positions", 16 * size, size)  # strings and numbers take more than their digits
    # An empty table is said by its shape.
    with reading(f"{path}: positions", "two columns of numbers (y, x) in Å"), warnings.catch_warnings(action="ignore"):
        lines = [line.replace(",", " ").replace(";", " ") for line in path.read_text(encoding="utf-8-sig").splitlines()]
        first = 1 if lines and any(c.isalpha() and c not in "eE" for c in lines[0]) else 0
        return np.loadtxt(lines[first:], ndmin=2)


def _pixel(path: Path, q: int, beam: float, detector_pixel: float | None, pixel: float | None) -> float:
    if detector_pixel is None and pixel is None:
        raise ValueError(f"{path}: detector_pixel: expected the angle of a detector pixel in mrad (or pixel in Å), found neither")
    _check_positive(path, detector_pixel=detector_pixel, pixel=pixel)
    implied = pixel if detector_pixel is None else 1e3 * beam / (q * detector_pixel)
    assert implied is not None
    within(str(path), "pixel", implied, SMALLEST, LENGTH, "Å")
    if pixel is not None and not abs(implied / pixel - 1) <= PIXEL_TOLERANCE:
        raise ValueError(
            f"{path}: pixel: expected {implied:.5g} Å, the wavelength over {q} pixels of {detector_pixel} mrad, found {pixel:.5g} Å"
        )
    return implied
