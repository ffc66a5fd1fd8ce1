"""A scanner that follows a policy's proposals and notes what a teacher would have done in the same place (DAgger, Ross et al. 2011)."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.scan.policies.learned import Learned
from adaptycho.types import Action, Memory, Observation, Scanner


@dataclass(frozen=True, eq=False)
class Memories:
    """What is handed from sub-sequence to sub-sequence: both memories, and the teacher's answer to the last question."""

    policy: Memory
    teacher: Memory
    target: Float[Tensor, "B K 2"] | None


@dataclass(frozen=True, eq=False)
class Guided:
    """Scanner for imitation.

    Attributes:
        policy: what learns.
        teacher: what is imitated; it sees what the policy sees.
        lead: probability that a sub-sequence goes where the teacher says and not where the policy does.
    """

    policy: Learned
    teacher: Scanner
    lead: float = 0.0

    def __call__(self, seen: Observation, memory: Any, *, generator: torch.Generator) -> tuple[Action, Memories]:
        """The next positions; `action.mean` is the policy's proposal and `memory.target` the teacher's."""
        before = memory or Memories(None, None, None)
        action, own = self.policy(seen, before.policy, generator=generator)
        answer, teacher = self.teacher(seen, before.teacher, generator=generator)
        if action.mean is None:  # the survey
            return action, Memories(own, teacher, None)
        led = bool(torch.rand(1, generator=generator) < self.lead)
        chosen = Action(answer.positions if led else action.positions, action.defocus, action.dose, mean=action.mean)
        return chosen, Memories(own, teacher, answer.positions)
