"""Electrons that were scattered: what the paper proposes for future work."""

from jaxtyping import Float
from torch import Tensor

from adaptycho.learn.reward import Result


def credit(result: Result, width: float) -> Float[Tensor, "B P"]:
    """The fraction of the dose outside the bright-field disc. No width, and no reconstruction is needed.

    Gameable: all agents earn most on the same heaviest column, and nothing pays for covering the field.
    """
    return result.scattered
