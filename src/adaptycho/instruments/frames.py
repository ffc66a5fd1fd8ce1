"""An instrument that hands over one frame at a time, each with the number of the request that it answers.

Frames that are late, lost, repeated or in another order are told by their numbers, never by when they come. A sub-sequence is whole or it
is refused; what came of it is kept either way, as it comes.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adaptycho.instruments import Besides
from adaptycho.instruments.guard import Unfinished
from adaptycho.physics.exposure import Exposure
from adaptycho.physics.optics import Setup
from adaptycho.types import Action, Measurement


@dataclass(frozen=True, eq=False)
class Frame:
    """What the detector saw at one position.

    Attributes:
        index: number of the request that it answers, counted from the first one after the instrument was opened.
        position: where the beam was, fractions (y, x) of the scan field; where it was sent, if nobody knows.
        counts: (Q, Q), zero frequency in the corner.
        dose: counts that it would hold if nothing missed the detector.
        defocus: underfocus in Å.
    """

    index: int
    position: tuple[float, float]
    counts: np.ndarray
    dose: float
    defocus: float = 0.0


class Driver(Protocol):
    """The software of an instrument. One that sends electrons in frames that it throws away has `besides`, too."""

    def expose(self, action: Action, first: int) -> Generator[Frame, None, None]:
        """Sends the beam to each position and yields frames as they come.

        Args:
            action: of one specimen, with positions inside the field.
            first: number of its first position.
        """
        ...

    def park(self) -> bool:
        """Blanks the beam or sends it outside the field, at once, and ends an `expose` that runs in another thread.

        Returns:
            Whether the beam is off the field now.
        """
        ...

    def close(self) -> None:
        """Lets go of the instrument."""
        ...


@dataclass(eq=False)
class Streamed:
    """A microscope made of a driver.

    Attributes:
        setup: geometry and beam.
        driver: of the instrument.
        dose: electrons sent to each position, at most.
        reach: Å that a frame may be from where it was asked for.
        saturation: counts from which on a pixel counts no more; None for never.
        keep: is given every frame as it comes, and whether it answers a request of this sub-sequence.
    """

    setup: Setup
    driver: Driver
    dose: float
    reach: float
    saturation: float | None = None
    keep: Callable[[Frame, bool], None] = lambda frame, asked: None
    batch: int = field(default=1, init=False)
    _next: int = field(default=0, init=False, repr=False)

    def acquire(self, action: Action, *, generator: torch.Generator) -> Measurement:
        """One pattern for each position.

        Raises:
            ValueError: no positions of one specimen.
            Unfinished: the frames that came are not one for each request, with what is wrong.
        """
        asked = action.positions
        if asked.ndim != 3 or len(asked) != 1 or not bool(torch.isfinite(asked).all()):
            raise ValueError(f"action.positions: expected finite positions of shape (1, K, 2), found shape {tuple(asked.shape)}")
        action = replace(action, positions=asked.clamp(0, 1))
        first, self._next = self._next, self._next + asked.shape[1]
        with closing(self.driver.expose(action, first)) as came:
            return collect(
                self._kept(came, first, asked.shape[1]), action, self.setup, first=first, reach=self.reach, saturation=self.saturation
            )

    def reference(self) -> Tensor | None:
        """Nobody knows the specimen."""
        return None

    def park(self) -> bool:
        """Blanks the beam, if the driver can; whether it is off the field."""
        return self.driver.park()

    def besides(self) -> Exposure | None:
        """What was sent in frames that the driver threw away."""
        return self.driver.besides() if isinstance(self.driver, Besides) else None

    def close(self) -> None:
        """Lets go of the instrument."""
        self.driver.close()

    def _kept(self, came: Iterable[Frame], first: int, count: int) -> Iterator[Frame]:
        for frame in came:
            self.keep(frame, 0 <= frame.index - first < count)
            yield frame


def collect(
    frames: Iterable[Frame], action: Action, setup: Setup, *, first: int, reach: float, saturation: float | None = None
) -> Measurement:
    """Pairs frames with requests by their numbers.

    A frame of another sub-sequence is passed over, and so is one that comes again just as it was.

    Args:
        frames: as they come.
        action: the request, of one specimen, with positions inside the field.
        setup: geometry of the scan.
        first: number of its first position.
        reach: Å that a frame may be from where it was asked for.
        saturation: counts from which on a pixel counts no more.

    Raises:
        Unfinished: one is missing, contradicts another, or is no pattern of this scan; with the good ones.
    """
    wanted = action.positions[0].detach().double().cpu() * torch.tensor(setup.field, dtype=torch.float64)
    found: dict[int, Frame] = {}
    try:
        for frame in frames:
            number = frame.index - first
            if not 0 <= number < len(wanted):
                continue
            _check(frame, setup, wanted[number], reach, saturation)
            if number in found and not _same(found[number], frame):
                raise ValueError(f"the microscope: frame {frame.index}: expected it once, found two that differ")
            found[number] = frame
    except Exception as error:  # whatever a driver raises: the frames before it are good
        said = str(error) if isinstance(error, ValueError) else f"the microscope: {type(error).__name__}: {error}"
        raise Unfinished(f"{said}; {len(found)} of {len(wanted)} frames were good", _joined(found)) from error
    if len(found) < len(wanted):
        missing = next(n for n in range(len(wanted)) if n not in found)
        sentence = f"the microscope: expected {len(wanted)} frames, found {len(found)} (the first that is missing is {first + missing})"
        raise Unfinished(sentence, _joined(found))
    whole = _joined(found)
    assert whole is not None  # there is at least one position
    return whole


def _check(frame: Frame, setup: Setup, wanted: Tensor, reach: float, saturation: float | None) -> None:
    counts, name = np.asarray(frame.counts), f"the microscope: frame {frame.index}"
    if counts.shape != tuple(setup.detector) or counts.dtype.kind not in "iuf":
        raise ValueError(f"{name}: expected counts of shape {tuple(setup.detector)}, found {counts.dtype} of shape {counts.shape}")
    if not np.isfinite(counts).all() or counts.min() < 0:
        raise ValueError(f"{name}: expected finite counts from 0 on, found others")
    if saturation is not None and counts.max() >= saturation:
        raise ValueError(f"{name}: expected counts below {saturation:g}, where the detector saturates, found {float(counts.max()):g}")
    if not (np.isfinite(frame.position).all() and np.isfinite(frame.defocus) and np.isfinite(frame.dose) and frame.dose > 0):
        raise ValueError(f"{name}: expected a finite position, defocus and a dose of more than 0, found others")
    if min(frame.position) < 0 or max(frame.position) > 1:
        raise ValueError(f"{name}: expected a position inside the scan field, found {frame.position}")
    away = float((torch.tensor(frame.position, dtype=torch.float64) * torch.tensor(setup.field) - wanted).norm())
    if away > reach:
        raise ValueError(f"{name}: expected it within {reach:g} Å of the request, found it {away:.3g} Å away")


def _same(one: Frame, other: Frame) -> bool:
    return one.position == other.position and np.array_equal(one.counts, other.counts)


def _joined(found: dict[int, Frame]) -> Measurement | None:
    """Frames in the order of their requests."""
    if not found:
        return None
    frames = [found[number] for number in sorted(found)]
    counts = torch.from_numpy(np.stack([np.asarray(frame.counts, dtype=np.float32) for frame in frames]))
    dose, defocus = (torch.tensor([[getattr(frame, name) for frame in frames]]) for name in ("dose", "defocus"))
    return Measurement(torch.tensor([[frame.position for frame in frames]]), counts[None], dose, defocus)
