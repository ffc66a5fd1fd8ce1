"""The Gaussian-process scan: its two processes against exact ones, where it goes, and that it is worth it."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from scipy.spatial import cKDTree
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from adaptycho import metrics
from adaptycho.scan import patterns
from adaptycho.scan.episode import run, split_evenly
from adaptycho.scan.policies import gaussian_process
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.scan.policies.gaussian_process import NOISE, OBSERVATIONS, GaussianProcess
from adaptycho.scan.policies.reduction import PITCH, candidates
from adaptycho.settings import BEST, build, preset, update
from adaptycho.types import Observation

FIELD = (20.0, 10.0)
SIZE = np.array(FIELD)


def see(phase: torch.Tensor, positions: torch.Tensor, *, count: int = 40, probe: float = 0.4, total: int = 200) -> Observation:
    """What a scanner sees of phases (B, h, w) after positions (B, K, 2)."""
    return Observation(phase, positions, torch.full(positions.shape[:2], 1e3), FIELD, probe, 1.5, count, total)


def propose(scanner: GaussianProcess, seen: Observation) -> torch.Tensor:
    action, memory = scanner(seen, None, generator=torch.Generator())
    assert memory is None
    return action.positions


def survey(count: int = 60, batch: int = 1) -> torch.Tensor:
    return patterns.halton(count).float().expand(batch, -1, -1)


def texture(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["halton", "hexagonal"])
def test_the_survey_is_the_one_asked_for(name: str) -> None:
    action, _ = GaussianProcess(survey=name, defocus=80.0)(
        see(torch.zeros(2, 40, 20), torch.zeros(2, 0, 2)), None, generator=torch.Generator()
    )
    expected = patterns.pattern(name, 40, FIELD, generator=torch.Generator()).float()
    assert torch.equal(action.positions, expected.expand(2, -1, -1))
    assert action.defocus == 80.0


@settings(max_examples=40)
@given(
    phase=arrays.arrays(np.float32, (12, 15), elements=st.floats(-1e6, 1e6, width=32)),
    positions=arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(2)), elements=st.floats(0, 1, width=32)),
    probe=st.floats(0.05, 5.0),
    scanner=st.builds(GaussianProcess, contrast=st.floats(0, 5), explore=st.floats(0, 5), reach=st.floats(0.1, 10)),
    total=st.integers(1, 40),
)
def test_property_any_potential_gives_different_positions_in_the_field(
    phase: np.ndarray, positions: np.ndarray, probe: float, scanner: GaussianProcess, total: int
) -> None:
    seen = see(torch.from_numpy(phase)[None], torch.from_numpy(positions)[None], count=7, probe=probe, total=total)
    proposed = propose(scanner, seen)
    assert proposed.shape == (1, 7, 2)
    assert proposed.dtype == torch.float32
    assert bool(((proposed >= 0) & (proposed <= 1)).all())  # nan compares false
    assert len(torch.unique(proposed[0], dim=0)) == 7
    assert torch.equal(proposed, propose(scanner, seen))


def test_nothing_is_random_and_specimens_do_not_mix() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    seen = see(texture(3, 40, 20), survey(batch=3))
    action, _ = GaussianProcess()(seen, None, generator=generator)
    assert torch.equal(generator.get_state(), before)
    for b in range(3):
        alone = see(seen.potential[b : b + 1], seen.positions[b : b + 1])
        assert torch.equal(propose(GaussianProcess(), alone)[0], action.positions[b])
    assert not torch.equal(action.positions[0], action.positions[1])


@pytest.mark.parametrize("phase", [0.0, 0.3, math.nan, math.inf], ids=str)
def test_where_there_is_nothing_to_follow_positions_are_spread_evenly(phase: float) -> None:
    visited = survey(40)
    for _ in range(3):
        seen = see(torch.full((1, 40, 20), phase), visited, count=20, total=100)
        visited = torch.cat([visited, propose(GaussianProcess(), seen)], 1)
    points = visited[0].double().numpy() * SIZE
    # Of 100 random positions the two closest are expected 0.05 spacings apart; the Halton survey alone allows 0.4 for all that follow.
    assert cKDTree(points).query(points, k=2)[0][:, 1].min() > 0.4 * math.sqrt(math.prod(FIELD) / 100)
    # No quarter of the field has more than four standard errors of 100 random positions too many or too few.
    quarter = (visited[0] >= 0.5).long() @ torch.tensor([2, 1])
    assert bool(((torch.bincount(quarter, minlength=4) - 25).abs() < 4 * math.sqrt(100 * 0.25 * 0.75)).all())


@pytest.mark.parametrize("corner", [0, 1])
def test_positions_follow_an_island(corner: int) -> None:
    phase = torch.zeros(1, 80, 40)
    rows, columns = (slice(0, 40), slice(0, 20)) if corner == 0 else (slice(40, 80), slice(20, 40))
    phase[0, rows, columns] = texture(40, 20)

    def inside(contrast: float) -> float:
        half = propose(GaussianProcess(contrast), see(phase, survey(), count=100)) >= 0.5
        return float((half == bool(corner)).all(-1).float().mean())

    # A quarter of the field; 100 evenly spread positions keep within four standard errors of 100 random ones.
    assert abs(inside(0.0) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 100)
    assert inside(1.0) > 0.5
    assert inside(1.0) > inside(0.3) > inside(0.0)


def test_variances_are_those_of_a_gaussian_process() -> None:
    # Independent: scikit-learn, conditioned on everything. No more positions than neighbours, so nothing may be left out.
    taken, reach = np.array([[4.0, 3.0], [11.0, 8.0]]), 6.0
    places = candidates(see(torch.zeros(1, 4, 4), survey(2), count=4, total=20), taken)
    weight = np.sin(places[:, 0])
    chosen = gaussian_process.largest_variances(places, taken, weight, reach, 4)
    measured = taken
    for place in chosen:
        exact = GaussianProcessRegressor(Matern(reach, nu=1.5), alpha=NOISE, optimizer=None).fit(measured, np.zeros(len(measured)))
        gain = weight + 2 * np.log(exact.predict(places, return_std=True)[1])
        assert np.array_equal(places[gain.argmax()], place)
        measured = np.concatenate([measured, place[None]])


def test_nearest_neighbours_are_enough() -> None:
    seen, taken = see(torch.zeros(1, 4, 4), survey(40), count=40, total=80), survey(40)[0].double().numpy() * SIZE
    places, reach = candidates(seen, taken), 0.7 * math.sqrt(math.prod(FIELD) / 80)
    for place in gaussian_process.largest_variances(places, taken, np.zeros(len(places)), reach, 40):
        exact = GaussianProcessRegressor(Matern(reach, nu=1.5), alpha=NOISE, optimizer=None).fit(taken, np.zeros(len(taken)))
        variance = exact.predict(places, return_std=True)[1] ** 2
        # Measured: 0.3 % is lost at worst; conditioned on four neighbours 3 %, on one 15 %.
        assert variance[(places == place).all(1)] > 0.99 * variance.max()
        taken = np.concatenate([taken, place[None]])


@pytest.mark.parametrize("count", [60, 300])
def test_the_structure_is_interpolated_with_its_noise(count: int) -> None:
    def truth(at: np.ndarray) -> np.ndarray:
        return 2 * np.sin(2 * np.pi * at[:, 0] / 20) + 5

    assert (count > OBSERVATIONS) == (count == 300)
    seen, taken = see(torch.zeros(1, 4, 4), survey(count), total=count), patterns.halton(count).numpy() * SIZE
    places, noise = candidates(seen, taken), 0.3
    values = truth(taken) + noise * np.random.default_rng(0).standard_normal(count)
    mean, deviation = gaussian_process.expect(values, taken, places, seen)
    error = mean - truth(places)
    # Copying the nearest observation would be off by the noise at least; a process that averages comes closer.
    assert np.sqrt((error**2).mean()) < noise
    # And it knows how close: the mean square of the error over the deviation is 1, far from a quarter and from four.
    assert 0.25 < ((error / deviation) ** 2).mean() < 4


def test_the_uncertainty_grows_where_nothing_was_measured() -> None:
    taken = patterns.halton(40).numpy() * SIZE * [0.5, 1.0]
    seen = see(torch.zeros(1, 4, 4), survey(40))
    _, deviation = gaussian_process.expect(np.sin(taken[:, 0]), taken, np.array([[5.0, 5.0], [12.0, 5.0], [19.0, 5.0]]), seen)
    assert deviation[0] < deviation[1] < deviation[2]


def test_constant_values_expect_the_same_everywhere() -> None:
    seen, taken = see(torch.zeros(1, 4, 4), survey(20)), patterns.halton(20).numpy() * SIZE
    mean, _ = gaussian_process.expect(np.full(20, -3.0), taken, candidates(seen, taken), seen)
    assert np.allclose(mean, -3.0, rtol=0, atol=1e-12)  # rounding


@pytest.mark.parametrize("contrast", [0.0, 5.0])
def test_no_place_is_measured_twice(contrast: float) -> None:
    visited, phase = survey(4), torch.zeros(1, 40, 20)
    phase[0, :8, :8] = texture(8, 8)
    for _ in range(6):
        visited = torch.cat([visited, propose(GaussianProcess(contrast), see(phase, visited, count=6, total=40))], 1)
    points = visited[0].double().numpy() * SIZE
    pitch = PITCH * math.sqrt(math.prod(FIELD) / 40)
    # Chosen places are about a pitch of the lattice apart, at least; those of the survey are off the lattice.
    assert cKDTree(points[4:]).query(points[4:], k=2)[0][:, 1].min() > 0.9 * pitch


def test_gaps_of_the_scan_are_not_structure() -> None:
    # Noise with variance 1/light on the whole field: where the beam came ten times as often there is not ten times the signal, nor a tenth.
    taken = np.concatenate([patterns.halton(400).numpy() * [0.5, 1.0], patterns.halton(40).numpy() * [0.5, 1.0] + [0.5, 0.0]]) * SIZE
    seen = see(torch.zeros(1, 160, 80), torch.from_numpy(taken / SIZE)[None].float(), probe=1.0)
    light = gaussian_process.illumination(taken, np.full(440, 1e3), (160, 80), seen)
    noise = np.random.default_rng(0).standard_normal((160, 80)) / np.sqrt(light + 1e-3 * light.mean())
    values = gaussian_process.observe(noise, taken, np.full(440, 1e3), seen)
    raw = np.log((noise[: 160 // 2] ** 2).mean() / (noise[160 // 2 :] ** 2).mean())
    assert abs(values[:400].mean() - values[400:].mean()) < 0.5 * abs(raw)


@given(distance=st.floats(0, 1e6), reach=st.floats(1e-3, 1e3))
def test_property_the_kernel_is_scikit_learns(distance: float, reach: float) -> None:
    expected = Matern(reach, nu=1.5)(np.zeros((1, 1)), np.array([[distance]]))[0, 0] if distance / reach < 400 else 0.0
    assert gaussian_process.matern(np.array([distance]), reach)[0] == pytest.approx(expected, abs=1e-12)  # rounding


def test_part_inside_is_a_half_at_an_edge_and_a_quarter_in_a_corner() -> None:
    part = gaussian_process.part_inside(np.array([[10.0, 5.0], [10.0, 0.0], [20.0, 10.0]]), SIZE, 0.5)
    assert part == pytest.approx([1.0, 0.5, 0.25], abs=1e-12)  # ten widths from the other edges


@cache
def islands(first: int, count: int):  # type: ignore[no-untyped-def]
    """Microscope, truth, where the islands are, and reconstructor, of training specimens from a number on."""
    changes = {"specimen": {"count": first + count, "family": "island", "options": {"filling": 0.25}}, "reconstruct": BEST}
    chosen = update(update(preset("light"), changes, "test"), {"scan": {"dose": 1e3}}, "test")
    whole = build.simulated(chosen)
    microscope = replace(whole, potential=whole.potential[first:])
    truth = build.truth_in_field(microscope)
    smooth = np.stack([ndimage.gaussian_filter(t, 3.0) for t in truth.numpy()])
    return microscope, truth, torch.from_numpy(smooth > 0.25 * smooth.max((1, 2), keepdims=True)), build.reconstructor(chosen, whole.setup)


def within(phase: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.stack([metrics.correlation(p[m][None], t[m][None]) for p, t, m in zip(phase, truth, mask, strict=True)])


@pytest.mark.parametrize("positions", [64, 144])
def test_end_to_end_islands_are_seen_better_than_by_conventional_scans(positions: int) -> None:
    microscope, truth, mask, descent = islands(8, 8)
    found = {}
    for name, scanner in {
        "ours": GaussianProcess(defocus=100.0),
        "random": Fixed("random", 100.0),
        "raster": Fixed("raster", 100.0),
    }.items():
        *_, last = run(microscope, scanner, descent, split_evenly(positions, 4), seed=0)
        found[name] = within(last.potential, truth, mask)
    for other in ("random", "raster"):
        gain = found["ours"] - found[other]
        assert float(gain.mean()) > 4 * float(gain.std()) / math.sqrt(len(gain)), other
