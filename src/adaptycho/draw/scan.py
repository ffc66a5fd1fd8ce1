"""A finished or running scan as pictures and reports need it: plain results, whoever made them."""

import math
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Stage:
    """What was known after one sub-sequence.

    Attributes:
        positions_new: of this sub-sequence, fractions (y, x) of the scan field.
        positions_all: of this and all earlier ones.
        dose_all: electrons sent to each of those.
        potential: phase in rad inside the scan field, reconstructed from all of them.
        loss: final loss of that reconstruction.
        scores: against the reference, by name (`ssim`, `ssim_aligned`, `correlation`, ...).
        seconds: wall-clock time by task (`acquire`, `reconstruct`, `decide`, ...).
    """

    positions_new: Float[Tensor, "K 2"]
    positions_all: Float[Tensor, "P 2"]
    dose_all: Float[Tensor, " P"]
    potential: Float[Tensor, "h w"]
    loss: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scan:
    """One strategy on one specimen.

    Attributes:
        strategy: who chose the positions.
        specimen: name of what was scanned.
        field: size (y, x) of the scan field in Å.
        probe_radius: radius in Å that holds half of the beam's intensity.
        stages: one for each sub-sequence, at least one.
        reference: phase in rad that scores compare with.
        iterations_loss: loss after each iteration of the last reconstruction.
        snapped: on recorded data, mean distance in Å between the position asked for and the one served.
    """

    strategy: str
    specimen: str
    field: tuple[float, float]
    probe_radius: float
    stages: tuple[Stage, ...]
    reference: Float[Tensor, "h w"] | None = None
    iterations_loss: tuple[float, ...] = ()
    snapped: float | None = None

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError(f"stages: expected at least one sub-sequence in the scan {self.strategy!r} of {self.specimen!r}, got none")


def mean_dose(scan: Scan, stage: Stage) -> float:
    """Electrons sent so far per Å² of the scan field."""
    return float(stage.dose_all.double().sum()) / math.prod(scan.field)
