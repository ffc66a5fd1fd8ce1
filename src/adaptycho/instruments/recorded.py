"""Replays a recorded scan: every request is answered with the nearest position that was really measured.

What the replay cannot know it does not invent: a repeated request returns the same counts again (and they cost dose again), and a defocus
or dose that was not recorded is refused.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from adaptycho.physics.optics import Setup
from adaptycho.types import Action, Measurement

TOLERANCE = 1e-3  # relative, between a requested defocus or dose and the recorded one


@dataclass(frozen=True, eq=False)
class Recorded:
    """A microscope whose specimens are recorded data sets.

    Attributes:
        setup: beam and geometry, the same for all data sets.
        measurement: B data sets, each with its own number of positions.
        counts_per_electron: detector counts that one electron makes, to compare a requested dose in electrons with the recorded counts.
        full: reconstructs everything that such a microscope holds: the phase in rad inside the field, (B, h, w).
    """

    setup: Setup
    measurement: Measurement
    counts_per_electron: float = 1.0
    full: Callable[["Recorded"], Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if bool((self.measurement.lengths < 1).any()):
            raise ValueError("measurement: expected at least one recorded position in each data set, got none")

    @property
    def batch(self) -> int:
        """Number of data sets scanned at once."""
        return len(self.measurement)

    @property
    def dose(self) -> float:
        """Electrons that were sent to a recorded position, at most."""
        return float(self.measurement.dose.max()) / self.counts_per_electron

    def reference(self) -> Float[Tensor, "B h w"] | None:
        """Phase in rad inside the field from everything that was recorded; None if nobody said how to reconstruct it."""
        return None if self.full is None else self.full(self)

    def close(self) -> None:
        """There is nothing to let go of."""

    @property
    def device(self) -> torch.device:
        """Where its answers come from."""
        return self.measurement.positions.device

    def to(self, device: torch.device | str) -> "Recorded":
        """The same microscope with what was recorded on a device, where it then answers."""
        return replace(self, measurement=self.measurement.to(device))

    def acquire(self, action: Action, *, generator: torch.Generator | None = None) -> Measurement:
        """The recorded patterns nearest (in Å) to the requested positions, at the positions where they were recorded.

        Requests outside the field are answered with the nearest recorded position too. The generator is not used.

        Raises:
            ValueError: the request is for another number of data sets, holds NaN, or asks for a defocus or dose that was not recorded.
        """
        if len(action.positions) != self.batch:
            raise ValueError(f"action.positions: expected requests for {self.batch} data sets, got {len(action.positions)}")
        if not bool(torch.isfinite(action.positions).all()):
            raise ValueError("action.positions: expected finite positions, got NaN or infinity")
        parts = []
        for tree, data, wanted in zip(self._trees, self.measurement.split(), action.positions, strict=True):
            _, nearest = tree.query(_length(self.setup, wanted))
            parts.append(data.take(torch.from_numpy(nearest).to(data.positions.device)))
        found = Measurement(*(torch.cat([getattr(p, n) for p in parts]) for n in ("positions", "patterns", "dose", "defocus")))
        self._check(action, found)
        return found

    @cached_property
    def _trees(self) -> list[cKDTree]:
        return [cKDTree(_length(self.setup, data.positions[0])) for data in self.measurement.split()]

    def _check(self, action: Action, found: Measurement) -> None:
        asked = ("defocus", action.defocus, 1.0, "Å"), ("dose", action.dose, self.counts_per_electron, "electrons")
        for name, value, counts, unit in asked:
            if value is None:
                continue
            recorded = getattr(found, name) / counts
            wanted = torch.as_tensor(value, dtype=recorded.dtype, device=recorded.device).expand(recorded.shape)
            if bool((wrong := (recorded - wanted).abs() > TOLERANCE * recorded.abs()).any()):
                first, last = float(recorded.min()), float(recorded.max())
                span = f"{first:g}" if math.isclose(first, last, rel_tol=1e-6) else f"{first:g} to {last:g}"
                asked_for = float(wanted[wrong][0])
                raise ValueError(
                    f"action.{name}: expected the recorded {span} {unit} (a recording cannot be taken again), got {asked_for:g}"
                )


def distance(setup: Setup, requested: Float[Tensor, "*#batch 2"], reported: Float[Tensor, "*#batch 2"]) -> Float[Tensor, "..."]:
    """How far in Å the beam was from where it was asked to go."""
    return torch.linalg.vector_norm((reported - requested) * requested.new_tensor(setup.field), dim=-1)


def _length(setup: Setup, positions: Tensor) -> np.ndarray:
    """Positions in Å."""
    return positions.detach().cpu().double().numpy() * np.array(setup.field)
