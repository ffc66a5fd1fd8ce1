"""What each position of a scan was worth: one reward for every agent, from shared by all to its own (section II D).

Every position is an agent, and what is good for the scan has to be told apart into what each of them did. Credits differ in two things: a
quantity that is known at every pixel, and the part of the field, the support, over which an agent collects it.

An agent that chooses its support can game the sum over it without making the picture better. It owns its Voronoi cell: a positive quantity
summed over cells pays for standing apart, a negative one (an error) for crowding together. Averages in fixed windows round the places where
an even scan would have gone cannot be moved, only improved. They need a reference: the reconstruction of a full scan, or the truth.

Each is a file of `adaptycho.learn.rewards` that has its name (docs/how-to/reward.md).
"""

from dataclasses import dataclass
from importlib import import_module

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.learn.voronoi import cells
from adaptycho.settings.learning import REWARDS


@dataclass(frozen=True, eq=False)
class Result:
    """What an episode came to; B specimens, P positions.

    Attributes:
        potential: phase of the last reconstruction in rad inside the scan field.
        positions: where the beam was reported, fractions (y, x) of the field.
        field: size (y, x) in Å.
        scattered: fraction of the dose that each position sent outside the bright-field disc.
        reference: phase in rad from the full scan, or the true one.
        base: where an even scan would have gone, fractions of the field; fixed supports are centred there.
    """

    potential: Float[Tensor, "B h w"]
    positions: Float[Tensor, "B P 2"]
    field: tuple[float, float]
    scattered: Float[Tensor, "B P"]
    reference: Float[Tensor, "B h w"] | None = None
    base: Float[Tensor, "B P 2"] | None = None


def reward(name: str, result: Result, *, width: float = 1.2) -> Float[Tensor, "B P"]:
    """The reward of each position. What a diverged reconstruction (infinite or not a number) earns is not finite either.

    Args:
        name: which of them, a module of `adaptycho.learn.rewards`.
        result: of the episode.
        width: standard deviation in Å of the Gaussian windows. They are centred on the base points, or on the reported positions if there
            are none, which an agent can move: then it gains by going where the image is good anyway.

    Raises:
        ValueError: no such reward, no reference where one is needed, a width that is not positive, or see `local_ssim` and `cells`.
    """
    if name not in REWARDS:
        raise ValueError(f"reward: expected one of {', '.join(REWARDS)}, got {name!r}")
    earned: Float[Tensor, "B P"] = import_module(f"adaptycho.learn.rewards.{name}").credit(result, width)
    return earned


def aim(result: Result, name: str) -> Float[Tensor, "B h w"]:
    """The reference, which a reward of a name needs.

    Raises:
        ValueError: there is none.
    """
    if result.reference is None:
        raise ValueError(f"reference: expected the phase of a full scan or the truth for reward {name}, got none")
    return result.reference


def in_cells(quantity: Float[Tensor, "B h w"], result: Result) -> Float[Tensor, "B P"]:
    """The quantity summed over each reported position's Voronoi cell, over the number of positions."""
    count = result.positions.shape[1]
    owner = cells(result.positions, (quantity.shape[1], quantity.shape[2]), result.field).flatten(1)
    return quantity.new_zeros(len(quantity), count).scatter_add_(1, owner, quantity.flatten(1)) / count


def in_windows(quantity: Float[Tensor, "B h w"], result: Result, width: float) -> Float[Tensor, "B P"]:
    """The quantity averaged under a Gaussian round each base point, over the part of it that lies in the field.

    Raises:
        ValueError: a width that is not positive.
    """
    if not width > 0:
        raise ValueError(f"width: expected a positive length in Å, got {width}")
    centres = (result.positions if result.base is None else result.base).to(quantity).clamp(0, 1)
    weights = []
    for axis, n in enumerate(quantity.shape[1:]):
        pixels = (torch.arange(n, dtype=quantity.dtype, device=quantity.device) + 0.5) / n
        distance = (centres[:, :, axis, None] - pixels) * (result.field[axis] / width)
        # A normalised Gaussian, whatever is cut off at the edge and however narrow it is.
        weights.append(torch.softmax(-distance.square() / 2, -1))
    return ((weights[0] @ quantity) * weights[1]).sum(-1)
