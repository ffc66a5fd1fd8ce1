"""One step of learning: every share of a batch gives a loss, their mean is descended by Adam, and several processes agree on it."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from adaptycho.learn.distributed import Group

Facts = dict[str, float]
ShareLoss = Callable[[int, int], tuple[Tensor, Mapping[str, float]]]  # step and number of the share to loss and facts about it


@dataclass
class Learner:
    """Weights on their way.

    Attributes:
        network: the weights.
        optimiser: Adam over those of them that learn.
        group: the processes that share the work.
        parts: shares of a batch; a multiple of the number of processes.
        clip: longest gradient that is followed; longer ones are shortened.
        step: updates made so far.
    """

    network: nn.Module
    optimiser: torch.optim.Optimizer
    group: Group = field(default_factory=Group)
    parts: int = 2
    clip: float = 1.0
    step: int = 0

    def __post_init__(self) -> None:
        if self.parts % self.group.size:
            raise ValueError(f"train.shares: expected a multiple of the {self.group.size} processes, got {self.parts}")


def adam(network: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Adam over the weights that are not frozen."""
    return torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=rate)


def learn(learner: Learner, loss: ShareLoss, steps: int, rate: Callable[[int], float]) -> Iterator[Facts]:
    """Makes updates until the learner has made so many, yielding what each of them found.

    Args:
        learner: is changed in place.
        loss: of one share of one step.
        steps: updates in all, those made before included.
        rate: of learning at each step.

    A gradient that is not finite, as a reconstruction that diverged gives, is not followed: the weights stay as they are in that step.
    """
    weights = [p for group in learner.optimiser.param_groups for p in group["params"]]
    while learner.step < steps:
        for group in learner.optimiser.param_groups:
            group["lr"] = rate(learner.step)
        learner.optimiser.zero_grad(set_to_none=True)
        totals: dict[str, float] = {}
        for part in learner.group.mine(learner.parts):
            value, facts = loss(learner.step, part)
            (value / learner.parts).backward()
            for name, fact in {"loss": float(value.detach()), **facts}.items():
                totals[name] = totals.get(name, 0.0) + fact / learner.parts
        for p in weights:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        shared = torch.tensor(list(totals.values()), dtype=weights[0].dtype, device=weights[0].device)
        learner.group.add([*(p.grad for p in weights), shared])
        norm = float(nn.utils.clip_grad_norm_(weights, learner.clip))
        if math.isfinite(norm):
            learner.optimiser.step()
        learner.step += 1
        yield {"step": learner.step, **dict(zip(totals, shared.tolist(), strict=True)), "gradient": norm}


def cosine(peak: float, steps: int, *, warm: int = 30, last: float = 0.02) -> Callable[[int], float]:
    """A rate of learning that rises for `warm` steps and then falls along a cosine to the fraction `last` of its peak."""

    def at(step: int) -> float:
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, steps))))
        return peak * min(1.0, (step + 1) / warm) * (last + (1 - last) * fall)

    return at


def constant(rate: float) -> Callable[[int], float]:
    """The same rate at every step."""
    return lambda step: rate
