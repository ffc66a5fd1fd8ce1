"""bluesky: a sub-sequence is one run of a plan, the beam or the specimen moved by any two movables, patterns read from any detector.

The devices are the laboratory's own: a function that the file names makes them, with the run engine that they belong to. The plan moves
both axes, triggers and reads everything at once, so that each event has its pattern and where the axes say that they are; those positions
are what is reported. The engine runs in a thread of its own, so that an event is taken in while the next one is measured. Nothing of
bluesky's is imported before a plan runs.
"""

import contextlib
import importlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from adaptycho.instruments.description import STRICT, Frames, Real, Tally, check_fixed
from adaptycho.instruments.frames import Frame, Streamed
from adaptycho.physics.optics import Setup
from adaptycho.types import Action

Scale = Annotated[Real, Field(ge=-1e12, le=1e12)]


@checked(frozen=True, config=STRICT, kw_only=True)
class Axes:
    """Where the field lies on two axes.

    Attributes:
        scale: Å that the beam moves over the specimen for one unit of the axes (y, x); negative where a step up moves the beam down.
        middle: what the axes (y, x) read with the beam in the middle of the field.
    """

    scale: tuple[Scale, Scale]
    middle: tuple[Real, Real] = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Refuses axes that do not move."""
        if 0 in self.scale:
            raise ValueError("scales that are not 0")

    def place(self, positions: np.ndarray, setup: Setup) -> np.ndarray:
        """What the axes (y, x) have to read at positions, fractions (y, x) of the field."""
        return np.array(self.middle) + (positions - 0.5) * np.array(setup.field) / np.array(self.scale)

    def position(self, places: np.ndarray, setup: Setup) -> np.ndarray:
        """The position, fractions (y, x) of the field, at which the axes (y, x) read so."""
        return (places - np.array(self.middle)) * np.array(self.scale) / np.array(setup.field) + 0.5


@checked(frozen=True, config=STRICT, kw_only=True)
class Description:
    """What the file of a bluesky set-up says.

    Attributes:
        devices: `module:function` that makes the `Devices`, importable where adaptycho is started.
        axes: where the field lies on their axes.
        frames: how their images become patterns.
        within: Å that an axis may read off where it was sent; further, the scan ends.
    """

    devices: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    axes: Axes
    frames: Frames
    within: Annotated[Real, Field(gt=0, le=1e9)] = 1.0


@dataclass(frozen=True, eq=False)
class Devices:
    """What is driven.

    Attributes:
        engine: bluesky's `RunEngine`, to which the devices are connected. It runs in a thread of its own, where Ctrl-C is not caught:
            make it with `context_managers=[]`.
        y: movable and readable; the axis along the rows of the field.
        x: the same along its columns.
        detector: triggerable and readable.
        image: key of the detector's image in the documents.
        park: takes the beam off the specimen, at once; None if nothing can.
    """

    engine: Callable[..., Any]
    y: Any
    x: Any
    detector: Any
    image: str
    park: Callable[[], object] | None = None


def acquisition(devices: Devices, places: Sequence[tuple[float, float]], md: Mapping[str, Any] | None = None) -> Iterator[Any]:
    """The plan of a sub-sequence, for a `RunEngine`: one event at each place of the axes (y, x), in their order.

    Returns:
        The uid of its run.
    """
    from bluesky import plan_stubs, preprocessors

    read = [devices.detector, devices.y, devices.x]

    @preprocessors.stage_decorator(read)
    @preprocessors.run_decorator(md={"plan_name": "adaptycho", **(md or {})})
    def inner() -> Iterator[Any]:
        for y, x in places:
            yield from plan_stubs.mv(devices.y, y, devices.x, x)
            yield from plan_stubs.trigger_and_read(read)

    # A key of its own lets the run lie within another, that of an optimisation.
    return (yield from preprocessors.set_run_key_wrapper(inner(), "adaptycho"))


def open_(setup: Setup, told: Description, current: float) -> Streamed:
    """Makes the devices.

    Args:
        setup: geometry and beam as the settings have them.
        told: what the file says.
        current: of the beam, in pA.

    Raises:
        ValueError: bluesky is not installed, or there is no such function, it fails, or it makes something else.
    """
    try:
        importlib.import_module("bluesky")
    except ImportError as error:
        raise ValueError(f"bluesky: expected it to be installed (pip install 'adaptycho[bluesky]'), found none ({error})") from error
    module, _, name = told.devices.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)()
    except Exception as error:  # a laboratory's own code may fail in any way
        raise ValueError(f"devices: expected {told.devices} to make devices, found {type(error).__name__}: {error}") from error
    if not isinstance(made, Devices):
        raise ValueError(f"devices: expected {told.devices} to make Devices, found {type(made).__name__}")
    return microscope(setup, told, current, made)


def microscope(setup: Setup, told: Description, current: float, devices: Devices) -> Streamed:
    """A microscope of devices, opened for one scan."""
    return Streamed(setup, Bluesky(setup, told, current, devices), told.frames.electrons(current), told.within, told.frames.saturation)


class Bluesky:
    """The driver of devices under a run engine.

    Attributes:
        tally: what it did so far.
    """

    def __init__(self, setup: Setup, told: Description, current: float, devices: Devices) -> None:
        self.tally, self._engine = Tally(), threading.Thread()
        self._setup, self._told, self._devices, self._sent = setup, told, devices, told.frames.electrons(current)

    def expose(self, action: Action, first: int) -> Generator[Frame, None, None]:
        """One run with an event for each position, which are reported as the axes read.

        Raises:
            ValueError: the run fails, or an event does not say where the axes were.
        """
        check_fixed(action, self._setup, self._sent)
        return self._exposed(action.positions[0].detach().cpu().double().numpy(), first)

    def park(self) -> bool:
        """Ends a run, and takes the beam off the specimen if the devices can."""
        if self._engine.is_alive():
            with contextlib.suppress(Exception):  # it may have come to its end meanwhile
                self._devices.engine.abort("the beam is parked")  # type: ignore[attr-defined]
        if self._devices.park is None:
            return False
        self._devices.park()
        return True

    def close(self) -> None:
        """The devices stay connected to their engine."""

    def _exposed(self, wanted: np.ndarray, first: int) -> Generator[Frame, None, None]:
        counts, defocus = self._sent * self._told.frames.counts_per_electron, self._setup.aberrations.defocus
        began, taken = time.perf_counter(), 0
        try:
            for number, event in self._events([(float(y), float(x)) for y, x in self._told.axes.place(wanted, self._setup)]):
                pattern = self._told.frames.cut(np.asarray(event[self._devices.image]), self._setup, self._devices.image)
                found = self._told.axes.position(np.array([self._read(event, axis) for axis in "yx"]), self._setup)
                edge = found.clip(0, 1)  # an axis that stands a little outside is at the edge
                near = np.linalg.norm((found - edge) * np.array(self._setup.field)) <= self._told.within
                y, x = (edge if near else found).tolist()
                yield Frame(first + number, (y, x), pattern, counts, defocus)
                taken += 1
        finally:
            if self._engine.is_alive():
                self.park()
            self.tally += Tally(positions=taken, verified=taken, expose=time.perf_counter() - began)

    def _events(self, places: Sequence[tuple[float, float]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The events of a run as they come, each with its number from 0."""
        came: queue.SimpleQueue[tuple[int, Mapping[str, Any]] | Exception | None] = queue.SimpleQueue()

        def collect(name: str, document: Mapping[str, Any]) -> None:
            if name == "event":
                came.put((document["seq_num"] - 1, document["data"]))

        def run() -> None:
            try:
                self._devices.engine(acquisition(self._devices, places), collect)
                came.put(None)
            except Exception as error:  # of the devices
                came.put(error)

        self._engine = threading.Thread(target=run, daemon=True)
        self._engine.start()
        while isinstance(event := came.get(), tuple):
            yield event
        if event is not None:
            raise ValueError(f"bluesky: expected a run of {len(places)} events, found {type(event).__name__}: {event}") from event

    def _read(self, event: Mapping[str, Any], axis: str) -> float:
        name, wanted = getattr(self._devices, axis).name, {self._devices.image}
        for key in (name, *(key for key in event if key.startswith(f"{name}-") and key not in wanted)):
            if key in event:
                return float(event[key])
        raise ValueError(f"bluesky: expected events with {name}, found {', '.join(event)}")
