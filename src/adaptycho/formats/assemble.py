"""Makes a recording of what lies in a file and of what is said of it: the one way that all foreign formats and arrays take."""

import dataclasses
import math
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaptycho.formats import beside, frames, pixels, raster, stored
from adaptycho.formats.detector import Detector, detector
from adaptycho.formats.given import Doubt, Given, contradicted, pair, settled
from adaptycho.formats.plausible import LENGTH, check_energy, plausible, within
from adaptycho.formats.raw import Raw, Said
from adaptycho.formats.recording import CHUNK, MOST, Recording, check_recording, together
from adaptycho.physics.forward import record
from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Aberrations, Setup, object_grid
from adaptycho.physics.optics import wavelength as electron_wavelength
from adaptycho.types import Measurement

SMALLEST = 1e-4  # Å, of a pixel
FINEST = 0.05  # detector pixels that a semi-angle is at least
NEAREST = 0.1  # of the semi-angle, to which a detector reaches at least
PIXEL_TOLERANCE = 0.005  # relative, between a real-space pixel and a detector pixel that are both given


def assemble(path: Path, raw: Raw, given: Given) -> Recording:
    """Makes and checks a recording.

    Args:
        path: the file, to open sentences with.
        raw: what lies in it, open.
        given: what is said of it, which goes before what it says itself.

    Raises:
        ValueError: naming the file and the option at fault; also for more than fits into memory, and for a beam and a geometry that no
            microscope has.
    """
    name = str(path)
    said = settled(given, raw.said, name)
    beam = _beam(name, said)
    source = frames.Frames(raw=raw, name=name, summed=given.sum_frames, clip=given.clip)
    _check_axes(name, source)
    angles = _angles(name, source.shape, beam, given, raw.said)
    if said.semiangle is None and angles is not None:
        said = dataclasses.replace(said, semiangle=beside.semiangle(name, given, said, angles))
    _check_numbers(name, given, said)
    found = raster.scan(name, source.scan, given, said)
    believed, centre = _looked_at(source, found.kept, given, said)
    source = dataclasses.replace(source, mask=believed)
    made = detector(name, source.shape, given, centre, angles or (1.0, 1.0))
    if angles is None and (theirs := _angles(name, source.shape, beam, dataclasses.replace(given, pixel=None), raw.said)):
        contradicted(name, "pixel", given.pixel, 1e3 * beam / (made.side * made.size[0] * theirs[0]), "Å")
    counts, wanted = frames.read(source, found.kept, made, given.drop)
    where, patterns = found.where[wanted], torch.from_numpy(counts)
    size = (made.size[0] * angles[0] + made.size[1] * angles[1]) / 2 if angles else None
    window = Grid((made.binning * made.side,) * 2, _pixel(name, made.side, beam, size, given.pixel))
    setup = _setup(name, where, window, beam, said, made, _mask(made, believed, source.shape))
    raster.check_unit(name, where, window.pixel, given)
    plausible(setup, name)
    _check_angles(name, setup)
    setup = beside.with_probe(name, setup, made, given, said)
    defocus = said.defocus or 0.0
    dose = _dose(setup, patterns) if given.dose is None else given.dose
    measurement = _measurement((where - where.min(0)) / np.array(setup.field), patterns, dose, defocus)
    each = said.counts_per_electron or 1.0
    recording = Recording(setup, measurement, said.title or path.stem, said.source, said.licence, each, path)
    check_recording(recording, name)
    _doubt_pixels(name, patterns, setup)
    return recording


def mean_counts(patterns: Tensor) -> float:
    """Counts of a pattern on average, in double precision without a copy of them all."""
    return sum(float(part.sum(dtype=torch.float64)) for part in patterns.split(CHUNK)) / len(patterns)


def _beam(name: str, said: Said) -> float:
    """The wavelength in Å, from whichever of the two is given."""
    energy, wavelength = said.energy, said.wavelength
    if (energy is None) == (wavelength is None):
        found = "neither" if energy is None else "both"
        raise ValueError(
            f"{name}: energy: expected a beam energy in eV or a wavelength in Å, found {found} (--energy 300keV, or --wavelength in Å)"
        )
    _check_positive(name, energy=energy, wavelength=wavelength)
    if energy is not None:
        check_energy(name, energy)
        return electron_wavelength(energy)
    assert wavelength is not None
    return wavelength


