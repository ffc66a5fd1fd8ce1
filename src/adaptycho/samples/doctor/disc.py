"""The bright-field disc in the mean pattern: where its centre is and how wide it is, to a fraction of a pixel."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import least_squares

LARGE = 192  # detector pixels along a side beyond which the mean pattern is binned before the fit


@dataclass(frozen=True)
class Disc:
    """A disc of even level with a soft edge.

    Attributes:
        centre: (y, x) in pixels from the detector's centre pixel Q // 2.
        radius: in pixels.
        edge: pixels over which the level falls by a factor of e at the rim.
        contrast: of the level inside against the level outside, (inside - outside) / inside.
    """

    centre: tuple[float, float]
    radius: float
    edge: float
    contrast: float


def find(mean: Float[np.ndarray, "Q Q2"], good: Bool[np.ndarray, "Q Q2"]) -> Disc:
    """The disc that fits a mean pattern best, by robust least squares.

    Args:
        mean: counts, zero frequency in the centre pixel.
        good: pixels to believe.

    Raises:
        ValueError: there is no light to find a disc in.
    """
    if not (mean[good] > 0).any():
        raise ValueError("patterns: expected a bright-field disc, found no counts")
    shape, bin_ = mean.shape, max(1, min(mean.shape) // LARGE)
    mean, weight = _binned(mean * good, bin_), _binned(good.astype(float), bin_)
    mean = np.where(weight > 0, mean / np.maximum(weight, 1e-9), 0)
    rows, columns = (bin_ * (np.arange(n) + 0.5) - 0.5 - s // 2 for n, s in zip(mean.shape, shape, strict=True))
    level = float(np.percentile(mean[weight > 0], 99))
    for _ in range(10):  # the median of what lies above half the level: settles in two or three rounds
        level = float(np.median(mean[(mean >= level / 2) & (weight > 0)]))
    y, x = np.nonzero((mean >= level / 2) & (weight > 0))
    start = np.array([rows[y].mean(), columns[x].mean(), bin_ * math.sqrt(len(y) / math.pi), float(bin_), 1.0, 0.0])

    def residual(p: np.ndarray) -> np.ndarray:
        distance = np.hypot(rows[:, None] - p[0], columns[None, :] - p[1])
        inside = 1 / (1 + np.exp(np.clip((distance - p[2]) / max(abs(p[3]), 0.05), -50, 50)))
        return (np.sqrt(weight) * (p[5] + p[4] * inside - mean / level)).ravel()

    fit = least_squares(residual, start, x_scale=[1, 1, 1, 1, 0.3, 0.3], loss="soft_l1", f_scale=0.3).x
    return Disc(
        (float(fit[0]), float(fit[1])), abs(float(fit[2])), max(abs(float(fit[3])), 0.05), float(fit[4] / max(fit[4] + fit[5], 1e-9))
    )


def _binned(image: np.ndarray, size: int) -> np.ndarray:
    rows, columns = (n // size * size for n in image.shape)
    return image[:rows, :columns].reshape(rows // size, size, columns // size, size).mean((1, 3))
