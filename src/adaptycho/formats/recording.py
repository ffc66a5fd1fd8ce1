"""A recorded data set with its geometry and provenance, and the checks that every one must pass."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptycho.formats.plausible import COUNTS_PER_ELECTRON, LENGTH, coverable, plausible, within
from adaptycho.physics.optics import EDGE, Setup, object_grid
from adaptycho.types import Measurement

CHUNK = 256  # patterns looked at together: the checks never copy a whole data set
PIXELS = 2**22  # of them together
MOST = 1e15  # counts in a pixel or a pattern; more is no count, and its square leaves single precision
METRE = 1e10  # Å
Span = tuple[float, float]  # from and to, fractions of the field
APART = 0.1  # object pixels that the positions of a recording at least span


@dataclass(frozen=True, eq=False)
class Recording:
    """One recorded scan.

    Attributes:
        setup: beam and geometry.
        measurement: one data set (B = 1); patterns keep their stored number type, zero frequency in the corner.
        title: what was recorded.
        source: where the data come from.
        licence: the terms they are under.
        counts_per_electron: detector counts that one electron makes.
        path: the file it was read from, if any.
    """

    setup: Setup
    measurement: Measurement
    title: str = ""
    source: str = ""
    licence: str = ""
    counts_per_electron: float = 1.0
    path: Path | None = None

    @property
    def mask(self) -> Tensor | None:
        """Detector pixels to believe, (Q, Q), zero frequency in the corner; None for all."""
        return self.setup.mask

    @classmethod
    def from_arrays(cls, patterns: np.ndarray | Tensor, positions: np.ndarray | Tensor | None = None, **options: Any) -> "Recording":
        """Makes a recording of patterns in memory.

        Args:
            patterns: (scan_y, scan_x, ky, kx) or (N, ky, kx), counts, zero frequency in the centre pixel Q // 2.
            positions: (N, 2), Å, (y, x); not needed with a `scan_step`.
            options: the beam, the geometry and what else is known (`adaptycho.formats.given.Given`).

        Raises:
            ValueError: `patterns: {key}: expected ..., found ...`: an option is missing, contradicts another or makes no sense.
        """
        from adaptycho.formats.arrays import from_arrays  # which needs this class

        counts = patterns.numpy(force=True) if isinstance(patterns, Tensor) else np.asarray(patterns)
        where = positions.numpy(force=True) if isinstance(positions, Tensor) else positions
        made = from_arrays("patterns", patterns=counts, positions=where, **options)
        return replace(made, path=None, title=options.get("title", ""))

    def __post_init__(self) -> None:
        if not 0 < self.counts_per_electron < math.inf:
            raise ValueError(f"counts_per_electron: expected a positive number, got {self.counts_per_electron}")


def together(pixels: int) -> int:
    """How many patterns of so many pixels are looked at together."""
    return max(1, min(CHUNK, PIXELS // pixels))


def cut(recording: Recording, *, rows: Span, columns: Span) -> Recording:
    """Cuts a rectangle out of a recording and makes it a recording of its own, with a smaller field and object grid.

    Rectangles of one size have the same setup, so their data sets can be stacked.

    Args:
        recording: the whole.
        rows: where the rectangle starts and ends along y, fractions of the field, both ends kept.
        columns: likewise along x.

    Raises:
        ValueError: more than one data set, or the rectangle is empty, leaves the field, or holds no recorded position.
    """
    setup, measurement = recording.setup, recording.measurement
    if len(measurement) != 1:
        raise ValueError(f"measurement: expected one data set, got {len(measurement)}")
    for name, (low, high) in (("rows", rows), ("columns", columns)):
        if not -EDGE <= low < high <= 1 + EDGE:
            raise ValueError(f"{name}: expected two fractions of the field, the smaller first, got {low:g}, {high:g}")
    start = torch.tensor([rows[0], columns[0]], dtype=torch.float64)
    size = torch.tensor([rows[1], columns[1]], dtype=torch.float64) - start
    inside = (measurement.positions[0].double().cpu() - start) / size
    keep = ((inside >= -EDGE / size) & (inside <= 1 + EDGE / size)).all(-1).nonzero()[:, 0]
    if len(keep) == 0:
        raise ValueError(f"rows, columns: expected a rectangle with recorded positions, got none in {rows}, {columns}")
    part = measurement.take(keep.to(measurement.positions.device))
    positions = inside[keep].clamp(0, 1).to(part.positions)[None]
    field = float(size[0]) * setup.field[0], float(size[1]) * setup.field[1]
    smaller = replace(setup, field=field, object=object_grid(field, setup.window, setup.rotation))
    return replace(recording, setup=smaller, measurement=Measurement(positions, part.patterns, part.dose, part.defocus))


def check(measurement: Measurement, setup: Setup, name: str) -> None:
    """Refuses a data set that cannot be what it claims to be.

    Args:
        measurement: one data set (B = 1), in memory.
        setup: the geometry it is said to have.
        name: a file name, to open the sentence with.

    Raises:
        ValueError: `{name}: {key}: expected ..., found ...` for a wrong shape or number type, values that are not finite, negative counts,
            patterns without dose, positions outside the scan field, or a beam and a geometry that no microscope has.
    """
    if len(measurement) != 1:
        _refuse(name, "positions", "one data set", f"{len(measurement)} data sets")
    if measurement.positions.shape[1] == 0:
        _refuse(name, "positions", "at least one position", "none")
    if tuple(measurement.patterns.shape[-2:]) != setup.detector:
        _refuse(name, "patterns", f"patterns of {setup.detector} pixels", f"{tuple(measurement.patterns.shape[-2:])}")
    if measurement.patterns.is_complex() or measurement.patterns.dtype == torch.bool:
        _refuse(name, "patterns", "integer or real counts", f"{str(measurement.patterns.dtype).removeprefix('torch.')} values")
    plausible(setup, name)
    _check_counts(measurement.patterns[0], name)  # first: where the dose is their mean, it is wrong because they are
    _check_positions(measurement.positions[0], setup, name)
    empty = measurement.dose[0] <= 0
    if bool(empty.any()):
        found = f"{int(empty.sum())} without (the first at index {int(empty.nonzero()[0, 0])})"
        _refuse(name, "dose", "a positive dose for each pattern", found)
    within(name, "dose", float(measurement.dose.max()), 0, MOST, "counts")
    within(name, "defocus", float(measurement.defocus.abs().max()), 0, LENGTH, "Å of either sign")


def check_recording(recording: Recording, name: str) -> None:
    """Refuses what `check` does, and a whole recording that is no scan.

    Args:
        recording: what to look at.
        name: a file name, to open the sentence with.

    Raises:
        ValueError: as `check`; also for positions that all lie in one place, or that leave most of the object dark.
    """
    coverable(recording.setup, recording.measurement.positions.shape[1], name)
    check(recording.measurement, recording.setup, name)
    if recording.setup.measured_probe is not None:
        check_probe(recording.setup.measured_probe, name)
    within(name, "counts_per_electron", recording.counts_per_electron, *COUNTS_PER_ELECTRON, "counts")
    where = recording.measurement.positions[0].double().cpu()
    span, pixel = float(((where.amax(0) - where.amin(0)) * torch.tensor(recording.setup.field)).max()), recording.setup.object.pixel
    if len(where) > 1 and span < APART * pixel:
        expected = f"positions in Å that span more than {APART:g} pixels of {pixel:.4g} Å"
        _refuse(name, "positions", expected, f"{len(where)} within {span:.3g} Å ({span * METRE:.3g} Å if they are in m)")


def check_probe(probe: Tensor, name: str) -> None:
    """Refuses a measured probe without electrons, or with more of them than single precision can count."""
    if not 0 < float(probe.abs().square().sum()) < math.inf:  # NaN if there is one
        _refuse(name, "probe", "finite values that are not all zero", "others")


def check_finite(values: Tensor, name: str, key: str) -> None:
    """Refuses NaN, infinity, and what would become infinite in single precision."""
    bad = ~(values.abs() <= torch.finfo(torch.float32).max)
    if bool(bad.any()):
        _refuse(name, key, "finite numbers", f"{int(bad.sum())} that are not (the first at index {int(bad.nonzero()[0, 0])})")


def _refuse(name: str, key: str, expected: str, found: str) -> None:
    raise ValueError(f"{name}: {key}: expected {expected}, found {found}")


def _check_positions(positions: Tensor, setup: Setup, name: str) -> None:
    outside = ((positions < -EDGE) | (positions > 1 + EDGE)).any(-1)
    if bool(outside.any()):
        first = int(outside.nonzero()[0, 0])
        y, x = (float(p) * f for p, f in zip(positions[first], setup.field, strict=True))
        fy, fx = setup.field
        expected = f"positions inside the scan field of {fy:g} x {fx:g} Å"
        _refuse(name, "positions", expected, f"({y:g}, {x:g}) Å at index {first}; {int(outside.sum())} of {len(positions)} lie outside")


def _check_counts(patterns: Tensor, name: str) -> None:
    for first in range(0, len(patterns), CHUNK):
        part = patterns[first : first + CHUNK].cpu().numpy()  # torch cannot compare all unsigned numbers
        low, high = float(part.min()), float(part.max())  # NaN if there is one
        if low >= 0 and high <= MOST:
            continue
        if not (math.isfinite(low) and math.isfinite(high)):
            bad, expected, found = ~np.isfinite(part), "finite counts", "NaN or infinity"
        elif low < 0:
            bad, expected, found = part < 0, "counts of at least 0", f"{low:g}"
        else:
            bad, expected, found = part > MOST, f"counts of at most {MOST:g}", f"{high:g}"
        where = first + int(np.flatnonzero(bad.reshape(len(part), -1).any(1))[0])
        _refuse(name, "patterns", expected, f"{found} in pattern {where}")
