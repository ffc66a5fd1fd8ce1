"""The Nion adapter against a fake of Nion's hardware sources: a camera that runs on its own and delivers late, a beam that may wander."""

import itertools
import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adaptycho.instruments import description, nion, nion_camera
from adaptycho.instruments.contract import Contract
from adaptycho.instruments.description import Frames
from adaptycho.instruments.frames import Streamed
from adaptycho.instruments.guard import Guard, Limits
from adaptycho.instruments.nion import Description, fractions
from adaptycho.physics.optics import Setup
from adaptycho.settings import Settings, build, microscopes, preset, update
from adaptycho.settings.laboratory import NION
from adaptycho.types import Action

CURRENT = 10.0  # pA
FILE = 'camera = "cam"\nscan = "sc"\nmiddle = [0.5, -0.25]\nturn = 30.0\n[frames]\nexposure = 1e-3\ncounts_per_electron = 2.0\n'


@dataclass
class Beam:
    """Nion's scan device: parks the beam, and forgets it when `wanders` says so."""

    probe_position: Any = (0.5, 0.5)
    probe_state: str = "parked"
    view: tuple[float, float] = (10.0, 8.0)
    surveys: list[float] = field(default_factory=list)

    @property
    def scan_context(self) -> Any:
        return SimpleNamespace(fov_size_nm=SimpleNamespace(height=self.view[0], width=self.view[1]))

    def get_current_frame_parameters(self) -> Any:
        return SimpleNamespace(fov_nm=max(self.view))

    def record_immediate(self, frame_parameters: Any) -> None:
        self.surveys.append(frame_parameters.fov_nm)
        self.view = (frame_parameters.fov_nm, frame_parameters.fov_nm)


@dataclass
class Camera:
    """Nion's camera: every frame holds where the beam was when it began, `late` frames wait to be delivered."""

    beam: Beam
    late: int = 1
    told: dict[str, float] = field(default_factory=dict)
    playing: bool = False
    exposure: float = 0.0
    number: int = 0
    position: tuple[float, float] = (0.0, 0.0)
    waiting: list[Any] = field(default_factory=list)
    calibration: Any = field(default_factory=lambda: SimpleNamespace(units="", scale=1.0))

    def get_current_frame_parameters(self) -> Any:
        return SimpleNamespace(exposure_ms=100.0)

    def start_playing(self, *, frame_parameters: Any) -> None:
        self.playing, self.exposure = True, frame_parameters.exposure_ms / 1e3
        self.position = tuple(self.beam.probe_position)
        self.waiting = [self.expose(self.position) for _ in range(self.late)]

    def stop_playing(self) -> None:
        self.playing, self.waiting = False, []

    def expose(self, position: Any) -> Any:
        """A frame that ends now."""
        self.number += 1
        data = np.zeros((40, 36), np.float32)
        data[20, 18], data[21, 18] = position  # the unscattered beam and the pixel below it
        instrument = {"instrument": self.told, "hardware_source": {"frame_number": self.number}}
        return SimpleNamespace(data=data, timestamp=nion_camera.now(), metadata=instrument, dimensional_calibrations=[self.calibration] * 2)

    def get_next_xdatas_to_finish(self, timeout: float) -> Sequence[Any]:
        if not self.playing:
            return []
        self.waiting.append(self.expose(self.position))
        self.position = tuple(self.beam.probe_position)  # the next frame begins as this one ends
        return [self.waiting.pop(0)]


@pytest.fixture
def setup() -> Setup:
    return build.setup(chosen())


def chosen(**changes: Any) -> Settings:
    return update(preset("light"), {"geometry": {"field": [8.0, 6.0], "object": "auto"}} | changes, "test")


def opened(setup: Setup, camera: Camera, **keys: Any) -> Streamed:
    told = Description(camera="cam", scan="sc", frames=Frames(exposure=1e-3), **keys)
    return nion.microscope(setup, told, CURRENT, camera, camera.beam)


def tally(microscope: Streamed) -> Any:
    assert isinstance(microscope.driver, nion.Nion)
    return microscope.driver.tally


def take(microscope: Streamed, wanted: Action) -> Any:
    return microscope.acquire(wanted, generator=torch.Generator())


