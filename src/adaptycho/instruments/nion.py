"""Nion Swift: the probe is parked at each position, and a camera that runs on its own exposes it.

Nion's software has no list of positions, so that a scan of any form goes point by point. Its camera does not wait for the beam: a frame
that is delivered after a move may have begun before it. Those that may have are thrown away and counted.

This has to run inside of the process that drives the instrument, Nion Swift or a script of one's own. Nothing of Nion's is imported before
a microscope is opened.
"""

import math
import time
from collections.abc import Generator
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from adaptycho.instruments.description import STRICT, Frames, Real, Seconds, Tally, check_fixed
from adaptycho.instruments.frames import Frame, Streamed
from adaptycho.instruments.nion_camera import Camera, Source, now
from adaptycho.physics.exposure import Exposure
from adaptycho.physics.optics import Setup
from adaptycho.types import Action

TRIES = 3  # exposures of a position at which the beam does not stay
REACH = 0.01  # Å: the beam is parked where it is asked to be, and seen to be there
LONG = 4  # exposures that a position is reckoned with before one was measured: one that is mixed, one that is fresh, one begun, the move


@checked(frozen=True, config=STRICT, kw_only=True)
class Description:
    """What the file of a Nion microscope says.

    Attributes:
        camera: id of the hardware source of the camera.
        scan: id of the hardware source that moves the beam.
        frames: how its frames become patterns.
        middle: where the middle of the field lies, (y, x) in nm from the middle of the survey image.
        turn: degrees, counter-clockwise in (row, column), that the field is turned against the survey image.
        survey: field of view in nm of the survey image; one is taken first if the last was another. If not given, the last it is.
        park: where the beam waits between sub-sequences, fractions (y, x) of the survey image; where it was last if not given.
        settle: seconds after a move until the beam stands still.
        timeout: seconds to wait for a frame.
        defocus_within: Å that the instrument's defocus may differ from that of the settings.
    """

    camera: str
    scan: str
    frames: Frames
    middle: tuple[Real, Real] = (0.0, 0.0)
    turn: Annotated[Real, Field(ge=-360, le=360)] = 0.0
    survey: Annotated[Real, Field(gt=0, le=1e6)] | None = None
    park: tuple[Annotated[Real, Field(ge=0, le=1)], Annotated[Real, Field(ge=0, le=1)]] | None = None
    settle: Annotated[Real, Field(ge=0, le=100)] = 0.0
    timeout: Seconds = 10.0
    defocus_within: Annotated[Real, Field(gt=0)] = 50.0


class Scan(Protocol):
    """The part of Nion's scan hardware source that is used."""

    probe_position: Any

    @property
    def probe_state(self) -> str:
        """`parked` if the beam stays where it is sent."""
        ...

    @property
    def scan_context(self) -> Any:
        """Of the last scan: its field of view, to which positions refer."""
        ...

    def get_current_frame_parameters(self) -> Any:
        """Field of view and the like."""
        ...

    def record_immediate(self, frame_parameters: Any) -> Any:
        """Takes one scan."""
        ...


def fractions(positions: np.ndarray, setup: Setup, told: Description, view: tuple[float, float]) -> np.ndarray:
    """Where positions lie in the survey image, as fractions (y, x) of it.

    Args:
        positions: fractions (y, x) of the field, (K, 2).
        setup: whose field is meant.
        told: where the field lies.
        view: height and width of the survey image in nm.
    """
    angle = math.radians(told.turn)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    offset = (positions - 0.5) * np.array(setup.field) / 10 @ turn.T + np.array(told.middle)
    return 0.5 + offset / np.array(view)


def open_(setup: Setup, told: Description, current: float) -> Streamed:
    """Finds the instrument in this process, takes the survey if one is wanted, and looks whether it is as the settings describe it.

    Args:
        setup: geometry and beam as the settings have them.
        told: what the file says.
        current: of the beam, in pA.

    Raises:
        ValueError: Nion's software is not installed, has no such hardware, or does not agree with the settings.
    """
    try:
        from nion.instrumentation.HardwareSource import HardwareSourceManager
    except ImportError as error:
        raise ValueError(f"nion: expected nionswift-instrumentation (pip install 'adaptycho[nion]'), found none ({error})") from error
    manager = HardwareSourceManager()
    found = {name: manager.get_hardware_source_for_hardware_source_id(name) for name in (told.camera, told.scan)}
    for key, name in (("camera", told.camera), ("scan", told.scan)):
        if found[name] is None:
            there = ", ".join(source.hardware_source_id for source in manager.hardware_sources) or "none"
            raise ValueError(f"{key}: expected a hardware source of this process, which has {there}, found {name!r}")
    return microscope(setup, told, current, found[told.camera], found[told.scan])


def microscope(setup: Setup, told: Description, current: float, camera: Source, scan: Scan) -> Streamed:
    """A Nion microscope of its camera and its scan device, opened for one scan."""
    driver = Nion(setup, told, current, camera, scan)
    return Streamed(setup, driver, LONG * told.frames.electrons(current), REACH, told.frames.saturation)


