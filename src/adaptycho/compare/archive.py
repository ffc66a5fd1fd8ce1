"""Finished comparisons in one file of JSON, packed if its name ends in .gz: every number of every specimen, to publish and to draw from.

Each comparison has all of its settings, when and by what code it was measured, and the range that test specimens came from. Files from
before that have the settings that differed from the defaults of then, which are those of now but for that range.
"""

import dataclasses
import gzip
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic.dataclasses
from pydantic import ConfigDict, Field

from adaptycho import settings as tree
from adaptycho.compare.ledger import Number
from adaptycho.compare.provenance import Origin
from adaptycho.compare.race import PROTOCOLS, Cell, ProtocolName
from adaptycho.compare.strategies import FOCUSED, STRATEGIES
from adaptycho.compare.trial import Plan
from adaptycho.settings import Settings, update, validate
from adaptycho.support import document
from adaptycho.support.atomic import whole
from adaptycho.support.reading import reading, regular

Format = Literal["adaptycho evaluation 1"]
Absent = Literal["-"]  # a metric that a specimen does not have, such as vacancies to find
(FORMAT,), (ABSENT,) = get_args(Format), get_args(Absent)
LARGEST = 2**29  # bytes unpacked; the largest that are published have 2**24

_dataclass = pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))


@_dataclass
class PackedPlan:
    """A plan as it is written (`adaptycho.compare.trial.Plan`)."""

    strategy: str
    defocus: Number | None
    reconstruct: dict[str, Any]


@_dataclass
class PackedCell:
    """A comparison as it is written (`adaptycho.compare.race.Cell`): `numbers` by strategy and metric, one for each specimen."""

    protocol: ProtocolName
    settings: dict[str, Any]
    plans: dict[str, PackedPlan]
    numbers: Annotated[dict[str, Annotated[dict[str, list[Number | Absent | None]], Field(min_length=1)]], Field(min_length=1)]
    measured: Origin | None = None


@_dataclass
class Packed:
    """A whole file; those of older versions have no checksum of their cells."""

    format: Format
    cells: Annotated[list[PackedCell], Field(min_length=1)]
    sha256: str | None = None


def write(path: Path, cells: Sequence[Cell]) -> None:
    """Writes comparisons: settings, origin, plans and, by strategy and metric, a list with a number for each specimen."""
    text = _text([_packed(cell) for cell in cells])
    packed = f'{{"format":"{FORMAT}","sha256":"{_sum(text)}","cells":{text}}}'.encode()
    with whole(path) as part:
        # No time of packing: the same comparisons are the same file.
        part.write_bytes(gzip.compress(packed, mtime=0) if path.suffix == ".gz" else packed)


def read(path: Path) -> list[Cell]:
    """Reads comparisons.

    Raises:
        ValueError: the file is missing, is not an evaluation, or is not as it was written.
    """
    regular(path, "an evaluation (`adaptycho evaluate --out FOLDER` writes FOLDER/cells.json)")
    with reading(path, "an evaluation in JSON"), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise ValueError(f"{path}: expected at most {LARGEST} bytes, found more")
    found = document.parse(raw, Packed, str(path))
    if found.sha256 is not None and found.sha256 != _sum(_text(json.loads(raw)["cells"])):
        raise ValueError(f"{path}: cells: expected what was written, found other numbers: the file was changed or is damaged")
    return [_unpacked(cell, f"{path}: cells.{i}") for i, cell in enumerate(found.cells)]


def _text(cells: Sequence[dict[str, Any]]) -> str:
    return json.dumps(cells, separators=(",", ":"))


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _packed(cell: Cell) -> dict[str, Any]:
    metrics = {name: list(dict.fromkeys(k for row in rows for k in row)) for name, rows in cell.numbers.items()}
    return {
        "protocol": cell.protocol.name,
        "settings": tree.nested(cell.settings),
        "measured": None if cell.origin is None else dataclasses.asdict(cell.origin),
        "plans": {n: {"strategy": p.strategy, "defocus": p.defocus, "reconstruct": dict(p.reconstruct)} for n, p in cell.plans.items()},
        "numbers": {n: {m: [_finite(row.get(m, ABSENT)) for row in rows] for m in metrics[n]} for n, rows in cell.numbers.items()},
    }


def _unpacked(packed: PackedCell, source: str) -> Cell:
    settings = _settings(packed, f"{source}.settings")
    specimens = {len(row) for metrics in packed.numbers.values() for row in metrics.values()}
    if len(specimens) != 1 or 0 in specimens:
        raise ValueError(f"{source}.numbers: expected one for each specimen, found {', '.join(map(str, sorted(specimens)))}")
    for name, plan in packed.plans.items():
        if plan.strategy.removesuffix(FOCUSED) not in STRATEGIES:
            raise ValueError(f"{source}.plans.{name}: strategy: expected one of {', '.join(STRATEGIES)}, found {plan.strategy!r}")
        update(settings, {"reconstruct": plan.reconstruct}, f"{source}.plans.{name}")
    if unplanned := packed.numbers.keys() - packed.plans.keys():
        raise ValueError(f"{source}.plans: expected one for every strategy, found none for {', '.join(sorted(unplanned))}")
    plans = {n: Plan(p.strategy, p.defocus, tuple(sorted(p.reconstruct.items()))) for n, p in packed.plans.items()}
    numbers = {
        name: tuple(
            {m: math.nan if v is None else float(v) for m, v in zip(metrics, row, strict=True) if v != ABSENT}
            for row in zip(*metrics.values(), strict=True)
        )
        for name, metrics in packed.numbers.items()
    }
    return Cell(settings, PROTOCOLS[packed.protocol], plans, numbers, packed.measured)


def _settings(packed: PackedCell, source: str) -> Settings:
    known = packed.settings
    if packed.measured is None:  # those that differed from the defaults of then
        known = {**known, "evaluate": {"test": tree.USED, **known.get("evaluate", {})}}
    found: Settings = validate(known, source)
    return found


def _finite(value: float | str) -> float | str | None:
    """JSON has no NaN."""
    return value if isinstance(value, str) or math.isfinite(value) else None
