"""A recorded data set with its geometry and provenance, and the checks that every one must pass."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adaptycho.forward import Measurement
from adaptycho.optics import EDGE, Setup

CHUNK = 256  # patterns looked at together: the checks never copy a whole data set
UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)


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

    def __post_init__(self) -> None:
        if not 0 < self.counts_per_electron < math.inf:
            raise ValueError(f"counts_per_electron: expected a positive number, got {self.counts_per_electron}")


def check(measurement: Measurement, setup: Setup, name: str) -> None:
    """Refuses a data set that cannot be what it claims to be.

    Args:
        measurement: one data set (B = 1), in memory.
        setup: the geometry it is said to have.
        name: a file name, to open the sentence with.

    Raises:
        ValueError: `{name}: {key}: expected ..., found ...` for a wrong shape or number type, values that are not finite, negative counts,
            patterns without dose, or positions outside the scan field.
    """
    if len(measurement) != 1:
        _refuse(name, "positions", "one data set", f"{len(measurement)} data sets")
    if measurement.positions.shape[1] == 0:
        _refuse(name, "positions", "at least one position", "none")
    if tuple(measurement.patterns.shape[-2:]) != setup.detector:
        _refuse(name, "patterns", f"patterns of {setup.detector} pixels", f"{tuple(measurement.patterns.shape[-2:])}")
    if measurement.patterns.is_complex() or measurement.patterns.dtype == torch.bool:
        _refuse(name, "patterns", "integer or real counts", f"{str(measurement.patterns.dtype).removeprefix('torch.')} values")
    _check_counts(measurement.patterns[0], name)  # first: where the dose is their mean, it is wrong because they are
    for key in ("positions", "dose", "defocus"):
        bad = ~torch.isfinite(getattr(measurement, key)[0])
        if bool(bad.any()):
            _refuse(name, key, "finite numbers", f"{int(bad.sum())} that are not (the first at index {int(bad.nonzero()[0, 0])})")
    _check_positions(measurement.positions[0], setup, name)
    empty = measurement.dose[0] <= 0
    if bool(empty.any()):
        found = f"{int(empty.sum())} without (the first at index {int(empty.nonzero()[0, 0])})"
        _refuse(name, "dose", "a positive dose for each pattern", found)


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
    if patterns.dtype in UNSIGNED:  # neither negative nor NaN, and torch cannot compare all of them
        return
    for first in range(0, len(patterns), CHUNK):
        part = patterns[first : first + CHUNK]
        if not bool(torch.isfinite(part).all()):
            where = first + int((~torch.isfinite(part)).flatten(1).any(1).nonzero()[0, 0])
            _refuse(name, "patterns", "finite counts", f"NaN or infinity in pattern {where}")
        if bool((part < 0).any()):
            where = first + int((part < 0).flatten(1).any(1).nonzero()[0, 0])
            _refuse(name, "patterns", "counts of at least 0", f"{float(part.min()):g} in pattern {where}")
