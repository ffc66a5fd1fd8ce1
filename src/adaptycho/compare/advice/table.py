"""What was measured about adaptive scans, as a small table.

The table (table.json, made by experiments/advice.py) holds a row for each family, electrons per position, number of positions and
kind of scan. Rows of one family, kind and source are a grid. How unevenly electrons come down is in grids of its own: other comparisons
told it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from adaptycho.compare.strategies import LEARNED
from adaptycho.settings import ADAPTIVE
from adaptycho.support.reading import printable, reading

FORMAT = "adaptycho advice 3"
ROUNDED = 1.02  # positions and electrons this much outside of the measured range are inside: people give round numbers
Bound = Literal["below", "above"]
Base = Literal["all", "sparse"]  # conventional scans to compare with: with the full raster at reduced dwell among them, or without
# The best on training specimens of the learned scan, that with the same electrons on many more positions, and not to adapt; learned; the
# best without learning.
Kind = Literal["auto", "adaptive", "unlearned"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order in which they are asked
UNLEARNED = tuple(name for name in ADAPTIVE if name not in LEARNED)

_strict = ConfigDict(extra="forbid", allow_inf_nan=False)
Positive = Annotated[float, Field(gt=0)]


class Estimate(NamedTuple):
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


class Range(NamedTuple):
    """From, and up to."""

    low: float
    high: float


@dataclass(frozen=True, config=_strict)
class Against:
    """A scan against the best conventional one.

    Attributes:
        scan: name of the best conventional scan.
        defocus: its underfocus in Å.
        score: its mean score.
        gain: relative gain in score over it.
        saving: how many times the dose the best conventional scan needs for the same score.
        bounded: "below" or "above" if the factor is only known to be at most, or at least, this.
        gain_by_policy: gains of policies trained from different seeds; `gain` is that of their mean score. Empty if there are not several.
        saving_by_policy: their factors.
        oracle: gain of the best of the oracles, scans that know the specimen; None if none was measured.
    """

    scan: str
    defocus: float
    score: float
    gain: Estimate
    saving: Estimate
    bounded: Bound | None = None
    gain_by_policy: tuple[float, ...] = ()
    saving_by_policy: tuple[float, ...] = ()
    oracle: Estimate | None = None


@dataclass(frozen=True, config=_strict)
class Row:
    """One kind of adaptive scan on one family, at one number of positions and electrons.

    Attributes:
        family: of specimens.
        filling: fraction of the field with structure, from and to over the specimens.
        electrons: per position.
        positions: number of them.
        scan: its kind.
        strategy: the scan itself: of a kind with a choice, what most policies chose, or what is best on average over the specimens.
        defocus: underfocus of the scan in Å, found on training specimens.
        score: mean correlation with the true phase inside the structure; without learning, of the scan that is best on all other specimens.
        specimens: number of test specimens.
        source: which comparison it is from.
        against: the best conventional scan.
        dense: mean score of the full raster at reduced dwell.
        policies: number of policies, trained from different seeds; 0 without learning.
        focused: whether no scan was allowed to defocus.
    """

    family: str
    filling: Range
    electrons: Positive
    positions: Annotated[int, Field(gt=0)]
    scan: Kind
    strategy: str
    defocus: float
    score: float
    specimens: int
    source: str
    against: Mapping[Base, Against]
    dense: float
    policies: int = 0
    focused: bool = False


@dataclass(frozen=True, config=_strict)
class Spread:
    """How unevenly the electrons of a scan come down, and those of the best conventional scan with as many.

    The local dose is the 95th percentile of the dose over the pixels of the field. Where structure fills more than 5 % of the field and
    gets the most, that lies on the structure. Scans in focus have no rows: their spots hardly overlap, and hit some pixels each and
    others not at all, whether there is structure or not.

    Attributes:
        family: of specimens.
        electrons: per position.
        positions: number of them.
        scan: kind of the adaptive scan.
        adaptive: its local dose over the mean of the field, as a mean over specimens.
        conventional: that of the best conventional scan.
        specimens: number of test specimens.
        source: which comparison it is from.
    """

    family: str
    electrons: Positive
    positions: Annotated[int, Field(gt=0)]
    scan: Kind
    adaptive: Positive
    conventional: Mapping[Base, Positive]
    specimens: int
    source: str


@dataclass(frozen=True, config=_strict)
class Replayed:
    """Scans of recorded data, chosen among one half of the positions and scored against the other half.

    Attributes:
        positions: number of them.
        scan: the best adaptive scan, chosen for each window on the others.
        gain: relative gain over the best conventional scan, chosen in the same way.
        oracle: that of the best oracle, chosen in the same way.
        windows: number of windows of the recording.
    """

    positions: int
    scan: str
    gain: Estimate
    oracle: Estimate
    windows: int


@dataclass(frozen=True, config=_strict)
class Beam:
    """Where rows were measured: energy in eV, semi-angle in mrad, field (y, x) in Å, material, positions of the dense scan."""

    energy: float
    semiangle: float
    field: tuple[float, float]
    structure: str
    dense: int


@dataclass(frozen=True, config=_strict)
class Table:
    """Everything that is known; `sources` says which command measured the rows of a source.

    `kept` says how much of its gain over a random scan a policy trained on the material of the rows kept on others (docs/robustness.md).
    """

    format: Literal["adaptycho advice 3"]
    beam: Beam
    weights: str
    sources: Mapping[str, str]
    rows: tuple[Row, ...]
    recorded: tuple[Replayed, ...]
    spreads: tuple[Spread, ...] = ()
    kept: Mapping[str, Estimate] = field(default_factory=dict)

    def groups(self, family: str, *, focused: bool) -> list[tuple[Row, ...]]:
        """Rows of a family by kind of scan and source, each group a grid; learned scans come first."""
        found: dict[tuple[Kind, str], list[Row]] = {}
        for row in self.rows:
            if row.family == family and row.focused == focused:
                found.setdefault((row.scan, row.source), []).append(row)
        return [tuple(rows) for _, rows in sorted(found.items(), key=lambda item: KINDS.index(item[0][0]))]

    def spread(self, of: Row) -> tuple[Spread, ...]:
        """How unevenly the scan of a row spends its electrons: a grid, empty if it was not measured."""
        return () if of.focused else tuple(s for s in self.spreads if (s.family, s.scan) == (of.family, of.scan))


def load(path: Path | None = None) -> Table:
    """Reads a table, the one that comes with the package if no file is given.

    Raises:
        ValueError: the file is missing, no such table, or has a hole in a grid.
    """
    where = path or resources.files("adaptycho.compare.advice") / "table.json"
    if not where.is_file():
        raise ValueError(f"{where}: expected a table of measurements (experiments/advice.py writes one), found none")
    with reading(str(where), "a table of measurements in JSON"):
        text = json.loads(where.read_text(encoding="utf-8"))
    try:
        found = TypeAdapter(Table).validate_python(text)
    except ValidationError as error:
        first = error.errors()[0]
        said = f"{where}: {'.'.join(map(str, first['loc']))}: expected another value ({first['msg']}), found {first['input']!r:.60}"
        raise ValueError(printable(said)) from None
    for family in {row.family for row in found.rows}:
        for group in (*found.groups(family, focused=False), *found.groups(family, focused=True)):
            _check_grid(f"{where}: rows", family, group)
            _check_grid(f"{where}: spreads", family, found.spread(group[0]))
    return found


def _check_grid(where: str, family: str, rows: Sequence[Row] | Sequence[Spread]) -> None:
    cells = [(row.electrons, row.positions) for row in rows]
    whole = {(e, p) for e, _ in cells for _, p in cells}
    if set(cells) != whole or len(cells) != len(whole):
        raise ValueError(f"{where}: expected one for each electrons and positions, found {sorted(cells)} for {family}")
