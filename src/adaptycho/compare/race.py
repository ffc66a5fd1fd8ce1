"""The comparison itself: which tasks there are, in which order, and what is there already."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from adaptycho import settings as tree
from adaptycho.compare import provenance, search
from adaptycho.compare.ledger import Ledger
from adaptycho.compare.provenance import Origin
from adaptycho.compare.strategies import AUTO, CHOSEN, FOCUSED, LEARNED, SIMULATED, USUAL, check
from adaptycho.compare.trial import Plan, Reference
from adaptycho.compare.work import Task, perform
from adaptycho.samples import sample
from adaptycho.settings import Settings, microscopes
from adaptycho.support.parallel import spread

ProtocolName = Literal["paper", "best", "regularised"]
Numbers = Mapping[str, float]
Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


@dataclass(frozen=True)
class Protocol:
    """The rules of a comparison.

    Attributes:
        name: what it is called.
        reference: what scores refer to.
        primary: the score by which strategies are ranked.
        tuned: whether every strategy first gets the settings that are best for it on training specimens.
        changes: settings that the protocol fixes.
        descents: last reconstructions that the best is found of, if strategies are tuned.
    """

    name: ProtocolName
    reference: Reference
    primary: str
    tuned: bool
    changes: Mapping[str, Any] = field(default_factory=dict)
    descents: tuple[search.Descent, ...] = search.DESCENTS


_BEST: dict[str, Any] = {"reconstruct": {**tree.BEST, "prior": "none"}, "scan": {"subsequences": 4}}  # what decisions are made from
PROTOCOLS: dict[ProtocolName, Protocol] = {
    "paper": Protocol("paper", "full", "ssim", False, {"reconstruct": {**tree.PAPER, "prior": "none"}, "scan": {"subsequences": 5}}),
    "best": Protocol("best", "truth", "correlation_inside", True, _BEST),
    "regularised": Protocol("regularised", "truth", "correlation_inside", True, _BEST, search.LAST),
}


@dataclass(frozen=True)
class Cell:
    """One finished comparison: for every strategy its plan, and what was measured on every test specimen.

    Attributes:
        settings: with the range that test specimens came from.
        protocol: its rules.
        plans: by strategy.
        numbers: by strategy, of every specimen.
        origin: when and by what it was measured, if that was kept.
    """

    settings: Settings
    protocol: Protocol
    plans: Mapping[str, Plan]
    numbers: Mapping[str, tuple[Numbers, ...]]
    origin: Origin | None = None


def judge(
    cells: Sequence[Settings],
    protocol: Protocol,
    strategies: Sequence[str],
    ledger: Ledger,
    *,
    progress: Progress,
    workers: int | None = None,
    scheduler: str | None = None,
) -> list[Cell]:
    """Measures what is not in the ledger yet and returns the comparisons.

    Args:
        cells: settings of each comparison; specimens are taken from `evaluate.test`, and from `evaluate.train` to tune on.
        protocol: the rules.
        strategies: names; `raster:focused` is the raster without defocus, where the protocol tunes.
        ledger: of results.
        progress: wraps an iterable of known length to show how far it is.
        workers: see `spread`.
        scheduler: see `spread`.

    Raises:
        ValueError: an unknown strategy, a microscope that nothing can be compared on, or settings that cannot be simulated.
    """
    for cell in cells:
        microscopes.check_samples(cell)
    _caution(cells, ledger)

    def work(tasks: list[Task], what: str) -> None:
        left = _missing(tasks, ledger)
        for _, rows in progress(spread(perform, left, workers=workers, scheduler=scheduler), len(left), what):
            ledger.add(rows)

    tuned = [protocol.tuned and _ordered(cell) for cell in cells]
    for cell, trains in zip(cells, tuned, strict=True):
        for name in strategies:
            check(name, cell, tuned=trains)
    for name in strategies:
        if name.removesuffix(FOCUSED) in CHOSEN and not search.candidates(name, strategies):
            raise ValueError(f"strategies: expected others that {name!r} can be one of, found {', '.join(strategies)}")
    # Where nothing is tuned the last reconstruction is the loop's, unless the protocol has one that needs no tuning.
    last = search.frozen(protocol.descents[0]) if protocol.tuned and len(protocol.descents) == 1 else ()
    chosen = [{name: Plan(name, reconstruct=last) for name in strategies} for _ in cells]
    some = [i for i, trains in enumerate(tuned) if trains]
    for i, plans in zip(some, _tuned([cells[i] for i in some], protocol.descents, strategies, ledger, work), strict=True):
        chosen[i] = plans
    tests = [_testing(cell, plans, protocol) for cell, plans in zip(cells, chosen, strict=True)]
    work([task for tasks in tests for task in tasks], "test specimens")
    return [_cell(ledger, cell, protocol, plans, tasks) for cell, plans, tasks in zip(cells, chosen, tests, strict=True)]


def _caution(cells: Sequence[Settings], ledger: Ledger) -> None:
    """Says what whoever reads the results has to know."""
    (low, high), simulated = tree.USED, [cell.evaluate.test for cell in cells if _ordered(cell)]
    if any(first < high and last > low for first, last in simulated):
        warnings.warn(
            f"evaluate.test: designs were changed after looking at specimens {low} to {high}, so results on them do not test these designs",
            stacklevel=3,
        )
    if others := sum(row.get("code") != provenance.code() for row in ledger):
        where = ledger.path or "the ledger"
        warnings.warn(f"{others} results in {where} were measured by other code than this and are left alone", stacklevel=3)


def _tuned(
    cells: Sequence[Settings],
    descents: Sequence[search.Descent],
    strategies: Sequence[str],
    ledger: Ledger,
    work: Callable[[list[Task], str], None],
) -> list[dict[str, Plan]]:
    """The plan of every strategy in every cell that is best on training specimens."""
    own = [name for name in strategies if name.removesuffix(FOCUSED) not in CHOSEN]
    names = list(dict.fromkeys(name.removesuffix(FOCUSED) for name in own))
    counts = [search.stages(_specimens(cell)) for cell in cells]

    def train(plans: Sequence[Iterable[Plan]], stage: int, what: str) -> list[search.Scores]:
        """Scores of each cell's plans over the specimens of a stage, or of the last one that the cell has."""
        tasks = [_training(cell, list(some), n[: stage + 1][-1]) for cell, some, n in zip(cells, plans, counts, strict=True)]
        work([task for each in tasks for task in each], what)
        return [_found(ledger, each) for each in tasks]

    tried = [search.first_round(names, cell, descents) for cell in cells]
    scores = train(tried, 0, "tuning defocus")
    tried = [[*plans, *search.second_round(names, found, descents)] for plans, found in zip(tried, scores, strict=True)]
    scores = train(tried, 0, "tuning reconstruction")
    left = [{name: search.allowed(plans, name) for name in own} for plans in tried]
    for stage in range(1, max(map(len, counts), default=0)):
        for i, found in enumerate(scores):
            if stage < len(counts[i]):
                left[i] = {name: search.halved(found, plans) for name, plans in left[i].items()}
        some = [dict.fromkeys(plan for plans in each.values() for plan in plans) for each in left]
        scores = train(some, stage, f"tuning, up to {max(n[: stage + 1][-1] for n in counts)} specimens")
    return [search.chosen(found, each, strategies) for found, each in zip(scores, left, strict=True)]


