"""The greedy scan: spreads evenly over noise, goes to what stands out, and counts what was measured."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from adaptycho.physics import specimen
from adaptycho.scan import patterns
from adaptycho.scan.episode import run, split_evenly
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.scan.policies.greedy import Greedy
from adaptycho.settings import BEST, build, preset, update
from adaptycho.types import Observation, Scanner

FIELD = (20.0, 10.0)


def see(phase: torch.Tensor, positions: torch.Tensor, *, count: int = 48, total: int = 64) -> Observation:
    return Observation(phase, positions, torch.ones(positions.shape[:2]), FIELD, 2.0, 1.5, count, total)


def propose(scanner: Scanner, seen: Observation) -> torch.Tensor:
    action, _ = scanner(seen, None, generator=torch.Generator())
    return action.positions


def survey(batch: int = 1, count: int = 16) -> torch.Tensor:
    return patterns.halton(count).float().expand(batch, -1, -1)


def noise(seed: int, rms: float = 1.0, grain: float = 1.0) -> np.ndarray:
    """Gaussian noise of a correlation length in pixels."""
    drawn = gaussian_filter(np.random.default_rng(seed).normal(size=(80, 40)), grain, mode="wrap")
    return rms * drawn / drawn.std()


def in_corner(points: torch.Tensor) -> float:
    """Fraction in the upper left quarter of the field."""
    return float((points < 0.5).all(-1).float().mean())


def test_the_survey_is_a_halton_sequence() -> None:
    points = propose(Greedy(defocus=80.0), see(torch.zeros(2, 80, 40), torch.zeros(2, 0, 2)))
    assert torch.equal(points, patterns.halton(48).float().expand(2, -1, -1))
    assert Greedy(defocus=80.0)(see(torch.zeros(1, 80, 40), survey()), None, generator=torch.Generator())[0].defocus == 80.0


@pytest.mark.parametrize("phase", [0.0, 3.0, math.nan, math.inf], ids=str)
def test_where_nothing_is_seen_positions_spread_evenly_round_the_survey(phase: float) -> None:
    points = torch.cat([survey(), propose(Greedy(), see(torch.full((1, 80, 40), phase), survey()))], 1)[0]
    size = np.array(FIELD)
    nearest = cKDTree(points.numpy() * size).query(points.numpy() * size, k=2)[0][:, 1]
    # In units of a hexagonal lattice of as many points; random points come down to about 0.05.
    assert nearest.min() / math.sqrt(2 / math.sqrt(3) * size.prod() / 64) > 0.4
    assert abs(in_corner(points) - 0.25) < 0.08


@given(
    phase=arrays.arrays(np.float32, (12, 15), elements=st.floats(-1e6, 1e6, width=32)),
    positions=arrays.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(2)), elements=st.floats(0, 1, width=32)),
    scanner=st.builds(
        Greedy,
        floor=st.floats(0, 1),
        contrast=st.floats(0, 5),
        width=st.floats(0.1, 3),
        reach=st.floats(0.1, 3),
        spacing=st.floats(0.1, 3),
    ),
)
def test_property_any_potential_gives_finite_positions_in_the_field(phase: np.ndarray, positions: np.ndarray, scanner: Greedy) -> None:
    seen = see(torch.from_numpy(phase)[None], torch.from_numpy(positions)[None], count=7)
    points = propose(scanner, seen)
    assert points.shape == (1, 7, 2)
    assert points.dtype == torch.float32
    assert bool(((points >= 0) & (points <= 1)).all())  # nan compares false
    assert torch.equal(points, propose(scanner, seen))


def test_specimens_do_not_mix() -> None:
    phases = torch.from_numpy(np.stack([noise(0), noise(1)])).float()
    both = propose(Greedy(), see(phases, survey(2)))
    for b in range(2):
        assert torch.equal(both[b], propose(Greedy(), see(phases[b : b + 1], survey()))[0])


@pytest.mark.parametrize("grain", [0.5, 1.0, 2.0])
def test_statistical_noise_alone_is_not_followed(grain: float) -> None:
    n = 12
    phases = torch.from_numpy(np.stack([noise(seed, grain=grain) for seed in range(n)])).float()
    scanner = Greedy(floor=0.0)
    points = propose(scanner, see(phases, survey(n)))
    even = propose(scanner, see(torch.zeros(n, 80, 40), survey(n)))
    quarters = torch.stack([((p >= 0.5).float() @ torch.tensor([2.0, 1.0])).long().bincount(minlength=4) for p in points]) / 48
    level = torch.stack([((p >= 0.5).float() @ torch.tensor([2.0, 1.0])).long().bincount(minlength=4) for p in even]) / 48
    # Random positions would vary by sqrt(0.25 * 0.75 / 48) = 0.06 in each quarter; n = 12 images, 4 quarters.
    assert float((quarters - level).std()) < 0.06


@pytest.mark.parametrize("above", [1.0, 3.0])
def test_an_island_is_followed_through_noise(above: float) -> None:
    n = 8
    phases = np.stack([noise(seed) for seed in range(n)])
    phases[:, :40, :20] += np.stack([noise(100 + seed, above)[:40, :20] for seed in range(n)])
    share = in_corner(propose(Greedy(), see(torch.from_numpy(phases).float(), survey(n))))
    # A quarter would be chance; variances 2 : 1 and 10 : 1.
    assert share > (0.3 if above == 1.0 else 0.5)
    assert in_corner(propose(Greedy(floor=1.0), see(torch.from_numpy(phases).float(), survey(n)))) < 0.3


def test_what_was_measured_counts() -> None:
    crowd = patterns.halton(48).float()[None] * torch.tensor([0.5, 1.0])
    points = propose(Greedy(), see(torch.zeros(1, 80, 40), crowd, count=16))[0]
    # The lower half is empty; an even 64 has 32 there.
    assert float((points[:, 0] > 0.5).float().mean()) > 0.9


def test_end_to_end_beats_a_raster_on_islands() -> None:
    changes = {
        "specimen": {"count": 8, "family": "island", "options": {"filling": 0.25}},
        "reconstruct": BEST,
        "scan": {"dose": 1e3, "positions": 64},
    }
    chosen = update(preset("light"), changes, "test")
    source = build.simulated(chosen)
    truth = build.truth_in_field(source)
    atoms = [build.atoms(chosen, source.setup, number) for number in build.numbers(chosen)]
    masks = source.setup.crop(torch.stack([specimen.structure_mask(a, source.setup.object, 1.5) for a in atoms]).float())
    descent = build.reconstructor(chosen, source.setup)

    def correlation(scanner: Scanner) -> float:
        *_, last = run(source, scanner, descent, split_evenly(64, 4), seed=0)
        inside = [np.corrcoef(v[m > 0], t[m > 0])[0, 1] for v, t, m in zip(last.potential, truth, masks, strict=True)]
        return float(np.mean(inside))

    # Measured with three seeds: 0.71 against 0.66, standard error 0.006 each.
    assert correlation(Greedy(defocus=100.0)) > correlation(Fixed("raster", 100.0)) + 0.01
