"""The adaptive scan without learning: where it goes and why, and that it is worth it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from adaptycho.runs.scores import compare, improvement
from adaptycho.scan import patterns
from adaptycho.scan.episode import split_evenly
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.scan.policies.heuristic import FOCUSED, Heuristic, warp
from adaptycho.settings import build, preset, update
from adaptycho.types import Observation

FIELD = (20.0, 10.0)
RESOLUTION = 1.5


def see(phase: torch.Tensor, positions: torch.Tensor, *, count: int = 40, probe: float = 0.4, total: int = 200) -> Observation:
    """What a scanner sees of phases (B, h, w) after positions (B, K, 2)."""
    return Observation(phase, positions, torch.ones(positions.shape[:2]), FIELD, probe, RESOLUTION, count, total)


def propose(scanner: Heuristic, seen: Observation) -> torch.Tensor:
    action, memory = scanner(seen, None, generator=torch.Generator())
    assert memory is None
    return action.positions


def survey(count: int = 60, batch: int = 1) -> torch.Tensor:
    return patterns.halton(count).float().expand(batch, -1, -1)


def onward(taken: int, count: int) -> torch.Tensor:
    return patterns.halton(taken + count)[taken:].float()


def texture(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_the_survey_is_a_halton_sequence() -> None:
    nothing = see(torch.zeros(2, 40, 20), torch.zeros(2, 0, 2))
    assert torch.equal(propose(Heuristic(), nothing), onward(0, 40).expand(2, -1, -1))


@pytest.mark.parametrize("phase", [0.0, math.nan, math.inf], ids=str)
def test_where_there_is_nothing_to_follow_the_survey_goes_on(phase: float) -> None:
    proposed = propose(Heuristic(), see(torch.full((1, 40, 20), phase), survey()))
    # A constant density moves nothing but for the rounding of sums of 800 pixels, in double precision.
    assert torch.allclose(proposed[0], onward(60, 40), atol=1e-6)


@given(
    phase=arrays.arrays(np.float32, (12, 15), elements=st.floats(-1e6, 1e6, width=32)),
    positions=arrays.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(2)), elements=st.floats(0, 1, width=32)),
    probe=st.floats(0.05, 5.0),
    scanner=st.builds(
        Heuristic,
        pull=st.floats(0, 1),
        reach=st.floats(0, 100),
        smooth=st.floats(0, 3),
        contrast=st.floats(0, 10),
        floor=st.floats(0, 1),
    ),
)
def test_property_any_potential_gives_finite_positions_in_the_field(
    phase: np.ndarray, positions: np.ndarray, probe: float, scanner: Heuristic
) -> None:
    seen = see(torch.from_numpy(phase)[None], torch.from_numpy(positions)[None], count=7, probe=probe)
    proposed = propose(scanner, seen)
    assert proposed.shape == (1, 7, 2)
    assert proposed.dtype == torch.float32
    assert bool(((proposed >= 0) & (proposed <= 1)).all())  # nan compares false
    assert torch.equal(proposed, propose(scanner, seen))


def test_nothing_is_random_and_specimens_do_not_mix() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    seen = see(texture(3, 40, 20), survey(batch=3))
    action, _ = Heuristic()(seen, None, generator=generator)
    assert torch.equal(generator.get_state(), before)
    for b in range(3):
        alone = see(seen.potential[b : b + 1], seen.positions[b : b + 1])
        assert torch.equal(propose(Heuristic(), alone)[0], action.positions[b])
    assert not torch.equal(action.positions[0], action.positions[1])


def test_action_carries_the_defocus() -> None:
    action, _ = Heuristic(defocus=80.0)(see(texture(1, 40, 20), survey()), None, generator=torch.Generator())
    assert action.defocus == 80.0


@given(points=arrays.arrays(np.float64, (20, 2), elements=st.floats(0, 1)), level=st.floats(1e-6, 1e6))
def test_property_a_constant_density_warps_nothing(points: np.ndarray, level: float) -> None:
    # Rounding of cumulated sums over 13 x 7 pixels.
    assert np.allclose(warp(points, np.full((13, 7), level)), points, atol=1e-12, rtol=0)


@given(
    density=arrays.arrays(np.float64, (6, 5), elements=st.floats(0.01, 10)),
    points=arrays.arrays(np.float64, (20, 2), elements=st.floats(0, 1)),
)
def test_property_warping_keeps_the_order_of_rows_and_the_field(density: np.ndarray, points: np.ndarray) -> None:
    moved = warp(points, density)
    assert ((moved >= 0) & (moved <= 1)).all()
    order = np.argsort(points[:, 0], kind="stable")
    assert (np.diff(moved[order, 0]) >= 0).all()


def test_statistical_warped_points_follow_the_density() -> None:
    n = 20_000
    random = np.random.default_rng(0)
    density = random.uniform(0.2, 3.0, (4, 5))
    moved = warp(random.uniform(size=(n, 2)), density)
    counts, _, _ = np.histogram2d(*moved.T, bins=(4, 5), range=((0, 1), (0, 1)))
    wanted = density / density.sum()
    # Each of 20 counts is binomial, n = 20,000; bound 4 standard errors.
    assert (np.abs(counts / n - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / n)).all()


def peak(y: float, x: float, height: int = 80, width: int = 40, radius: float = 0.5) -> torch.Tensor:
    """One round atom of `radius` Å at a place given as fractions of the field."""
    rows = ((torch.arange(height) + 0.5) / height - y) * FIELD[0]
    columns = ((torch.arange(width) + 0.5) / width - x) * FIELD[1]
    return torch.exp(-(rows[:, None] ** 2 + columns**2) / (2 * radius**2))[None]


@pytest.mark.parametrize("pull", [0.0, 0.3, 0.5, 1.0])
def test_focused_beams_go_part_of_the_way_to_the_maximum(pull: float) -> None:
    # In the middle of pixel (30, 12).
    atom = torch.tensor([30.5 / 80, 12.5 / 40])
    scanner = Heuristic(pull=pull, reach=5.0, contrast=0.0)
    proposed = propose(scanner, see(peak(*atom.tolist()), survey()))[0]
    start = onward(60, 40)
    size = torch.tensor(FIELD)
    near = ((start - atom) * size).norm(dim=1) < 5.0 * 0.4
    assert 0 < int(near.sum()) < 40
    # Single precision of numbers below 1.
    assert torch.allclose(proposed[near], atom + (1 - pull) * (start - atom)[near], atol=1e-6)
    assert torch.allclose(proposed[~near], start[~near], atol=1e-6)


def test_the_nearest_of_two_maxima_pulls() -> None:
    # In Å the first is nearer to the middle of the upper edge, in fractions of the field the second.
    a, b = (0.2125, 0.5125), (0.0125, 0.1375)
    seen = see(peak(*a) + peak(*b), survey(), count=1)
    scanner = Heuristic(pull=1.0, reach=100.0, contrast=0.0)
    reached = [propose(scanner, see(seen.potential, survey(k), count=1))[0, 0] for k in range(1, 40)]
    starts = [onward(k, 1)[0] for k in range(1, 40)]
    size = torch.tensor(FIELD)
    for start, end in zip(starts, reached, strict=True):
        nearest = min((a, b), key=lambda place: float(((torch.tensor(place) - start) * size).norm()))
        # A maximum of the smoothed phase lies in the same pixel, half of 1/80 and 1/40 of the field at most from its middle.
        assert bool(((end - torch.tensor(nearest)).abs() <= torch.tensor([0.5 / 80, 0.5 / 40]) + 1e-6).all())


def test_a_defocused_beam_is_not_pulled() -> None:
    phase, start = peak(0.5, 0.5), onward(60, 40)
    scanner = Heuristic(contrast=0.0, reach=100.0)
    wide = FOCUSED * RESOLUTION
    assert torch.equal(propose(scanner, see(phase, survey(), probe=wide))[0], start)
    assert not torch.allclose(propose(scanner, see(phase, survey(), probe=0.99 * wide))[0], start, atol=0.01)


@pytest.mark.parametrize("corner", [0, 1])
def test_positions_follow_an_island(corner: int) -> None:
    phase = torch.zeros(1, 80, 40)
    rows, columns = (slice(0, 40), slice(0, 20)) if corner == 0 else (slice(40, 80), slice(20, 40))
    phase[0, rows, columns] = texture(40, 20)

    def inside(contrast: float) -> float:
        half = propose(Heuristic(pull=0.0, contrast=contrast), see(phase, survey(), count=100)) >= 0.5
        return float((half == bool(corner)).all(-1).float().mean())

    # A quarter of the field; 100 Halton points are spread more evenly than four standard errors of 100 random ones.
    assert abs(inside(0.0) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 100)
    assert inside(0.7) > 0.5
    assert inside(1.5) > inside(0.7) > inside(0.3) > inside(0.0)


def test_the_floor_spreads_positions_whatever_is_seen() -> None:
    phase = torch.zeros(1, 80, 40)
    phase[0, :40, :20] = texture(40, 20)
    proposed = [propose(Heuristic(pull=0.0, floor=floor), see(phase, survey()))[0] for floor in (0.0, 1.0)]
    assert torch.allclose(proposed[1], onward(60, 40), atol=1e-6)
    assert not torch.allclose(proposed[0], proposed[1], atol=0.05)


def test_where_the_beam_has_not_been_is_taken_as_average() -> None:
    # Only the left half was visited and it is uniform: the empty right half must not look uninteresting.
    phase = torch.zeros(1, 80, 40)
    phase[0, :, :20] = texture(80, 20) - 0.5
    visited = survey(800) * torch.tensor([1.0, 0.5])
    proposed = propose(Heuristic(pull=0.0), see(phase, visited, count=200, total=1000))[0]
    right = float((proposed[:, 1] > 0.5).float().mean())
    assert abs(right - 0.5) < 4 * math.sqrt(0.25 / 200)


@pytest.mark.slow
def test_end_to_end_beats_a_random_scan() -> None:
    # A full scan of 40 x 40 gives the same scores as 100 x 100 within 0.01; its step grows as its positions overlap less.
    changes = {"specimen": {"count": 8}, "reconstruct": {"reference_side": 40, "reference_step": 50.0 * (100 / 40) ** 2}}
    chosen = update(preset("light"), changes, "test")
    source = build.simulated(chosen)
    scanners = {name: build.scanner(chosen, name) for name in ("heuristic", "random", "raster", "halton")}
    assert scanners["random"] == Fixed("random")
    descent, lengths = build.reconstructor(chosen, source.setup), split_evenly(chosen.scan.positions, chosen.scan.subsequences)
    outcomes = list(compare(source, scanners, descent, lengths, build.reference(chosen, source), seed=0))
    ssim = {o.strategy: o.scores[-1].ssim for o in outcomes}
    # Measured: +36 % over random for this seed, +32 % for the next; the paper's learned policy has +16 %.
    assert improvement(ssim, "heuristic", "random") > 0.15
    assert improvement(ssim, "heuristic") > 0
    assert bool((ssim["heuristic"] > ssim["random"]).all())
    # It is worth its name: each sub-sequence brings it closer.
    course = torch.stack([s.ssim for s in outcomes[0].scores]).mean(1)
    assert bool((course.diff() > 0).all())