def _check_numbers(name: str, given: Given, said: Said) -> None:
    if given.dose is not None:
        within(name, "dose", given.dose, 0, MOST, "counts")
    if said.semiangle is None:
        raise ValueError(
            f"{name}: semiangle: expected a convergence semi-angle in mrad, found none (--semiangle 20, or 0.02rad, or --probe FILE)"
        )
    _check_positive(name, semiangle=said.semiangle, counts_per_electron=said.counts_per_electron)
    for key, value in (("rotation", said.rotation), ("defocus", said.defocus)):
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name}: {key}: expected a finite number, found {value}")


def _check_positive(name: str, **values: float | None) -> None:
    units = {
        "energy": "energy in eV", "wavelength": "length in Å", "pixel": "length in Å", "counts_per_electron": "number",
    }  # fmt: skip
    for key, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name}: {key}: expected a positive {units.get(key, 'angle in mrad')}, found {value}")


def _check_axes(name: str, source: frames.Frames) -> None:
    shape = source.raw.patterns.shape
    if len(shape) == 5 and not source.summed and 0 not in shape:
        raise ValueError(
            f"{name}: patterns: expected an array (scan_y, scan_x, ky, kx) or (N, ky, kx), found shape {shape}; "
            f"if it has {shape[2]} frames at each position, sum_frames (--sum-frames) adds them up"
        )
    if len(source.scan) not in (1, 2) or 0 in shape:
        summed = ", each with an axis of frames before ky" if source.summed else ""
        raise ValueError(
            f"{name}: patterns: expected an array (scan_y, scan_x, ky, kx) or (N, ky, kx){summed} with no axis empty, found shape {shape}"
        )
    stored.check_numbers(source.raw.patterns.values.dtype, f"{name}: patterns")


def _angles(name: str, shape: tuple[int, int], beam: float, given: Given, said: Said) -> tuple[float, float] | None:
    """Angles (y, x) in mrad of a stored detector pixel; None where only the pixel in real space is given."""
    mine, theirs = pair(given.detector_pixel), said.detector_pixel
    if given.reciprocal_pixel is not None:
        if mine is not None:
            raise ValueError(f"{name}: reciprocal_pixel: expected it or detector_pixel, found both")
        y, x = pair(given.reciprocal_pixel)
        mine = 1e3 * beam * y, 1e3 * beam * x
    if theirs is None and said.pixel is not None:
        _check_positive(name, pixel=min(said.pixel))
        theirs = 1e3 * beam / (shape[0] * said.pixel[0]), 1e3 * beam / (shape[1] * said.pixel[1])
    for angle in (*(mine or ()), *(theirs or ())):
        _check_positive(name, detector_pixel=angle)
    if mine is not None and theirs is not None:
        contradicted(name, "detector_pixel", mine, theirs, "mrad")
    return mine if mine is not None or given.pixel is not None else theirs


def _looked_at(source: frames.Frames, kept: np.ndarray, given: Given, said: Said) -> tuple[np.ndarray | None, tuple[float, float] | None]:
    """Stored pixels to believe, None for all, and where zero frequency is, None for the usual pixel: as said, or as the patterns tell."""
    believed = None if said.mask is None else beside.mask(said.mask, source.shape, source.name)
    auto = isinstance(given.mask, str) and given.mask == "auto"
    if given.mask is not None and not auto:
        mine = beside.mask(given.mask, source.shape, source.name)
        believed = mine if believed is None else believed & mine
    centre = None if given.centre == "auto" else given.centre
    if auto or given.centre == "auto":
        whole = slice(0, source.shape[0]), slice(0, source.shape[1])
        masked = dataclasses.replace(source, mask=believed)
        seen = pixels.moments((part for _, part in masked.parts(kept, whole)), source.shape)
        if auto and (text := (found := pixels.faults(seen, believed)).said()):
            warnings.warn(f"{source.name}: mask: {text} detector pixels are left out of account", Doubt, stacklevel=2)
            believed = ~found.any if believed is None else believed & ~found.any
        if given.centre == "auto":
            _, centre = pixels.disc(seen.mean if believed is None else np.where(believed, seen.mean, 0))
    return believed, centre


