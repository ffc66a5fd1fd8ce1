"""Reads the patterns of a scan a part at a time, and looks at them meanwhile: which are empty, broken or far out."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from adaptycho.formats import stored
from adaptycho.formats.detector import Detector, wider
from adaptycho.formats.given import Doubt
from adaptycho.formats.raw import Raw
from adaptycho.formats.recording import CHUNK, together
from adaptycho.support.reading import check_size

MANY_EMPTY = 0.05  # part of the patterns
CERTAIN = 10.0  # counts of the others from which on an empty pattern is none by chance
FAR = 3.0  # times more or less than the median that a pattern may hold
SPREADS = 10.0  # standard deviations, and that it must be away too
ENOUGH = 100.0  # counts of the median from which on patterns are compared


@dataclass(frozen=True, eq=False, kw_only=True)
class Frames:
    """How patterns are read.

    Attributes:
        raw: where they lie.
        summed: whether the axis before the detector's holds frames to add up.
        mask: stored pixels to believe; others hold nothing.
        clip: whether negative counts are taken for none.
        name: of the file, to open sentences with.
    """

    raw: Raw
    name: str
    summed: bool = False
    mask: np.ndarray | None = None
    clip: bool = False

    @property
    def scan(self) -> tuple[int, ...]:
        """What comes before the detector's axes and that of frames: (rows, columns) or (N,)."""
        return self.raw.patterns.shape[: -3 if self.summed else -2]

    @property
    def shape(self) -> tuple[int, int]:
        """Stored pixels of the detector."""
        return self.raw.patterns.shape[-2], self.raw.patterns.shape[-1]

    @property
    def dtype(self) -> np.dtype:
        """Of stored patterns once they are summed."""
        kind = stored.native(self.raw.patterns.values.dtype)
        return wider(kind, self.raw.patterns.shape[-3]) if self.summed else kind

    def parts(self, kept: np.ndarray, window: tuple[slice, slice]) -> Iterator[tuple[int, np.ndarray]]:
        """Patterns (n, ky, kx) by their numbers within a window of the stored detector, each part with the place of its first."""
        room = () if not self.summed else (slice(None),)
        corner, rows, columns = self.raw.corner, *window
        step = together(math.prod(self.raw.patterns.shape[len(self.scan) :]))
        for first in range(0, len(kept), step):
            some = kept[first : first + step]
            breaks = np.flatnonzero((np.diff(some) != 1) | (some[1:] % self.scan[-1] == 0)) + 1
            found = []
            for run in np.split(some, breaks):
                *line, start = np.unravel_index(run[0], self.scan)
                part = (*(int(i) for i in line), slice(int(start), int(start) + len(run)), *room)
                values = np.asarray(self.raw.patterns.values[part if corner else (*part, rows, columns)])
                found.append(np.fft.fftshift(values, (-2, -1))[..., rows, columns] if corner else values)
            values = found[0] if len(found) == 1 else np.concatenate(found)
            values = values.sum(1, dtype=self.dtype) if self.summed else values.astype(self.dtype, copy=False)
            if self.mask is not None:
                values = np.where(self.mask[rows, columns], values, values.dtype.type(0))
            yield first, np.maximum(values, 0) if self.clip else values


