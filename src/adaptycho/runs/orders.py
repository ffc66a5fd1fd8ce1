"""Orders to a running scan, and what it says of itself: a few small files in the folder of the run.

```
RUN/monitor/
  orders/000001.json  one order, complete and flushed; never changed
  status.json         what the scan is at, the positions that it proposes, and its process
  rejected/003.json   how many proposals were rejected before sub-sequence 003 was taken, for a run that is taken up
```

Nobody has to listen and nobody has to give orders. Without this folder a scan is what it was; what is no order in it is passed over.
"""

import json
import os
import socket
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from adaptycho.support import document
from adaptycho.support.atomic import whole

FOLDER = "monitor"
MOST = 10_000  # orders to one run
LARGEST = 4096  # bytes of an order
LONGEST_STATUS = 2**26  # bytes of a status, with all positions that are proposed

Word = Literal["pause", "resume", "stop", "ask", "trust", "approve", "reject"]
WORDS: tuple[Word, ...] = get_args(Word)
Whole = Annotated[int, Field(ge=0, lt=10**9)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Order:
    """What somebody wants of a scan.

    Attributes:
        word: pause, resume, stop: obeyed before the next sub-sequence; ask, trust: whether each has to be approved from now
            on; approve, reject: of what is proposed.
        number: of the sub-sequence that is approved or rejected, from 0.
        attempt: which proposal for it, from 0.
        at: when, as ISO 8601 has it.
    """

    word: Word
    number: Whole | None = None
    attempt: Whole | None = None
    at: Annotated[str, Field(max_length=40)] = ""

    def __post_init__(self) -> None:
        """Refuses a verdict on nothing, and a number where none belongs."""
        judged = self.word in ("approve", "reject")
        if judged != (self.number is not None) or judged != (self.attempt is not None):
            raise ValueError(f"a sub-sequence and a proposal with approve and reject, none with others, found them wrong with {self.word}")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="ignore"))
class Status:
    """What a scan says of itself.

    Attributes:
        doing: proposed: it goes there; waits: for a verdict on where it would go; paused; stopped.
        number: of the sub-sequence, from 0.
        attempt: which proposal for it, from 0.
        positions: that are proposed, fractions (y, x) of the field for each specimen.
        random: whether the positions are random ones, since the policy has no other proposal than the one that was rejected.
        at: since when.
        pid: its process.
        host: the machine that this runs on.
    """

    doing: Literal["proposed", "waits", "paused", "stopped"]
    number: int
    attempt: int
    positions: list[list[tuple[float, float]]]
    random: bool
    at: str
    pid: int
    host: str

    @property
    def alive(self) -> bool:
        """Whether its process is there; of one on another machine that is not known and believed."""
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except PermissionError:
            return True
        except (OSError, OverflowError):
            return False
        return True


def give(run: Path, order: Order) -> int:
    """Hands an order to a run; returns its number.

    Raises:
        ValueError: the run has too many.
    """
    folder = run / FOLDER / "orders"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({name: value for name, value in _plain(order).items() if value is not None})
    while (number := max(numbers(run), default=0) + 1) <= MOST:
        path = folder / f"{number:06d}.json"
        try:
            with whole(path, new=True) as part:
                part.write_text(text, encoding="utf-8")
        except ValueError:  # somebody else's order has the number
            if os.path.lexists(path):
                continue
            raise
        return number
    raise ValueError(f"{folder}: expected at most {MOST} orders to one run, found as many")


def numbers(run: Path) -> list[int]:
    """Of the orders that are there, in no order."""
    try:
        names = os.listdir(run / FOLDER / "orders")
    except OSError:
        return []
    return [int(name[:6]) for name in names if len(name) == 11 and name.endswith(".json") and name[:6].isascii() and name[:6].isdecimal()]


def read(run: Path, number: int) -> Order | None:
    """An order; None if it is none, whatever it is instead."""
    try:
        path = run / FOLDER / "orders" / f"{number:06d}.json"
        return document.parse(_bytes(path, LARGEST), Order, str(path))
    except (OSError, ValueError):
        return None


def write_status(run: Path, values: Mapping[str, Any]) -> None:
    """Says what the scan is at: at once or not at all, but not flushed to the disk, for after a power cut it would not be true."""
    path, mine = run / FOLDER / "status.json", {"at": now(), "pid": os.getpid(), "host": socket.gethostname()}
    part = path.with_name(f"status.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    with part.open("x", encoding="utf-8") as file:
        file.write(json.dumps({**values, **mine}))
    part.replace(path)


def read_status(run: Path) -> Status | None:
    """What the scan said last; None if it has said nothing that can be read."""
    try:
        path = run / FOLDER / "status.json"
        return document.parse(_bytes(path, LONGEST_STATUS), Status, str(path))
    except (OSError, ValueError):
        return None


def now() -> str:
    """The time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(order: Order) -> dict[str, Any]:
    return {"word": order.word, "number": order.number, "attempt": order.attempt, "at": order.at or now()}


def _bytes(path: Path, most: int) -> bytes:
    """What is in a small file. A pipe, a link or a large file is refused before anything is read."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_size > most:
            raise ValueError(f"{path}: expected a file of at most {most} bytes, found another")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(handle)
