"""What a scan strategy is worth: scores against a reference, and strategies side by side at the same positions and dose."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho import metrics
from adaptycho.instruments import Microscope
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.scan.episode import State, run
from adaptycho.types import Scanner


@dataclass(frozen=True, eq=False)
class Scores:
    """How close phases come to their references, one number for each specimen.

    Attributes:
        ssim: structural similarity of the phase as reconstructed.
        ssim_aligned: the same after removing the free constant, a linear ramp and the scale.
        correlation: Pearson's.
    """

    ssim: Float[Tensor, " B"]
    ssim_aligned: Float[Tensor, " B"]
    correlation: Float[Tensor, " B"]

    def of(self, specimen: int) -> dict[str, float]:
        """The scores of one specimen by name."""
        return {name: float(getattr(self, name)[specimen]) for name in SCORES}


SCORES = tuple(field.name for field in fields(Scores))


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished scan of every specimen by one strategy: the state after each sub-sequence, and its scores."""

    strategy: str
    states: tuple[State, ...]
    scores: tuple[Scores, ...]


def score(potential: Float[Tensor, "B h w"], reference: Float[Tensor, "B h w"]) -> Scores:
    """Scores of phases inside the scan field."""
    return Scores(metrics.ssim(potential, reference), metrics.ssim_aligned(potential, reference), metrics.correlation(potential, reference))


def compare(
    microscope: Microscope,
    scanners: Mapping[str, Scanner],
    reconstructor: Reconstructor,
    lengths: Sequence[int],
    reference: Float[Tensor, "B h w"],
    *,
    seed: int,
) -> Iterator[Outcome]:
    """Every strategy on the same specimens with the same positions and dose, one after the other."""
    for name, scanner in scanners.items():
        states = tuple(run(microscope, scanner, reconstructor, lengths, seed=seed))
        yield Outcome(name, states, tuple(score(s.potential, reference) for s in states))


def improvement(scores: Mapping[str, Float[Tensor, " B"]], ours: str, other: str | None = None) -> float:
    """Relative improvement Q = (ours - other) / other of the mean scores; against the best of all others if none is named."""
    means = {name: float(torch.as_tensor(values).mean()) for name, values in scores.items()}
    base = means[other] if other else max(v for name, v in means.items() if name != ours)
    return float(metrics.relative_improvement(means[ours], base))
