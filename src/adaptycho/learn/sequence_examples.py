"""Examples that are made once and learnt from many times, for a recurrent policy: what it would see in scans that a teacher leads.

A scan takes 25 times as long as what the network learns from it in a step, since its encoder is fixed (light). Scans that a teacher leads
do not depend on what the policy can do, so a bank of them serves a whole training. They go anywhere between an even scan and the
teacher's positions, a little off, as those of a policy do that has learnt a part.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from adaptycho.learn.imitate import BEND
from adaptycho.learn.share import Share
from adaptycho.scan.episode import run, stream
from adaptycho.scan.networks.recurrent import Recurrent
from adaptycho.scan.oracles import HalfWay
from adaptycho.types import Action, Observation

ASTRAY = 0.08  # Å, rms along each axis: how far a led scan is from where it was to go


@dataclass(frozen=True, eq=False)
class Examples:
    """B scans of T + 1 sub-sequences each; at every one after the survey there is something to learn.

    Attributes:
        latents: of the reconstruction before it.
        positions: of the sub-sequence before it.
        targets: what the teacher says.
        size: of the scan field (y, x) in Å.
    """

    latents: tuple[Float[Tensor, "B c m m"], ...]
    positions: tuple[Float[Tensor, "B K 2"], ...]
    targets: tuple[Float[Tensor, "B n 2"], ...]
    size: tuple[float, float]


@dataclass(frozen=True, eq=False)
class PartWay:
    """Scanner that goes a random part of the way from an even scan to what its teacher says; hands on the teacher's memory and answer."""

    teacher: HalfWay
    outlook: Float[Tensor, "P 2"]
    part: Float[Tensor, " B"]

    def __call__(self, seen: Observation, memory: Any, *, generator: torch.Generator) -> tuple[Action, Any]:
        """The next positions."""
        before = None if memory is None else memory[0]
        taken = seen.positions.shape[1]
        points = self.outlook[taken : taken + seen.count].to(seen.potential)
        answer, after = self.teacher(seen, before, generator=generator)
        if before is None:  # the survey
            return answer, (after, None)
        noise = torch.randn(answer.positions.shape, generator=generator) * (ASTRAY / torch.tensor(seen.field))
        where = points + self.part.to(points)[:, None, None] * (answer.positions - points) + noise.to(points)
        return Action(where.clamp(0, 1), answer.defocus), (after, answer.positions)


def make(share: Share, network: Recurrent, *, outlook: Float[Tensor, "P 2"], pull: float) -> Examples:
    """Examples from the specimens of a share.

    Args:
        share: what is scanned.
        network: whose encoder looks at the reconstructions.
        outlook: the even positions (P, 2).
        pull: fraction of the way to the nearest atom column that the teacher goes; 0 is C1, the even scan itself.
    """
    part = torch.rand(len(share), generator=stream(share.seed, -2))
    teacher = HalfWay(share.columns, pull=pull, base=outlook, defocus=share.defocus)
    states = list(run(share.microscope, PartWay(teacher, outlook, part), share.reconstructor, share.lengths, seed=share.seed))
    with torch.no_grad():
        latents = tuple(network.latent(s.potential) for s in states[:-1])
    positions = tuple(s.latest.positions for s in states[:-1])
    targets = tuple(s.memory[1].to(positions[0]) for s in states[1:])
    return Examples(latents, positions, targets, share.microscope.setup.field)


def loss(network: Recurrent, examples: Examples) -> tuple[Tensor, dict[str, float]]:
    """How far a network is from the teacher, as in `adaptycho.learn.imitate`, and its rms error in Å."""
    memory, losses, errors = None, [], []
    for latent, positions, target in zip(examples.latents, examples.positions, examples.targets, strict=True):
        proposed, memory = network.propose(latent, positions, memory)
        away = (proposed - target) * target.new_tensor(examples.size)
        losses.append(functional.smooth_l1_loss(away, torch.zeros_like(away), beta=BEND))
        errors.append(away.detach().square().sum(-1).mean().sqrt())
    return torch.stack(losses).mean(), {"error": float(torch.stack(errors).mean())}
