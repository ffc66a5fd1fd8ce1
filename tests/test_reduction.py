"""The expected-error-reduction scan: what it looks at, whether it takes the largest reductions, and that it is worth it."""

import json
import math
from dataclasses import replace
from functools import cache
from importlib import resources

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from scipy.spatial import cKDTree
from sklearn.preprocessing import PolynomialFeatures

from adaptycho import metrics
from adaptycho.scan import patterns
from adaptycho.scan.episode import run, split_evenly
from adaptycho.scan.policies import reduction
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.scan.policies.reduction import MOVING, STILL, ErrorReduction
from adaptycho.settings import BEST, Settings, build, preset, update
from adaptycho.types import Observation

FIELD = (20.0, 10.0)


def see(phase: torch.Tensor, positions: torch.Tensor, *, count: int = 40, probe: float = 0.4, total: int = 200) -> Observation:
    """What a scanner sees of phases (B, h, w) after positions (B, K, 2)."""
    return Observation(phase, positions, torch.full(positions.shape[:2], 1e3), FIELD, probe, 1.5, count, total)


def propose(scanner: ErrorReduction, seen: Observation) -> torch.Tensor:
    action, memory = scanner(seen, None, generator=torch.Generator())
    assert memory is None
    return action.positions


def survey(count: int = 60, batch: int = 1) -> torch.Tensor:
    return patterns.halton(count).float().expand(batch, -1, -1)


