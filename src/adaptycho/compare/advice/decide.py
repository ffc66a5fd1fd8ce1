"""Which scan to take, decided from measured rows: the adaptive one if more can be won than lost, and more than a trifle.

Where the dose on the structure is what counts, it must not be higher than that of the best conventional scan with the same score either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptycho.compare.advice.place import UNIFORM, Place, Question, dense_positions, places
from adaptycho.compare.advice.read import Reading, bound, read_off, read_spread
from adaptycho.compare.advice.table import Base, Bound, Estimate, Range, Row, Table
from adaptycho.compare.strategies import AUTO, DENSE

WORTH = 0.02  # a gain in score that cannot be above this is not worth a scan that decides while it runs
STANDS_FOR = {"edge": "island"}  # where a family was not measured
OPPOSITE: dict[Bound | None, Bound | None] = {"below": "above", "above": "below", None: None}


@dataclass(frozen=True)
class Scan:
    """A scan to take: its name, weights if it is learned, underfocus in Å, number of positions and electrons for each."""

    name: str
    weights: str | None
    defocus: float
    positions: int
    electrons: float


@dataclass(frozen=True)
class Local:
    """The dose where the structure is, at the 95th percentile over the field.

    Attributes:
        adaptive: of the adaptive scan, over its mean; of two ends, that of the first.
        conventional: likewise, of the best conventional scan with as many electrons.
        same_score: how many times as much the adaptive scan puts there as the best conventional one with the same score. Of two ends, the
            interval reaches over both.
        bounded: whether that is only known to be at most, or at least, this.
    """

    adaptive: float
    conventional: float
    same_score: Estimate
    bounded: Bound | None

    @property
    def spared(self) -> bool:
        """Whether the structure is more likely to be hit less than to be hit more, for the same score."""
        return self.same_score.low * self.same_score.high < 1


@dataclass(frozen=True)
class Decision:
    """What was looked up for one question, and what follows.

    Attributes:
        question: the settings.
        place: where the scan lies.
        ends: what the table says: one reading, or two, structured and uniform, if the filling is unknown or between what was measured.
        gain: relative gain in score of the adaptive scan over the best conventional one. Of two ends, the interval reaches over both, and
            the mean is that of the first.
        saving: factor of dose saved, likewise.
        bounded: whether that factor is only known to be at most, or at least, this.
        local: the dose where the structure is; None if it was not measured.
        focused: whether these are measurements in focus.
        base: which conventional scans there are to compare with.
        adaptive: whether to scan adaptively.
        ours: the adaptive scan.
        conventional: the best conventional one.
    """

    question: Question
    place: Place
    ends: tuple[Reading, ...]
    gain: Estimate
    saving: Estimate
    bounded: Bound | None
    local: Local | None
    focused: bool
    base: Base
    adaptive: bool
    ours: Scan
    conventional: Scan

    @property
    def gains(self) -> bool:
        """Whether more score can be won than lost by the adaptive scan, and more than a trifle."""
        return _gains(self.gain)

    @property
    def known(self) -> Range:
        """Fillings at which the rows that were read were measured."""
        return self.ends[0].nearest.filling


def decide(question: Question, table: Table) -> Decision:
    """Answers from the table.

    Raises:
        ValueError: the table has no rows for the family, or no scan fits the time or the dose limit.
    """
    found = _best(question, table, focused=question.focused)
    if question.defocus_at and question.defocus_at / found.place.defocus_unit < found.ends[0].nearest.defocus / 2:
        return _best(question, table, focused=True)  # held nearer to focus than to what is best
    return found


def stand_in(family: str, table: Table) -> str:
    """The family itself if it was measured, else the nearest that was."""
    return family if any(row.family == family for row in table.rows) else STANDS_FOR.get(family, family)


def dense_fits(question: Question, table: Table, positions: int) -> bool:
    """Whether the detector and the time allow the full raster at reduced dwell."""
    if not question.counting:
        return False
    if question.frame_time is None or question.scan_time is None:
        return True
    return dense_positions(question, table.beam, positions) * question.frame_time <= question.scan_time


def _best(question: Question, table: Table, *, focused: bool) -> Decision:
    groups = table.groups(stand_in(question.family, table), focused=focused)
    if not groups:
        raise ValueError(f"family: expected one that was measured{' in focus' if focused else ''}, found {question.family!r}")
    measured = sorted({row.positions for group in groups for row in group})
    found = [_decided(question, table, groups, where) for where in places(question, table.beam, measured)]
    # Of several ways to spend the same dose: the nearest to what was measured, then the best score.
    return max(found, key=lambda d: (-max(1.0 if end.inside else end.beyond for end in d.ends), _score(d)))


def _decided(question: Question, table: Table, groups: Sequence[tuple[Row, ...]], where: Place) -> Decision:
    base: Base = "all" if dense_fits(question, table, where.positions) else "sparse"
    ends, focused = _ends(question, table, groups, where, base), groups[0][0].focused
    # Between two fillings, all electrons on the structure is the most that placing them can do.
    most = max(1.0, 1 / question.filling) if question.filling is not None and len(ends) > 1 else math.inf
    savings = [Estimate(*(min(value, most) for value in end.saving)) for end in ends]
    gain, saving, bounded = _hull([end.gain for end in ends]), _hull(savings), bound([end.bounded for end in ends])
    local = _local(table, ends, savings, where, base, bounded)
    nearest = ends[0].nearest
    against = nearest.against[base]

    def scan(name: str, weights: str | None, defocus: float) -> Scan:
        count = dense_positions(question, table.beam, where.positions) if name in DENSE else where.positions
        held = defocus * where.defocus_unit if question.defocus_at is None else question.defocus_at
        return Scan(name, weights, held, count, where.positions * where.electrons / count)

    return Decision(
        question=question,
        place=where,
        ends=ends,
        gain=gain,
        saving=saving,
        bounded=bounded,
        local=local,
        focused=focused,
        base=base,
        adaptive=_gains(gain) and (question.limits == "mean" or local is None or local.spared),
        ours=scan(nearest.strategy, table.weights if nearest.policies else None, nearest.defocus),
        conventional=scan(against.scan, None, against.defocus),
    )


def _ends(question: Question, table: Table, groups: Sequence[tuple[Row, ...]], where: Place, base: Base) -> tuple[Reading, ...]:
    """The family as it was measured; a uniform crystal as well, or instead, if structure fills more of the field or may do so."""
    fills, ends = question.filling, []
    uniform = [] if question.family in UNIFORM else table.groups("crystal", focused=groups[0][0].focused)
    if fills is None or fills < 1 or not uniform:
        ends.append(_read(groups, where, base))
    if uniform and (not ends or fills is None or fills > ends[0].nearest.filling.high):
        same = [g for g in uniform if ends and g[0].scan == ends[0].nearest.scan]
        ends.append(_read(same or uniform, where, base))
    return tuple(ends)


def _read(groups: Sequence[tuple[Row, ...]], where: Place, base: Base) -> Reading:
    """From the first group that was measured there; if none was, from the nearest."""
    # Where there is no full raster at reduced dwell, there is nothing else at reduced dwell either, and that is what `auto` may be here.
    found = [read_off(group, where.worth, where.equivalent, base) for group in groups if base == "all" or group[0].scan != AUTO]
    return next((reading for reading in found if reading.inside), min(found, key=lambda reading: reading.beyond))


def _local(
    table: Table, ends: Sequence[Reading], savings: Sequence[Estimate], where: Place, base: Base, bounded: Bound | None
) -> Local | None:
    grids = [table.spread(end.nearest) for end in ends]
    if not all(grids):
        return None
    found = [read_spread(grid, where.worth, where.equivalent, base) for grid in grids]
    times = [ours / theirs for ours, theirs in found]
    same_score = [Estimate(t / s.mean, t / s.high, t / s.low) for t, s in zip(times, savings, strict=True)]
    return Local(*found[0], _hull(same_score), OPPOSITE[bounded])


def _gains(gain: Estimate) -> bool:
    return gain.low + gain.high > 0 and gain.high > WORTH


def _hull(parts: Sequence[Estimate]) -> Estimate:
    return Estimate(parts[0].mean, min(p.low for p in parts), max(p.high for p in parts))


def _score(decision: Decision) -> float:
    return min(end.score if decision.adaptive else end.base_score for end in decision.ends)
