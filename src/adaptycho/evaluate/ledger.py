"""What has been measured so far: one line of JSON for each result, so that an evaluation goes on where it was interrupted."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


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
            ValueError: a line before the last is not a row.
        """
        if not path.exists():
            return cls(path)
        text = path.read_bytes().decode("utf-8", errors="replace")
        whole, _, rest = text.rpartition("\n")
        rows = {}
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                rows[row["key"]] = row
            except (json.JSONDecodeError, KeyError, TypeError):
                raise ValueError(f"{path}: line {number}: expected a row of an evaluation in JSON, found {line[:60]!r}") from None
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
            file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in new)
            file.flush()
            os.fsync(file.fileno())

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __getitem__(self, key: str) -> Row:
        return self.rows[key]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows.values())


def key(*parts: Any) -> str:
    """A short name for everything that a result depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
