"""The bluesky adapter under a fake run engine, and the agent that bluesky-adaptive asks: the same scan as the loop's, point by point."""

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adaptycho.instruments import bluesky
from adaptycho.instruments.bluesky import Axes, Description, Devices
from adaptycho.instruments.contract import Contract
from adaptycho.instruments.description import Frames
from adaptycho.instruments.frames import Streamed
from adaptycho.instruments.simulated import Simulated
from adaptycho.physics.forward import Imperfections
from adaptycho.scan.agent import ID, Agent
from adaptycho.scan.episode import run
from adaptycho.settings import Settings, build, preset, update
from adaptycho.settings.laboratory import BLUESKY
from adaptycho.types import Action

AXES = Axes(scale=(1e4, -2e4), middle=(3.0, -2.0))
LENGTHS = [7, 5]
CURRENT = 10.0


def chosen(**changes: Any) -> Settings:
    tiny = {"geometry": {"field": [8.0, 6.0], "object": "auto"}, "reconstruct": {"iterations": 2}}
    return update(update(preset("light"), tiny, "test"), changes, "test")


@pytest.fixture(scope="module")
def microscope() -> Simulated:
    made = build.simulated(chosen())
    return Simulated(made.setup, made.potential, made.dose, Imperfections(noise=False))


class Engine:
    """Runs the messages of a plan on axes and camera, as a run engine does, and hands over events."""

    def __init__(self, backlash: float = 0.0, lost: int = 0, key: str = "y") -> None:
        self.at = {"y": 0.0, "x": 0.0}
        self.backlash, self.lost, self.key = backlash, lost, key

    def __call__(self, plan: Iterator[Any], collect: Callable[[str, Any], None]) -> None:
        collect("start", {})
        events = 0
        for message in plan:
            if message[0] == "read":
                events += 1
                if self.lost:
                    self.lost -= 1
                    continue
                image = np.zeros((32, 32))
                image[16, 16], image[17, 16] = abs(self.at["y"]), abs(self.at["x"])
                collect("event", {"seq_num": events, "data": {self.key: self.at["y"], "x": self.at["x"], "camera-image": image}})
            else:
                self.at = {name: value + self.backlash for name, value in message[1].items()}
        collect("stop", {})


@pytest.fixture(autouse=True)
def plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for bluesky's stubs: messages are tuples."""
    package, stubs, wrappers = ModuleType("bluesky"), ModuleType("bluesky.plan_stubs"), ModuleType("bluesky.preprocessors")
    stubs.mv = lambda y, a, x, b: iter([("set", {y.name: a, x.name: b})])  # type: ignore[attr-defined]
    stubs.trigger_and_read = lambda read: iter([("read",)])  # type: ignore[attr-defined]
    wrappers.stage_decorator = lambda read: lambda plan: plan  # type: ignore[attr-defined]
    wrappers.run_decorator = lambda md: lambda plan: plan  # type: ignore[attr-defined]
    wrappers.set_run_key_wrapper = lambda plan, key: plan  # type: ignore[attr-defined]
    package.plan_stubs, package.preprocessors = stubs, wrappers  # type: ignore[attr-defined]
    for module in (package, stubs, wrappers):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def devices(engine: Any) -> Devices:
    return Devices(engine, SimpleNamespace(name="y"), SimpleNamespace(name="x"), SimpleNamespace(name="camera"), "camera-image")


def opened(engine: Any, **keys: Any) -> Streamed:
    told = Description(devices="a:b", axes=AXES, frames=Frames(exposure=1e-3), **keys)
    return bluesky.microscope(build.setup(chosen()), told, CURRENT, devices(engine))


def take(microscope: Streamed, wanted: Action) -> Any:
    return microscope.acquire(wanted, generator=torch.Generator())


def ask(count: int) -> Action:
    return Action(torch.rand(1, count, 2, generator=torch.Generator().manual_seed(3)))


class TestContract(Contract):
    """What every microscope keeps."""

    capabilities = BLUESKY.capabilities
    echoes = False
    reach = 1e-3

    def open(self) -> Streamed:
        return opened(Engine())


def test_axes_there_and_back(microscope: Simulated) -> None:
    positions = np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 0.25]])
    places = AXES.place(positions, microscope.setup)
    np.testing.assert_allclose(places, [[3 - 4e-4, -2 + 1.5e-4], [3, -2], [3 + 4e-4, -2 + 0.75e-4]])
    np.testing.assert_allclose(AXES.position(places, microscope.setup), positions, atol=1e-9)


def test_each_event_is_a_pattern_where_the_axes_were() -> None:
    wanted, session = ask(9), opened(Engine())
    found = take(session, wanted)
    places = AXES.place(wanted.positions[0].double().numpy(), session.setup)
    np.testing.assert_allclose(found.patterns[0, :, :2, 0], abs(places), rtol=1e-6)
    torch.testing.assert_close(found.positions, wanted.positions, atol=1e-6, rtol=0)
    driver: Any = session.driver
    assert (driver.tally.positions, driver.tally.verified) == (9, 9)


def test_what_the_axes_read_is_reported_and_too_far_off_is_refused() -> None:
    wanted = Action(torch.full((1, 2, 2), 0.5))
    found = take(opened(Engine(backlash=2e-5)), wanted).positions  # 0.2 Å along y, 0.4 Å back along x
    torch.testing.assert_close(found, torch.tensor([[[0.5 + 0.2 / 8, 0.5 - 0.4 / 6]] * 2]), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"the microscope: frame 0: expected it within 0\.3 Å of the request, found it 0\.447 Å away"):
        take(opened(Engine(backlash=2e-5), within=0.3), wanted)


