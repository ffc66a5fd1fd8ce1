"""A scanner that follows its pupil's proposals and notes what a teacher would have done in the same place (DAgger, Ross et al. 2011)."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.scan.policies.learned import Learned
from adaptycho.types import Action, Memory, Observation, Scanner


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is handed from sub-sequence to sub-sequence: both memories, and the teacher's answer to the last question."""

    pupil: Memory
    teacher: Memory
    target: Float[Tensor, "B K 2"] | None


@dataclass(frozen=True, eq=False)
class Guided:
    """Scanner for imitation.

    Attributes:
        pupil: what is taught.
        teacher: what is imitated; it sees what the pupil sees.
        lead: probability that a sub-sequence goes where the teacher says and not where the pupil does.
    """

    pupil: Learned
    teacher: Scanner
    lead: float = 0.0

    def __call__(self, seen: Observation, memory: Any, *, generator: torch.Generator) -> tuple[Action, Lesson]:
        """The next positions; `action.mean` is the pupil's proposal and `memory.target` the teacher's."""
        before = memory or Lesson(None, None, None)
        action, pupil = self.pupil(seen, before.pupil, generator=generator)
        answer, teacher = self.teacher(seen, before.teacher, generator=generator)
        if action.mean is None:  # the survey
            return action, Lesson(pupil, teacher, None)
        led = bool(torch.rand(1, generator=generator) < self.lead)
        chosen = Action(answer.positions if led else action.positions, action.defocus, action.dose, mean=action.mean)
        return chosen, Lesson(pupil, teacher, answer.positions)
