"""Fourier ring correlation of an image with a reference, and the resolution that it says.

Both are seen under a Hann window: opposite edges of an image do not match, and the step between them would be a bright cross through the
origin of every Fourier transform, alike in any two images. A reconstruction that has diverged has the resolution nan, never an error.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from adaptycho.metrics.window import hann, windowed

Threshold = Literal["half-bit", "one-seventh"]
ONE_SEVENTH = 1 / 7
FEWEST = 4.0  # independent coefficients of a ring that a correlation can be read from
GAP = 0.1  # a ring with less than this part of the power of some finer ring lies between the spots of a crystal


@dataclass(frozen=True, eq=False)
class Rings:
    """Fourier ring correlation.

    Attributes:
        frequency: middle of each ring in Å⁻¹; a ring is one pixel of the shorter side's transform wide.
        correlation: of the two images in each ring, -1 to 1.
        count: independent Fourier coefficients in each ring, see `frc`.
        power: mean power of the reference in each ring.
    """

    frequency: Float[Tensor, " R"]
    correlation: Float[Tensor, "*batch R"]
    count: Float[Tensor, " R"]
    power: Float[Tensor, "*batch R"]


def frc(image: Float[Tensor, "*batch h w"], reference: Float[Tensor, "..."], pixel: float) -> Rings:
    """Fourier ring correlation, `Re sum F G* / sqrt(sum |F|^2 sum |G|^2)` (Saxton and Baumeister, J. Microsc. 127, 127, 1982).

    `count` is the number of independent complex coefficients: half of a ring's N pixels are conjugates of the others, as images are real,
    and the window makes near ones alike with the correlation `rho`, so it is `N^2 / sum_kl |rho_kl|^2 / 2`. Between unrelated images the
    correlation scatters about 0 with the variance `1 / (2 count)`.

    Raises:
        ValueError: shapes differ, fewer than 11 pixels along an axis, or a pixel that is not positive.
    """
    if image.shape != reference.shape:
        raise ValueError(f"image: expected the reference's shape {tuple(reference.shape)}, got {tuple(image.shape)}")
    f, g = (torch.fft.fft2(windowed(v, pixel)) for v in (image, reference))
    index, pixels, count = _rings(*image.shape[-2:])
    products = ((f * g.conj()).real, f.abs().square(), g.abs().square())
    cross, first, second = (v.new_zeros(len(v), len(pixels) + 1).index_add_(1, index, v.flatten(1))[:, 1:] for v in products)
    norm = (first * second).sqrt()
    correlation = torch.where(norm == 0, 0.0, cross / norm)
    frequency = torch.arange(1, len(pixels) + 1, dtype=torch.float64) / (min(image.shape[-2:]) * pixel)
    shape = (*image.shape[:-2], len(pixels))
    return Rings(frequency, correlation.reshape(shape), count, (second / pixels).reshape(shape))


def half_bit(count: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    """Correlation of half data sets that together hold half a bit per coefficient, `(0.2071 + 1.9102 s) / (1.2071 + 0.9102 s)`.

    `s = 1 / sqrt(count)` with independent coefficients, Friedel mates once (van Heel and Schatz, J. Struct. Biol. 151, 250, 2005, Eq. 17).
    """
    scatter = 1 / count.sqrt()
    return (0.2071 + 1.9102 * scatter) / (1.2071 + 0.9102 * scatter)


def frc_resolution(
    image: Float[Tensor, "*batch h w"], reference: Float[Tensor, "..."], pixel: float, *, threshold: Threshold = "half-bit"
) -> Float[Tensor, "*batch"]:
    """Spacing in Å at which the Fourier ring correlation first falls below the threshold, linear between rings.

    Two pixels (Nyquist) if it never does, the coarsest ring that is asked if that is below already. Not asked are rings of fewer than four
    independent coefficients, and rings in which the reference has less than a tenth of the power of some finer ring: between the spots of a
    crystal there is nothing to correlate.
    """
    if threshold not in ("half-bit", "one-seventh"):
        raise ValueError(f"threshold: expected half-bit or one-seventh, got {threshold}")
    rings = frc(image, reference, pixel)
    limit = half_bit(rings.count) if threshold == "half-bit" else torch.full_like(rings.count, ONE_SEVENTH)
    excess = (rings.correlation - limit).reshape(-1, len(limit))
    power = rings.power.reshape(excess.shape)
    asked = (rings.count >= FEWEST) & (power >= GAP * power.flip(1).cummax(1).values.flip(1))
    found = [_crossing(rings.frequency[a], e[a], 0.5 / pixel) for a, e in zip(asked, excess, strict=True)]
    return torch.tensor(found, dtype=torch.float64).reshape(image.shape[:-2])


def _crossing(frequency: Float[Tensor, " n"], excess: Float[Tensor, " n"], nyquist: float) -> float:
    if not bool(excess.isfinite().all()) or not len(excess):
        return math.nan
    below = (excess < 0).nonzero()
    if not len(below):
        return 1 / nyquist
    i = int(below[0])
    if i == 0:
        return float(1 / frequency[0])
    part = excess[i - 1] / (excess[i - 1] - excess[i])
    return float(1 / (frequency[i - 1] + part * (frequency[i] - frequency[i - 1])))


@lru_cache(maxsize=16)
def _rings(h: int, w: int) -> tuple[Int[Tensor, " hw"], Float[Tensor, " R"], Float[Tensor, " R"]]:
    """Ring of each Fourier pixel (0: none), and for each ring the number of pixels and of independent coefficients."""
    n = min(h, w)
    y, x = (np.fft.fftfreq(m, 1 / m) * n / m for m in (h, w))
    index = np.rint(np.hypot(y[:, None], x)).astype(int)
    last = (n - 1) // 2
    index[index > last] = 0
    pixels = np.bincount(index.ravel())
    # A squared Hann window has five Fourier coefficients.
    alike = [np.abs(np.fft.fft(np.square(hann(m).numpy()))) for m in (h, w)]
    pairs = np.zeros(last + 1)
    for a in range(-2, 3):
        for b in range(-2, 3):
            same = index[index == np.roll(index, (a, b), (0, 1))]
            pairs += np.bincount(same, minlength=last + 1) * (alike[0][a] / alike[0][0] * alike[1][b] / alike[1][0]) ** 2
    number, count = (torch.from_numpy(v[1:].astype(float)) for v in (pixels, pixels**2 / pairs / 2))
    return torch.from_numpy(index.ravel()), number, count
