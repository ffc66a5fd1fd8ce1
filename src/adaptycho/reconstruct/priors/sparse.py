"""Few pixels other than zero, of either sign: L1."""

from torch import Tensor

from adaptycho.reconstruct.priors.penalty import Penalty


def proximal(v: Tensor, t: Tensor) -> Tensor:
    """Soft threshold."""
    return v - v.clamp(min=-t, max=t)


PENALTY = Penalty(Tensor.abs, proximal)
