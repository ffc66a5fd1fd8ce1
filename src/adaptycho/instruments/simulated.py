"""A simulated microscope: specimens of known potential, any position, any defocus, any dwell."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from adaptycho.physics.forward import MOST, Imperfections, expose
from adaptycho.physics.optics import Setup
from adaptycho.types import Action, Measurement


@dataclass(frozen=True, eq=False)
class Simulated:
    """B simulated specimens under the same beam.

    Attributes:
        setup: geometry and beam.
        potential: sigma V in rad on the object grid of each specimen, (B, H, W), or (B, S, H, W) in S slices; complex if it absorbs.
        dose: electrons per position unless the action says otherwise.
        imperfections: what separates the instrument from Eq. 1.
        thickness: distance between neighbouring slices in Å.
        full: reconstructs the full scan of such a microscope: the phase in rad inside the field, (B, h, w).
    """

    setup: Setup
    potential: Shaped[Tensor, "B *slices H W"]
    dose: float
    imperfections: Imperfections = field(default_factory=Imperfections)
    thickness: float = 0.0
    full: Callable[["Simulated"], Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if tuple(self.potential.shape[-2:]) != self.setup.object.shape:
            raise ValueError(
                f"potential: expected the object grid's shape {self.setup.object.shape}, got {tuple(self.potential.shape[-2:])}"
            )
        if not 0 < self.dose <= MOST:
            raise ValueError(f"dose: expected more than 0 and at most {MOST:.0e} electrons per position, got {self.dose}")

    @property
    def batch(self) -> int:
        """Number of specimens."""
        return len(self.potential)

    def only(self, specimen: int) -> "Simulated":
        """The same microscope on one of its specimens."""
        return replace(self, potential=self.potential[specimen : specimen + 1])

    def reference(self) -> Float[Tensor, "B h w"] | None:
        """Phase in rad inside the field from the full scan; None if nobody said how to reconstruct it."""
        return None if self.full is None else self.full(self)

    def close(self) -> None:
        """There is nothing to let go of."""

    @property
    def device(self) -> torch.device:
        """Where it simulates."""
        return self.potential.device

    def to(self, device: torch.device | str) -> "Simulated":
        """The same microscope with its specimens on a device, where it then simulates and answers."""
        return replace(self, potential=self.potential.to(device))

    def acquire(self, action: Action, *, generator: torch.Generator) -> Measurement:
        """Patterns of one sub-sequence on every specimen, on their device. Positions outside the field are clipped to its edge."""
        real = self.potential.real.dtype if self.potential.is_complex() else self.potential.dtype
        positions = action.positions.to(self.potential.device, real).clamp(0, 1)
        if not bool(torch.isfinite(positions).all()):
            raise ValueError("action.positions: expected finite positions, got NaN or infinity")
        if positions.shape[0] != self.batch:
            raise ValueError(f"positions: expected one row for each of {self.batch} specimens, got {positions.shape[0]}")
        sent = torch.as_tensor(self.dose if action.dose is None else action.dose, dtype=real, device=positions.device)
        dose = sent.expand(positions.shape[:2]).contiguous()
        focus = torch.full_like(dose, self.setup.aberrations.defocus if action.defocus is None else action.defocus)
        patterns = [
            expose(
                self.setup,
                self.potential[b],
                positions[b],
                dose[b],
                focus[b],
                self.imperfections,
                generator=generator,
                thickness=self.thickness,
                item=b,
            )
            for b in range(self.batch)
        ]
        return Measurement(positions, torch.stack(patterns), dose, focus)
