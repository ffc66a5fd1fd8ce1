"""Negative log-likelihood of counted electrons, I - J log I, less its value at I = J so that a perfect model has none.

Both have a little background, and are never zero: without it one electron where the model has no light at all, as in the dark field of an
empty object, would decide about everything.
"""

import numpy as np
import torch
from torch import Tensor

from adaptycho.reconstruct.losses.function import LossFunction, scalar

SQRT_HALF = 0x3F3504F3  # the bits of 2^-0.5 in single precision
LOG_2 = 0.6931471805599453
BACKGROUND = 3e-3  # electrons in a pixel; at 300 electrons 0.001 to 0.01 reconstruct alike, 0.1 hides much of the dark field


@scalar
def pixel(model: float, data: float, weight: float) -> tuple[float, float]:
    """Of one pixel. J (r - 1 - log r) of the ratio r = I / J; the logarithm is spelt out, or the loop would not be vectorised."""
    real = type(model)
    ratio = model / data
    # r = m 2^e with m from 0.7 to 1.4; the bits of a number in single precision hold e.
    power = np.int32((np.float32(ratio).view(np.int32) - np.int32(SQRT_HALF)) >> 23)
    mantissa = ratio * real(np.int32((127 - power) << 23).view(np.float32))
    # With x = m - 1 and z = x / (2 + x), log m = 2 atanh z and x - log m = x z - 2 (z^3 / 3 + z^5 / 5 + ...), in which nothing cancels.
    x = mantissa - real(1)
    z = x / (real(2) + x)
    s = z * z
    series = z * s * (real(2 / 3) + s * (real(2 / 5) + s * (real(2 / 7) + s * (real(2 / 9) + s * (real(2 / 11) + s * real(2 / 13))))))
    value = x * z - series + (ratio - mantissa) - real(power) * real(LOG_2)
    return weight * data * value, weight * (model - data) / model


def image(model: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Of every pixel."""
    excess = (model - data) / data
    near = data * (excess - torch.log1p(excess.clamp(min=-0.5)))
    return torch.where(excess < -0.5, model - data + data * torch.log(data / model), near), (model - data) / model


def first_step(patterns: Tensor, scale: Tensor) -> float:
    """The curvature is the same whatever was counted."""
    return 0.5


FUNCTION = LossFunction(pixel, image, first_step, nats=1.0, background=BACKGROUND)
