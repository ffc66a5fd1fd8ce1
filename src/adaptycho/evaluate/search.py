"""Each strategy at its best: defocus and reconstruction found on training specimens, with the same budget for every strategy.

Two rounds on a few specimens. First every defocus with the first reconstruction; then the other reconstruction at the defocus that won,
and in focus for the variant that stays there. Each descent is looked at after several numbers of iterations, since stopping early is
what keeps noise out of a low-dose reconstruction (a penalty on the gradient of the phase did no better).

Where there are more training specimens, plans race on them by successive halving (Jamieson and Talwalkar 2016): each time the specimens
have doubled, the better half of every strategy's plans goes on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from adaptycho.evaluate.sample import Sample
from adaptycho.evaluate.strategies import AUTO, FOCUSED, ORACLES
from adaptycho.evaluate.trial import Plan, descents, scan
from adaptycho.settings import BEST, Settings

FEW = 4  # training specimens on which every plan is tried
STOPS = (3, 5, 10, 20)  # iterations after which a descent is looked at
_BEST = {name: value for name, value in BEST.items() if name != "iterations"}
# The second goes slowly, and so can be stopped more finely. Squared intensities as a third were never the best of 8 strategies in 54 cells.
DESCENTS: tuple[dict[str, Any], ...] = (_BEST, {**_BEST, "step": 0.3, "momentum": 0.0})


def explore(plan: Plan, settings: Settings, sample: Sample) -> dict[str, float]:
    """Primary score of a plan on a training specimen, by the number of iterations after which its reconstruction is stopped."""
    measurement = scan(stopped(plan, 1), settings, sample).states[-1].seen
    return {str(stop): value for stop, value in descents(measurement, dict(plan.reconstruct), STOPS, settings, sample)}


def stopped(plan: Plan, iterations: int) -> Plan:
    """The plan with its reconstruction stopped after some iterations."""
    return replace(plan, reconstruct=_frozen({**dict(plan.reconstruct), "iterations": iterations}))


def first_round(strategies: Iterable[str], settings: Settings) -> list[Plan]:
    """Every strategy at every defocus; one that is one of the others has none of its own."""
    return [Plan(name, defocus, _frozen(DESCENTS[0])) for name in strategies if name != AUTO for defocus in settings.evaluate.defoci]


def second_round(strategies: Iterable[str], scores: Mapping[Plan, float]) -> list[Plan]:
    """The other reconstructions of each strategy, at the defocus that won and focused."""
    plans = []
    for name in (name for name in strategies if name != AUTO):
        winners = {best(scores, name).defocus, *(p.defocus for p in scores if p.strategy == name and p.defocus == 0)}
        plans += [Plan(name, d, _frozen(descent)) for d in sorted(winners, key=lambda d: d or 0.0) for descent in DESCENTS[1:]]
    return plans


def stages(specimens: int) -> list[int]:
    """How many training specimens plans have been tried on after each stage of the race: FEW, then twice as many each time."""
    counts = [min(FEW, specimens)]
    while counts[-1] < specimens:
        counts.append(min(2 * counts[-1], specimens))
    return counts


def halved(scores: Mapping[Plan, float], strategy: str) -> list[Plan]:
    """The better half of a strategy's plans, rounded up, each by its best number of iterations, and to be looked at after all of them."""
    each: dict[Plan, float] = {}
    for plan in _of(scores, strategy):
        whole = replace(plan, reconstruct=tuple(pair for pair in plan.reconstruct if pair[0] != "iterations"))
        each[whole] = max(scores[plan], each.get(whole, scores[plan]))
    return sorted(each, key=lambda plan: -each[plan])[: (len(each) + 1) // 2]


def best(scores: Mapping[Plan, float], strategy: str) -> Plan:
    """The plan with the best score of a strategy; with `:focused` at its name, of those without defocus."""
    return max(_of(scores, strategy), key=lambda plan: scores[plan])


def _of(scores: Mapping[Plan, float], strategy: str) -> list[Plan]:
    """The plans that a strategy may have."""
    name, focused = strategy.removesuffix(FOCUSED), strategy.endswith(FOCUSED)
    return [
        plan
        for plan in scores
        if (plan.strategy == name or (name == AUTO and plan.strategy not in ORACLES)) and not (focused and plan.defocus)
    ]


def _frozen(changes: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(changes.items()))
