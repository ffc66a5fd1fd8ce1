"""What a run with limits has sent to the specimen, kept so that no process that is killed makes it forget.

`RUN/exposures.jsonl` has a line for each request, flushed to the disk before an electron is sent: {"number": 0, "positions": ...,
"electrons": ..., "defocus": ...}, and one with the number null for what was sent without being asked for. A sub-sequence that is there
whole counts as it was reported; every other request counts as if all of it had been sent.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from adaptycho.instruments import Session
from adaptycho.instruments.frames import Streamed
from adaptycho.physics.exposure import Exposure
from adaptycho.physics.optics import Setup
from adaptycho.runs.journal import numbered, read_subsequence
from adaptycho.runs.spool import Spool
from adaptycho.settings import build
from adaptycho.settings.bounds import Real
from adaptycho.support.atomic import flush
from adaptycho.support.reading import regular

if TYPE_CHECKING:
    from adaptycho.runs.scans import Run

Electrons = Annotated[Real, Field(ge=0)]


@dataclass(frozen=True)
class Line:
    """A line of the file: the number of the sub-sequence, None for a wait, and an `Exposure`."""

    number: int | None
    positions: list[list[tuple[Real, Real]]]
    electrons: list[list[Electrons]]
    defocus: list[list[Real]]


_LINE = TypeAdapter(Line)


def guarded(microscope: Session, target: "Run") -> Session:
    """The microscope with the limits of a run's settings in front of it, and its frames kept as they come.

    It is returned as it is if there are no limits and it hands over whole sub-sequences.

    Raises:
        ValueError: what the run has sent cannot be read.
    """
    if not build.limited(target.settings) and not isinstance(microscope, Streamed):
        return microscope
    path = target.path / "exposures.jsonl"
    shape = target.microscope.setup, target.microscope.batch, target.subject.counts_per_electron
    folder = target.path / "subsequences"

    spool = Spool(folder)
    if isinstance(microscope, Streamed):
        microscope = replace(microscope, keep=spool.write)

    def note(exposure: Exposure, asked: bool) -> None:
        write(path, len(numbered(folder)) if asked else None, exposure)
        if asked:
            spool.begin()

    found: list[Exposure] = []
    recorded = numbered(folder)[: len(target.lengths)]
    for file, count in zip(recorded, target.lengths, strict=False):
        found.append(_recorded(file, *shape, count, sealed=target.sealed))
    began = len(recorded) if build.limited(target.settings) else 0  # without limits there may be no file of what was sent before
    found += unsettled(path, began) if began or path.exists() else []
    return build.guard(target.settings, microscope, target.subject.counts_per_electron, note=note, spent=found)


def write(path: Path, number: int | None, exposure: Exposure) -> None:
    """Adds a line, and returns when it is on the disk.

    A line that was not written whole, by a process that was killed meanwhile, is ended first.
    """
    values = {name: getattr(exposure, name).double().cpu().tolist() for name in ("positions", "electrons", "defocus")}
    line = json.dumps({"number": number, **values}, allow_nan=False) + "\n"
    new = not path.exists()
    with path.open("ab+") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            line = "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
    if new:
        flush(path.parent)


def unsettled(path: Path, recorded: int) -> list[Exposure]:
    """What was sent, or may have been, without a sub-sequence to show for it.

    Args:
        path: the file; there may be none.
        recorded: sub-sequences that are there whole: the last request for each of them led to it.

    Raises:
        ValueError: a line is damaged, other than one that was never whole.
    """
    if not recorded and not os.path.lexists(path):
        return []
    regular(path, "a file of exposures")
    lines = [line for number, text in enumerate(path.read_bytes().splitlines(), 1) if (line := _parsed(path, number, text)) is not None]
    last = {line.number: i for i, line in enumerate(lines) if line.number is not None and line.number < recorded}
    if missing := set(range(recorded)) - last.keys():
        raise ValueError(f"{path}: expected all that the run sent, found no request for sub-sequence {min(missing)}, which is there")
    return [_exposure(line) for i, line in enumerate(lines) if i not in last.values()]


def _parsed(path: Path, number: int, text: bytes) -> Line | None:
    if not text.endswith(b"}"):  # begun, and then the process was killed: nothing was sent before the line was whole
        return None
    try:
        return _LINE.validate_json(text)
    except ValidationError:
        raise ValueError(f"{path}: expected what the run sent, found a damaged line {number}") from None


def _exposure(line: Line) -> Exposure:
    values = (torch.tensor(values, dtype=torch.float64) for values in (line.positions, line.electrons, line.defocus))
    return Exposure(*values)


def _recorded(file: Path, setup: Setup, batch: int, counts_per_electron: float, count: int, *, sealed: bool) -> Exposure:
    _, measurement = read_subsequence(file, setup, (batch, count), sealed=sealed)
    return Exposure(measurement.positions.double(), measurement.dose.double() / counts_per_electron, measurement.defocus.double())
