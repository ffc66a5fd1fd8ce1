"""Local likeness with the reference, where there is structure."""

from jaxtyping import Float
from torch import Tensor

from adaptycho.learn.reward import Result, aim, in_windows
from adaptycho.learn.similarity import local_deviation, local_ssim


def credit(result: Result, width: float) -> Float[Tensor, "B P"]:
    """As `window`, each pixel weighted with the reference's local standard deviation over its mean: atoms count, vacuum does not.

    Not gameable.
    """
    reference = aim(result, "structure")
    spread = local_deviation(reference)
    return in_windows(local_ssim(result.potential, reference) * spread / spread.mean((1, 2), keepdim=True), result, width)