def everything(protocol: Protocol, cell: Settings) -> list[str]:
    """Every usual strategy that makes sense, where the protocol tunes also focused; a recurrent policy knows one kind of scan only."""
    some = [name for name in USUAL if name != "recurrent" and (protocol.tuned or name != AUTO)]
    if not _ordered(cell):
        # The policy that comes along has practised on the recording that does.
        left_out = () if cell.scan.weights else LEARNED
        return [name for name in some if name not in (*SIMULATED, *left_out, AUTO)]
    return [*some, *(name + FOCUSED for name in some)] if protocol.tuned else some


def _missing(tasks: Iterable[Task], ledger: Ledger) -> list[Task]:
    """What is left to do of some tasks, everything once."""
    left, known = [], set[str]()
    for task in tasks:
        wanted = {task.key(plan): plan for plan in task.plans}
        plans = tuple(plan for key, plan in wanted.items() if key not in ledger and key not in known)
        known.update(wanted)
        if plans:
            left.append(dataclasses.replace(task, plans=plans))
    return left


def _ordered(cell: Settings) -> bool:
    """Whether specimens are made to order; else they are windows of a recording."""
    return microscopes.of(cell).capabilities.specimens


def _specimens(cell: Settings) -> int:
    first, last = cell.evaluate.train
    return min(cell.evaluate.tuning, last - first)


def _training(cell: Settings, plans: Sequence[Plan], specimens: int) -> list[Task]:
    first = cell.evaluate.train[0]
    return [Task(cell, n, tuple(plans), None) for n in range(first, first + specimens)]


def _testing(cell: Settings, plans: Mapping[str, Plan], protocol: Protocol) -> list[Task]:
    first, last = cell.evaluate.test
    numbers = range(first, first + cell.evaluate.specimens) if _ordered(cell) else range(sample.RECORDED)
    if _ordered(cell) and numbers.stop > last:
        raise ValueError(f"evaluate.specimens: expected at most the {last - first} of evaluate.test, found {cell.evaluate.specimens}")
    return [Task(cell, n, tuple(dict.fromkeys(plans.values())), protocol.reference) for n in numbers]


def _found(ledger: Ledger, tasks: Sequence[Task]) -> search.Scores:
    """Mean training score of every plan and number of iterations over the specimens of some tasks with the same plans."""
    means: dict[Plan, dict[int, float]] = {}
    for plan in tasks[0].plans:
        rows = [ledger[task.key(plan)]["numbers"] for task in tasks]
        means[plan] = {int(stop): sum(row[stop] for row in rows) / len(rows) for stop in rows[0]}
    return means


def _cell(ledger: Ledger, cell: Settings, protocol: Protocol, plans: dict[str, Plan], tasks: list[Task]) -> Cell:
    numbers: dict[str, tuple[Numbers, ...]] = {
        name: tuple({k: math.nan if v is None else v for k, v in ledger[t.key(plan)]["numbers"].items()} for t in tasks)
        for name, plan in plans.items()
    }
    if not _ordered(cell):
        # The two halves of a window say nearly the same: the window is what is counted.
        numbers = {name: tuple(_mean(*pair) for pair in zip(rows[::2], rows[1::2], strict=True)) for name, rows in numbers.items()}
    rows = [ledger[task.key(plan)] for task in tasks for plan in task.plans]
    return Cell(cell, protocol, plans, numbers, provenance.latest(Origin(row["date"], row["code"], row["version"]) for row in rows))


def _mean(first: Numbers, second: Numbers) -> Numbers:
    return {name: (first[name] + second[name]) / 2 for name in first}
