"""Supervised learning of a policy: C1, towards an even scan, and towards teachers that know the specimen."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from adaptycho.learn.dagger import Guided
from adaptycho.learn.share import Share
from adaptycho.scan.episode import run
from adaptycho.scan.oracles import HalfWay
from adaptycho.scan.policies.learned import Learned
from adaptycho.types import Scanner

Teacher = Literal["even", "half-way", "structure"]
BEND = 0.3  # Å: errors beyond it count in proportion, not squared, since the nearest column is a matter of chance half-way between two


def imitate(
    share: Share, policy: Learned, teacher: Teacher, *, outlook: Float[Tensor, "P 2"], pull: float, lead: float
) -> tuple[Tensor, Mapping[str, float]]:
    """Loss of a policy on one share: how far it is from what the teacher would do at each sub-sequence, in the places the policy came to.

    Args:
        share: what is scanned.
        policy: its network learns.
        teacher: `even` is C1, positions as they would be if there were nothing to adapt to; `half-way` moves each of those half-way to
            its nearest true atom column; `structure` knows where there is structure (cross-entropy of the density).
        outlook: the even positions (P, 2).
        pull: of the half-way teacher, fraction of the way.
        lead: probability that a sub-sequence goes where the teacher says.
    """
    size = outlook.new_tensor(share.microscope.setup.field)
    known = HalfWay(share.columns, pull=pull if teacher == "half-way" else 0.0, base=outlook, defocus=share.defocus)
    scanner: Scanner = policy if teacher == "structure" else Guided(policy, known, lead)
    losses, errors = [], []
    for state in run(share.microscope, scanner, share.reconstructor, share.lengths, seed=share.seed):
        if state.action.mean is None:
            continue
        if teacher == "structure":
            odds = state.memory.odds
            wanted = functional.interpolate(share.inside[:, None], odds.shape[1:], mode="area")[:, 0]
            losses.append(functional.binary_cross_entropy_with_logits(odds, wanted))
            errors.append(((odds.detach() > 0) != (wanted > 0.5)).float().mean())
        else:
            away = (state.action.mean - state.memory.target) * size
            losses.append(functional.smooth_l1_loss(away, torch.zeros_like(away), beta=BEND))
            errors.append(away.detach().square().sum(-1).mean().sqrt())
    return torch.stack(losses).mean(), {"error": float(torch.stack(errors).mean())}