def read(frames: Frames, kept: np.ndarray, detector: Detector, drop: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Patterns (K, Q, Q) with zero frequency in the corner, and which of the wanted ones they are.

    Raises:
        ValueError: they do not fit into memory, hold NaN or negative counts, or many are empty, and nobody said what to do with those.
    """
    kind = frames.dtype if detector.rows.weights is None and detector.columns.weights is None else np.dtype(np.float32)
    kind = wider(kind, round(math.prod(detector.size)))
    side, source = detector.side, frames.raw.patterns
    check_size(
        source.name, (len(kept) * side * side + math.prod(getattr(source.values, "chunks", None) or ())) * kind.itemsize, source.held
    )
    patterns = np.empty((len(kept), side, side), kind)
    sums, broken = np.empty(len(kept)), np.zeros(len(kept), bool)
    for first, part in frames.parts(kept, detector.read):
        span = slice(first, first + len(part))
        with np.errstate(invalid="ignore"):
            low, sums[span] = part.min((1, 2)), part.sum((1, 2), dtype=np.float64)
        broken[span] = ~np.isfinite(sums[span])
        if drop != "bad" and (broken[span] | (low < 0)).any():
            _refuse(frames.name, first, low, part)
        patterns[span] = np.fft.ifftshift(detector.gather(part), (-2, -1))
    wanted = _wanted(frames.name, sums, broken, patterns.dtype, drop)
    return (patterns, wanted) if len(wanted) == len(kept) else (_only(patterns, wanted), wanted)


def outliers(sums: np.ndarray) -> np.ndarray:
    """Which patterns hold far more or far fewer counts than the others, though some."""
    some = sums[sums > 0]
    if len(some) < 8 or (middle := float(np.median(some))) <= 0:
        return np.zeros(len(sums), bool)
    spread = SPREADS * 1.4826 * float(np.median(np.abs(some - middle)))
    high = (sums > FAR * middle) & (sums > middle + max(spread, SPREADS * math.sqrt(middle)))
    low = (sums > 0) & (sums < middle / FAR) & (sums < middle - spread) & (middle > ENOUGH)
    return high | low


def many_empty(sums: np.ndarray, dtype: np.dtype) -> bool:
    """Whether so many patterns are empty that it can be no chance: whoever counts few electrons must expect some."""
    some = sums[sums > 0]
    chance = dtype.kind in "iu" and (len(some) == 0 or float(np.median(some)) <= CERTAIN)
    return bool(len(some)) and not chance and len(sums) - len(some) > MANY_EMPTY * len(sums)


def _refuse(name: str, first: int, low: np.ndarray, part: np.ndarray) -> None:
    finite = np.isfinite(part).all((1, 2))
    if not finite.all():
        where, expected, found, hint = (
            int(np.flatnonzero(~finite)[0]),
            "finite counts",
            "NaN or infinity",
            "drop (--drop bad) leaves such out",
        )
    elif (low < 0).any():
        where = int(np.flatnonzero(low < 0)[0])
        expected, found, hint = (
            "counts of at least 0",
            f"{low[where]:g}",
            "clip (--clip) takes negative ones for 0, a mask leaves pixels out",
        )
    else:
        where, expected, found, hint = 0, "sums of counts", "more than double precision holds", "check their unit"
    raise ValueError(f"{name}: patterns: expected {expected}, found {found} in pattern {first + where}; {hint}")


def _wanted(name: str, sums: np.ndarray, broken: np.ndarray, dtype: np.dtype, drop: str | None) -> np.ndarray:
    """Places of the patterns that are kept."""
    if drop not in (None, "none", "empty", "bad"):
        raise ValueError(f"{name}: drop: expected none, empty or bad, found {drop!r}")
    sums = np.where(broken, 0, sums)
    empty, far = (sums == 0) & ~broken, outliers(sums) & ~broken
    if drop is None and many_empty(sums, dtype):
        raise ValueError(
            f"{name}: patterns: expected counts in each, found {int(empty.sum())} of {len(sums)} without: they may not belong to the scan; "
            "drop (--drop empty) leaves them out, --drop none keeps them as darkness that was measured"
        )
    if drop in (None, "empty") and far.any():
        first, middle = int(np.flatnonzero(far)[0]), float(np.median(sums[sums > 0]))
        warnings.warn(
            f"{name}: patterns: {int(far.sum())} hold far from the {middle:.4g} counts of the others (number {first}: {sums[first]:.4g}); "
            "drop (--drop bad) leaves them out",
            Doubt,
            stacklevel=2,
        )
    gone = {"empty": empty, "bad": empty | far | broken | (sums < 0)}.get(drop or "none", np.zeros(len(sums), bool))
    if gone.all():
        return np.arange(len(sums))  # what is wrong with all of them is said of all of them
    if gone.any():
        warnings.warn(f"{name}: drop: {int(gone.sum())} of {len(sums)} patterns are left out", Doubt, stacklevel=2)
    return np.flatnonzero(~gone)


def _only(patterns: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Some of the patterns, moved together where they lie: memory may not hold them twice."""
    for first in range(0, len(wanted), CHUNK):
        some = wanted[first : first + CHUNK]
        patterns[first : first + len(some)] = patterns[some]
    return patterns[: len(wanted)]
