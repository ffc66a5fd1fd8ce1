"""Local likeness with the reference round the place where an even scan would have gone."""

from jaxtyping import Float
from torch import Tensor

from adaptycho.learn.reward import Result, aim, in_windows
from adaptycho.learn.similarity import local_ssim


def credit(result: Result, width: float) -> Float[Tensor, "B P"]:
    """Local structural similarity with the reference, averaged in the window of the position's base point.

    The support is fixed: not gameable.
    """
    return in_windows(local_ssim(result.potential, aim(result, "window")), result, width)