def test_a_motor_s_readback_may_have_its_own_name() -> None:
    assert take(opened(Engine(key="y-readback")), ask(2)).positions.shape == (1, 2, 2)
    with pytest.raises(ValueError, match="bluesky: expected events with y, found z, x, camera-image"):
        take(opened(Engine(key="z")), ask(2))


def test_lost_events_and_failures_are_one_sentence() -> None:
    with pytest.raises(ValueError, match="the microscope: expected 4 frames, found 3"):
        take(opened(Engine(lost=1)), ask(4))

    def fails(plan: Any, collect: Any) -> None:
        raise RuntimeError("motor stalled")

    with pytest.raises(ValueError, match="bluesky: expected a run of 2 events, found RuntimeError: motor stalled"):
        take(opened(fails), ask(2))


def test_devices_come_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laboratory = ModuleType("laboratory")
    laboratory.make, laboratory.other = lambda: devices(Engine()), lambda: 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "laboratory", laboratory)
    path = tmp_path / "bluesky.toml"

    def opening(name: str) -> Any:
        path.write_text(f'devices = "{name}"\n[axes]\nscale = [1e4, 1e4]\n[frames]\nexposure = 1e-3\n', encoding="utf-8")
        return BLUESKY.open(chosen(scan={"file": str(path)}))

    assert opening("laboratory:make").batch == 1
    for name, said in [
        ("laboratory:other", "devices: expected laboratory:other to make Devices, found int"),
        ("laboratory:none", "devices: expected laboratory:none to make devices, found AttributeError"),
        ("nowhere_at_all:f", "devices: expected nowhere_at_all:f to make devices, found ModuleNotFoundError"),
        ("no name", "devices: expected"),
    ]:
        with pytest.raises(ValueError, match=said):
            opening(name)
    monkeypatch.setitem(sys.modules, "bluesky", None)
    with pytest.raises(ValueError, match=r"bluesky: expected it to be installed \(pip install 'adaptycho\[bluesky\]'\), found none"):
        opening("laboratory:make")


def test_axes_that_do_not_move_are_refused() -> None:
    with pytest.raises(ValueError, match="scales that are not 0"):
        Axes(scale=(0.0, 1.0))


def agent(microscope: Simulated) -> Agent:
    settings = chosen()
    scanner, descent = build.scanner(settings, "heuristic"), build.reconstructor(settings, microscope.setup)
    return Agent(microscope.setup, scanner, descent, LENGTHS, AXES, microscope.dose, seed=4)


def measured(microscope: Simulated, point: dict[str, Any]) -> dict[str, Any]:
    """What an instrument tells of a point: id, axes and pattern, in no hurry."""
    place = AXES.position(np.array([[point["y"], point["x"]]]), microscope.setup)
    found = microscope.acquire(Action(torch.from_numpy(place).float()[None]), generator=torch.Generator())
    return point | {"pattern": found.patterns[0, 0].numpy()}


def test_the_agent_scans_as_the_loop_does(microscope: Simulated) -> None:
    asked = agent(microscope)
    for length in LENGTHS:
        assert asked.should_stop() == (False, None)
        points = [measured(microscope, point) for point in asked.suggest(length)]
        random.Random(1).shuffle(points)
        asked.ingest(points)
    *_, state = run(microscope, asked.scanner, asked.reconstructor, LENGTHS, seed=4)
    assert asked.state is not None
    # Positions go through the axes' units and back: single precision of a fraction of the field.
    torch.testing.assert_close(asked.state.seen.positions, state.seen.positions, atol=1e-5, rtol=0)
    torch.testing.assert_close(asked.state.potential, state.potential, atol=2e-3, rtol=0)
    assert asked.should_stop() == (True, "all 2 sub-sequences were taken")
    assert asked.get_best_points() == []
    with pytest.raises(ValueError, match="suggest: expected at most 2 sub-sequences, found that all are taken"):
        asked.suggest()


def test_a_failed_sub_sequence_is_suggested_again(microscope: Simulated) -> None:
    asked = agent(microscope)
    first = asked.suggest(7)
    asked.register_failures(first)
    assert asked.suggest() == first
    assert len({point[ID] for point in first}) == 7


def test_points_that_were_not_suggested_are_refused(microscope: Simulated) -> None:
    asked = agent(microscope)
    with pytest.raises(ValueError, match="ingest: expected points that were suggested, found that none are open"):
        asked.ingest([])
    with pytest.raises(ValueError, match="num_points: expected 7 for sub-sequence 0, found 3"):
        asked.suggest(3)
    points = [measured(microscope, point) for point in asked.suggest()]
    for given, said in [
        (points[:-1], "expected each of 7 suggested points once, found 6 points, not those"),
        ([*points[:-1], points[0]], "expected each of 7 suggested points once, found 7 points, not those"),
        (
            [*points[:-1], points[-1] | {"pattern": np.zeros((3, 3))}],
            r"frame 6: expected counts of shape .*, found float64 of shape .*; 6 of 7 frames were good",
        ),
    ]:
        with pytest.raises(ValueError, match=said):
            asked.ingest(given)
    asked.ingest(points)
    assert asked.taken == 1
