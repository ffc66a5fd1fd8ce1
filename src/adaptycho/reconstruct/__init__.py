"""ROP: from diffraction patterns to the potential (Eq. 2)."""

from typing import Literal, get_args

Loss = Literal["intensity", "amplitude", "poisson"]  # adaptycho.reconstruct.kernels
LOSSES: tuple[Loss, ...] = get_args(Loss)