def ask(count: int) -> Action:
    return Action(torch.rand(1, count, 2, generator=torch.Generator().manual_seed(3)))


class TestContract(Contract):
    """What every microscope keeps."""

    capabilities = NION.capabilities

    def open(self) -> Streamed:
        return opened(build.setup(chosen()), Camera(Beam()))


@pytest.mark.parametrize("late", [0, 1, 2, 5])
def test_each_pattern_is_of_its_position_however_late_frames_come(setup: Setup, late: int) -> None:
    camera = Camera(Beam(), late=late)
    microscope = opened(setup, camera)
    wanted = ask(12)
    found = take(microscope, wanted)
    told = fractions(wanted.positions[0].double().numpy(), setup, Description(camera="cam", scan="sc", frames=Frames(exposure=1)), (10, 8))
    assert found.patterns.shape == (1, 12, 32, 32)
    np.testing.assert_allclose(found.patterns[0, :, :2, 0], told, rtol=1e-6)  # zero frequency in the corner
    assert torch.equal(found.positions, wanted.positions)
    assert (tally(microscope).positions, tally(microscope).verified, tally(microscope).misplaced) == (12, 12, 0)
    assert tally(microscope).stale == 12 * late
    assert not camera.playing


def test_the_first_frame_after_a_move_alone_would_be_wrong(setup: Setup) -> None:
    """What the adapter guards against is there in the fake: without the guard the test above would mean nothing."""
    camera = Camera(Beam(), late=2)
    camera.start_playing(frame_parameters=SimpleNamespace(exposure_ms=1.0))
    camera.beam.probe_position = (0.9, 0.1)
    first = camera.get_next_xdatas_to_finish(1)[0].data
    assert tuple(first[20:22, 18]) != pytest.approx((0.9, 0.1))


def test_dose_and_exposure(setup: Setup) -> None:
    camera = Camera(Beam())
    found = nion.microscope(
        setup, Description(camera="c", scan="s", frames=Frames(exposure=1e-3, counts_per_electron=2)), CURRENT, camera, camera.beam
    )
    dose = found.acquire(ask(2), generator=torch.Generator()).dose
    assert camera.exposure == pytest.approx(1e-3)
    np.testing.assert_allclose(dose, 2 * 10e-12 * 1e-3 / 1.602176634e-19, rtol=1e-6)


def test_where_the_field_lies(setup: Setup) -> None:
    told = Description(camera="c", scan="s", frames=Frames(exposure=1), middle=(1.0, 2.0), turn=90.0)
    corner, middle, right = fractions(np.array([[0, 0], [0.5, 0.5], [0.5, 1]]), setup, told, (10.0, 20.0))
    np.testing.assert_allclose(middle, [0.5 + 0.1, 0.5 + 0.1])
    # A quarter turn, counter-clockwise in (row, column): what was to the right of the middle is above it.
    np.testing.assert_allclose(right - middle, [-0.3 / 10, 0], atol=1e-12)
    np.testing.assert_allclose(corner - middle, [0.3 / 10, -0.4 / 20], atol=1e-12)


