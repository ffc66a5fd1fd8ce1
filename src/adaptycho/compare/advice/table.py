"""What was measured about adaptive scans, as a small table, and what it says between its cells.

The table (table.json, made by experiments/advice.py) holds a row for each family, electrons per position, number of positions and
kind of scan. Rows of one family, kind and source are a grid. Inside it, means are interpolated linearly in the logarithms of electrons and
positions, and an interval reaches over those of all the cells that take part. Outside, the nearest cell counts: nothing is extrapolated.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from adaptycho.compare.strategies import LEARNED
from adaptycho.settings import ADAPTIVE
from adaptycho.support.reading import printable, reading

FORMAT = "adaptycho advice 2"
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
    """Everything that is known; `sources` says which command measured the rows of a source."""

    format: Literal["adaptycho advice 2"]
    beam: Beam
    weights: str
    sources: Mapping[str, str]
    rows: tuple[Row, ...]
    recorded: tuple[Replayed, ...]

    def groups(self, family: str, *, focused: bool) -> list[tuple[Row, ...]]:
        """Rows of a family by kind of scan and source, each group a grid; learned scans come first."""
        found: dict[tuple[Kind, str], list[Row]] = {}
        for row in self.rows:
            if row.family == family and row.focused == focused:
                found.setdefault((row.scan, row.source), []).append(row)
        return [tuple(rows) for _, rows in sorted(found.items(), key=lambda item: KINDS.index(item[0][0]))]


@dataclass(frozen=True)
class Reading:
    """What a grid of rows says at one place.

    Attributes:
        gain: relative gain over the best conventional scan.
        saving: factor of dose saved.
        bounded: whether the factor is at most or at least that.
        score: mean score of the scan.
        base_score: mean score of the best conventional scan.
        nearest: the row that is nearest.
        beyond: factor by which the place lies beyond what was measured; 1 inside.
    """

    gain: Estimate
    saving: Estimate
    bounded: Bound | None
    score: float
    base_score: float
    nearest: Row
    beyond: float

    @property
    def inside(self) -> bool:
        """Whether the place lies within what was measured."""
        return self.beyond <= ROUNDED


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
            cells = [(row.electrons, row.positions) for row in group]
            whole = {(e, p) for e, _ in cells for _, p in cells}
            if set(cells) != whole or len(cells) != len(whole):
                raise ValueError(f"{where}: rows: expected one for each electrons and positions, found {sorted(cells)} for {family}")
    return found


def read_off(rows: Sequence[Row], electrons: float, positions: float, base: Base) -> Reading:
    """What a grid of rows says about a scan, by bilinear interpolation in log electrons and log positions.

    Args:
        rows: of one family, kind and source, one for each combination of electrons and positions.
        electrons: per position.
        positions: as many as there would be in the measured field.
        base: conventional scans to compare with.

    Raises:
        ValueError: there are no rows, or electrons or positions are not positive.
    """
    if not rows:
        raise ValueError("rows: expected at least one, found none")
    if not (0 < electrons < math.inf and 0 < positions < math.inf):
        raise ValueError(f"electrons, positions: expected positive numbers, found {electrons} and {positions}")
    by_electrons = _weights(sorted({row.electrons for row in rows}), electrons)
    by_positions = _weights(sorted({float(row.positions) for row in rows}), positions)
    parts = [(row, w) for row in rows if (w := by_electrons.get(row.electrons, 0.0) * by_positions.get(float(row.positions), 0.0)) > 0]
    nearest = max(parts, key=lambda part: part[1])[0]
    against = [(row.against[base], w) for row, w in parts]
    return Reading(
        gain=_joined([(a.gain, a.gain_by_policy, w) for a, w in against]),
        saving=_joined([(a.saving, a.saving_by_policy, w) for a, w in against]),
        bounded=bound([a.bounded for a, _ in against]),
        score=sum(row.score * w for row, w in parts),
        base_score=sum(a.score * w for a, w in against),
        nearest=nearest,
        beyond=max(_beyond(electrons, [row.electrons for row in rows]), _beyond(positions, [float(row.positions) for row in rows])),
    )


def bound(parts: Sequence[Bound | None]) -> Bound | None:
    """What is known of a factor made of several: at most, if any is, then at least."""
    return "below" if "below" in parts else "above" if "above" in parts else None


def _weights(values: Sequence[float], at: float) -> dict[float, float]:
    """Weights of linear interpolation in the logarithm among increasing values; beyond the ends, all on the end."""
    at = min(max(at, values[0]), values[-1])
    for low, high in itertools.pairwise(values):
        if low <= at <= high:
            part = round(math.log(at / low) / math.log(high / low), 9)  # a cell takes no part for rounding's sake
            return {low: 1 - part, high: part}
    return {values[0]: 1.0}


def _beyond(at: float, values: Sequence[float]) -> float:
    return max(1.0, min(values) / at, at / max(values))


def _joined(parts: Sequence[tuple[Estimate, tuple[float, ...], float]]) -> Estimate:
    """The weighted mean; its interval reaches over those of all parts and over every single policy: a user has one of them."""
    mean = sum(e.mean * w for e, _, w in parts)
    return Estimate(mean, min(v for e, p, _ in parts for v in (e.low, *p)), max(v for e, p, _ in parts for v in (e.high, *p)))