def texture(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def card() -> dict:
    return json.loads((resources.files("adaptycho.scan.policies") / "reduction.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["halton", "hexagonal"])
def test_the_survey_is_the_one_asked_for(name: str) -> None:
    action, _ = ErrorReduction(survey=name, defocus=80.0)(
        see(torch.zeros(2, 40, 20), torch.zeros(2, 0, 2)), None, generator=torch.Generator()
    )
    expected = patterns.pattern(name, 40, FIELD, generator=torch.Generator()).float()
    assert torch.equal(action.positions, expected.expand(2, -1, -1))
    assert action.defocus == 80.0


@given(
    phase=arrays.arrays(np.float32, (12, 15), elements=st.floats(-1e6, 1e6, width=32)),
    positions=arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(2)), elements=st.floats(0, 1, width=32)),
    probe=st.floats(0.05, 5.0),
    contrast=st.floats(0, 5),
    total=st.integers(1, 40),
)
def test_property_any_potential_gives_different_positions_in_the_field(
    phase: np.ndarray, positions: np.ndarray, probe: float, contrast: float, total: int
) -> None:
    seen = see(torch.from_numpy(phase)[None], torch.from_numpy(positions)[None], count=7, probe=probe, total=total)
    proposed = propose(ErrorReduction(contrast), seen)
    assert proposed.shape == (1, 7, 2)
    assert proposed.dtype == torch.float32
    assert bool(((proposed >= 0) & (proposed <= 1)).all())  # nan compares false
    assert len(torch.unique(proposed[0], dim=0)) == 7
    assert torch.equal(proposed, propose(ErrorReduction(contrast), seen))


def test_nothing_is_random_and_specimens_do_not_mix() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    seen = see(texture(3, 40, 20), survey(batch=3))
    action, _ = ErrorReduction()(seen, None, generator=generator)
    assert torch.equal(generator.get_state(), before)
    for b in range(3):
        alone = see(seen.potential[b : b + 1], seen.positions[b : b + 1])
        assert torch.equal(propose(ErrorReduction(), alone)[0], action.positions[b])
    assert not torch.equal(action.positions[0], action.positions[1])


@pytest.mark.parametrize("probe", [0.4, 2.0])
@pytest.mark.parametrize("phase", [0.0, 0.3, math.nan, math.inf], ids=str)
def test_where_there_is_nothing_to_follow_positions_are_spread_evenly(phase: float, probe: float) -> None:
    visited = survey(40)
    for _ in range(3):
        seen = see(torch.full((1, 40, 20), phase), visited, count=20, probe=probe, total=100)
        visited = torch.cat([visited, propose(ErrorReduction(), seen)], 1)
    points = visited[0].double().numpy() * FIELD
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
        half = propose(ErrorReduction(contrast), see(phase, survey(), count=100)) >= 0.5
        return float((half == bool(corner)).all(-1).float().mean())

    # A quarter of the field; 100 evenly spread positions keep within four standard errors of 100 random ones.
    assert abs(inside(0.0) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 100)
    assert inside(1.5) > 0.5
    assert inside(1.5) > inside(0.5) > inside(0.0)


def test_the_largest_reductions_are_taken_one_after_the_other() -> None:
    # Independent: everything computed anew for each position, with the polynomial as scikit-learn lays it out.
    seen, contrast = see(texture(1, 40, 20), survey(30), count=12), 1.5
    model, size = card()["regression"], np.array(FIELD)
    taken = seen.positions[0].double().numpy() * size
    places = reduction.candidates(seen, taken)
    phase, dose = seen.potential[0].double().numpy(), seen.dose[0].double().numpy()
    still = reduction.still_features(phase, taken, dose, places, seen)
    expand = PolynomialFeatures(2, include_bias=False)
    measured, expected = taken, []
    for _ in range(seen.count):
        distance = np.sort(np.linalg.norm(places[:, None] - measured, axis=-1), 1)[:, :3]
        features = np.concatenate([still, reduction.moving_features(distance, math.sqrt(200 / 30))], 1)
        standard = ((features - model["mean"]) / model["std"]).clip(-3, 3)
        error = model["constant"] + expand.fit_transform(standard) @ np.array(model["linear"] + model["quadratic"])
        with np.errstate(divide="ignore"):
            best = int((contrast * error + 2 * np.log(distance[:, 0])).argmax())
        expected.append(places[best] / size)
        measured = np.concatenate([measured, places[best : best + 1]])
    # The same candidates, in single precision.
    assert np.allclose(propose(ErrorReduction(contrast), seen)[0].numpy(), expected, rtol=0, atol=1e-7)


@given(power=st.integers(-10, 10))
def test_property_features_have_no_units(power: int) -> None:
    scale = 2.0**power  # exact, so that positions on the border of two pixels and Gaussians cut at a pixel stay as they are
    seen = see(texture(1, 40, 20), survey(30))
    larger = replace(seen, field=(FIELD[0] * scale, FIELD[1] * scale), probe=seen.probe * scale, resolution=seen.resolution * scale)
    found = []
    for s in (seen, larger):
        size = np.array(s.field)
        taken, dose = s.positions[0].double().numpy() * size, s.dose[0].double().numpy()
        places = np.array([[0.2, 0.3], [0.71, 0.94]]) * size
        found.append(reduction.still_features(s.potential[0].double().numpy(), taken, dose, places, s))
    # What keeps logarithms finite is 1e-12 of the values at most.
    assert np.allclose(found[0], found[1], rtol=0, atol=1e-9)
    assert found[0].shape == (2, len(STILL))


@pytest.mark.parametrize("contrast", [0.0, 5.0])
def test_no_place_is_measured_twice(contrast: float) -> None:
    visited, phase = survey(4), torch.zeros(1, 40, 20)
    phase[0, :8, :8] = texture(8, 8)
    for _ in range(6):
        visited = torch.cat([visited, propose(ErrorReduction(contrast), see(phase, visited, count=6, total=40))], 1)
    points = visited[0].double().numpy() * FIELD
    pitch = reduction.PITCH * math.sqrt(math.prod(FIELD) / 40)
    # Chosen places are about a pitch of the lattice apart, at least; those of the survey are off the lattice.
    assert cKDTree(points[4:]).query(points[4:], k=2)[0][:, 1].min() > 0.9 * pitch


def test_illumination_counts_electrons() -> None:
    seen = see(torch.zeros(1, 80, 40), torch.tensor([[[0.5, 0.5], [0.4, 0.6]]]), probe=0.6)
    light = reduction.illumination(seen.positions[0].numpy() * FIELD, np.array([1e3, 2e3]), (80, 40), seen)
    # 3000 electrons on 200 Å^2; beams in the middle of the field lose less than rounding (Gaussians cut at four widths).
    assert light.mean() == pytest.approx(3e3 / 200 * seen.resolution**2, rel=1e-9)
    assert light[32, 24] == light.max()


def test_energy_over_noise_is_blind_to_how_often_the_beam_came() -> None:
    # Noise of variance 1/light has the same energy over noise on either side, within four standard errors: the Gaussian of 8 pixels holds
    # 4 pi 8^2 = 800 pixels (half of them at the rim), squares of normal numbers have a variance of 2.
    light = np.ones((80, 80))
    light[:, 40:] = 100.0
    noise = np.random.default_rng(0).standard_normal((80, 80)) / np.sqrt(light)
    energy = reduction.energy_over_noise(noise, light, np.array([8.0, 8.0]))
    assert np.abs(energy[30:50:10, [0, 79]] - 1).max() < 4 * math.sqrt(2 / 400)


def test_the_regression_comes_with_its_card() -> None:
    found, n = card(), len(STILL) + len(MOVING)
    assert found["features"] == [*STILL, *MOVING]
    sizes = {name: len(values) for name, values in found["regression"].items() if name != "constant"}
    assert sizes == {"mean": n, "std": n, "linear": n, "quadratic": n * (n + 1) // 2}
    # The first thousand are left to tuning, and to the comparisons below; validation and test specimens come after the range.
    low, high = Settings().evaluate.train
    assert all(low + 1000 <= number < high for number in found["fitted_on"]["specimen_numbers"])
    assert found["explained_variance"]["fitted"] > 0.5


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


# On 8 specimens the mean gain is 3.2 to 4.8 standard errors at 64 positions and 4.0 to 8.1 at 144, by the seed of the scan: too few.
@pytest.mark.parametrize(("positions", "count"), [(64, 20), (144, 12)])
def test_end_to_end_islands_are_seen_better_than_by_conventional_scans(positions: int, count: int) -> None:
    microscope, truth, mask, descent = islands(8, count)
    found = {}
    for name, scanner in {
        "ours": ErrorReduction(defocus=100.0),
        "random": Fixed("random", 100.0),
        "raster": Fixed("raster", 100.0),
    }.items():
        *_, last = run(microscope, scanner, descent, split_evenly(positions, 4), seed=0)
        found[name] = within(last.potential, truth, mask)
    for other in ("random", "raster"):
        gain = found["ours"] - found[other]
        assert float(gain.mean()) > 4 * float(gain.std()) / math.sqrt(len(gain)), other
