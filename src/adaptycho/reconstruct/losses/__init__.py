"""What the descent makes smaller, one loss a file (docs/how-to/loss.md). A file has the name of its loss, and is loaded when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from adaptycho.reconstruct.losses.function import LossFunction

Loss = Literal["intensity", "amplitude", "anscombe", "poisson"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


def load(name: str) -> "LossFunction":
    """The loss of a name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {name!r}")
    function: LossFunction = import_module(f"{__name__}.{name}").FUNCTION
    return function
