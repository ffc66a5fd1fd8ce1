"""Direct Electron's DE-Server: a sub-sequence is one acquisition along a list of grid points.

The server takes a list of integer grid points and records one frame at each, so that the beam goes to the nearest point of the scan grid,
and that is what is reported. Nothing can be changed while an acquisition runs. Frames are numbered by the server, and a number that is
missing or out of turn ends the scan, for then nobody knows where a frame was taken. Camera, region and binning stay as the operator has set
them.
"""

import contextlib
import io
import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from adaptycho.instruments.description import STRICT, Frames, Real, Seconds, Tally, check_fixed
from adaptycho.instruments.frames import Frame, Streamed
from adaptycho.physics.optics import Setup
from adaptycho.types import Action

OK, TIMEOUT = 5, 3  # of a movie buffer, as the server counts its states
PIXELS = {1: np.uint8, 5: np.uint16, 7: np.int16, 13: np.float32}  # by the server's number of a type
MOST = 1.5  # times the dose: more counts in a pattern are no electrons, but differences below zero stored without a sign
SAME = 1e-3  # relative: a property that was set and reads the same

Side = Annotated[int, Field(ge=2, le=1 << 16)]
Index = Annotated[int, Field(ge=0, lt=1 << 16)]


@checked(frozen=True, config=STRICT, kw_only=True)
class Description:
    """What the file of a Direct Electron camera says.

    Attributes:
        frames: how its frames become patterns.
        grid: points (rows, columns) of the scan grid.
        pitch: Å between neighbouring points.
        corner: grid point (row, column) where the field begins.
        host: of DE-Server.
        port: likewise.
        timeout: seconds to wait for frames.
    """

    frames: Frames
    grid: tuple[Side, Side]
    pitch: Annotated[Real, Field(gt=0, le=1e6)]
    corner: tuple[Index, Index] = (0, 0)
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 13240
    timeout: Seconds = 60.0


class Server(Protocol):
    """The part of deapi's client that is used."""

    def set_property(self, name: str, value: Any) -> bool:
        """Whether it was set."""
        ...

    def get_property(self, property_name: str) -> Any:
        """What it is."""
        ...

    def set_xy_array(self, positions: np.ndarray, width: int, height: int) -> bool:
        """Whether the points, (N, 2) as (x, y), were taken."""
        ...

    def start_acquisition(self, number_of_acquisitions: int, request_movie_buffer: bool) -> None:
        """Begins."""
        ...

    def stop_acquisition(self) -> Any:
        """Ends before all is there."""
        ...

    def get_movie_buffer_info(self) -> Any:
        """How a buffer of frames is laid out."""
        ...

    def get_movie_buffer(self, movieBuffer: Any, movieBufferSize: int, numFrames: int, timeoutMsec: int) -> tuple[Any, int, int, Any]:
        """State, bytes, frames and the buffer."""
        ...

    def disconnect(self) -> None:
        """Leaves."""
        ...


def points(positions: np.ndarray, setup: Setup, told: Description) -> np.ndarray:
    """The grid points (row, column) nearest to positions that still lie in the field.

    Args:
        positions: fractions (y, x) of the field, (K, 2).
        setup: whose field is meant.
        told: where it lies on the grid.
    """
    last = np.floor(np.array(setup.field) / told.pitch * (1 + 1e-9))
    return np.minimum(np.rint(positions * np.array(setup.field) / told.pitch), last).astype(np.int32) + np.array(told.corner, np.int32)


def open_(setup: Setup, told: Description, current: float) -> Streamed:
    """Connects to DE-Server.

    Args:
        setup: geometry and beam as the settings have them.
        told: what the file says.
        current: of the beam, in pA.

    Raises:
        ValueError: deapi is not installed, nobody answers, or the server does not take what is set.
    """
    try:
        from deapi import Client
    except ImportError as error:
        raise ValueError(f"directelectron: expected deapi (pip install 'adaptycho[directelectron]'), found none ({error})") from error
    client = Client()
    client.usingMmf = False  # shared memory under Windows' name for it, which others do not have; frames come through the socket
    logging.getLogger("DECameraClientLib").setLevel(logging.WARNING)
    try:
        client.connect(told.host, told.port)
    except Exception as error:  # whatever a socket or a strange answer leads to
        raise ValueError(f"host: expected DE-Server at {told.host}:{told.port}, found none ({error})") from error
    try:
        return microscope(setup, told, current, client)
    except BaseException:
        client.disconnect()
        raise


def microscope(setup: Setup, told: Description, current: float, server: Server) -> Streamed:
    """A microscope of a server that is connected, opened for one scan."""
    away = math.sqrt(2) * told.pitch  # to the nearest point inside the field, and no rounding matters
    driver = DirectElectron(setup, told, current, server)
    return Streamed(setup, driver, told.frames.electrons(current), away, told.frames.saturation)


