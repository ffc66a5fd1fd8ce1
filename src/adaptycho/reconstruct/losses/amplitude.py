"""Squared difference of amplitudes, (sqrt I - sqrt J)^2: counting noise is about the same in every pixel."""

import numpy as np
from torch import Tensor

from adaptycho.reconstruct.losses.function import FLOOR, LossFunction, scalar


@scalar
def pixel(model: float, data: float, weight: float) -> tuple[float, float]:
    """Of one pixel."""
    floor = type(model)(FLOOR)
    amplitude = np.sqrt(floor if model < floor else model)
    residual = amplitude - np.sqrt(data)
    return weight * residual * residual, weight * residual / amplitude


def image(model: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Of every pixel."""
    amplitude = model.clamp(min=FLOOR).sqrt()
    return (amplitude - data.sqrt()).square(), 1 - data.sqrt() / amplitude


def first_step(patterns: Tensor, scale: Tensor) -> float:
    """The curvature is the same whatever was counted."""
    return 1.0


FUNCTION = LossFunction(pixel, image, first_step, nats=2.0)  # where counts are many
