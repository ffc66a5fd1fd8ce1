"""From stored detector pixels to those of a recording: square, an even number, zero frequency in the middle.

Pixels are moved by whole ones and added up, so that counts stay counts. What is left of the middle after that, less than half a pixel, is
not forced upon the counts: the probe can carry it (`tilted`). Only where the two pixels have no whole ratio are counts spread by area.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adaptycho.formats.given import Given
from adaptycho.physics.grid import ifft2
from adaptycho.physics.optics import Setup

WHOLE = 0.01  # relative, by which a ratio of pixels may miss a whole number
ALMOST = 0.9  # of the longer side that the shorter has, where the rest may go without a word
SLIGHT = 0.05  # pixels off the middle that make no difference


@dataclass(frozen=True, eq=False)
class Axis:
    """Pixels along one axis, and the stored ones that they are made of.

    Attributes:
        first: stored pixel where the first begins; below zero if it lies outside of the detector.
        factor: stored pixels in each.
        count: of pixels.
        stored: pixels there are.
        weights: (count, stored), of a ratio that is not whole: the part of each stored pixel that belongs to each.
        rest: pixels by which zero frequency lies after the middle of pixel count // 2.
    """

    first: int
    factor: int
    count: int
    stored: int
    weights: np.ndarray | None = None
    rest: float = 0.0

    @property
    def read(self) -> slice:
        """The stored pixels that are needed."""
        if self.weights is not None:
            return slice(0, self.stored)
        return slice(max(self.first, 0), min(self.first + self.count * self.factor, self.stored))

    def sums(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Counts of the pixels, of stored counts within `read` along an axis; 0 outside of the detector."""
        values = np.moveaxis(values, axis, -1)
        if self.weights is not None:
            return np.moveaxis(values.astype(np.float32) @ self.weights.T.astype(np.float32), -1, axis)
        before, wanted = self.read.start - self.first, self.count * self.factor
        if values.shape[-1] != wanted:
            held = np.zeros((*values.shape[:-1], wanted), values.dtype)
            held[..., before : before + values.shape[-1]] = values
            values = held
        if self.factor > 1:
            values = values.reshape(*values.shape[:-1], self.count, self.factor).sum(-1, dtype=wider(values.dtype, self.factor))
        return np.moveaxis(values, -1, axis)


