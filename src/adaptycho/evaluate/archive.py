"""Finished comparisons in one file of JSON, packed if its name ends in .gz: every number of every specimen, to publish and to draw from.

Each comparison has all of its settings, when and by what code it was measured, and the range that test specimens came from. Files from
before that have the settings that differed from the defaults of then, which are those of now but for that range.
"""

import dataclasses
import gzip
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptycho import settings as tree
from adaptycho.evaluate.judge import PROTOCOLS, Cell
from adaptycho.evaluate.provenance import Origin
from adaptycho.evaluate.trial import Plan
from adaptycho.settings import Settings, validate
from adaptycho.store import whole

FORMAT = "adaptycho evaluation 1"
ABSENT = "-"  # a metric that a specimen does not have, such as vacancies to find


def write(path: Path, cells: Sequence[Cell]) -> None:
    """Writes comparisons: settings, origin, plans and, by strategy and metric, a list with a number for each specimen."""
    packed = json.dumps({"format": FORMAT, "cells": [_packed(cell) for cell in cells]}, separators=(",", ":")).encode()
    with whole(path) as part:
        # No time of packing: the same comparisons are the same file.
        part.write_bytes(gzip.compress(packed, mtime=0) if path.suffix == ".gz" else packed)


def read(path: Path) -> list[Cell]:
    """Reads comparisons.

    Raises:
        ValueError: the file is missing or is not an evaluation.
    """
    try:
        raw = path.read_bytes()
        found = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except FileNotFoundError:
        raise ValueError(
            f"{path}: expected an evaluation (`adaptycho evaluate --out FOLDER` writes FOLDER/cells.json), found none"
        ) from None
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: expected an evaluation in JSON, found something else ({error})") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{path}: format: expected {FORMAT!r}, found {found.get('format') if isinstance(found, dict) else type(found)!r}")
    try:
        cells = [_unpacked(cell, str(path)) for cell in found["cells"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected whole comparisons, found damaged ones ({type(error).__name__}: {error})") from None
    if not cells:
        raise ValueError(f"{path}: cells: expected at least one comparison, found none")
    return cells


def _packed(cell: Cell) -> dict[str, Any]:
    metrics = {name: list(dict.fromkeys(k for row in rows for k in row)) for name, rows in cell.numbers.items()}
    return {
        "protocol": cell.protocol.name,
        "settings": tree.nested(cell.settings),
        "measured": None if cell.origin is None else dataclasses.asdict(cell.origin),
        "plans": {n: {"strategy": p.strategy, "defocus": p.defocus, "reconstruct": dict(p.reconstruct)} for n, p in cell.plans.items()},
        "numbers": {n: {m: [_finite(row.get(m, ABSENT)) for row in rows] for m in metrics[n]} for n, rows in cell.numbers.items()},
    }


def _unpacked(packed: dict[str, Any], source: str) -> Cell:
    plans = {n: Plan(p["strategy"], p["defocus"], tuple(sorted(p["reconstruct"].items()))) for n, p in packed["plans"].items()}
    numbers = {
        name: tuple(
            {m: math.nan if v is None else v for m, v in zip(metrics, row, strict=True) if v != ABSENT}
            for row in zip(*metrics.values(), strict=True)
        )
        for name, metrics in packed["numbers"].items()
    }
    origin = Origin(**packed["measured"]) if packed.get("measured") else None
    return Cell(_settings(packed, source), PROTOCOLS[packed["protocol"]], plans, numbers, origin)


def _settings(packed: dict[str, Any], source: str) -> Settings:
    known = packed["settings"]
    if "measured" not in packed:
        known = {**known, "evaluate": {"test": tree.USED, **known.get("evaluate", {})}}
    settings: Settings = validate(known, source)
    return settings


def _finite(value: float | str) -> float | str | None:
    """JSON has no NaN."""
    return value if isinstance(value, str) or math.isfinite(value) else None
