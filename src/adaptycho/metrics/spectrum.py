"""A diffractogram as its spots are looked for: what lies about them is the background, and what stands above it are peaks.

Frequencies are in elements of resolution, 1 / (shorter edge of the image).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]
PADDING = 2  # pixels of a diffractogram per element
COARSE = 3.5  # elements: a Hann window's main lobe reaches 2, spots that are nearer are not seen apart
BESIDE = 2.75  # elements of each axis from the middle of a spot to what is certainly beside it
LEAK = 1e-8  # of the brightest power
EULER = float(np.euler_gamma)  # noise power is distributed exponentially: its mean logarithm is that of its mean, less this
PEAKS = 12  # that a lattice is sought from


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A diffractogram by numbers: logarithms of power; |k| in elements; pixels per element (y, x); Nyquist's frequency in elements."""

    logs: Array
    k: Array
    scale: tuple[float, float]
    nyquist: float

    @staticmethod
    def of(power: Array) -> "Spectrum":
        """That of a power spectrum (2 h, 2 w) with zero frequency at (h, w)."""
        h, w = power.shape
        n = min(h, w)
        # Less than this is not the image's but leaks through the window.
        floor = LEAK * float(power.max()) + 1e-300
        return Spectrum(np.log(power + floor), _moduli(h, w), (PADDING * h / n, PADDING * w / n), n / PADDING / 2)

    def pixel(self, f: Array) -> tuple[Array, Array]:
        """Nearest pixels of frequencies in elements; those outside come back to the edge."""
        y, x = (np.rint(f[..., i] * self.scale[i]).astype(int) + n // 2 for i, n in enumerate(self.logs.shape))
        return y.clip(1, self.logs.shape[0] - 2), x.clip(1, self.logs.shape[1] - 2)

    def summit(self, y: Array, x: Array) -> Array:
        """Frequencies of peaks, between pixels: the parabola through the logarithms of three."""
        out = []
        for below, above, i, at in ((self.logs[y - 1, x], self.logs[y + 1, x], 0, y), (self.logs[y, x - 1], self.logs[y, x + 1], 1, x)):
            bend = 2 * self.logs[y, x] - below - above
            shift = np.where(bend > 0, 0.5 * (above - below) / np.where(bend > 0, bend, 1), 0).clip(-0.6, 0.6)
            out.append((at - self.logs.shape[i] // 2 + shift) / self.scale[i])
        return np.stack(out, -1)


def tail(s: Spectrum, excess: Array, away: Array) -> float:
    """How much heavier than that of noise, 1, the tail of the background is: its brightest hundredth."""
    beneath = excess[away & (s.k > COARSE) & (s.k < s.nyquist)]
    return max(1.0, math.exp(float(np.quantile(beneath, 0.99))) / math.log(100)) if len(beneath) else 1.0


def background(s: Spectrum, use: Array) -> Array:
    """Logarithm of the mean power of noise at each |k|: a local line through the mean logarithms of half-element rings."""
    rings = int(2 * s.nyquist) + 2
    use = use & (s.k > 1.75) & (s.k < s.nyquist + 0.25)
    ring = np.rint(2 * s.k[use]).astype(int)
    number, total = np.bincount(ring, minlength=rings), np.bincount(ring, s.logs[use], minlength=rings)
    i = np.arange(rings)
    # Outer rings hold more coefficients, so fewer of them are enough.
    width = (28 / np.maximum(i, 1)).clip(1, 6)
    offset = i - i[:, None]
    weight = np.exp(-0.5 * (offset / width[:, None]) ** 2)
    n0, n1, n2 = (weight * offset**p @ number + (p != 1) * 1e-9 for p in range(3))
    t0, t1 = (weight * offset**p @ total for p in range(2))
    level = np.where(n0 * n2 - n1**2 > 1e-3 * n0**2, (n2 * t0 - n1 * t1) / np.maximum(n0 * n2 - n1**2, 1e-12), t0 / n0)
    return np.interp(s.k, i / 2, level + EULER)


def prominence(s: Spectrum) -> Array:
    """Power over the background, or over that of a peak's surroundings where these are brighter."""
    ring = background(s, np.ones(s.logs.shape, dtype=bool))
    # Spots are many times brighter than noise gets; without them the background is lower, and more of them show.
    for _ in range(2):
        ring = background(s, s.logs - ring < math.log(8))
    return np.exp(s.logs - np.maximum(ring, beside(s) - math.log(3)))


def beside(s: Spectrum) -> Array:
    """Logarithm of the brightest of twelve places round about: in noise 3 times the mean, along a streak as bright as the middle."""
    smooth, brightest = ndimage.uniform_filter(np.exp(s.logs), 3, mode="wrap"), np.zeros(s.logs.shape)
    for angle in np.arange(12) * math.pi / 6:
        y, x = round(BESIDE * PADDING * math.sin(angle)), round(BESIDE * PADDING * math.cos(angle))
        np.maximum(brightest, np.roll(smooth, (y, x), (0, 1)), out=brightest)
    return np.log(brightest)


def maxima(s: Spectrum, ratio: Array) -> tuple[Array, Array]:
    """Pixels of the most outstanding maxima, brightest first, one of each Friedel pair."""
    middle = (ratio.shape[0] // 2, ratio.shape[1] // 2)
    lower = ratio[middle[0] - 1 :]
    top = (lower == ndimage.maximum_filter(lower, 3)) & (s.k[middle[0] - 1 :] > COARSE) & (s.k[middle[0] - 1 :] < s.nyquist)
    top[[0, -1]], top[:, [0, -1]], top[1, : middle[1]] = False, False, False
    y, x = top.nonzero()
    y += middle[0] - 1
    order = np.argsort(-ratio[y, x])[:PEAKS]
    return y[order], x[order]


@lru_cache(maxsize=16)
def _moduli(h: int, w: int) -> Array:
    """|k| of a diffractogram's pixels, in elements."""
    n = min(h, w)
    y, x = (np.arange(m) - m // 2 for m in (h, w))
    return np.hypot(y[:, None] * n / h, x * n / w) / PADDING
