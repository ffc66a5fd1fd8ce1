"""What has been measured so far: one line of JSON for each result, so that an evaluation goes on where it was interrupted.

Every line ends with a checksum of itself, so that a number that was changed is not taken for a result.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pydantic.dataclasses
from pydantic import ConfigDict, Field

from adaptycho.support import document
from adaptycho.support.reading import regular

Row = dict[str, Any]
Number = Annotated[float, Field(allow_inf_nan=False)]  # JSON has no NaN: what is unknown is null
SUM, DIGITS = ',"sum":"', 12  # before the checksum at the end of a line; of the checksum


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class Result:
    """What every row has; some have more.

    Attributes:
        key: everything that the result depends on, in short.
        numbers: what was measured.
    """

    key: str
    numbers: dict[str, Number | None] = Field(default_factory=dict)


@dataclass
class Ledger:
    """Rows in memory and, with a path, in a file that is only ever appended to.

    Attributes:
        path: the file, or None to keep nothing.
        rows: by key.
    """

    path: Path | None = None
    rows: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> "Ledger":
        """Reads what is there. A last line cut off by a crash is dropped: that result is measured again.

        Raises:
            ValueError: a line before the last is not a row, or not what was written.
        """
        if not path.exists():
            return cls(path)
        regular(path, "rows of an evaluation in JSON")
        text = path.read_bytes().decode("utf-8", errors="replace")
        whole, _, rest = text.rpartition("\n")
        rows = {}
        for number, line in enumerate(whole.splitlines(), 1):
            row = _parsed(line, f"{path}: line {number}")
            rows[row["key"]] = row
        if rest:
            start = '{"key":"'
            if not (rest.startswith(start) or start.startswith(rest)):
                raise ValueError(f"{path}: expected rows of an evaluation in JSON, found {rest[:60]!r} at the end")
            with path.open("rb+") as file:
                file.truncate(len(file.read().rpartition(b"\n")[0]) + bool(whole))
        return cls(path, rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Keeps rows; they are on the disk when this returns."""
        new = list(rows)
        self.rows |= {row["key"]: row for row in new}
        if self.path is None or not new:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(_line(row) for row in new)
            file.flush()
            os.fsync(file.fileno())

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __getitem__(self, key: str) -> Row:
        return self.rows[key]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows.values())


def _line(row: Row) -> str:
    text = json.dumps(row, separators=(",", ":"), allow_nan=False)
    return f'{text[:-1]}{SUM}{_sum(text)}"}}\n'


def _parsed(line: str, source: str) -> Row:
    """A row from its line; those of older versions have no checksum."""
    body, marked, end = line.rpartition(SUM)
    text = f"{body}}}" if marked else line
    document.parse(text, Result, f"{source}: expected a row of an evaluation in JSON, found {line[:60]!r}")
    if marked and end != f'{_sum(text)}"}}':
        raise ValueError(f"{source}: expected what was written, found another row: the file was changed or is damaged")
    row: Row = json.loads(text)
    return row


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def key(*parts: Any) -> str:
    """A short name for everything that a result depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
