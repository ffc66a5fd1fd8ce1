"""Few atoms, each a blob of positive phase, and nothing between them: L1 and positivity on the weights of the blobs."""

from torch import Tensor

from adaptycho.reconstruct.priors.penalty import Penalty


def proximal(v: Tensor, t: Tensor) -> Tensor:
    """Lowered by the threshold, nothing below zero."""
    return (v - t).clamp(min=0)


PENALTY = Penalty(Tensor.abs, proximal, blobs=True)