def _doubt_pixels(name: str, patterns: Tensor, setup: Setup) -> None:
    """Warns of detector pixels that would spoil a reconstruction, as a thousand of the patterns show them."""
    some = patterns[:: max(1, len(patterns) // 1024)]
    believed = None if setup.mask is None else torch.fft.fftshift(setup.mask).numpy()
    parts = (np.fft.fftshift(part.numpy(), (-2, -1)) for part in some.split(together(math.prod(setup.detector))))
    if text := pixels.faults(pixels.moments(parts, setup.detector), believed).said():
        warnings.warn(
            f"{name}: mask: {text} detector pixels may spoil a reconstruction; mask (--mask auto, or FILE) leaves them out",
            Doubt,
            stacklevel=2,
        )


def _mask(made: Detector, believed: np.ndarray | None, shape: tuple[int, int]) -> Tensor | None:
    """Pixels (Q, Q) to believe, zero frequency in the corner; None for all."""
    found = made.believed(np.ones(shape, bool) if believed is None else believed)
    return None if found.all() else torch.from_numpy(np.fft.ifftshift(found))


def _pixel(name: str, q: int, beam: float, angle: float | None, pixel: float | None) -> float:
    if angle is None and pixel is None:
        raise ValueError(
            f"{name}: detector_pixel: expected the angle of a detector pixel in mrad (or pixel in Å), found neither "
            "(--detector-pixel 0.5, or 0.02/Å, or 0.5,1.0 for y,x)"
        )
    _check_positive(name, pixel=pixel)
    implied = pixel if angle is None else 1e3 * beam / (q * angle)
    assert implied is not None
    within(name, "pixel", implied, SMALLEST, LENGTH, "Å")
    if pixel is not None and not abs(implied / pixel - 1) <= PIXEL_TOLERANCE:
        raise ValueError(
            f"{name}: pixel: expected {implied:.5g} Å, the wavelength over {q} pixels of {angle:.6g} mrad, found {pixel:.5g} Å"
        )
    return implied


def _check_angles(name: str, setup: Setup) -> None:
    """Refuses a semi-angle and a detector of which one must be in another unit."""
    angle, pixel, reach = setup.semiangle, setup.detector_pixel, setup.detector_pixel * setup.detector[0] / 2
    if angle < FINEST * pixel:
        raise ValueError(
            f"{name}: semiangle: expected at least {FINEST:g} detector pixels of {pixel:.4g} mrad, found {angle:.4g} mrad "
            f"({1e3 * angle:.4g} mrad if it is in rad: --semiangle {angle:g}rad)"
        )
    if reach < NEAREST * angle:
        raise ValueError(
            f"{name}: detector_pixel: expected a detector that reaches {NEAREST:g} of the semi-angle of {angle:.4g} mrad, found one that "
            f"ends at {reach:.3g} mrad ({1e3 * reach:.3g} mrad if its pixel is in rad: --detector-pixel {pixel:.4g}rad)"
        )


def _setup(name: str, where: np.ndarray, window: Grid, beam: float, said: Said, made: Detector, mask: Tensor | None) -> Setup:
    field, rotation = _field(name, where, window), said.rotation or 0.0
    assert said.semiangle is not None
    return Setup(
        field,
        object_grid(field, window, rotation),
        window,
        (made.side, made.side),
        said.semiangle,
        said.energy,
        beam,
        aberrations=Aberrations(C10=-(said.defocus or 0.0)),
        binning=made.binning,
        rotation=rotation,
        mask=mask,
    )


def _field(name: str, where: np.ndarray, window: Grid) -> tuple[float, float]:
    """Height and width in Å of what the positions cover; a line scan still has a field, one pixel across."""
    if not (span := float(np.ptp(where, 0).max())) <= LENGTH:
        raise ValueError(f"{name}: positions: expected them within {LENGTH:g} Å of each other, found {span:g} Å")
    height, width = (where - where.min(0)).max(0)
    return max(float(height), window.pixel), max(float(width), window.pixel)


def _dose(setup: Setup, patterns: Tensor) -> float:
    """Counts of a pattern on average, and what the pixels that nobody believes would have of the bright-field disc."""
    mean = mean_counts(patterns)
    if setup.mask is None:
        return mean
    (bright,) = setup.spectra(torch.tensor([setup.aberrations.defocus], dtype=torch.float64)).abs().square()
    seen = float((record(setup, bright[None])[0] * setup.mask).sum() / bright.sum())
    return mean / seen if seen > 0 else mean


def _measurement(positions: np.ndarray, counts: Tensor, dose: float, defocus: float) -> Measurement:
    """One data set, of positions in fractions of the field."""
    return Measurement(
        torch.from_numpy(positions).float().clamp(0, 1)[None],
        counts[None],
        torch.full((1, len(counts)), dose, dtype=torch.float32),
        torch.full((1, len(counts)), defocus, dtype=torch.float32),
    )
