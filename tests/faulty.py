"""An instrument that fails in one of nineteen ways, and keeps a log of its own: `E` exposed, `D` given to the scan."""

import os
import signal
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from adaptycho.instruments import Capabilities
from adaptycho.instruments.frames import Frame, Streamed
from adaptycho.physics.optics import Setup
from adaptycho.settings import Settings, build
from adaptycho.settings.microscopes import Kind
from adaptycho.types import Action

ELECTRONS = 1000.0
SATURATED = 60_000
FAULTS = (
    "time-out", "hang", "exception", "dropped", "late", "late by a sub-sequence", "repeated", "repeated otherwise", "reordered", "NaN",
    "saturated", "shape", "misplaced", "disconnect", "no room", "disk full", "SIGKILL in a frame", "SIGKILL at some time",
    "SIGKILL of the monitor",
)  # fmt: skip


def number_of(counts: np.ndarray) -> int:
    """The number of the exposure that a pattern has in it."""
    return int(counts[0, 0]) * 100 + int(counts[0, 1])


@dataclass
class Fault:
    """What goes wrong, at which sub-sequence after a start, and at which of its frames."""

    name: str = "none"
    subsequence: int = 0
    frame: int = 0


@dataclass
class Bench:
    """The instrument."""

    setup: Setup
    log: Path
    fault: Fault
    random: np.random.Generator
    asked: int = 0
    late: list[Frame] = field(default_factory=list)
    gone: bool = False
    parked: threading.Event = field(default_factory=threading.Event)

    def expose(self, action: Action, first: int) -> Generator[Frame, None, None]:
        """Frames as they come, one of them perhaps not as it should."""
        now, self.asked = self.asked == self.fault.subsequence, self.asked + 1
        fault = self.fault.name if now else "none"
        self.parked.clear()
        held: list[Frame] = []
        yield from self._given(self.late)
        self.late.clear()
        if self.gone:
            raise ConnectionResetError("the instrument closed the connection")
        positions = action.positions[0].clamp(0, 1).tolist()
        for k, (y, x) in enumerate(positions):
            here = fault if k == self.fault.frame else "none"
            if here in ("time-out", "exception", "disconnect", "hang", "SIGKILL in a frame"):
                self._fail(here, y, x)
            if here == "misplaced":
                y = 1 - y if abs(1 - 2 * y) > 0.3 else (y + 0.5) % 1
            frame = self._frame(first + k, y, x)
            if here in ("NaN", "saturated"):
                frame.counts[2, 2] = np.nan if here == "NaN" else SATURATED
            elif here == "shape":
                frame = Frame(frame.index, frame.position, frame.counts[:, :6], frame.dose)
            if here == "dropped":
                continue
            if here == "late by a sub-sequence":
                self.late.append(frame)
            elif here in ("late", "reordered"):
                held.append(frame)
            else:
                yield from self._given([frame] if fault != "reordered" else [frame, *held])
                held = [] if fault == "reordered" else held
            if here == "repeated":
                yield from self._given([frame])
            elif here == "repeated otherwise":
                yield from self._given([replace(frame, counts=frame.counts + np.eye(8, dtype=np.float32)[::-1])])  # read out twice
        yield from self._given(held)

    def _fail(self, how: str, y: float, x: float) -> None:
        self._frame(0, y, x)  # the beam was there all the same
        if how == "SIGKILL in a frame":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exception":
            raise RuntimeError("the camera's driver failed")
        if how == "disconnect":
            self.gone = True
            raise ConnectionResetError("the instrument closed the connection")
        if how == "hang":
            self.parked.wait(20)
        raise TimeoutError("no frame within its time")

    def _frame(self, index: int, y: float, x: float) -> Frame:
        """Exposes; the pattern has the number of the exposure in it."""
        number = self.log.read_bytes().count(b"E") if self.log.exists() else 0
        self._write(f"E {number} {y!r} {x!r} {ELECTRONS}")
        counts = self.random.poisson(5.0, self.setup.detector).astype(np.float32)
        counts[0, :2] = number // 100, number % 100
        return Frame(index, (y, x), counts, ELECTRONS)

    def _given(self, frames: list[Frame]) -> Iterator[Frame]:
        for frame in list(frames):
            yield frame
            self._write(f"D {number_of(frame.counts)}")  # whoever asks for the next one has taken this one

    def _write(self, line: str) -> None:
        handle = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{line}\n".encode())
        os.close(handle)

    def park(self) -> bool:
        """Ends what hangs."""
        self.parked.set()
        return True

    def close(self) -> None:
        """There is nothing to let go of."""


OPENED: dict[str, Any] = {}  # what the next instrument is made with


def opened(chosen: Settings) -> Streamed:
    """The instrument, as the scan gets it."""
    setup = build.setup(chosen)
    return Streamed(setup, Bench(setup, **OPENED), ELECTRONS, reach=0.5, saturation=SATURATED)


FAULTY = Kind(name="faulty", capabilities=Capabilities(), open=opened)
