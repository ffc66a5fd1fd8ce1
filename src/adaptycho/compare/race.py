"""The comparison itself: which tasks there are, in which order, and what is there already."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from adaptycho import formats
from adaptycho import settings as tree
from adaptycho.compare import provenance, search
from adaptycho.compare.ledger import Ledger, Row, key
from adaptycho.compare.provenance import Origin
from adaptycho.compare.strategies import AUTO, FOCUSED, LEARNED, SIMULATED, STRATEGIES, check
from adaptycho.compare.trial import Plan, Reference, scan, score
from adaptycho.samples import sample
from adaptycho.settings import Settings
from adaptycho.support.parallel import spread

ProtocolName = Literal["paper", "best"]
Numbers = Mapping[str, float]
Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


WARM: list[bool] = []  # whether this process has done a scan
FULL: dict[str, Tensor] = {}  # full scans that this process has reconstructed
MOST_FULL = 256  # of them that are kept; one takes 70 kB in the paper's size


@dataclass(frozen=True)
class Protocol:
    """The rules of a comparison.

    Attributes:
        name: what it is called.
        reference: what scores refer to.
        primary: the score by which strategies are ranked.
        tuned: whether every strategy first gets the settings that are best for it on training specimens.
        changes: settings that the protocol fixes.
    """

    name: ProtocolName
    reference: Reference
    primary: str
    tuned: bool
    changes: Mapping[str, Any] = field(default_factory=dict)


PROTOCOLS: dict[ProtocolName, Protocol] = {
    "paper": Protocol("paper", "full", "ssim", False, {"reconstruct": tree.PAPER, "scan": {"subsequences": 5}}),
    "best": Protocol("best", "truth", "correlation_inside", True, {"reconstruct": tree.BEST, "scan": {"subsequences": 4}}),
}


@dataclass(frozen=True)
class Task:
    """Work on one specimen: training scores of plans, or everything that is measured about them.

    Attributes:
        settings: of the cell.
        number: of the specimen.
        plans: what to do; one row comes of each.
        reference: what scores refer to; None to explore reconstructions on a training specimen.
    """

    settings: Settings
    number: int
    plans: tuple[Plan, ...]
    reference: Reference | None

    def key(self, plan: Plan) -> str:
        """Of the row that comes of a plan: everything the result depends on."""
        weights = self.settings.scan.weights
        learnt = provenance.digest([Path(weights)] if weights else provenance.shipped_policies()) if plan.strategy in LEARNED else None
        described = plan.strategy, plan.defocus, plan.reconstruct
        return key(self._conditions, self.number, described, self.reference, learnt)

    @cached_property
    def _conditions(self) -> str:
        return conditions(self.settings)


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


def conditions(settings: Settings) -> str:
    """What all results of some settings depend on: code, libraries, every setting that counts, and what the files named there hold."""
    scan, structure = settings.scan, Path(settings.specimen.structure)
    recording = [Path(scan.file) if scan.file else formats.example()] if scan.microscope == "recorded" else []
    given = provenance.digest([structure, *recording])
    return key(provenance.package(), provenance.code(), provenance.libraries(), _counting(settings), given)


def _counting(settings: Settings) -> dict[str, Any]:
    """The settings that a result depends on.

    Left out are what is compared on how many specimens, and all that concerns the training of policies, which are known by their weights.
    """
    found = tree.nested(settings)
    found["evaluate"] = {"dense": settings.evaluate.dense}
    for section in ("practice", "network", "train"):
        del found[section]
    found["scan"].pop("weights", None)
    return found


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
        ValueError: an unknown strategy, or settings that cannot be simulated.
    """
    _caution(cells, ledger)

    def work(tasks: list[Task], what: str) -> None:
        left = _missing(tasks, ledger)
        for _, rows in progress(spread(perform, left, workers=workers, scheduler=scheduler), len(left), what):
            ledger.add(rows)

    tuned = [protocol.tuned and cell.scan.microscope == "simulated" for cell in cells]
    for cell, trains in zip(cells, tuned, strict=True):
        for name in strategies:
            check(name, cell, tuned=trains)
    for name in strategies:
        if name.removesuffix(FOCUSED) == AUTO and not search.candidates(name, strategies):
            raise ValueError(f"strategies: expected others that {name!r} can be one of, found {', '.join(strategies)}")
    chosen = [{name: Plan(name) for name in strategies} for _ in cells]
    some = [i for i, trains in enumerate(tuned) if trains]
    for i, plans in zip(some, _tuned([cells[i] for i in some], strategies, ledger, work), strict=True):
        chosen[i] = plans
    tests = [_testing(cell, plans, protocol) for cell, plans in zip(cells, chosen, strict=True)]
    work([task for tasks in tests for task in tasks], "test specimens")
    return [_cell(ledger, cell, protocol, plans, tasks) for cell, plans, tasks in zip(cells, chosen, tests, strict=True)]


def _caution(cells: Sequence[Settings], ledger: Ledger) -> None:
    """Says what whoever reads the results has to know."""
    (low, high), simulated = tree.USED, [cell.evaluate.test for cell in cells if cell.scan.microscope == "simulated"]
    if any(first < high and last > low for first, last in simulated):
        warnings.warn(
            f"evaluate.test: designs were changed after looking at specimens {low} to {high}, so results on them do not test these designs",
            stacklevel=3,
        )
    if others := sum(row.get("code") != provenance.code() for row in ledger):
        where = ledger.path or "the ledger"
        warnings.warn(f"{others} results in {where} were measured by other code than this and are left alone", stacklevel=3)


