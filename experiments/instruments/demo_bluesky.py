"""An adaptive scan through bluesky's run engine, on simulated ophyd-async devices: `make demo-bluesky`. The last line is JSON.

Two axes and a camera, which counts adaptycho's forward model where the axes are. The same scan is made twice: adaptycho drives the engine,
and bluesky-adaptive's `optimize` drives adaptycho's `Agent`.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bluesky import RunEngine
from bluesky_adaptive import plans, protocols
from ophyd_async.core import AsyncStatus, StandardReadable, init_devices, soft_signal_r_and_setter
from ophyd_async.sim import SimMotor

from adaptycho.instruments.bluesky import Axes, Devices, acquisition
from adaptycho.instruments.simulated import Simulated
from adaptycho.runs.execution import execute
from adaptycho.runs.scans import Run
from adaptycho.scan.agent import ID, Agent
from adaptycho.settings import BEST, Settings, build, update
from adaptycho.types import Action

AXES = Axes(scale=(1e4, -1e4), middle=(3.5, -2.0))  # Å per unit: axes in micrometres, one of which runs the other way
DOSE, EXPOSURE = 2.14e5, 1e-3  # electrons, s
SCAN = {"positions": 250, "subsequences": 5, "policy": "adaptive"}


class Camera(StandardReadable):
    """Counts the pattern of the specimen where the axes are when it is triggered, zero frequency in the centre."""

    def __init__(self, microscope: Simulated, y: SimMotor, x: SimMotor, name: str = "") -> None:
        self.microscope, self.generator, self.axes = microscope, torch.Generator().manual_seed(1), (y, x)
        with self.add_children_as_readables():
            self.image, self._set = soft_signal_r_and_setter(np.ndarray, np.zeros(microscope.setup.detector))
        super().__init__(name=name)

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        """Exposes."""
        field = np.array(self.microscope.setup.field)
        y, x = [await axis.user_readback.get_value() for axis in self.axes]
        place = np.array([(y - 3.5) * 1e4, (x + 2.0) * -1e4]) / field + 0.5  # written down apart from the adapter's own conversion
        where = torch.tensor(place, dtype=torch.float32).reshape(1, 1, 2)
        counts = self.microscope.acquire(Action(where), generator=self.generator).patterns[0, 0].numpy()
        self._set(np.fft.fftshift(counts).astype(np.float64))


def settings() -> Settings:
    """Of the scan."""
    current = DOSE * 1.602176634e-19 / EXPOSURE * 1e12
    return update(Settings(), {"scan": SCAN, "instrument": {"current": current}, "reconstruct": BEST}, "demo")


def devices() -> Devices:
    """What the file names: axes and camera under a run engine."""
    engine = RunEngine({}, context_managers=[])
    with init_devices():
        y, x = SimMotor(instant=True), SimMotor(instant=True)
        camera = Camera(build.simulated(settings()), y, x)
    return Devices(engine, y, x, camera, camera.image.name)


def correlation(potential: torch.Tensor) -> float:
    """With the truth."""
    truth = build.truth_in_field(build.simulated(settings()))[0].numpy()
    return round(float(np.corrcoef(potential[0].numpy().ravel(), truth.ravel())[0, 1]), 4)


def driven(folder: Path) -> dict[str, Any]:
    """The scan with adaptycho in the lead."""
    (folder / "bluesky.toml").write_text(
        'devices = "demo_bluesky:devices"\nwithin = 0.01\n'
        f"[axes]\nscale = {list(AXES.scale)}\nmiddle = {list(AXES.middle)}\n[frames]\nexposure = {EXPOSURE}\n"
    )
    chosen = update(settings(), {"scan": {"microscope": "bluesky", "file": str(folder / "bluesky.toml")}}, "demo")
    began = time.perf_counter()
    run = Run.create(folder / "run", chosen)
    opened: Any = run.microscope
    spent: dict[str, float] = {}
    for state in execute(run):
        for name, seconds in state.seconds.items():
            spent[name] = spent.get(name, 0.0) + seconds
        print(f"sub-sequence {state.number}: {state.seen.positions.shape[1]} positions", flush=True)
    tally = asdict(opened.driver.tally)
    counts = {name: tally.pop(name) for name in ("positions", "verified", "misplaced", "stale", "mixed")}
    computed = {name: round(value, 3) for name, value in spent.items() if name != "acquire"}
    return {
        **counts,
        "seconds": round(time.perf_counter() - began, 2),
        "correlation": correlation(state.potential),
        "split": {"move and expose": round(tally["expose"], 3)} | computed,
    }


def asked() -> dict[str, Any]:
    """The scan with bluesky-adaptive in the lead."""
    chosen, made, began = settings(), devices(), time.perf_counter()
    setup, names = build.setup(chosen), (made.y.name, made.x.name)
    agent = Agent(setup, build.scanner(chosen), build.reconstructor(chosen, setup), [50] * 5, AXES, DOSE, names)
    events: list[Mapping[str, Any]] = []

    def acquire(suggestions: Sequence[Mapping], actuators: Any, sensors: Any = None, md: Any = None) -> Any:
        events.clear()
        return (yield from acquisition(made, [(point[names[0]], point[names[1]]) for point in suggestions], md))

    def evaluate(uid: Any, suggestions: Sequence[Mapping]) -> list[dict[str, Any]]:
        return [
            {ID: point[ID], "pattern": np.fft.ifftshift(event[made.image]), **{name: event[name] for name in names}}
            for point, event in zip(suggestions, events, strict=True)
        ]

    def collect(name: str, document: Mapping[str, Any]) -> None:
        if name == "event" and made.image in document["data"]:
            events.append(document["data"])

    wanted = (protocols.Optimizer, protocols.SupportsStoppingCriteria, protocols.TrialFaultAware)
    problem = protocols.OptimizationProblem(agent, [made.y, made.x], [made.detector], evaluate, acquire)
    made.engine(plans.optimize(problem, iterations=None, n_points=50), collect)
    assert agent.state is not None
    return {
        "protocols": all(isinstance(agent, protocol) for protocol in wanted),
        "positions": agent.state.seen.positions.shape[1],
        "stopped": agent.should_stop()[1],
        "seconds": round(time.perf_counter() - began, 2),
        "correlation": correlation(agent.state.potential),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent))
    sys.modules["demo_bluesky"] = sys.modules["__main__"]
    with tempfile.TemporaryDirectory() as name:
        found = driven(Path(name))
    found["agent"] = asked()
    print(json.dumps(found))
    sys.exit(found["verified"] < found["positions"] or not found["agent"]["protocols"])
