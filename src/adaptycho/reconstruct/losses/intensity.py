"""Squared difference of intensities, (I - J)^2: the paper's loss (Eq. 2)."""

import torch
from torch import Tensor

from adaptycho.reconstruct.losses.function import LossFunction, scalar

# Residuals are raised by this before they are squared: where neither model nor data has light, their squares are below the smallest normal
# number of single precision, and arithmetic with such numbers takes a hundred times as long.
RAISED = 2.0**20


@scalar
def pixel(model: float, data: float, weight: float) -> tuple[float, float]:
    """Of one pixel, the value raised by RAISED^2."""
    real = type(model)
    residual = real(RAISED) * (model - data)
    weighted = weight * residual
    return weighted * residual, real(2 / RAISED) * weighted


def image(model: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Of every pixel."""
    residual = model - data
    return residual.square(), 2 * residual


def first_step(patterns: Tensor, scale: Tensor) -> float:
    """The curvature grows with the intensity: that of the brightest pixel of the mean pattern."""
    return 0.5 / float(patterns.sum(0, dtype=torch.float64).amax() / len(patterns) * scale.mean())


FUNCTION = LossFunction(pixel, image, first_step, RAISED**2)
