"""Examples that are made once and learnt from many times: what a field policy would see in scans that follow the structure, more or less.

Where a policy's positions go matters little to what can be told from them, so scans that are led serve a whole training. They follow a
density anywhere between the truth and chance, as that of a policy is that has learnt a part; some stay even. An example is learnt from as
it is and mirrored: maps of the field know no left or right, which makes four of one, and a recording has few windows.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from adaptycho.learn.share import Share
from adaptycho.scan.episode import run
from adaptycho.scan.networks.field import Field, Plan, look, outlook, shape
from adaptycho.scan.policies.learned import even
from adaptycho.types import Action, Memory, Observation

SURE = 3.0  # logarithm of the odds of a density that follows the truth all the way
CHANCE = 2.0  # rms of one that follows nothing
PATCH = 1 / 8  # of the field: width of what is followed by chance
EVEN = 0.25  # of the scans


@dataclass(frozen=True, eq=False)
class Examples:
    """What is seen in B scans after each of T sub-sequences but the last, N = B T, and where the structure is.

    Attributes:
        maps: of `scan.networks.field.look`, padded.
        wanted: 1 where there is structure, else 0; without the padding.
    """

    maps: Float[Tensor, "N C h2 w2"]
    wanted: Float[Tensor, "N h w"]


class Following:
    """Scanner that follows a density between the truth and chance, and keeps what it sees.

    Attributes:
        network: that places positions by the density.
        inside: 1 where there is structure, else 0.
        defocus: underfocus in Å; None keeps the nominal one.
        maps: that were seen.
        shape: of them without their padding.
    """

    def __init__(self, network: Field, inside: Float[Tensor, "B h w"], defocus: float | None) -> None:
        self.network, self.inside, self.defocus, self.maps, self.shape = network, inside, defocus, list[Tensor](), (0, 0)

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """The next positions."""
        if not seen.positions.shape[1]:
            survey = even(seen.total, seen.field, self.network.survey)[: seen.count].to(seen.potential)
            return Action(survey.expand(len(seen.potential), -1, -1), defocus=self.defocus), None
        plan, odds = memory or (Plan(outlook(seen.positions[0], seen.total, seen.field, self.network.survey), seen.positions), None)
        taken = plan.base.shape[1]
        self.shape = shape(seen)
        self.maps.append(look(seen, plan.even[taken : taken + seen.count]))
        if odds is None:
            odds = torch.stack([followed(i, generator=generator) for i in self.inside])
        points = self.network.spread(odds, seen, plan)
        return Action(points.clamp(0, 1), defocus=self.defocus), (Plan(plan.even, torch.cat([plan.base, points], 1)), odds)


def followed(inside: Float[Tensor, "h w"], *, generator: torch.Generator) -> Float[Tensor, "h w"]:
    """Logarithm of the odds that a scan follows: part truth and part chance, or 0 everywhere."""
    part, kind = torch.rand(2, generator=generator).tolist()
    noise = torch.randn(inside.shape, generator=generator)
    patches = torch.from_numpy(gaussian_filter(noise.numpy(), max(inside.shape) * PATCH))
    chance = (CHANCE * patches / patches.std()).to(inside)
    return torch.zeros_like(inside) if kind < EVEN else part * SURE * (2 * inside - 1) + (1 - part) * chance


def make(share: Share, network: Field) -> Examples:
    """Examples from the specimens or windows of a share."""
    led = Following(network, share.inside, share.defocus)
    for _ in run(share.microscope, led, share.reconstructor, share.lengths, seed=share.seed):
        pass
    h, w = led.shape
    wanted = functional.interpolate(share.inside[:, None], (h, w), mode="area")[:, 0]
    return Examples(torch.cat(led.maps), wanted.repeat(len(led.maps), 1, 1))


def loss(network: Field, examples: Examples, *, symmetry: int = 0) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the density, and in how many places it is on the wrong side.

    Args:
        network: which learns.
        examples: that it learns from.
        symmetry: 1 to learn from them mirrored along x, 2 along y, 3 both.
    """
    h, w = examples.wanted.shape[1:]
    axes = [axis for axis, bit in ((-1, 1), (-2, 2)) if symmetry & bit]
    maps = examples.maps.clone()
    maps[..., :h, :w] = examples.maps[..., :h, :w].flip(axes)
    wanted = examples.wanted.flip(axes)
    odds = network.network(maps)[:, 0, :h, :w]
    wrong = ((odds.detach() > 0) != (wanted > 0.5)).float().mean()
    return functional.binary_cross_entropy_with_logits(odds, wanted), {"error": float(wrong)}
