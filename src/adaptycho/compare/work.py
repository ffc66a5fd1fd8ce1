"""The work of a comparison: one specimen under some plans, the key that tells its rows from all others, and doing it."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from adaptycho import settings as tree
from adaptycho.compare import provenance, search
from adaptycho.compare.ledger import Row, key
from adaptycho.compare.strategies import LEARNED
from adaptycho.compare.trial import Plan, Reference, scan, score
from adaptycho.samples import sample
from adaptycho.samples.sample import Sample, Specimen
from adaptycho.settings import Settings, microscopes

WARM: list[bool] = []  # whether this process has done a scan
FULL: dict[str, Specimen] = {}  # specimens that this process has made, with their full scans, the oldest first
MOST_FULL = 100e6  # bytes of them that are kept; one takes 400 kB in the paper's size, and in many slices as many times that


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


def conditions(settings: Settings) -> str:
    """What all results of some settings depend on: code, libraries, every setting that counts, and what the files named there hold."""
    files = {"structure": Path(settings.specimen.structure), **microscopes.of(settings).files(settings)}
    given = provenance.digest(files.values())
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


def family(cell: Settings) -> str:
    """What is scanned: a family of specimens, or recorded data."""
    return cell.specimen.family if microscopes.of(cell).capabilities.specimens else cell.scan.microscope


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


def _specimen(task: Task) -> Sample:
    """The specimen of a task. It is kept with its full scan, which is the work of ten scans of 250 positions."""
    if not microscopes.of(task.settings).capabilities.specimens:
        return sample.recorded(task.settings, task.number)
    # A specimen and its full scan are the same however else it is scanned.
    otherwise = tree.update(task.settings, {"scan": {"positions": 1, "subsequences": 1, "policy": "random", "weights": None}}, "full scan")
    name = key(conditions(otherwise), task.number)
    if name not in FULL:
        FULL[name] = sample.simulated(otherwise, task.number)
        while len(FULL) > 1 and sum(map(_bytes, FULL.values())) > MOST_FULL:
            del FULL[next(iter(FULL))]
    return FULL[name]


def _bytes(specimen: Specimen) -> int:
    """Memory of a specimen: its potential, and the phase from its full scan."""
    height, width = specimen.setup.object.shape
    return specimen.microscope.potential.nbytes + 4 * height * width


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
