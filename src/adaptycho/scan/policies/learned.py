"""A scanner with learned weights: a network proposes positions, and a Gaussian round each of them explores (Eq. 6).

The joint policy of all positions of a sub-sequence is the product of their Gaussians, so each position is an agent with a log-probability
of its own. It is that of the position *requested*: where the beam really went, or the edge it was clipped to, is the specimen's answer and
not the policy's choice.
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.scan import patterns
from adaptycho.types import Action, Memory, Observation

Survey = Literal["halton", "hexagonal", "raster"]


@runtime_checkable
class Network(Protocol):
    """Weights that look at an observation and say where to go; a `torch.nn.Module`."""

    def __call__(self, seen: Observation, memory: Memory) -> tuple[Float[Tensor, "B K 2"], Memory]:
        """Proposed positions, fractions (y, x) of the scan field, through which gradients flow, and what to hand back next time.

        Never called before the first sub-sequence, which is a survey: `memory` is None at the second.
        """
        ...


@dataclass(frozen=True, eq=False)
class Learned:
    """Scanner that surveys the field once and then goes where its network says.

    Attributes:
        network: the weights.
        sigma: standard deviation of the policy along each axis, a fraction of the field; 0 takes the mean.
        survey: scan of which the first sub-sequence is the beginning (`even`).
        defocus: underfocus in Å for every sub-sequence; None keeps the nominal one.
        dose: electrons for each position; None keeps the microscope's.
    """

    network: Network
    sigma: float = 0.0
    survey: Survey = "halton"
    defocus: float | None = None
    dose: float | None = None

    def to(self, device: torch.device | str) -> "Learned":
        """The same policy with a copy of its network on a device: where what it sees is."""
        network = copy.deepcopy(self.network)
        return replace(self, network=network.to(device) if isinstance(network, torch.nn.Module) else network)

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """A survey first, then the network's proposal, with noise if there is a sigma."""
        if seen.positions.shape[1] == 0:
            first = even(seen.total, seen.field, self.survey)[: seen.count]
            return Action(first.to(seen.potential).expand(len(seen.potential), -1, -1), self.defocus, self.dose), None
        mean, memory = self.network(seen, memory)
        if self.sigma == 0:
            return Action(mean.detach(), self.defocus, self.dose, mean=mean), memory
        positions = draw(mean, self.sigma, generator=generator)
        return Action(positions, self.defocus, self.dose, log_probability(positions, mean, self.sigma), mean), memory


def even(total: int, field: tuple[float, float], survey: Survey) -> Float[Tensor, "P 2"]:
    """An even scan in an order in which every sub-sequence sees the whole field.

    Args:
        total: number of positions P.
        field: size (y, x) of the scan field in Å.
        survey: the Halton sequence; or a hexagonal lattice or a raster, positions farthest apart first.
    """
    if survey == "halton":
        return patterns.halton(total)
    lattice = patterns.hexagonal if survey == "hexagonal" else patterns.raster
    return patterns.spread(lattice(total, field), field)


def draw(mean: Float[Tensor, "B K 2"], sigma: float, *, generator: torch.Generator) -> Float[Tensor, "B K 2"]:
    """Positions drawn from the policy (Eq. 6); no gradient flows through them."""
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=generator.device).to(mean.device)
    return mean.detach() + sigma * noise


def log_probability(positions: Float[Tensor, "B K 2"], mean: Float[Tensor, "B K 2"], sigma: float) -> Float[Tensor, "B K"]:
    """Logarithm of the Gaussian density of each position (Eq. 6)."""
    return -(positions - mean).square().sum(-1) / (2 * sigma**2) - math.log(2 * math.pi * sigma**2)
