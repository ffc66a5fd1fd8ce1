"""The phase summed over the field, shared by all: the paper's first formula."""

from jaxtyping import Float
from torch import Tensor

from adaptycho.learn.reward import Result


def credit(result: Result, width: float) -> Float[Tensor, "B P"]:
    """The summed phase over P, the same for all. No width.

    Cannot be gamed by one at another's cost, but says nothing about who earned it; and brightness is not likeness.
    """
    count = result.positions.shape[1]
    return (result.potential.sum((1, 2))[:, None] / count).expand(-1, count)
