"""The phase summed over each position's Voronoi cell: the paper's second formula."""

from jaxtyping import Float
from torch import Tensor

from adaptycho.learn.reward import Result, in_cells


def credit(result: Result, width: float) -> Float[Tensor, "B P"]:
    """The phase in the cell over P. No width.

    Gameable: a larger cell collects more phase, so an agent gains by keeping away from others and taking an atom alone, and the sum goes on
    rising when the likeness no longer does.
    """
    return in_cells(result.potential, result)
