"""The loop whose microscope never waits: what is under way is known to the scanner, and the reconstruction is made meanwhile."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adaptycho.instruments.simulated import Simulated
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.runs.execution import execute
from adaptycho.runs.orders import Order, give
from adaptycho.runs.scans import Run, read_states
from adaptycho.scan.episode import run, split_evenly
from adaptycho.scan.overlap import foresee, run_overlapped
from adaptycho.scan.policies.heuristic import Heuristic
from adaptycho.settings import Settings, build, preset, update
from adaptycho.types import Action, Measurement, Memory, Observation

LENGTHS = [5, 4, 4, 3]
WAIT = 30.0  # s until a test gives up


def chosen(**changes: Any) -> Settings:
    small = {"geometry": {"field": [8.0, 6.0], "object": "auto"}, "reconstruct": {"iterations": 2, "reference_side": 5}}
    return update(update(preset("light"), small, "test"), changes, "test")


class Spy:
    """A scanner that keeps what it is shown and draws random positions."""

    def __init__(self, fails_at: int = -1) -> None:
        self.seen: list[Observation] = []
        self.memories: list[Memory] = []
        self.fails_at = fails_at

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        if len(self.seen) == self.fails_at:
            raise RuntimeError("no idea")
        self.seen.append(seen)
        self.memories.append(memory)
        return Action(torch.rand(len(seen.potential), seen.count, 2, generator=generator)), (memory or 0) + 1


@dataclass
class Watched:
    """A microscope that tells when it begins and has ended."""

    inner: Simulated
    begins: Callable[[int], None]
    taken: int = 0

    @property
    def setup(self) -> Setup:
        return self.inner.setup

    @property
    def batch(self) -> int:
        return self.inner.batch

    def acquire(self, action: Action, *, generator: torch.Generator) -> Measurement:
        self.begins(self.taken)
        answer = self.inner.acquire(action, generator=generator)
        self.taken += 1
        return answer


def test_the_scanner_knows_where_the_sub_sequence_under_way_goes_and_not_what_it_saw() -> None:
    source, spy = build.simulated(chosen(specimen={"count": 2})), Spy()
    states = list(run_overlapped(source, spy, Reconstructor(source.setup, 2), LENGTHS, seed=1))
    assert [state.number for state in states] == [1, 2, 3, 4]
    assert spy.memories == [None, 1, 2, 3]
    assert [state.memory for state in states] == [1, 2, 3, 4]
    assert [seen.positions.shape[1] for seen in spy.seen] == [0, 5, 9, 13]
    assert torch.equal(spy.seen[1].potential, states[0].potential)  # the second waits for the first
    for number in (2, 3):
        seen, known = spy.seen[number], states[number - 2]
        assert torch.equal(seen.potential, known.potential)
        under_way = states[number - 1]
        assert torch.equal(seen.positions, torch.cat([known.seen.positions, under_way.action.positions], 1))
        assert torch.equal(seen.dose, under_way.seen.dose)
        assert seen.scattered is not None
        assert seen.scattered.shape == seen.dose.shape
        assert (seen.count, seen.total) == (LENGTHS[number], 16)
    for state in states:
        assert state.seconds.keys() == {"decide", "acquire", "idle", "reconstruct"}
        assert all(spent >= 0 for spent in state.seconds.values())


def test_two_sub_sequences_are_those_of_the_plain_loop_and_more_are_others() -> None:
    source = build.simulated(chosen())
    for count, same in ((2, True), (3, False)):
        lengths = split_evenly(18, count)
        plain, overlapped = (
            list(loop(source, Heuristic(), Reconstructor(source.setup, 2), lengths, seed=1))[-1] for loop in (run, run_overlapped)
        )
        assert torch.equal(plain.seen.patterns, overlapped.seen.patterns) == same
        assert torch.equal(plain.potential, overlapped.potential) == same


def test_the_reconstruction_is_made_while_the_next_sub_sequence_is_acquired() -> None:
    """A reconstruction that waits until the next acquisition has begun: the plain loop would never end."""
    began = [threading.Event() for _ in LENGTHS]
    source = Watched(build.simulated(chosen()), lambda number: began[number].set())
    made: list[int] = []

    class Patient(Reconstructor):
        def __call__(self, seen: Measurement, start: Any = None) -> Any:
            number = len(made)
            if 0 < number < len(LENGTHS) - 1:
                assert began[number + 1].wait(WAIT), "the microscope waited for the reconstruction"
            made.append(seen.positions.shape[1])
            return super().__call__(seen, start)

    states = list(run_overlapped(source, Spy(), Patient(source.setup, 2), LENGTHS, seed=1))
    assert made == [5, 9, 13, 16]
    assert len(states) == 4


def test_an_error_waits_for_what_is_under_way() -> None:
    source = Watched(build.simulated(chosen()), lambda number: None)
    with pytest.raises(RuntimeError, match="no idea"):
        list(run_overlapped(source, Spy(fails_at=2), Reconstructor(source.setup, 2), LENGTHS, seed=1))
    assert source.taken == 2

    def breaks(number: int) -> None:
        if number == 2:
            raise ValueError("the microscope: expected an answer, found none")

    source, seen = Watched(build.simulated(chosen()), breaks), []
    with pytest.raises(ValueError, match="the microscope: expected an answer, found none"):
        seen.extend(run_overlapped(source, Spy(), Reconstructor(source.setup, 2), LENGTHS, seed=1))
    assert source.taken == 2


def near(*positions: tuple[float, float]) -> Tensor:
    return torch.tensor([positions])


def test_what_is_under_way_is_expected_to_scatter_as_its_neighbours_do() -> None:
    seen = Observation(
        torch.zeros(1, 8, 6),
        near((0.1, 0.1), (0.9, 0.1)),
        torch.tensor([[7.0, 9.0]]),
        (8.0, 60.0),
        0.5,
        1.5,
        3,
        9,
        torch.tensor([[0.2, 0.6]]),
    )
    after = foresee(seen, Action(near((0.3, 0.9), (0.8, 0.2), (1.4, 0.0))))
    assert after.scattered is not None
    torch.testing.assert_close(after.scattered, torch.tensor([[0.2, 0.6, 0.2, 0.6, 0.6]]))
    assert after.dose.tolist() == [[7.0, 9.0, 9.0, 9.0, 9.0]]
    assert after.positions[0, -1].tolist() == [1.0, 0.0]
    assert foresee(seen, Action(near((0.5, 0.5)), dose=4.0)).dose.tolist() == [[7.0, 9.0, 4.0]]


def test_a_run_that_was_stopped_goes_on_as_it_would_have(tmp_path: Path) -> None:
    settings = chosen(scan={"positions": 18, "subsequences": 4, "overlap": True, "dose": 300.0})
    whole, parted = (Run.create(tmp_path / name, settings) for name in ("whole", "parted"))
    list(execute(whole))
    states = execute(parted)
    next(states)
    next(states)
    give(parted.path, Order(word="stop"))
    assert list(states) == []
    assert not parted.finished
    list(execute(Run.open(parted.path)))
    for one, other in zip(read_states(whole), read_states(Run.open(parted.path)), strict=True):
        assert torch.equal(one["requested"], other["requested"])
        assert torch.equal(one["potential"], other["potential"])
