"""bluesky: a sub-sequence is one run of a plan, the beam or the specimen moved by any two movables, patterns read from any detector.

The devices are the laboratory's own: a function that the file names makes them, with the run engine that they belong to. The plan moves
both axes, triggers and reads everything at once, so that each event has its pattern and where the axes say that they are; those positions
are what is reported. Nothing of bluesky's is imported before a plan runs.
"""

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from adaptycho.instruments import frames
from adaptycho.instruments.frames import STRICT, Frames, Real, Tally
from adaptycho.physics.optics import Setup
from adaptycho.types import Action, Measurement

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
        engine: bluesky's `RunEngine`, to which the devices are connected.
        y: movable and readable; the axis along the rows of the field.
        x: the same along its columns.
        detector: triggerable and readable.
        image: key of the detector's image in the documents.
    """

    engine: Callable[..., Any]
    y: Any
    x: Any
    detector: Any
    image: str


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


def open_(setup: Setup, told: Description, current: float) -> "Bluesky":
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
    return Bluesky(setup, told, current, made)


class Bluesky:
    """Devices under a run engine, opened for one scan.

    Attributes:
        setup: geometry and beam.
        batch: 1.
        tally: what it did so far.
    """

    batch = 1

    def __init__(self, setup: Setup, told: Description, current: float, devices: Devices) -> None:
        self.setup, self.tally = setup, Tally()
        self._told, self._devices, self._sent = told, devices, told.frames.electrons(current)

    def acquire(self, action: Action, *, generator: torch.Generator | None = None) -> Measurement:
        """One run with an event for each position, which are reported as the axes read; the generator is not used.

        Raises:
            ValueError: the run fails, an event is missing, or an axis was elsewhere.
        """
        wanted, began = frames.requested(action, self.setup, self._sent), time.perf_counter()
        places = [(float(y), float(x)) for y, x in self._told.axes.place(wanted, self.setup)]
        events: list[Mapping[str, Any]] = []

        def collect(name: str, document: Mapping[str, Any]) -> None:
            if name == "event":
                events.append(document["data"])

        try:
            self._devices.engine(acquisition(self._devices, places), collect)
        except Exception as error:  # of the devices
            raise ValueError(f"bluesky: expected a run of {len(places)} events, found {type(error).__name__}: {error}") from error
        if len(events) != len(places):
            raise ValueError(f"bluesky: expected a run of {len(places)} events, found {len(events)}")
        found = self._told.axes.position(np.array([[self._read(event, axis) for axis in "yx"] for event in events]), self.setup)
        off = np.linalg.norm((found - wanted) * np.array(self.setup.field), axis=1)
        self.tally += Tally(len(events), int((off <= self._told.within).sum()), int((off > self._told.within).sum()))
        if off.max() > self._told.within:
            raise ValueError(f"bluesky: expected axes within {self._told.within:g} Å of where they were sent, found {off.max():.4g} Å off")
        patterns = [self._told.frames.cut(np.asarray(event[self._devices.image]), self.setup, self._devices.image) for event in events]
        self.tally += Tally(expose=time.perf_counter() - began)
        return frames.answer(self.setup, found.clip(0, 1), patterns, self._sent * self._told.frames.counts_per_electron)

    def reference(self) -> None:
        """Nobody knows the specimen."""

    def close(self) -> None:
        """The devices stay connected to their engine."""

    def _read(self, event: Mapping[str, Any], axis: str) -> float:
        name, wanted = getattr(self._devices, axis).name, {self._devices.image}
        for key in (name, *(key for key in event if key.startswith(f"{name}-") and key not in wanted)):
            if key in event:
                return float(event[key])
        raise ValueError(f"bluesky: expected events with {name}, found {', '.join(event)}")
