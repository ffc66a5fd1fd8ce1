"""What lies beside the patterns: a mask of the detector, and a probe that was measured."""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor

from adaptycho.formats import stored
from adaptycho.formats.detector import Detector, tilted
from adaptycho.formats.given import Doubt, Given, Table
from adaptycho.formats.raw import Said
from adaptycho.physics.grid import ifft2
from adaptycho.physics.optics import Setup

HELD = 0.95  # part of a probe's light that its semi-angle is told from
BELIEVED = 0.5  # part of the detector that a mask at least leaves


def mask(given: Table, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Detector pixels to believe (ky, kx), of an array or a file of ones and zeros.

    Raises:
        ValueError: another shape, other values, or fewer than half of the pixels are left.
    """
    values, name = _array(given, name, "mask", "biuf")
    if values.shape != shape or not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"{name}: mask: expected ones and zeros for {shape[0]} x {shape[1]} stored pixels, found others of shape {values.shape}"
        )
    if (left := float(values.mean())) < BELIEVED:
        raise ValueError(f"{name}: mask: expected 1 for pixels to believe, found {left:.0%} of them; is 1 said of bad pixels?")
    return values.astype(bool)


def semiangle(name: str, given: Given, said: Said, angle: tuple[float, float]) -> float | None:
    """Semi-angle in mrad of the light that the probe, given or in the file, sends to the detector; None without a probe.

    Args:
        name: of the file, to open sentences with.
        given: by a person.
        said: by the file.
        angle: (y, x) in mrad of a detector pixel.
    """
    if given.probe is not None:
        values, _ = _array(given.probe, name, "probe", "ciuf")
    elif said.probe is not None:
        values = said.probe
    else:
        return None
    wave = values[0] if values.ndim == 3 else values
    light = np.abs(np.fft.fftshift(np.fft.fft2(wave))) ** 2 if wave.dtype.kind == "c" else np.maximum(wave, 0).astype(np.float64)
    if not (np.isfinite(light).all() and light.sum() > 0):
        return None  # which is refused as a probe
    y, x = (a * (np.arange(n) - n // 2) for a, n in zip(angle, light.shape, strict=True))
    y, x = y - light.sum(1) @ y / light.sum(), x - light.sum(0) @ x / light.sum()
    radius = np.hypot(y[:, None], x).ravel()
    order = radius.argsort()
    held = light.ravel()[order].cumsum() / light.sum()
    # Of an even disc the square of the radius holds as much as of the light.
    return float(radius[order][np.searchsorted(held, HELD)] / HELD**0.5)


def with_probe(name: str, setup: Setup, made: Detector, given: Given, said: Said) -> Setup:
    """The setup with the probe that is given or in the file, and with what of a pixel the counts could not be moved by.

    Raises:
        ValueError: another shape, other values, or a vacuum pattern beside patterns that are binned.
    """
    if given.probe is not None:
        values, name = _array(given.probe, name, "probe", "ciuf")
        if values.dtype.kind != "c":
            return dataclasses.replace(setup, measured_probe=_vacuum(name, values, setup, made))
        setup = dataclasses.replace(setup, measured_probe=_wave(name, values, setup, made))
    elif said.probe is not None:
        if said.probe.shape[-2:] == setup.window.shape == (made.rows.stored, made.columns.stored) and made.size == (1, 1):
            setup = dataclasses.replace(setup, measured_probe=_wave(name, said.probe, setup, made))
        else:
            warnings.warn(
                f"{name}: probe: the probe in the file has other pixels than the patterns have now; it is not used", Doubt, stacklevel=2
            )
    return dataclasses.replace(setup, measured_probe=moved) if (moved := tilted(setup, made.rest)) is not None else setup


def _wave(name: str, values: np.ndarray, setup: Setup, made: Detector) -> Tensor:
    """A probe in real space, zero position in the corner."""
    probe = values[0] if values.ndim == 3 else values  # of several modes the first holds most
    if probe.shape != setup.window.shape:
        raise ValueError(f"{name}: probe: expected the patterns' {setup.window.shape} pixels, found {probe.shape}")
    return torch.from_numpy(np.fft.ifftshift(probe.swapaxes(-2, -1) if made.swap else probe))


def _vacuum(name: str, values: np.ndarray, setup: Setup, made: Detector) -> Tensor:
    """The probe of a pattern taken through vacuum: its amplitudes, the phases of the lens. It lies as the patterns do."""
    wanted = made.rows.stored, made.columns.stored
    if values.shape != wanted or not (np.isfinite(values).all() and values.sum() > 0):
        raise ValueError(f"{name}: probe: expected a pattern taken through vacuum with {wanted} pixels, found shape {values.shape}")
    if made.binning > 1:
        raise ValueError(
            f"{name}: probe: expected patterns that are not binned beside a vacuum pattern, found {made.binning} x {made.binning}"
        )
    seen = made.gather(np.maximum(values[made.read], 0).astype(np.float64)[None])[0]
    if setup.mask is not None:
        seen = np.where(torch.fft.fftshift(setup.mask).numpy(), seen, median_filter(seen, 3))
    ky, kx = (k - rest * dk for k, rest, dk in zip(setup.window.frequencies(), made.rest, setup.window.reciprocal_pixel, strict=True))
    amplitude = torch.from_numpy(np.fft.ifftshift(seen)).sqrt()
    return ifft2(torch.polar(amplitude, -setup.aberrations.chi(ky, kx, setup.wavelength)))


def _array(given: Table, name: str, what: str, kinds: str) -> tuple[np.ndarray, str]:
    """Values of an array or of a file, and what to call it."""
    if not isinstance(given, str | Path):
        values = np.asarray(given)
        stored.check_numbers(values.dtype, f"{name}: {what}", kinds)
        return values, name
    with stored.array(Path(given), axes=(2, 3) if what == "probe" else (2,), what=what, kinds=kinds) as found:
        return stored.whole(found), str(given)
