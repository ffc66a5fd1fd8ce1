"""Squared error that was removed round the place where an even scan would have gone."""

from jaxtyping import Float
from torch import Tensor

from adaptycho.learn.reward import Result, aim, in_windows


def credit(result: Result, width: float) -> Float[Tensor, "B P"]:
    """In rad²: the reference's square less that of the difference, each image less its mean, averaged in the window of the base point.

    0 for an empty reconstruction. Not gameable by moving, but rewards a reconstruction that is far along: the reference has to be the one
    that is aimed at.
    """
    image, wanted = (v - v.mean((1, 2), keepdim=True) for v in (result.potential, aim(result, "error")))
    return in_windows(wanted.square() - (image - wanted).square(), result, width)
