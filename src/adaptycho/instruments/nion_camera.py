"""Nion's camera, which runs on its own: which of its frames began after the beam had arrived.

A frame is fresh if the one before it ended after that, which is read from the frames' own time stamps and numbers.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import numpy as np

from adaptycho.instruments.description import CLOSE, Frames, Tally
from adaptycho.physics.optics import Setup

LATE = 20  # frames in which one that is fresh must be found


class Source(Protocol):
    """The part of Nion's camera hardware source that is used."""

    def get_current_frame_parameters(self) -> Any:
        """Exposure and the like."""
        ...

    def start_playing(self, *, frame_parameters: Any) -> None:
        """Lets it run."""
        ...

    def stop_playing(self) -> None:
        """Stops it."""
        ...

    def get_next_xdatas_to_finish(self, timeout: float) -> Sequence[Any]:
        """The next frame that is delivered."""
        ...


def now() -> datetime:
    """Universal time, as frames are stamped."""
    return datetime.now(UTC).replace(tzinfo=None)


class Camera:
    """A camera of which only fresh frames are used.

    Args:
        source: the hardware source.
        name: its id, which opens the sentence of an error.
        frames: how its frames become patterns.
        timeout: seconds to wait for a frame.
    """

    def __init__(self, source: Source, name: str, frames: Frames, timeout: float) -> None:
        self._source, self._name, self._frames, self._timeout = source, name, frames, timeout

    def play(self) -> None:
        """Lets it run with the exposure that the file says."""
        wanted = self._source.get_current_frame_parameters()
        wanted.exposure_ms = self._frames.exposure * 1e3
        self._source.start_playing(frame_parameters=wanted)

    def stop(self) -> None:
        """Stops it, which ends an exposure that is waited for."""
        self._source.stop_playing()

    def fresh(self, arrived: datetime) -> tuple[np.ndarray, Tally]:
        """The first frame that must have begun after a moment, and a count of those that need not, which are thrown away.

        Raises:
            ValueError: none came, or the camera was stopped.
        """
        before, thrown = self._next(), Tally()
        for _ in range(LATE):
            ended = before.timestamp >= arrived
            thrown += Tally(mixed=1) if ended else Tally(stale=1)
            frame = self._next()
            if ended and _number(frame) > _number(before):
                return np.asarray(frame.data), thrown
            before = frame
        raise ValueError(f"{self._name}: expected a frame that began after the beam had arrived, found none in {LATE}")

    def check(self, setup: Setup, defocus_within: float) -> None:
        """Takes a frame and refuses an instrument that says of itself what the settings do not.

        Args:
            setup: geometry and beam as the settings have them.
            defocus_within: Å that the instrument's defocus may differ from theirs.

        Raises:
            ValueError: frames are no patterns, not numbered or stamped by another clock, or say another voltage, defocus or pixel.
        """
        frame = self._next()
        self._frames.cut(np.asarray(frame.data), setup, self._name)
        _number(frame)
        age, most = abs(now() - frame.timestamp), timedelta(seconds=1 + self._frames.exposure)
        if age > most:
            raise ValueError(f"{self._name}: expected frames stamped by the clock of this machine, found one {age} off")
        told = frame.metadata.get("instrument", {})
        scale = frame.dimensional_calibrations[0]
        agree = [
            ("high_tension", told.get("high_tension"), setup.energy, "V", CLOSE * (setup.energy or 0)),
            # Nion's C10 is positive where the focus lies beyond the specimen: the opposite sign of underfocus.
            ("defocus", _scaled(told.get("defocus"), -1e10), setup.aberrations.defocus, "Å underfocus", defocus_within),
        ]
        if scale.units in ("rad", "mrad"):
            angle, wanted = scale.scale * (1e3 if scale.units == "rad" else 1), setup.detector_pixel
            agree.append(("pixel", angle, wanted, "mrad", CLOSE * wanted))
        for name, found, expected, unit, within in agree:
            if found is not None and expected is not None and abs(found - expected) > within:
                raise ValueError(f"{self._name}: {name}: expected {expected:.6g} {unit} as the settings say, found {found:.6g}")

    def _next(self) -> Any:
        try:
            found = self._source.get_next_xdatas_to_finish(self._timeout)
        except Exception as error:  # Nion's software raises bare exceptions
            raise ValueError(f"{self._name}: expected a frame within {self._timeout:g} s, found none ({error})") from error
        if not found or found[0] is None:
            raise ValueError(f"{self._name}: expected a frame, found that the camera was stopped")
        return found[0]


def _number(frame: Any) -> int:
    found = frame.metadata.get("hardware_source", {}).get("frame_number")
    if not isinstance(found, int):
        raise ValueError("camera: expected frames that are numbered (hardware_source.frame_number), found one that is not")
    return found


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
