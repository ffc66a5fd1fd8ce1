"""ROP: from diffraction patterns to the potential (Eq. 2)."""

from typing import Literal, get_args

from adaptycho.reconstruct.losses import LOSSES, Loss
from adaptycho.reconstruct.priors import PRIORS, Prior

Method = Literal["momentum", "conjugate"]
METHODS: tuple[Method, ...] = get_args(Method)
Stop = Literal["iterations", "held-out"]
STOPS: tuple[Stop, ...] = get_args(Stop)

__all__ = ["LOSSES", "METHODS", "PRIORS", "STOPS", "Loss", "Method", "Prior", "Stop"]