class Nion:
    """The driver of a Nion microscope.

    Attributes:
        tally: what it did so far.
    """

    def __init__(self, setup: Setup, told: Description, current: float, camera: Source, scan: Scan) -> None:
        self.tally = Tally()
        self._setup, self._told, self._scan, self._sent = setup, told, scan, told.frames.electrons(current)
        self._camera = Camera(camera, told.camera, told.frames, told.timeout)
        self._dwelt: list[tuple[np.ndarray, float]] = []  # where and for how many seconds no pattern came of
        self._here: tuple[np.ndarray, float] | None = None  # where the beam is, and since when
        if told.survey is not None and not math.isclose(max(self._context()), told.survey, rel_tol=1e-9):
            self._survey(told.survey)
        self._view = self._context()
        corners = fractions(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float), setup, told, self._view)
        if corners.min() < 0 or corners.max() > 1:  # Nion's software would move the beam to the edge and say nothing
            raise ValueError(
                f"middle: expected the field inside of the survey image of {self._view[0]:g} x {self._view[1]:g} nm, "
                f"found corners at fractions {corners.min():.3g} to {corners.max():.3g} of it"
            )
        self._camera.play()
        try:
            self._camera.check(setup, told.defocus_within)
        finally:
            self.park()

    def expose(self, action: Action, first: int) -> Generator[Frame, None, None]:
        """One verified frame for each position, in the order in which they are asked for.

        Raises:
            ValueError: the camera delivers no fresh frame, the beam does not stay, or the field of view was changed.
        """
        check_fixed(action, self._setup, self._sent)
        if (view := self._context()) != self._view:
            raise ValueError(f"scan: expected a field of view of {self._view} nm as at the beginning, found {view}")
        return self._exposed(action.positions[0].detach().cpu().double().numpy(), first)

    def besides(self) -> Exposure | None:
        """The electrons of frames that were thrown away, and of those that nobody waited for."""
        dwelt, self._dwelt = self._dwelt, []
        if not dwelt:
            return None
        rate = self._sent / self._told.frames.exposure
        sent = torch.tensor([[rate * max(0.0, seconds) for _, seconds in dwelt]], dtype=torch.float64)
        positions = torch.from_numpy(np.stack([place for place, _ in dwelt]))[None]
        return Exposure(positions, sent, torch.full_like(sent, self._setup.aberrations.defocus))

    def park(self) -> bool:
        """Stops the camera, which ends an exposure, and parks the beam if the file says where."""
        self._camera.stop()
        if self._told.park is None:
            return False
        self._scan.probe_position = self._told.park
        return True

    def close(self) -> None:
        """Parks the beam; the camera was stopped after the last sub-sequence."""
        self.park()

    def _exposed(self, where: np.ndarray, first: int) -> Generator[Frame, None, None]:
        counts, defocus = self._sent * self._told.frames.counts_per_electron, self._setup.aberrations.defocus
        self._camera.play()
        try:
            for k, target in enumerate(fractions(where, self._setup, self._told, self._view).tolist()):
                image = self._expose(where[k], tuple(target))
                pattern = self._told.frames.cut(image, self._setup, self._told.camera)
                yield Frame(first + k, (float(where[k, 0]), float(where[k, 1])), pattern, counts, defocus)
        finally:
            self._leave()
            self.park()

    def _expose(self, place: np.ndarray, target: tuple[float, float]) -> np.ndarray:
        for _ in range(TRIES):
            self._leave()
            began = time.perf_counter()
            self._scan.probe_position = target
            self._here = place, began
            time.sleep(self._told.settle)
            moved, arrived = time.perf_counter(), now()
            frame, thrown = self._camera.fresh(arrived)
            found = self._scan.probe_position
            stayed = found is not None and self._scan.probe_state == "parked" and math.dist(tuple(found), target) < 1e-9
            spent = Tally(move=moved - began, expose=time.perf_counter() - moved)
            self.tally += thrown + spent + (Tally(positions=1, verified=1) if stayed else Tally(misplaced=1))
            if stayed:
                self._here = place, began + self._told.frames.exposure  # of which there is a pattern
                return frame
        raise ValueError(f"{self._told.scan}: expected the beam to stay where it is sent, found it elsewhere {TRIES} times")

    def _leave(self) -> None:
        if self._here is not None:
            place, since = self._here
            self._dwelt.append((place, time.perf_counter() - since))
            self._here = None

    def _survey(self, view: float) -> None:
        wanted = self._scan.get_current_frame_parameters()
        wanted.fov_nm = view
        self._scan.record_immediate(wanted)

    def _context(self) -> tuple[float, float]:
        size = self._scan.scan_context.fov_size_nm
        if size is None:
            raise ValueError("survey: expected a field of view, found that nothing was scanned yet")
        return float(size.height), float(size.width)
