"""What a loss is made of. I is the intensity that a pixel should have by the model, J = scale * counts what it has; both sum to about 1.

The arithmetic is written twice: for one pixel, which numba works into the compiled loops over all of them, and for images in torch, which
runs on other devices and where a detector crops or bins. The tests compare the two.
"""

from collections.abc import Callable
from dataclasses import dataclass

from numba.extending import register_jitable
from torch import Tensor

# Smallest intensity (fraction of the electrons of a pattern, per pixel) that the amplitude loss divides by.
FLOOR = 1e-9
FAST = {"contract", "nsz", "arcp", "reassoc"}  # liberties that compiled arithmetic may take; never with infinity or NaN

# Of the arithmetic of one pixel: compiled as part of whatever calls it. Numbers in it have to be of the type of its arguments: one Python
# number makes it double and more than halves the speed.
scalar = register_jitable(error_model="numpy", fastmath=FAST)


@dataclass(frozen=True)
class LossFunction:
    """A loss L, the sum over all pixels of weight * l(I, J).

    Attributes:
        pixel: (I, J, weight) of one pixel to weight * l and weight * dl/dI; decorated with `scalar`.
        image: I and J, (K, Q, Q), to l and dl/dI of every pixel, not weighted.
        first_step: patterns (K, Q, Q) and the scale (K,) of their counts to the inverse curvature of L along V, per unit of summed probe
            intensity: where an automatic step starts.
        raised: what the l of `pixel` has to be divided by, for one whose values are too small for single precision.
        nats: of the log-likelihood of counted electrons in one unit of L, for one electron in a pattern; None for what is no likelihood.
        background: electrons added to every pixel of model and data before they are compared.
    """

    pixel: Callable[[float, float, float], tuple[float, float]]
    image: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    first_step: Callable[[Tensor, Tensor], float]
    raised: float = 1.0
    nats: float | None = None
    background: float = 0.0
