"""Conventional scans as scanners: the whole pattern is laid out at the first call and handed out piece by piece."""

from dataclasses import dataclass

import torch

from adaptycho.scan import Pattern, patterns
from adaptycho.types import Action, Memory, Observation


@dataclass(frozen=True)
class Fixed:
    """A conventional scan that looks at nothing.

    Attributes:
        name: which pattern of `adaptycho.scan.patterns`.
        defocus: underfocus in Å; None keeps the nominal one. A defocused sparse scan is a few positions and a large value here.
        dose: electrons for each position; None keeps the microscope's.
    """

    name: Pattern
    defocus: float | None = None
    dose: float | None = None

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """The next `seen.count` positions of the pattern, which is different for each specimen where it is random."""
        if memory is None:
            batch = seen.potential.shape[0]
            memory = torch.stack([patterns.pattern(self.name, seen.total, seen.field, generator=generator) for _ in range(batch)])
        taken = seen.positions.shape[1]
        return Action(memory[:, taken : taken + seen.count].to(seen.potential.dtype), defocus=self.defocus, dose=self.dose), memory
