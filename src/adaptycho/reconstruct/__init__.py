"""ROP: from diffraction patterns to the potential (Eq. 2)."""

from adaptycho.reconstruct.losses import LOSSES, Loss
from adaptycho.reconstruct.priors import PRIORS, Prior

__all__ = ["LOSSES", "PRIORS", "Loss", "Prior"]
