"""Negative log-likelihood of counted electrons, I - J log I, less its value at I = J so that a perfect model has none.

Both have a little background, and are never zero: without it one electron where the model has no light at all, as in the dark field of an
empty object, would decide about everything.
"""

import numpy as np
import torch
from torch import Tensor

from adaptycho.reconstruct.losses.function import LossFunction, scalar

BACKGROUND = 3e-3  # counts in a pixel; at 300 electrons 0.001 to 0.01 reconstruct alike, 0.1 hides much of the dark field


@scalar
def pixel(model: float, data: float, weight: float) -> tuple[float, float]:
    """Of one pixel."""
    # As I - J log I the terms would cancel to a few digits where model and data are near; where they are far apart the other form would.
    excess = (model - data) / data
    far = excess < type(model)(-0.5)
    value = model - data + data * np.log(data / model) if far else data * (excess - np.log1p(excess))
    return weight * value, weight * (model - data) / model


def image(model: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Of every pixel."""
    excess = (model - data) / data
    near = data * (excess - torch.log1p(excess.clamp(min=-0.5)))
    return torch.where(excess < -0.5, model - data + data * torch.log(data / model), near), (model - data) / model


def first_step(patterns: Tensor, scale: Tensor) -> float:
    """The curvature is the same whatever was counted."""
    return 0.5


FUNCTION = LossFunction(pixel, image, first_step, nats=1.0, background=BACKGROUND)