def test_frames_that_are_thrown_away_are_electrons_too(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes on by an exposure with each frame: a position holds the beam for three of them, of which one is a pattern."""
    camera, clock, plain = Camera(Beam()), [0.0], Camera.expose
    microscope = opened(setup, camera, park=(0.0, 0.0))
    monkeypatch.setattr(Camera, "expose", lambda self, at: (clock.__setitem__(0, clock[0] + 1e-3), plain(self, at))[1])
    monkeypatch.setattr(nion.time, "perf_counter", lambda: clock[0])
    guard, each = Guard(microscope, Limits(dose=1e9)), 10e-12 * 1e-3 / 1.602176634e-19
    found = guard.acquire(ask(4), generator=torch.Generator())
    per_position = 1 + int(tally(microscope).stale + tally(microscope).mixed) // 4
    assert per_position >= 3
    np.testing.assert_allclose(found.dose, each, rtol=1e-6)
    np.testing.assert_allclose(float(guard.outlook(ask(1)).dose), each * (4 * per_position + max(per_position, nion.LONG)), rtol=1e-6)
    assert microscope.besides() is None


def test_a_field_that_leaves_the_survey_is_refused(setup: Setup) -> None:
    with pytest.raises(ValueError, match=r"middle: expected the field inside of the survey image of 10 x 8 nm, found corners"):
        opened(setup, Camera(Beam()), middle=(4.9, 0.0))


def test_a_survey_is_taken_once(setup: Setup) -> None:
    beam = Beam()
    opened(setup, Camera(beam), survey=6.0).close()
    opened(setup, Camera(beam), survey=6.0).close()
    assert beam.surveys == [6.0]


def test_a_new_field_of_view_ends_the_scan(setup: Setup) -> None:
    camera = Camera(Beam())
    microscope = opened(setup, camera)
    camera.beam.view = (20.0, 20.0)
    with pytest.raises(ValueError, match=r"scan: expected a field of view of \(10\.0, 8\.0\) nm as at the beginning, found"):
        take(microscope, ask(2))


class Wandering(Beam):
    """A beam that somebody else moves while it is exposed."""

    moves: Iterator[bool] = iter(())

    def __getattribute__(self, name: str) -> Any:
        if name == "probe_state" and next(Wandering.moves, False):
            return "scanning"
        return super().__getattribute__(name)


def test_a_beam_that_was_moved_is_exposed_again_and_at_last_refused(setup: Setup) -> None:
    microscope = opened(setup, Camera(Wandering()))
    Wandering.moves = iter([True, False])
    take(microscope, ask(2))
    assert (tally(microscope).misplaced, tally(microscope).verified) == (1, 2)
    Wandering.moves = itertools.repeat(True)
    with pytest.raises(ValueError, match="expected the beam to stay where it is sent, found it elsewhere 3 times"):
        take(microscope, ask(1))
    Wandering.moves = iter(())


def test_it_waits_parked(setup: Setup) -> None:
    camera = Camera(Beam())
    microscope = opened(setup, camera, park=(0.0, 1.0))
    take(microscope, ask(2))
    assert camera.beam.probe_position == (0.0, 1.0)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"high_tension": 100e3}, "high_tension: expected 60000 V as the settings say, found 100000"),
        # C10 of Nion's is +500 nm: overfocus in our sign.
        ({"defocus": 5e-7}, "defocus: expected 0 Å underfocus as the settings say, found -5000"),
    ],
)
def test_an_instrument_that_says_otherwise_is_refused(setup: Setup, told: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        opened(setup, Camera(Beam(), told=told))


def test_underfocus_is_a_negative_c10() -> None:
    focused = build.setup(chosen(beam={"defocus": 500.0}))
    assert opened(focused, Camera(Beam(), told={"defocus": -5e-8})).batch == 1


@pytest.mark.parametrize(("unit", "factor"), [("rad", 1e-3), ("mrad", 1.0)])
def test_another_camera_length_is_refused(setup: Setup, unit: str, factor: float) -> None:
    right = SimpleNamespace(units=unit, scale=setup.detector_pixel * factor)
    assert opened(setup, Camera(Beam(), calibration=right)).batch == 1
    with pytest.raises(ValueError, match=r"pixel: expected .* mrad as the settings say, found"):
        opened(setup, Camera(Beam(), calibration=SimpleNamespace(units=unit, scale=2 * right.scale)))


def test_a_clock_that_is_off_is_refused(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    camera, now = Camera(Beam()), nion_camera.now
    monkeypatch.setattr(Camera, "expose", lambda self, at, plain=Camera.expose: shifted(plain(self, at)))
    with pytest.raises(ValueError, match="expected frames stamped by the clock of this machine, found one 1:00"):
        opened(setup, camera)
    assert nion_camera.now is now


def shifted(frame: Any) -> Any:
    frame.timestamp -= timedelta(hours=1)
    return frame


def test_a_camera_that_only_delivers_old_frames_is_refused(setup: Setup) -> None:
    camera = Camera(Beam())
    microscope = opened(setup, camera)
    old = camera.expose((0.0, 0.0))
    camera.get_next_xdatas_to_finish = lambda timeout: [old]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="expected a frame that began after the beam had arrived, found none in 20"):
        take(microscope, ask(1))


def test_a_camera_that_stops_or_fails_is_one_sentence(setup: Setup) -> None:
    camera = Camera(Beam())
    microscope = opened(setup, camera)
    camera.get_next_xdatas_to_finish = lambda timeout: []  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="cam: expected a frame, found that the camera was stopped"):
        take(microscope, ask(1))

    def fails(timeout: float) -> Sequence[Any]:
        raise RuntimeError("Could not start")

    camera.get_next_xdatas_to_finish = fails  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"cam: expected a frame within 10 s, found none \(Could not start\)"):
        take(microscope, ask(1))


def test_its_file(tmp_path: Path) -> None:
    path = tmp_path / "nion.toml"
    path.write_text(FILE, encoding="utf-8")
    told = description.read(str(path), Description)
    assert (told.camera, told.middle, told.frames.counts_per_electron) == ("cam", (0.5, -0.25), 2.0)
    for text, said in [
        ("camera = 1", "expected a value, found none|camera: expected a valid string"),
        (FILE.replace("1e-3", "-1.0"), "exposure: expected greater than 0"),
        (FILE.replace("1e-3", "nan"), "expected"),
        (FILE + "\nspeed = 3\n", "speed: expected"),
        ("camera = [", "expected a description of the instrument in TOML"),
        ("x = 2020-01-01", "expected a description of the instrument in TOML"),
    ]:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=f"{path}: .*({said})"):
            description.read(str(path), Description)
    with pytest.raises(ValueError, match=r"scan\.file: expected a TOML file that describes the instrument, found none"):
        description.read(None, Description)


def test_the_kind_tells_its_subject_unopened_and_turns_the_detector(tmp_path: Path) -> None:
    path = tmp_path / "nion.toml"
    path.write_text(FILE.replace("[frames]", "[frames]\nrotation = 20.0"), encoding="utf-8")
    settings = chosen(scan={"file": str(path)})
    seen = NION.look(settings)
    assert (seen.counts_per_electron, seen.setup.rotation, seen.batch) == (2.0, 20.0, 1)
    assert NION.files(settings) == {"input": path}


def test_the_package_s_own_entry_points_name_kinds() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    points = tomllib.loads(text)["project"]["entry-points"][microscopes.GROUP]
    assert set(points) == {"nion", "directelectron", "bluesky"}
    for name, value in points.items():
        kind = EntryPoint(name, value, microscopes.GROUP).load()
        assert isinstance(kind, microscopes.Kind)
        assert (kind.name, kind.samples, kind.capabilities.dose) == (name, False, False)


def test_without_nions_software_the_extra_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nion.toml"
    path.write_text(FILE, encoding="utf-8")
    with pytest.raises(ValueError, match=r"nion: expected nionswift-instrumentation \(pip install 'adaptycho\[nion\]'\), found none"):
        NION.open(chosen(scan={"file": str(path)}))


@pytest.mark.parametrize(
    ("frame", "centre", "said"),
    [
        (np.zeros((8, 8)), None, "expected frames that hold 32 x 32 pixels round pixel"),
        (np.zeros((64, 64)), (10, 32), "expected frames that hold"),
        (np.zeros(64), None, "expected frames of two dimensions"),
        (np.full((32, 32), -1.0), None, "expected counts from 0 on, found negative ones"),
        (np.full((32, 32), math.nan), None, "expected counts from 0 on, found infinite ones"),
    ],
)
def test_frames_that_are_no_patterns_are_refused(setup: Setup, frame: np.ndarray, centre: tuple[int, int] | None, said: str) -> None:
    with pytest.raises(ValueError, match=f"cam: {said}"):
        Frames(exposure=1, centre=centre).cut(frame, setup, "cam")


def test_what_an_instrument_cannot_do_is_refused(setup: Setup) -> None:
    microscope = opened(setup, Camera(Beam()))
    positions = torch.rand(1, 2, 2)
    for action, said in [
        (Action(positions, defocus=300.0), r"action\.defocus: expected the instrument's -?0 Å, found 300"),
        (Action(positions, dose=1.0), "action.dose: expected the instrument's"),
        (Action(positions.expand(2, -1, -1)), "action.positions: expected finite positions of shape"),
        (Action(positions * math.nan), "action.positions: expected finite positions"),
    ]:
        with pytest.raises(ValueError, match=said):
            take(microscope, action)
