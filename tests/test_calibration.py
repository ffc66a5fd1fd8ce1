"""What is wrong with a microscope is found before the first sub-sequence, and what is right is not blamed."""

from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adaptycho.instruments import Capabilities, calibration
from adaptycho.instruments.simulated import Simulated
from adaptycho.runs.execution import execute
from adaptycho.runs.scans import Run
from adaptycho.settings import build, preset, update
from adaptycho.settings.microscopes import GROUP, Kind
from adaptycho.types import Action, Measurement

SETTINGS = {
    "geometry": {"field": [12.0, 10.0], "object": "auto"},
    "scan": {"positions": 12, "subsequences": 2, "seed": 3, "dose": 2e4},
    "reconstruct": {"iterations": 2, "reference_side": 5},
}
CHOSEN = update(preset("light"), SETTINGS, "test")


@dataclass
class Faulty:
    """A simulated microscope that is wrong in some way, and says so only where it reports positions."""

    inner: Simulated
    lag: int = 0  # frames that patterns are behind
    stale: float = 0.0  # part of the first frames that are the last ones again
    settles: float = 1.0  # of the way to a new position when it is read
    turn: float = 0.0  # degrees by which its scan is turned
    scale: float = 1.0
    reports: bool = False  # whether it reports where the beam really was
    behind: int = 0  # frames that reported positions are behind
    random: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(9))

    def __getattr__(self, name: str) -> Any:
        if name == "to":  # it cannot compute elsewhere
            raise AttributeError(name)
        return getattr(self.inner, name)

    def acquire(self, action: Action, *, generator: torch.Generator) -> Measurement:
        asked = action.positions
        angle = torch.deg2rad(torch.tensor(self.turn))
        size = torch.tensor(self.inner.setup.field)
        turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
        real = (((asked - 0.5) * size) @ turn.T * self.scale) / size + 0.5
        found = self.inner.acquire(replace(action, positions=real), generator=generator)
        patterns = found.patterns.clone()
        for k in range(1, patterns.shape[1]):
            if bool((asked[:, k] != asked[:, k - 1]).any()):
                if torch.rand(1, generator=self.random) < self.stale:
                    patterns[:, k] = found.patterns[:, k - 1]
                else:
                    patterns[:, k] = self.settles * found.patterns[:, k] + (1 - self.settles) * found.patterns[:, k - 1]
        patterns = patterns.roll(self.lag, 1)
        told = (found.positions if self.reports else asked.clamp(0, 1)).roll(self.behind, 1)
        return replace(found, patterns=patterns, positions=told)


def faulty(**wrong: Any) -> Faulty:
    return Faulty(build.simulated(CHOSEN), **wrong)


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def test_one_that_is_right_is_not_blamed() -> None:
    for seed in range(3):
        calibration.check(build.simulated(CHOSEN), generator=torch.Generator().manual_seed(seed))
    calibration.check(faulty(), part=0.6, generator=stream())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lag": 1}, "patterns 1 frames behind$"),
        ({"lag": 3}, "patterns 3 frames behind$"),
        ({"stale": 0.4}, r"(2|3|4|5)\d % stale frames after a move$"),
        ({"settles": 0.7}, "a beam that is (6|7)[0-9] % of the way when it is read$"),
        ({"behind": 2}, "reported positions 2 frames behind$"),
        ({"scale": 0.93, "reports": True}, r"a scale of 0\.930 x 0\.930"),
        ({"turn": 6.0, "reports": True}, r"a scan turned by 6\.0 degrees"),
        ({"turn": 30.0}, r"a detector turned by (1[45]\d|2\d|3\d) degrees against the scan \(or 180 more\) instead of 0"),
    ],
    ids=lambda given: str(given) if isinstance(given, dict) else "",
)
def test_what_is_wrong_is_found_and_called_by_its_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=rf"^calibration: expected a microscope that is where and when it says, found .*{said}"):
        calibration.check(faulty(**wrong), generator=stream())


@pytest.mark.parametrize("rotation", [0.0, 25.0, 110.0])
def test_the_detector_s_angle_is_that_of_the_setup(rotation: float) -> None:
    chosen = build.simulated(CHOSEN)
    turned = replace(chosen.setup, rotation=rotation, object=chosen.setup.object, field=(6.0, 5.0))
    found = calibration.turned(replace(chosen, setup=turned), generator=stream())
    assert found is not None
    assert abs((found - rotation + 90) % 180 - 90) < 4.0


def test_an_even_specimen_tells_nothing_and_is_refused() -> None:
    source = build.simulated(CHOSEN)
    empty: Tensor = torch.zeros_like(source.potential)
    with pytest.raises(ValueError, match=r"calibration: expected two positions whose patterns differ, .*, found an even specimen"):
        calibration.check(replace(source, potential=empty), generator=stream())


WRONG: list[dict[str, Any]] = []  # of the microscopes that are opened next
ASKS = Kind(name="asks", capabilities=Capabilities(calibrate=1.0), open=lambda chosen: faulty(**WRONG[-1]))


def test_a_run_of_a_microscope_that_asks_for_it_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("asks", f"{__name__}:ASKS", GROUP)
    monkeypatch.setattr("adaptycho.support.plugins.entry_points", lambda group: [point] if group == GROUP else [])
    monkeypatch.setattr(f"{__name__}.WRONG", [{"lag": 1}])
    chosen = update(CHOSEN, {"scan": {"microscope": "asks"}, "safety": {"dose": 1e9}}, "test")
    target = Run.create(tmp_path / "run", chosen)
    with pytest.raises(ValueError, match="patterns 1 frames behind"):
        list(execute(target))
    assert Run.open(target.path).recorded == 0
    assert (target.path / "exposures.jsonl").read_text().count('"number": 0') == 3  # what it cost is kept
    WRONG.append({})
    *_, last = execute(Run.open(target.path))
    assert last.number == 2
    WRONG.append({"lag": 1})
    unchecked = Run.create(tmp_path / "unchecked", update(chosen, {"safety": {"calibrate": 0.0}}, "test"))
    next(iter(execute(unchecked)))
    assert unchecked.recorded == 1
