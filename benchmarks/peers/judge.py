"""How like the truth an image is, the same for all packages."""

import math

import numpy as np
import torch
from exchange import Image, Problem
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from adaptycho import metrics

EDGE = 1.0  # Å inside the field that are left out on each side: there the beam has hardly been


def correlation(image: Image, truth: np.ndarray, problem: Problem) -> float:
    """Correlation inside the field once constant, ramp, scale and a shift below a pixel are removed; nan of an image that diverged."""
    if not np.isfinite(image.phase).all():
        return math.nan
    first, last = (
        (problem.corner + sign * EDGE / problem.pixel + end) for sign, end in ((1, 0), (-1, problem.step * problem.raster / problem.pixel))
    )
    rows, columns = (np.arange(math.ceil(a), math.floor(b)) for a, b in zip(first, last, strict=True))
    true = torch.from_numpy(truth[np.ix_(rows, columns)]).double()
    where = np.stack(np.meshgrid(rows, columns, indexing="ij")) - problem.corner[:, None, None] + image.corner[:, None, None]
    phase = _aligned(image.phase, where, true)
    shift = phase_cross_correlation(true.numpy(), phase.numpy(), upsample_factor=50)[0]
    if np.abs(shift).max() <= 1:  # a larger one is another lattice site
        phase = _aligned(image.phase, where - shift[:, None, None], true)
    return float(metrics.correlation(phase, true))


def _aligned(image: np.ndarray, where: np.ndarray, true: torch.Tensor) -> torch.Tensor:
    sampled = ndimage.map_coordinates(image.astype(float), where, order=5, mode="nearest")
    return metrics.align(torch.from_numpy(sampled), true)
