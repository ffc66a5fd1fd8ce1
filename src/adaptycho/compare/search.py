"""Each strategy at its best: defocus and reconstruction found on training specimens, with the same budget for every strategy.

Two rounds on a few specimens. First every defocus with the first reconstruction; then the other reconstruction at the defocus that won,
and in focus for the variant that stays there. Each descent is looked at after several numbers of iterations, since stopping early is
what keeps noise out of a low-dose reconstruction (a penalty on the gradient of the phase did no better).

Where there are more training specimens, plans race on them by successive halving (Jamieson and Talwalkar 2016): each time the specimens
have doubled, the better half of every strategy's plans goes on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from adaptycho.compare.strategies import BY_HAND, CHOSEN, FOCUSED, HAND, ORACLES
from adaptycho.compare.trial import Plan, descents, scan
from adaptycho.samples.sample import Sample
from adaptycho.settings import BEST, REGULARISED, Settings

Scores = Mapping[Plan, Mapping[int, float]]  # of every plan after every number of iterations
Descent = Mapping[str, Any]  # changes in the settings' section `reconstruct`
FEW = 4  # training specimens on which every plan is tried
STOPS = (3, 5, 10, 20)  # iterations after which a descent is looked at
_BEST = {name: value for name, value in BEST.items() if name != "iterations"}
# The second goes slowly, and so can be stopped more finely. Squared intensities as a third were never the best of 8 strategies in 54 cells.
DESCENTS: tuple[Descent, ...] = (_BEST, {**_BEST, "step": 0.3, "momentum": 0.0})
# What the measurement itself says of prior and strength, on training and test specimens alike; nothing is to be stopped.
LAST: tuple[Descent, ...] = (REGULARISED,)
QUICK = {"iterations": 1, "prior": "none"}  # where a scan's last reconstruction is not looked at


def explore(plan: Plan, settings: Settings, sample: Sample) -> dict[str, float]:
    """Primary score of a plan on a training specimen, by the number of iterations after which its reconstruction is stopped."""
    changes = dict(plan.reconstruct)
    measurement = scan(replace(plan, reconstruct=frozen({**changes, **QUICK})), settings, sample).states[-1].seen
    stops = (changes["iterations"],) if "iterations" in changes else STOPS
    return {str(stop): value for stop, value in descents(measurement, changes, stops, settings, sample)}


def stopped(plan: Plan, iterations: int) -> Plan:
    """The plan with its reconstruction stopped after some iterations."""
    return replace(plan, reconstruct=frozen({**dict(plan.reconstruct), "iterations": iterations}))


def first_round(strategies: Iterable[str], settings: Settings, descents: Sequence[Descent]) -> list[Plan]:
    """Every strategy at every defocus, with the first reconstruction."""
    return [Plan(name, defocus, frozen(descents[0])) for name in strategies for defocus in settings.evaluate.defoci]


def second_round(strategies: Iterable[str], scores: Scores, descents: Sequence[Descent]) -> list[Plan]:
    """The other reconstructions of each strategy, at the defocus that won and focused."""
    plans = []
    for name in strategies:
        tried = allowed(scores, name)
        winners = {best(scores, tried).defocus, *(p.defocus for p in tried if p.defocus == 0)}
        plans += [Plan(name, d, frozen(descent)) for d in sorted(winners, key=lambda d: d or 0.0) for descent in descents[1:]]
    return plans


def allowed(plans: Iterable[Plan], strategy: str) -> list[Plan]:
    """The plans that a strategy may have; with `:focused` at its name, those without defocus."""
    name, focused = strategy.removesuffix(FOCUSED), strategy.endswith(FOCUSED)
    return [plan for plan in plans if plan.strategy == name and not (focused and plan.defocus)]


def stages(specimens: int) -> list[int]:
    """How many training specimens plans have been tried on after each stage of the race: FEW, then twice as many each time."""
    counts = [min(FEW, specimens)]
    while counts[-1] < specimens:
        counts.append(min(2 * counts[-1], specimens))
    return counts


def halved(scores: Scores, plans: Sequence[Plan]) -> list[Plan]:
    """The better half of a strategy's plans, rounded up, each by its best number of iterations."""
    return sorted(plans, key=lambda plan: -top(scores, plan))[: (len(plans) + 1) // 2]


def best(scores: Scores, plans: Iterable[Plan]) -> Plan:
    """The plan with the best score, stopped after its best number of iterations."""
    plan = max(plans, key=lambda plan: top(scores, plan))
    return stopped(plan, max(scores[plan], key=lambda stop: scores[plan][stop]))


def top(scores: Scores, plan: Plan) -> float:
    """Score of a plan after its best number of iterations."""
    return max(scores[plan].values())


def chosen(scores: Scores, plans: Mapping[str, Sequence[Plan]], strategies: Iterable[str]) -> dict[str, Plan]:
    """The best plan of every strategy, from what is left of its plans.

    `auto` is the best of the other strategies, oracles excepted, and `by-hand` of those by hand; `auto:focused` that of those without
    defocus.
    """
    found = {name: best(scores, some) for name, some in plans.items()}
    rank = {name: max(top(scores, plan) for plan in some) for name, some in plans.items()}
    return {name: found[name] if name in found else found[max(candidates(name, plans), key=lambda n: rank[n])] for name in strategies}


def candidates(auto: str, strategies: Iterable[str]) -> list[str]:
    """What `auto`, `by-hand` or, without defocus, `auto:focused` may be of some strategies."""
    end = FOCUSED if auto.endswith(FOCUSED) else ""
    among = [name for name in strategies if name.removesuffix(FOCUSED) not in (*CHOSEN, *ORACLES) and name.endswith(end)]
    return [name for name in among if name.removesuffix(FOCUSED) in BY_HAND] if auto.removesuffix(FOCUSED) == HAND else among


def frozen(changes: Descent) -> tuple[tuple[str, Any], ...]:
    """As a plan holds it."""
    return tuple(sorted(changes.items()))