class DirectElectron:
    """The driver of a camera and scan generator of Direct Electron's.

    Attributes:
        tally: what it did so far.
    """

    def __init__(self, setup: Setup, told: Description, current: float, server: Server) -> None:
        self.tally, self._parked = Tally(), threading.Event()
        self._setup, self._told, self._server, self._sent = setup, told, server, told.frames.electrons(current)
        needed = points(np.ones((1, 2)), setup, told)[0] + 1
        if (needed > np.array(told.grid)).any():
            raise ValueError(
                f"grid: expected at least {needed[0]} x {needed[1]} points for the field, found {told.grid[0]} x {told.grid[1]}"
            )
        for name, value in (
            ("Exposure Mode", "Normal"),
            ("Frames Per Second", 1 / told.frames.exposure),
            ("Scan - Enable", "On"),
            ("Scan - Camera Frames Per Point", 1),
            ("Scan - Repeats", 1),
        ):
            self._set(name, value)

    def expose(self, action: Action, first: int) -> Generator[Frame, None, None]:
        """One acquisition of a frame for each position, at the grid points nearest to them.

        Raises:
            ValueError: the server does not take the points, or frames are missing, out of turn or no patterns.
        """
        check_fixed(action, self._setup, self._sent)
        return self._exposed(points(action.positions[0].detach().cpu().double().numpy(), self._setup, self._told), first)

    def park(self) -> bool:
        """Ends an acquisition, within a second; where the beam goes then is set in the server, which does not tell."""
        self._parked.set()
        return False

    def close(self) -> None:
        """Leaves the server, which parks the beam as it is set to."""
        with contextlib.suppress(Exception):
            self._server.disconnect()

    def _exposed(self, where: np.ndarray, first: int) -> Generator[Frame, None, None]:
        began = time.perf_counter()
        with _said("the list of points"), contextlib.redirect_stdout(io.StringIO()):  # it prints what it sends
            taken = self._server.set_xy_array(np.ascontiguousarray(where[:, ::-1]), self._told.grid[1], self._told.grid[0])
        if not taken:
            raise ValueError(f"DE-Server: expected it to take {len(where)} points, found that it did not confirm them")
        found = ((where - np.array(self._told.corner)) * self._told.pitch / np.array(self._setup.field)).clip(0, 1).tolist()
        counts, defocus = self._sent * self._told.frames.counts_per_electron, self._setup.aberrations.defocus
        moved = time.perf_counter()
        self._parked.clear()
        with _said("an acquisition"):
            self._server.start_acquisition(1, True)
        seen = 0
        try:
            for image in self._frames(len(where)):
                y, x = found[seen]
                yield Frame(first + seen, (y, x), self._pattern(image), counts, defocus)
                seen += 1
        finally:
            if seen < len(where):
                with contextlib.suppress(Exception):
                    self._server.stop_acquisition()
            self.tally += Tally(positions=seen, verified=seen, move=moved - began, expose=time.perf_counter() - moved)

    def _set(self, name: str, value: str | float) -> None:
        with _said(f"property {name!r}"):
            taken, found = self._server.set_property(name, value), self._server.get_property(name)
        same = str(found) == value if isinstance(value, str) else _close(found, value)
        if not taken or not same:
            raise ValueError(f"DE-Server: expected {name!r} to be {value}, found {found}")

    def _frames(self, count: int) -> Iterator[np.ndarray]:
        """So many frames, each looked at whether it is the next."""
        with _said("a movie buffer"):
            info = self._server.get_movie_buffer_info()
        kind, shape = PIXELS.get(_code(info.imageDataType)), (int(info.imageH), int(info.imageW))
        if kind is None or min(shape) < 1:
            raise ValueError(f"DE-Server: expected frames of counts, found type {info.imageDataType} of {shape} pixels")
        size, seen, until = int(info.headerBytes) + int(info.imageBufferBytes), 0, time.monotonic() + self._told.timeout
        while seen < count:
            if self._parked.is_set():
                raise ValueError(f"DE-Server: expected {count} frames, found that the beam was parked after {seen}")
            with _said("frames"):
                state, _, number, held = self._server.get_movie_buffer(None, size, int(info.framesInBuffer), 1000)
            if _code(state) == TIMEOUT and time.monotonic() < until:
                continue
            if _code(state) != OK:
                raise ValueError(f"DE-Server: expected {count} frames, found that it stopped after {seen} (state {_code(state)})")
            numbers = np.frombuffer(held, np.int64, number, int(info.frameIndexStartPos))
            if seen + number > count or (numbers != np.arange(seen, seen + number)).any():
                raise ValueError(f"DE-Server: expected frames {seen} to {min(seen + number, count) - 1}, found {numbers.tolist()[:8]}")
            yield from np.frombuffer(held, kind, number * shape[0] * shape[1], int(info.imageStartPos)).reshape(number, *shape)
            seen, until = seen + number, time.monotonic() + self._told.timeout

    def _pattern(self, frame: np.ndarray) -> np.ndarray:
        pattern = self._told.frames.cut(frame, self._setup, "DE-Server")
        most = MOST * self._sent * self._told.frames.counts_per_electron
        if (total := float(pattern.sum(dtype=np.float64))) > most:
            raise ValueError(f"DE-Server: expected at most {most:.4g} counts in a pattern, from current and exposure, found {total:.4g}")
        return pattern


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    """Whatever deapi raises is one sentence."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"DE-Server: expected {what}, found {type(error).__name__}: {error}") from error


def _code(value: Any) -> int:
    return int(getattr(value, "value", value))


def _close(found: Any, wanted: float) -> bool:
    convert: Callable[[Any], float] = float
    try:
        return abs(convert(found) - wanted) <= SAME * abs(wanted)
    except (TypeError, ValueError):
        return False
