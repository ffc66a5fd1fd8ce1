"""Frames are paired by their numbers and kept as they come; a faulty instrument costs no pattern, and whoever looks would notice."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adaptycho.instruments.frames import Frame, collect
from adaptycho.instruments.guard import Guard, Limits, Unfinished
from adaptycho.runs import journal
from adaptycho.runs.spool import Spool, read
from adaptycho.settings import build, preset, update
from adaptycho.types import Action, Measurement

ROOT = Path(__file__).parents[1]
GEOMETRY = {"field": [8.0, 6.0], "object": "auto", "window": 16, "detector": 8, "pixel": 0.3}
SETUP = build.setup(update(preset("light"), {"geometry": GEOMETRY}, "test"))
WHERE = [(0.1, 0.2), (0.5, 0.5), (0.9, 0.1)]
ASKED = Action(torch.tensor([WHERE]))


def frame(number: int, **changes: object) -> Frame:
    """The one of request 7 + number."""
    return replace(Frame(7 + number, WHERE[number], np.full((8, 8), float(number)), 100.0), **changes)


def collected(*given: Frame) -> Measurement:
    return collect(given, ASKED, SETUP, first=7, reach=0.5, saturation=1000)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 1, 1, 2), (2, 2, 1, 0, 0)])
def test_frames_are_paired_by_their_numbers(order: tuple[int, ...]) -> None:
    found = collected(*[frame(n) for n in order], Frame(3, (0.0, 0.0), np.ones((8, 8)), 1.0))  # and one of long ago
    assert torch.equal(found.positions, ASKED.positions)
    assert found.patterns[0, :, 0, 0].tolist() == [0.0, 1.0, 2.0]


BAD = {
    "missing": (frame(2), r"expected 3 frames, found 2 \(the first that is missing is 8\)", 2),
    "contradicted": (frame(0, counts=np.ones((8, 8))), "frame 7: expected it once, found two that differ", 1),
    "shape": (frame(1, counts=np.ones((8, 6))), r"frame 8: expected counts of shape \(8, 8\), found float64 of shape \(8, 6\)", 1),
    "NaN": (frame(1, counts=np.full((8, 8), np.nan)), "frame 8: expected finite counts from 0 on", 1),
    "saturated": (
        frame(1, counts=np.full((8, 8), 1000)),
        "frame 8: expected counts below 1000, where .* saturates, found 1000",
        1,
    ),
    "elsewhere": (frame(1, position=(0.6, 0.5)), r"frame 8: expected it within 0\.5 Å of the request, found it 0\.8 Å away", 1),
    "outside": (frame(1, position=(0.5, 1.5)), "frame 8: expected a position inside the scan field", 1),
    "no dose": (frame(1, dose=0.0), "frame 8: expected a finite position, defocus and a dose", 1),
}


@pytest.mark.parametrize("name", BAD)
def test_a_sub_sequence_that_is_not_whole_is_refused_with_what_is_good_of_it(name: str) -> None:
    bad, said, good = BAD[name]
    with pytest.raises(Unfinished, match=f"^the microscope: {said}") as refused:
        collected(frame(0), bad)
    assert refused.value.answer is not None
    assert refused.value.answer.positions.shape == (1, good, 2)


def test_what_came_before_a_failure_is_good() -> None:
    def failing() -> Iterator[Frame]:
        yield frame(1)
        raise RuntimeError("the camera is gone")

    with pytest.raises(Unfinished, match=r"^the microscope: RuntimeError: the camera is gone; 1 of 3 frames were good$") as refused:
        collect(failing(), ASKED, SETUP, first=7, reach=0.5)
    assert refused.value.answer is not None
    assert torch.equal(refused.value.answer.positions[0], ASKED.positions[0, 1:2])


def test_frames_are_on_disk_as_they_come(tmp_path: Path) -> None:
    kept = Spool(tmp_path)
    for _ in range(2):
        kept.begin()
        kept.write(frame(0), True)
        kept.write(frame(1, counts=np.ones((8, 6), np.uint16)), True)
    kept.write(frame(2), False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000.frames-1.npy", "000.frames-2.npy", "000.strays-2.npy"]
    one, other = read(tmp_path / "000.frames-1.npy")
    assert (one.index, one.position, one.dose, other.counts.dtype, other.counts.shape) == (7, WHERE[0], 100.0, np.uint16, (8, 6))
    file = tmp_path / "000.frames-1.npy"
    file.write_bytes(file.read_bytes()[:-30])
    assert len(list(read(file))) == 1  # the last one was not written whole
    (tmp_path / "000.h5").touch()
    for _ in range(2):
        kept.begin()
    kept.write(frame(1), True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000.frames-1.npy",
        "000.h5",
        "000.strays-2.npy",
        "001.frames-1.npy",
        "001.frames-2.npy",
    ]


def test_a_disk_without_room_exposes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = build.simulated(update(preset("light"), {"geometry": {"field": [8.0, 6.0]}}, "test"))
    guard = Guard(stage, Limits())
    monkeypatch.setattr(guard, "acquire", lambda *_, **__: pytest.fail("exposed"))
    monkeypatch.setattr(journal.shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    with pytest.raises(ValueError, match=r"expected 16 MiB of room for the next sub-sequence, found 1; nothing was sent$"):
        journal.Journal(guard, tmp_path).acquire(ASKED, generator=torch.Generator())


# Episodes, in a process of their own, which has no threads when it forks.

EPISODES = """
import dataclasses, json, sys
sys.path.insert(0, "tests")
import faults
from adaptycho.instruments import frames
from adaptycho.runs import spent
from adaptycho.runs.spool import Spool

def bad(count, first, *names):
    faults.FAULTS = names or faults.FAULTS
    found = list(faults.episodes(count, first))
    for one in found:
        faults.shutil.rmtree(one["folder"], ignore_errors=True)
    return [line for one in found for line in one["bad"]]

told = {"right": bad(2, 200_000)}
write, Spool.write = Spool.write, lambda *given: None
told["no spool"] = bad(1, 300_000, "SIGKILL in a frame")
Spool.write, joined = write, frames._joined
turn = lambda found: zip(found.items(), reversed(found.values()))
frames._joined = lambda found: joined({n: dataclasses.replace(f, counts=other.counts) for (n, f), other in turn(found)})
told["mixed up"] = bad(1, 400_000, "late")
frames._joined, spent.unsettled = joined, lambda *given: []
told["forgotten"] = bad(1, 500_036, "exception")
print(json.dumps(told))
"""


def test_a_faulty_instrument_costs_no_pattern_and_one_that_looked_away_would_be_caught() -> None:
    done = subprocess.run([sys.executable, "-c", EPISODES], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("right") == []
    said = {
        "no spool": "^lost: ",
        "mixed up": r"^000\.h5: pattern \d+ at ",
        "forgotten": "electrons, of .* allowed",
    }
    assert said.keys() == found.keys()
    for name, wanted in said.items():
        assert any(re.search(wanted, line) for line in found[name]), found
