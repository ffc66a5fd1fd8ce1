"""Who decides where the beam goes next: the types that every scan strategy shares.

A `Scanner` is any callable that looks at an `Observation` and returns an `Action`; conventional scans, the heuristic and learned policies
are scanners alike, and all of them run through the one loop in `adaptycho.episode`.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

Memory = Any  # what a scanner wants handed back at its next call; None at the first


@dataclass(frozen=True, eq=False)
class Observation:
    """What a scanner may know when it decides.

    Attributes:
        potential: phase in rad inside the scan field, reconstructed from everything measured so far; zeros before the first sub-sequence.
        positions: where the beam has been, fractions (y, x) of the scan field.
        dose: counts sent to each of those positions.
        field: size (y, x) of the scan field in Å.
        probe: radius in Å that holds half of the beam's intensity, at the defocus of the last sub-sequence (first the nominal one).
        resolution: wavelength over convergence semi-angle in Å; a focused probe has a radius of about a quarter of it.
        count: number of positions to propose now (K).
        total: number of positions of the whole scan (P).
        scattered: fraction of the dose that each position sent outside the bright-field disc; None if the detector does not tell.
    """

    potential: Float[Tensor, "B h w"]
    positions: Float[Tensor, "B K 2"]
    dose: Float[Tensor, "B K"]
    field: tuple[float, float]
    probe: float
    resolution: float
    count: int
    total: int
    scattered: Float[Tensor, "B K"] | None = None


@dataclass(frozen=True, eq=False)
class Action:
    """Where to go next.

    Attributes:
        positions: requested positions, fractions (y, x) of the scan field; a sample of a stochastic policy may lie outside.
        defocus: underfocus in Å for this sub-sequence; None keeps the nominal one.
        dose: electrons for each position; None keeps the microscope's.
        log_prob: log-probability of each requested position, for stochastic policies.
        mean: positions that a learned policy proposes before anything random is added; gradients flow through it.
    """

    positions: Float[Tensor, "B K 2"]
    defocus: float | None = None
    dose: float | None = None
    log_prob: Float[Tensor, "B K"] | None = None
    mean: Float[Tensor, "B K 2"] | None = None


class Scanner(Protocol):
    """Decides where the next sub-sequence goes."""

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """Returns the action and the memory to hand back at the next call."""
        ...
