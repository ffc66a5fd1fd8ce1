"""What the table says between its cells.

Inside a grid of rows, means are interpolated linearly in the logarithms of electrons and positions, and an interval reaches over those of
all the cells that take part. Outside, the nearest cell counts: nothing is extrapolated.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from adaptycho.compare.advice.table import ROUNDED, Base, Bound, Estimate, Row, Spread

Cell = TypeVar("Cell", Row, Spread)


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
    parts = _parts(rows, electrons, positions)
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


def read_spread(rows: Sequence[Spread], electrons: float, positions: float, base: Base) -> tuple[float, float]:
    """Local dose over the mean, of the adaptive and of the best conventional scan, read off in the same way.

    Raises:
        ValueError: there are no rows, or electrons or positions are not positive.
    """
    parts = _parts(rows, electrons, positions)
    return sum(row.adaptive * w for row, w in parts), sum(row.conventional[base] * w for row, w in parts)


def bound(parts: Sequence[Bound | None]) -> Bound | None:
    """What is known of a factor made of several: at most, if any is, then at least."""
    return "below" if "below" in parts else "above" if "above" in parts else None


def _parts(rows: Sequence[Cell], electrons: float, positions: float) -> list[tuple[Cell, float]]:
    """The cells that take part, and their weights."""
    if not rows:
        raise ValueError("rows: expected at least one, found none")
    if not (0 < electrons < math.inf and 0 < positions < math.inf):
        raise ValueError(f"electrons, positions: expected positive numbers, found {electrons} and {positions}")
    by_electrons = _weights(sorted({row.electrons for row in rows}), electrons)
    by_positions = _weights(sorted({float(row.positions) for row in rows}), positions)
    return [(row, w) for row in rows if (w := by_electrons.get(row.electrons, 0.0) * by_positions.get(float(row.positions), 0.0)) > 0]


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
