"""ROP: from diffraction patterns to the potential (Eq. 2)."""

from adaptycho.reconstruct.losses import LOSSES, Loss

__all__ = ["LOSSES", "Loss"]