@dataclass(frozen=True, eq=False)
class Detector:
    """What is made of stored patterns.

    Attributes:
        rows: of pixels.
        columns: likewise.
        size: stored pixels (y, x) in the length of one.
        binning: finest stored pixels in the length of one, if that is a whole number: what the forward model adds up too.
        swap: whether rows and columns are exchanged.
        told: whether somebody said where zero frequency is.
    """

    rows: Axis
    columns: Axis
    size: tuple[float, float]
    binning: int = 1
    swap: bool = False
    told: bool = False

    @property
    def side(self) -> int:
        """Pixels along each side."""
        return self.rows.count

    @property
    def read(self) -> tuple[slice, slice]:
        """The stored pixels that are needed."""
        return self.rows.read, self.columns.read

    @property
    def rest(self) -> tuple[float, float]:
        """Pixels (y, x) by which zero frequency is off where the forward model has it.

        There it is the first of the window's frequencies that are added up in pixel Q // 2, and so it is taken to be if nobody says.
        """
        first = (self.binning - 1) / (2 * self.binning)
        y, x = (axis.rest + first if self.told or axis.weights is not None else 0.0 for axis in (self.rows, self.columns))
        return (x, y) if self.swap else (y, x)

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Patterns (n, Q, Q), zero frequency in the centre pixel, of stored ones (n, ...) within `read`."""
        found = self.columns.sums(self.rows.sums(values, -2), -1)
        return found.swapaxes(-2, -1) if self.swap else found

    def believed(self, stored: np.ndarray) -> np.ndarray:
        """Pixels (Q, Q) to believe, zero frequency in the centre pixel, of stored ones."""
        found = self.gather(stored[self.read].astype(np.float32)[None])[0]
        return found > (1 - WHOLE) * math.prod(self.size)


def detector(name: str, shape: tuple[int, int], given: Given, centre: tuple[float, float] | None, pixels: tuple[float, float]) -> Detector:
    """How patterns of a recording are made of stored ones.

    Args:
        name: of the file, to open sentences with.
        shape: stored pixels.
        given: binning, crop and padding.
        centre: stored pixel (row, column) of zero frequency, fractions too; n // 2 if None.
        pixels: sizes (y, x) of a stored pixel, in any unit.

    Raises:
        ValueError: the pixels do not become a square of an even number, or the centre is not on the detector.
    """
    if not 1 <= given.bin <= min(shape) // 2:
        raise ValueError(f"{name}: bin: expected 1 to {min(shape) // 2} pixels to add up, found {given.bin}")
    if given.crop is not None and given.pad is not None:
        raise ValueError(f"{name}: crop: expected crop or pad, found both")
    middle = centre or (float(shape[0] // 2), float(shape[1] // 2))
    if not all(0 <= c <= n - 1 for c, n in zip(middle, shape, strict=True)):
        raise ValueError(f"{name}: centre: expected a pixel (row, column) of {shape[0]} x {shape[1]}, found {middle[0]:g}, {middle[1]:g}")
    size = tuple(given.bin * max(pixels) / pixel for pixel in pixels)
    size = tuple(float(round(s)) if abs(s / round(s) - 1) < WHOLE else s for s in size)
    whole = all(s == int(s) for s in size)
    there = [math.floor(n / s) // (1 if whole else 2) * (1 if whole else 2) for n, s in zip(shape, size, strict=True)]
    side = _side(name, shape, there, given, pixels)
    rows, columns = (_axis(n, s, c, side) for n, s, c in zip(shape, size, middle, strict=True))
    binning = int(max(size)) if whole else given.bin
    return Detector(rows, columns, (size[0], size[1]), binning, given.swap, centre is not None)


def wider(dtype: np.dtype, terms: int) -> np.dtype:
    """The number type that takes a sum of so many."""
    if dtype.kind == "f" or terms == 1:
        return dtype
    size = next((s for s in (dtype.itemsize, 2, 4, 8) if 256 ** (s - dtype.itemsize) >= terms), 8)
    return np.dtype(f"{dtype.kind}{size}")


def tilted(setup: Setup, rest: tuple[float, float]) -> Tensor | None:
    """The probe of a setup, zero position in the corner, whose patterns lie (y, x) detector pixels off zero frequency; None if they do not.

    A shift in reciprocal space is a phase ramp on the probe, exact for any fraction of a pixel.
    """
    if math.hypot(*rest) < SLIGHT:
        return None
    steps = [r * setup.binning * dk for r, dk in zip(rest, setup.window.reciprocal_pixel, strict=True)]
    if setup.measured_probe is None:
        ky, kx = (k - step for k, step in zip(setup.window.frequencies(), steps, strict=True))
        return ifft2(torch.polar(setup.aperture(ky, kx), -setup.aberrations.chi(ky, kx, setup.wavelength)))
    y, x = (torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) * setup.window.pixel for n in setup.window.shape)
    phase = 2 * math.pi * (steps[0] * y[:, None] + steps[1] * x[None, :])
    return setup.measured_probe * torch.polar(torch.ones_like(phase), phase)


def _side(name: str, shape: tuple[int, int], there: list[int], given: Given, pixels: tuple[float, float]) -> int:
    """Pixels along each side."""
    found = f"{there[0]} x {there[1]}" + ("" if there == list(shape) else f" made of {shape[0]} x {shape[1]}")
    expected = f"{name}: patterns: expected square patterns with an even number of pixels, found {found}"
    if given.crop is not None:
        if given.crop % 2 or not 2 <= given.crop <= min(there):
            raise ValueError(f"{expected} cropped to {given.crop}")
        return given.crop
    if given.pad is not None:
        if given.pad % 2 or given.pad < max(there):
            raise ValueError(f"{expected} padded to {given.pad}")
        return given.pad
    if there != list(shape) and min(there) >= ALMOST * max(there) and min(there) // 2:
        return min(there) // 2 * 2  # pixels that are not quite square leave a rim
    if there[0] != there[1] or there[0] % 2 or there[0] < 2:
        low, high = min(there) // 2 * 2, -(-max(there) // 2) * 2
        oblong = "; --detector-pixel y,x if its pixels are not square" if there[0] != there[1] and pixels[0] == pixels[1] else ""
        raise ValueError(f"{expected}; crop={low} would keep the centre, pad={high} all of it{oblong}")
    return there[0]


def _axis(stored: int, size: float, centre: float, count: int) -> Axis:
    if size == int(size):
        factor = int(size)
        middle = math.floor(centre - (factor - 1) / 2 + 0.5)  # where pixel count // 2 begins
        return Axis(middle - count // 2 * factor, factor, count, stored, rest=(centre - middle - (factor - 1) / 2) / factor)
    edges = centre + (np.arange(count + 1) - count // 2 - 0.5) * size + 0.5  # stored pixel i reaches from i to i + 1
    low, high = np.arange(stored), np.arange(stored) + 1
    weights = np.clip(np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low), 0, None)
    return Axis(0, 1, count, stored, weights)
