"""Negative log-likelihood of counted electrons, I - J log I, less its value at I = J so that a perfect model has none."""

import numpy as np
import torch
from torch import Tensor

from adaptycho.reconstruct.losses.function import FLOOR, LossFunction, scalar


@scalar
def pixel(model: float, data: float, weight: float) -> tuple[float, float]:
    """Of one pixel."""
    floor, one = type(model)(FLOOR), type(model)(1)
    model = floor if model < floor else model
    value = model - data - data * np.log(model / (floor if data < floor else data))
    return weight * value, weight * (one - data / model)


def image(model: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Of every pixel."""
    model = model.clamp(min=FLOOR)
    return model - data - data * torch.log(model / data.clamp(min=FLOOR)), 1 - data / model


def first_step(patterns: Tensor, scale: Tensor) -> float:
    """The curvature is the same whatever was counted."""
    return 0.5


FUNCTION = LossFunction(pixel, image, first_step)
