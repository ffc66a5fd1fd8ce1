"""Detector pixels that cannot be believed, and the middle of the bright-field disc, told from the patterns themselves."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import rank_filter

HOT = 10.0  # times the third brightest of its eight neighbours
SURE = 100.0  # counts in all patterns together that a hot pixel has more
DEAD = 50.0  # counts in all patterns that a dead pixel's neighbours have: by chance it is empty with exp(-50)
LIT = 30.0  # counts in all patterns that a pixel has whose noise is looked at
PLATEAU = 0.1  # relative, between the noise of darker and brighter pixels
FEW = 16  # patterns that tell nothing of single pixels


@dataclass(frozen=True, eq=False)
class Faults:
    """Detector pixels (ky, kx) that are not as their neighbours.

    Attributes:
        hot: far brighter.
        dead: empty.
        stuck: the same number, not 0, in every pattern.
    """

    hot: np.ndarray
    dead: np.ndarray
    stuck: np.ndarray

    @property
    def any(self) -> np.ndarray:
        """All of them."""
        return self.hot | self.dead | self.stuck

    def said(self) -> str:
        """How many of each there are, in words; empty if none."""
        counted = [(int(getattr(self, kind).sum()), kind) for kind in ("hot", "dead", "stuck")]
        return ", ".join(f"{count} {kind}" for count, kind in counted if count)


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of each pixel over all patterns, zero frequency in the centre pixel."""

    mean: np.ndarray
    variance: np.ndarray
    count: int


def moments(parts: Iterable[np.ndarray], shape: tuple[int, ...]) -> Moments:
    """Mean and variance of patterns (n, ky, kx) that come a part at a time; those that hold NaN are left out."""
    first, second, count = np.zeros(shape), np.zeros(shape), 0
    for part in parts:
        values = part.astype(np.float64)
        values = values[np.isfinite(values).all((1, 2))]
        first += values.sum(0)
        second += (values * values).sum(0)
        count += len(values)
    mean = first / max(count, 1)
    return Moments(mean, np.maximum(second / max(count, 1) - mean**2, 0) * count / max(count - 1, 1), count)


def faults(moments: Moments, believed: np.ndarray | None = None) -> Faults:
    """Pixels that are not as their neighbours; those that nobody believes anyway are none of them."""
    mean, none = moments.mean, np.zeros(moments.mean.shape, bool)
    if moments.count < FEW or min(mean.shape) < 5:
        return Faults(none, none, none)
    known = np.ones(mean.shape, bool) if believed is None else believed
    around = np.ones((3, 3), bool)
    around[1, 1] = False
    usual = np.where(known, mean, 0.0)
    third = rank_filter(usual, -3, footprint=around, mode="nearest")
    lower = rank_filter(usual, 2, footprint=around, mode="nearest")
    hot = known & (mean > HOT * third) & ((mean - third) * moments.count > SURE)
    dead = known & (mean == 0) & (lower * moments.count > DEAD)
    # Rounding of a sum of squares leaves a variance of 1e-12 of the square of the mean.
    still = (moments.variance <= 1e-12 * mean**2) & (mean > 0)
    stuck = known & still & ~hot if still.mean() < 0.01 and float(moments.variance.max()) > 0 else none
    return Faults(hot, dead, stuck)


def disc(mean: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Radius and middle (row, column) in pixels of the bright-field disc: the pixels above half of the disc's own median level."""
    level = np.percentile(mean, 99)
    for _ in range(10):  # the median of what lies above half the level: settles in two or three rounds
        level = np.median(mean[mean >= level / 2])
    y, x = np.nonzero(mean >= level / 2)
    return math.sqrt(len(y) / math.pi), (float(y.mean()), float(x.mean()))


def gain(moments: Moments) -> float | None:
    """Counts that one electron makes, from variance over mean where few electrons fall; None where that cannot be told.

    Electrons that come at random have a variance equal to their mean number, so that counts have a variance of the mean times the counts of
    one. What the specimen changes adds to it as the square of the mean: the darkest eighth of the lit pixels must agree with the next. A
    detector that spreads an electron over several pixels makes it too small.
    """
    lit = (moments.mean * moments.count > LIT) & (moments.variance > 0)
    if moments.count < FEW or lit.sum() < 64:
        return None
    ratio = (moments.variance[lit] / moments.mean[lit])[np.argsort(moments.mean[lit])]
    darkest, next_one = (float(np.median(part)) for part in np.array_split(ratio, 8)[:2])
    return darkest if abs(next_one / darkest - 1) < PLATEAU else None
