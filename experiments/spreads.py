"""How unevenly the electrons of a scan come down, from published comparisons: rows of the table behind `adaptycho advise`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adaptycho.compare import archive, table
from adaptycho.compare.advice.table import KINDS, UNLEARNED, Kind
from adaptycho.compare.race import Cell
from adaptycho.compare.strategies import CONVENTIONAL, DENSE
from adaptycho.compare.work import family

SPARSE = tuple(n for n in CONVENTIONAL if n not in DENSE)
FILLED = ("crystal", "amorphous")  # families that structure fills, on which learned scans were measured
SOURCES = {
    "fresh": "experiments/learned.py saving (docs/results/saving.json.gz)",
    "cells": "experiments/cells.py (docs/results/learned.json.gz)",
}


def spreads(results: Path) -> Iterator[dict[str, Any]]:
    """Of learned scans on fresh islands and particles, of learned scans where structure fills the field, and of scans without learning."""
    yield from rows(archive.read(results / "saving.json.gz"), "fresh")
    yield from rows([cell for cell in archive.read(results / "learned.json.gz") if family(cell.settings) in FILLED], "cells")
    yield from rows(archive.read(results / "best.json.gz"), "best")


def rows(cells: Sequence[Cell], source: str) -> Iterator[dict[str, Any]]:
    """A row for each cell and kind of scan that was measured there."""
    for cell in cells:
        for kind in KINDS:
            if names := measured(cell, kind):
                yield {
                    "family": family(cell.settings),
                    "electrons": cell.settings.scan.dose,
                    "positions": cell.settings.scan.positions,
                    "scan": kind,
                    "adaptive": round(sum(over_mean(cell, name) for name in names) / len(names), 3),
                    "conventional": {
                        base: round(over_mean(cell, best(cell, among)), 3) for base, among in (("all", CONVENTIONAL), ("sparse", SPARSE))
                    },
                    "specimens": len(cell.numbers[names[0]]),
                    "source": source,
                }


def measured(cell: Cell, kind: Kind) -> list[str]:
    """Names of a kind of scan in a comparison: one for each policy; without learning the best."""
    if kind == "unlearned":
        names = [name for name in UNLEARNED if name in cell.numbers]
        return [best(cell, names)] if names else []
    return [name for name in cell.numbers if name == kind or name.startswith(f"{kind} ")]


def best(cell: Cell, among: Sequence[str]) -> str:
    """The one with the best mean score."""
    scores = table.columns(cell, cell.protocol.primary)
    return max((name for name in among if name in scores), key=lambda name: float(scores[name].mean()))


def over_mean(cell: Cell, name: str) -> float:
    """The 95th percentile of the dose over the pixels of the field, over its mean; a mean over specimens."""
    found = [numbers["dose_p95"] / numbers["dose_mean"] for numbers in cell.numbers[name]]
    return sum(found) / len(found)
