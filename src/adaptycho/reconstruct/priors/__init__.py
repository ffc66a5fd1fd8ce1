"""What is believed of a potential before it is measured, one prior a file, which has the name of its prior and is loaded when it is used.

A prior is a penalty on what the potential is made of: the descent then makes loss plus penalty smaller, by steps down the loss followed
by the penalty's proximal map (`adaptycho.reconstruct.proximal`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

    from adaptycho.reconstruct.priors.penalty import Penalty

Prior = Literal["none", "auto", "atoms", "sparse", "smooth", "edges"]
PRIORS: tuple[Prior, ...] = get_args(Prior)


def load(name: str) -> "Penalty":
    """The penalty of a prior.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in PRIORS[2:]:
        raise ValueError(f"prior: expected one of {', '.join(PRIORS[2:])}, got {name!r}")
    found: Penalty = import_module(f"{__name__}.{name}").PENALTY
    return found


def allowed(name: str, coefficients: "Tensor") -> "Tensor":
    """The nearest coefficients that a prior takes for possible: a descent that began at others would never come back to lower ones."""
    return load(name).proximal(coefficients, coefficients.new_zeros(coefficients.shape))
