"""Phases that are not large: Tikhonov's penalty, half the square."""

from torch import Tensor

from adaptycho.reconstruct.priors.penalty import Penalty


def value(x: Tensor) -> Tensor:
    """Half the square."""
    return x.square() / 2


def proximal(v: Tensor, t: Tensor) -> Tensor:
    """Shrunk in proportion."""
    return v / (1 + t)


PENALTY = Penalty(value, proximal, power=2)