def _tuned(
    cells: Sequence[Settings], strategies: Sequence[str], ledger: Ledger, work: Callable[[list[Task], str], None]
) -> list[dict[str, Plan]]:
    """The plan of every strategy in every cell that is best on training specimens."""
    own = [name for name in strategies if name.removesuffix(FOCUSED) != AUTO]
    names = list(dict.fromkeys(name.removesuffix(FOCUSED) for name in own))
    counts = [search.stages(_specimens(cell)) for cell in cells]

    def train(plans: Sequence[Iterable[Plan]], stage: int, what: str) -> list[search.Scores]:
        """Scores of each cell's plans over the specimens of a stage, or of the last one that the cell has."""
        tasks = [_training(cell, list(some), n[: stage + 1][-1]) for cell, some, n in zip(cells, plans, counts, strict=True)]
        work([task for each in tasks for task in each], what)
        return [_found(ledger, each) for each in tasks]

    tried = [search.first_round(names, cell) for cell in cells]
    scores = train(tried, 0, "tuning defocus")
    tried = [[*plans, *search.second_round(names, found)] for plans, found in zip(tried, scores, strict=True)]
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
    """Every strategy that makes sense, where the protocol tunes also focused; a recurrent policy knows one kind of scan only."""
    some = [name for name in STRATEGIES if name != "recurrent" and (protocol.tuned or name != AUTO)]
    if cell.scan.microscope == "recorded":
        # The policy that comes along has practised on the recording that does.
        left_out = () if cell.scan.weights else LEARNED
        return [name for name in some if name not in (*SIMULATED, *left_out, AUTO)]
    return [*some, *(name + FOCUSED for name in some)] if protocol.tuned else some


def family(cell: Settings) -> str:
    """What is scanned: a family of specimens, or recorded data."""
    return cell.specimen.family if cell.scan.microscope == "simulated" else "recorded"


def perform(task: Task) -> list[Row]:
    """Does the work of a task; runs in another process."""
    specimen = _specimen(task)
    if not WARM:  # the first scan of a process loads compiled code, which is not to be one strategy's time
        scan(Plan("random"), task.settings, specimen)
        WARM.append(True)
    rows = []
    for plan in task.plans:
        if task.reference is None:
            numbers = search.explore(plan, task.settings, specimen)
        else:
            numbers = score(plan, task.settings, specimen, task.reference)
        measured = {"code": provenance.code(), "version": provenance.package(), "date": provenance.today()}
        rows.append({"key": task.key(plan), **measured, **_described(task, plan), "numbers": {k: _rounded(v) for k, v in numbers.items()}})
    return rows


def _specimen(task: Task) -> sample.Sample:
    if task.settings.scan.microscope == "recorded":
        return sample.recorded(task.settings, task.number)
    fresh = sample.simulated(task.settings, task.number)
    return dataclasses.replace(fresh, full=lambda: _full_scan(task, fresh))


def _full_scan(task: Task, fresh: sample.Sample) -> Tensor:
    """The full scan of a specimen: the same however else it is scanned, and the work of ten scans of 250 positions."""
    otherwise = tree.update(task.settings, {"scan": {"positions": 1, "subsequences": 1, "policy": "random", "weights": None}}, "full scan")
    name = key(conditions(otherwise), task.number)
    if name not in FULL:
        if len(FULL) >= MOST_FULL:
            FULL.clear()
        FULL[name] = fresh.full()
    return FULL[name]


def _described(task: Task, plan: Plan) -> Row:
    s = task.settings
    return {
        "kind": "tuning" if task.reference is None else "test",
        "family": family(s),
        "positions": s.scan.positions,
        "dose": s.scan.dose,
        "specimen": task.number,
        "strategy": plan.strategy,
        "defocus": plan.defocus,
        "reconstruct": dict(plan.reconstruct),
    }


def _rounded(value: float) -> float | None:
    """Five digits are more than a score is good for; JSON has no NaN."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


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


def _specimens(cell: Settings) -> int:
    first, last = cell.evaluate.train
    return min(cell.evaluate.tuning, last - first)


def _training(cell: Settings, plans: Sequence[Plan], specimens: int) -> list[Task]:
    first = cell.evaluate.train[0]
    return [Task(cell, n, tuple(plans), None) for n in range(first, first + specimens)]


def _testing(cell: Settings, plans: Mapping[str, Plan], protocol: Protocol) -> list[Task]:
    first, last = cell.evaluate.test
    numbers = range(sample.RECORDED) if cell.scan.microscope == "recorded" else range(first, first + cell.evaluate.specimens)
    if cell.scan.microscope == "simulated" and numbers.stop > last:
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
    if cell.scan.microscope == "recorded":
        # The two halves of a window say nearly the same: the window is what is counted.
        numbers = {name: tuple(_mean(*pair) for pair in zip(rows[::2], rows[1::2], strict=True)) for name, rows in numbers.items()}
    rows = [ledger[task.key(plan)] for task in tasks for plan in task.plans]
    return Cell(cell, protocol, plans, numbers, provenance.latest(Origin(row["date"], row["code"], row["version"]) for row in rows))


def _mean(first: Numbers, second: Numbers) -> Numbers:
    return {name: (first[name] + second[name]) / 2 for name in first}
