"""Multi-agent REINFORCE (Eqs. 7 and 8): each position is an agent, and the Gaussian policy of all of them is pushed towards reward.

`grad J = 1/N sum_n sum_t grad log pi(a_nt | h_nt) (G_nt - b)`, with the return G of the agent's own reward discounted over the
sub-sequences that follow (gamma = 0 in the paper: each answers for itself) and a baseline b.

What is ascended differs from this by positive factors: returns less baseline are divided by their standard deviation in the share, and
the agents are averaged over, not summed. The baselines `pair` and `mean` do not depend on the action and cost
no bias; the mean over a share of N episodes holds the episode itself and shortens the expected gradient by the factor 1 - 1/N.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.learn import reward as credits
from adaptycho.learn.reward import Result
from adaptycho.learn.share import Share
from adaptycho.learn.similarity import local_ssim
from adaptycho.scan.episode import State, run
from adaptycho.scan.policies.learned import Learned
from adaptycho.settings.learning import Reward

Baseline = Literal["none", "batch", "pair", "mean"]


def reinforce(
    share: Share, policy: Learned, credit: Reward, *, baseline: Baseline, gamma: float, width: float, outlook: Float[Tensor, "P 2"]
) -> tuple[Tensor, Mapping[str, float]]:
    """Loss of a stochastic policy on one share, whose gradient is minus Eq. 8 up to positive factors, and facts about the share.

    An episode that earns what is not finite, because a reconstruction diverged, is left out of everything, and so is its partner in a
    pair. The facts are about the rest: `reward` and `ssim`, not a number if nothing is left; `lost` is the fraction that was left out.

    Args:
        share: what is scanned; with the baseline `pair` its second half is the first half again.
        policy: with a sigma above 0; its network learns.
        credit: how the quality of the reconstruction is divided among the positions.
        baseline: what is subtracted from a return: nothing; the mean over the share, for each agent; that of another rollout of the same
            specimen; that of a rollout at the mean action.
        gamma: discount of later sub-sequences.
        width: in Å, of the windows of credits that have some.
        outlook: where an even scan would have gone, the supports of those windows.
    """
    states = list(run(share.microscope, policy, share.reconstructor, share.lengths, seed=share.seed))
    earned = rewards(share, states[-1], credit, width, outlook)
    gains = returns(earned, share.lengths, gamma)
    if baseline == "pair":
        gains = gains - gains.roll(len(gains) // 2, 0)
    elif baseline == "mean":
        calm = dataclasses.replace(policy, sigma=0.0)
        with torch.no_grad():
            *_, last = run(share.microscope, calm, share.reconstructor, share.lengths, seed=share.seed)
        gains = gains - returns(rewards(share, last, credit, width, outlook), share.lengths, gamma)
    logs = torch.cat([s.action.log_prob for s in states if s.action.log_prob is not None], 1)
    kept = (gains.isfinite() & earned.isfinite()).all(1)
    first = gains.shape[1] - logs.shape[1]  # the survey was nobody's decision
    advantage = gains[kept, first:]
    if baseline == "batch":
        advantage = advantage - advantage.mean(0, keepdim=True)
    scale = advantage.std() + 1e-12 if advantage.numel() > 1 else 1.0
    loss = -(logs[kept] * (advantage / scale)).sum() / max(1, advantage.numel())
    quality = local_ssim(states[-1].potential, share.reference)[kept].nanmean()
    return loss, {"reward": float(earned[kept].mean()), "ssim": float(quality), "lost": 1 - float(kept.float().mean())}


def rewards(share: Share, last: State, credit: Reward, width: float, outlook: Float[Tensor, "P 2"]) -> Float[Tensor, "B P"]:
    """What each position has earned at the end of a scan."""
    setup = share.microscope.setup
    base = outlook.to(last.potential).expand(len(last.potential), -1, -1)
    end = Result(last.potential, last.seen.positions, setup.field, last.scattered, share.reference, base)
    return credits.reward(credit, end, width=width)


def returns(earned: Float[Tensor, "B P"], lengths: Sequence[int], gamma: float) -> Float[Tensor, "B P"]:
    """Discounted sums of the rewards of one agent from its sub-sequence on (B2); an agent has a place in each sub-sequence."""
    parts = list(earned.split(list(lengths), 1))
    for t in range(len(parts) - 2, -1, -1):
        later, n = parts[t + 1], min(parts[t].shape[1], parts[t + 1].shape[1])
        parts[t] = parts[t].clone()
        parts[t][:, :n] += gamma * later[:, :n]
    return torch.cat(parts, 1)
