"""What a prior is made of."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Penalty:
    """A penalty R on coefficients x (H, W), of which the potential is made.

    Attributes:
        value: x to R(x) of every pixel, to be summed.
        proximal: (v, t) to the x that makes sum (x - v)^2 / (2 t) + R(x) smallest; t > 0 is given for every pixel.
        blobs: whether x are the weights of blobs, whose sum the potential is, and not the potential itself.
        power: 1 or 2, of the penalty in x: what its strength is measured in (`adaptycho.reconstruct.proximal.weight`).
    """

    value: Callable[[Tensor], Tensor]
    proximal: Callable[[Tensor, Tensor], Tensor]
    blobs: bool = False
    power: int = 1
