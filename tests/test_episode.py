"""The loop: what the scanner gets to see, what is handed round, and randomness that belongs to a sub-sequence."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptycho.instruments.simulated import Simulated
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.scan.episode import State, advance, observe, run, split_evenly, stream
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.scan.policies.heuristic import Heuristic
from adaptycho.settings import build, preset, update
from adaptycho.types import Action, Memory, Observation

LENGTHS = [5, 4, 4]


def microscope(count: int = 2, noise: bool = True) -> Simulated:
    changes = {"geometry": {"field": [8.0, 6.0], "object": "auto"}, "specimen": {"count": count}, "instrument": {"noise": noise}}
    return build.simulated(update(preset("light"), changes, "test"))


class Spy:
    """A scanner that keeps what it is shown, counts its calls in the memory, and goes to fixed places."""

    def __init__(self, extra: int = 0) -> None:
        self.seen: list[Observation] = []
        self.memories: list[Memory] = []
        self.extra = extra

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        self.seen.append(seen)
        self.memories.append(memory)
        line = torch.linspace(0.1, 0.9, seen.count + (self.extra if memory == 1 else 0))
        return Action(torch.stack([line, 1 - line], 1).expand(len(seen.potential), -1, -1)), (memory or 0) + 1


def same(a: State, b: State) -> bool:
    pairs = [(a.potential, b.potential)]
    pairs += [(getattr(a.reconstruction, n), getattr(b.reconstruction, n)) for n in ("potential", "loss")]
    for x, y in ((a.seen, b.seen), (a.latest, b.latest)):
        pairs += [(getattr(x, n), getattr(y, n)) for n in ("positions", "patterns", "dose")]
    return a.number == b.number and all(torch.equal(x, y) for x, y in pairs)


def test_what_the_scanner_sees() -> None:
    source, spy = microscope(), Spy()
    setup = source.setup
    states = list(run(source, spy, Reconstructor(setup, 2), LENGTHS, seed=1))
    assert [s.number for s in states] == [1, 2, 3]
    assert spy.memories == [None, 1, 2]
    assert [s.memory for s in states] == [1, 2, 3]
    assert [o.count for o in spy.seen] == LENGTHS
    for o in spy.seen:
        assert (o.total, o.field, o.probe, o.resolution) == (13, setup.field, setup.probe_radius(), setup.resolution)
    first = spy.seen[0]
    assert torch.equal(first.potential, torch.zeros(2, *setup.field_shape))
    assert first.positions.shape == (2, 0, 2)
    assert first.dose.shape == (2, 0)
    for o, before in zip(spy.seen[1:], states[:-1], strict=True):
        assert torch.equal(o.potential, before.potential)
        assert torch.equal(o.positions, before.seen.positions)
        assert torch.equal(o.dose, before.seen.dose)
        assert o.dose.shape == (2, sum(LENGTHS[: before.number]))


def test_what_a_state_holds() -> None:
    source = microscope()
    descent = Reconstructor(source.setup, 2)
    states = list(run(source, Fixed("random"), descent, LENGTHS, seed=1))
    taken = 0
    for state, length in zip(states, LENGTHS, strict=True):
        assert state.latest.positions.shape == (2, length, 2)
        assert torch.equal(state.latest.positions, state.action.positions)
        assert torch.equal(state.seen.patterns[:, taken:], state.latest.patterns)
        taken += length
        assert state.seen.positions.shape == (2, taken, 2)
        assert torch.equal(state.reconstruction.potential, descent(state.seen).potential)
        assert torch.equal(state.potential, source.setup.crop(state.reconstruction.phase))


def test_seconds_are_those_of_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    source, now = microscope(), [0.0]

    def slower(part: Callable, seconds: float) -> Callable:
        def call(*given, **named):
            now[0] += seconds
            return part(*given, **named)

        return call

    monkeypatch.setattr("adaptycho.scan.episode.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(Fixed, "__call__", slower(Fixed.__call__, 1.0))
    monkeypatch.setattr(type(source), "acquire", slower(type(source).acquire, 2.0))
    monkeypatch.setattr(Reconstructor, "__call__", slower(Reconstructor.__call__, 4.0))
    for state in run(source, Fixed("random"), Reconstructor(source.setup, 1), LENGTHS, seed=1):
        assert state.seconds == {"decide": 1.0, "acquire": 2.0, "reconstruct": 4.0}


def test_a_scanner_that_proposes_another_number_is_refused() -> None:
    source = microscope()
    states = run(source, Spy(extra=1), Reconstructor(source.setup, 1), LENGTHS, seed=0)
    next(states)
    with pytest.raises(ValueError, match="scanner: expected 4 positions for sub-sequence 1, got 5"):
        next(states)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("scanner", [Heuristic(), Fixed("random")], ids=["heuristic", "random"])
def test_run_is_advance_again_and_again(scanner: Heuristic | Fixed, warm: bool) -> None:
    source = microscope()
    descent = Reconstructor(source.setup, 2)
    state = None
    for number, whole in enumerate(run(source, scanner, descent, LENGTHS, seed=3, warm=warm)):
        before = state
        state = advance(before, source, scanner, descent, LENGTHS, seed=3, number=number, warm=warm)
        assert same(state, whole)
        # A sub-sequence can be taken again: the state before it is untouched, and so is its randomness.
        assert same(advance(before, source, scanner, descent, LENGTHS, seed=3, number=number, warm=warm), state)


def test_warm_start_goes_on_from_the_last_reconstruction() -> None:
    source = microscope()
    descent = Reconstructor(source.setup, 2)
    cold, warm = (list(run(source, Fixed("halton"), descent, LENGTHS, seed=0, warm=w)) for w in (False, True))
    assert same(cold[0], warm[0])
    for before, after in pairwise(warm):
        assert torch.equal(after.reconstruction.potential, descent(after.seen, before.reconstruction).potential)
    assert [s.reconstruction.loss.shape[1] for s in cold] == [2, 2, 2]
    # Six iterations instead of two come closer to the same data.
    assert bool((warm[-1].reconstruction.loss[:, -1] < cold[-1].reconstruction.loss[:, -1]).all())


def test_noise_of_a_sub_sequence_depends_neither_on_those_before_it_nor_on_its_scanner() -> None:
    source = microscope()

    class Wasteful(Spy):
        def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
            if memory is None:
                torch.rand(17, generator=generator)
            return super().__call__(seen, memory, generator=generator)

    descent = Reconstructor(source.setup, 1)
    a, b = (list(run(source, scanner, descent, LENGTHS, seed=5)) for scanner in (Spy(), Wasteful()))
    longer = list(run(source, Spy(), descent, [9, *LENGTHS[1:]], seed=5))
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x.latest.patterns, y.latest.patterns)
    for x, z in zip(a[1:], longer[1:], strict=True):
        assert torch.equal(x.latest.patterns, z.latest.patterns)
    other = list(run(source, Spy(), descent, LENGTHS, seed=6))
    assert not any(torch.equal(x.latest.patterns, o.latest.patterns) for x, o in zip(a, other, strict=True))


def test_streams_differ_by_seed_and_by_sub_sequence() -> None:
    drawn = [tuple(torch.rand(2, generator=stream(seed, number)).tolist()) for seed in range(20) for number in range(-12, 20)]
    assert len(set(drawn)) == len(drawn)
    assert torch.equal(torch.rand(3, generator=stream(2**62, 7)), torch.rand(3, generator=stream(2**62, 7)))


@pytest.mark.parametrize("name", ["raster", "hexagonal", "halton", "spiral"])
def test_a_batch_is_its_specimens_one_by_one(name: str) -> None:
    source = microscope(3, noise=False)
    together = list(run(source, Fixed(name), Reconstructor(source.setup, 3), LENGTHS, seed=2))
    for b in range(3):
        one = Simulated(source.setup, source.potential[b : b + 1], source.dose, source.imperfections)
        for many, single in zip(together, run(one, Fixed(name), Reconstructor(source.setup, 3), LENGTHS, seed=2), strict=True):
            assert torch.equal(many.seen.positions[b], single.seen.positions[0])
            # Single precision: sums of up to 13 positions may be made in another order.
            scale = float(single.potential.abs().max())
            assert torch.allclose(many.potential[b], single.potential[0], atol=1e-5 * scale, rtol=0)


def test_a_random_scan_is_different_for_each_specimen_and_its_pieces_belong_together() -> None:
    source = microscope()
    states = list(run(source, Fixed("random"), Reconstructor(source.setup, 1), LENGTHS, seed=2))
    a, b = states[-1].seen.positions
    assert not torch.equal(a, b)
    assert len(torch.unique(a, dim=0)) == 13
    whole = next(run(source, Fixed("random"), Reconstructor(source.setup, 1), [13], seed=2))
    assert torch.equal(whole.action.positions, states[-1].seen.positions)


def test_defocus_of_the_scanner_is_what_is_measured() -> None:
    source = microscope()
    state = next(run(source, Fixed("raster", 120.0), Reconstructor(source.setup, 1), LENGTHS, seed=2))
    assert torch.equal(state.latest.defocus, torch.full((2, 5), 120.0))


@given(total=st.integers(1, 5000), parts=st.integers(1, 5000))
def test_property_split_evenly(total: int, parts: int) -> None:
    if parts > total:
        with pytest.raises(ValueError, match=f"subsequences: expected 1 to {total} for {total} positions, got {parts}"):
            split_evenly(total, parts)
        return
    lengths = split_evenly(total, parts)
    assert sum(lengths) == total
    assert len(lengths) == parts
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1


def test_the_scanner_is_told_the_probe_in_use(light: Setup) -> None:
    """A defocused scan is decided with the defocused beam's radius."""
    scope = Simulated(light, torch.zeros(1, *light.object.shape), 1e4)
    (state,) = run(scope, Fixed("raster", defocus=80.0), Reconstructor(light, iterations=1), [4], seed=0)
    after = observe(state, scope, [4, 4], 1)
    assert after.probe == light.probe_radius(defocus=80.0) > 2 * observe(None, scope, [4, 4], 0).probe
