"""The lattice scan: lattices that are there are found, those that are not are not, and knowing them is worth it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from adaptycho import metrics
from adaptycho.physics import specimen
from adaptycho.scan import patterns
from adaptycho.scan.episode import run, split_evenly
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.scan.policies.lattice import LatticeFit, find_grains, fit, presence
from adaptycho.settings import BEST, Settings, build, preset, update
from adaptycho.types import Observation, Scanner

FIELD = (20.0, 20.0)
SHAPE = (64, 64)
RESOLUTION = 1.5


def atoms(
    first: tuple[float, float], second: tuple[float, float], basis: list[tuple[float, float]], field: tuple[float, float]
) -> np.ndarray:
    """Columns in Å, far beyond the field; cell vectors as length and angle in degrees, atoms in fractions of the cell."""
    cell = np.array([[r * math.sin(math.radians(a)), r * math.cos(math.radians(a))] for r, a in (first, second)])
    steps = np.stack(np.meshgrid(*[np.arange(-40, 41)] * 2, indexing="ij"), -1).reshape(-1, 1, 2)
    points = ((steps + np.array(basis)) @ cell + np.array([0.7, 0.4])).reshape(-1, 2)
    return points[((points > -4) & (points < np.array(field) + 4)).all(1)]


def picture(columns: np.ndarray, field: tuple[float, float], shape: tuple[int, int], radius: float = 0.45) -> np.ndarray:
    """Round columns of a radius in Å on pixels, zero on average."""
    y, x = (((np.arange(n) + 0.5) / n * f)[:, None] for n, f in zip(shape, field, strict=True))
    image = np.exp(-((y - columns[:, 0]) ** 2) / (2 * radius**2)) @ np.exp(-((x - columns[:, 1]) ** 2) / (2 * radius**2)).T
    return np.asarray(image - image.mean())


def noise(seed: int, shape: tuple[int, int] = SHAPE, grain: float = 0.0) -> np.ndarray:
    drawn = gaussian_filter(np.random.default_rng(seed).normal(size=shape), grain, mode="wrap")
    return drawn / drawn.std()


HONEYCOMB = atoms((3.16, 17.0), (3.16, 77.0), [(0, 0), (1 / 3, 1 / 3)], FIELD)
CRYSTALS = {
    "honeycomb": HONEYCOMB,
    "square": atoms((2.8, 30.0), (2.8, 120.0), [(0, 0)], FIELD),
    "oblique": atoms((2.6, 10.0), (3.7, 85.0), [(0, 0)], FIELD),
}


def see(phase: torch.Tensor, positions: torch.Tensor, *, count: int = 40, probe: float = 0.4) -> Observation:
    return Observation(phase, positions, torch.ones(positions.shape[:2]), FIELD, probe, RESOLUTION, count, 90)


def propose(scanner: Scanner, seen: Observation) -> torch.Tensor:
    return scanner(seen, None, generator=torch.Generator())[0].positions


def survey(batch: int = 1, count: int = 50) -> torch.Tensor:
    return patterns.halton(count).float().expand(batch, -1, -1)


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("level", [0.3, 1.0, 3.0])
def test_columns_are_found_over_the_whole_field(name: str, level: float) -> None:
    image = picture(CRYSTALS[name], FIELD, SHAPE)
    lattice = fit(image + level * image.std() * noise(1), FIELD, RESOLUTION)
    assert lattice is not None
    inside = CRYSTALS[name][((CRYSTALS[name] > 0) & (CRYSTALS[name] < 20)).all(1)]
    found = lattice.columns(FIELD)
    # One pixel of the cell is a tenth of an Å; noise adds as much.
    assert np.median(cKDTree(found).query(inside)[0]) < 0.25
    within = found[((found > 0) & (found < 20)).all(1)]
    assert np.median(cKDTree(CRYSTALS[name]).query(within)[0]) < 0.25
    assert abs(len(within) / len(inside) - 1) < 0.1


def test_a_field_that_is_not_square_and_where_only_a_corner_was_seen() -> None:
    field, shape = (16.0, 30.0), (52, 96)
    columns = atoms((3.16, 17.0), (3.16, 77.0), [(0, 0)], field)
    image = picture(columns, field, shape)
    image[:, 60:] = 0
    lattice = fit(image, field, RESOLUTION)
    assert lattice is not None
    unseen = columns[((columns > [0, 19]) & (columns < [16, 30])).all(1)]
    # From 19 Å of the crystal to 11 Å beyond it.
    assert np.median(cKDTree(lattice.columns(field)).query(unseen)[0]) < 0.3


@pytest.mark.parametrize("grain", [0.0, 0.5, 1.0])
def test_statistical_noise_has_no_lattice(grain: float) -> None:
    # Eight nats: by chance alone once in 3000 images; 24 are tried here.
    assert [seed for seed in range(8) if fit(noise(seed, grain=grain), FIELD, RESOLUTION) is not None] == []


def test_images_too_small_for_a_lattice_have_none() -> None:
    assert fit(noise(0, (8, 8)), (2.0, 2.0), RESOLUTION) is None
    assert fit(np.zeros(SHAPE), FIELD, RESOLUTION) is None
    assert fit(noise(0, (40, 1)), (20.0, 0.5), RESOLUTION) is None


def test_a_crystal_that_fills_the_field_is_present_everywhere() -> None:
    image = picture(HONEYCOMB, FIELD, SHAPE)
    image = image + image.std() * noise(2)
    lattice = fit(image, FIELD, RESOLUTION)
    assert lattice is not None
    shown = presence(image, np.ones(SHAPE), lattice, see(torch.zeros(1, *SHAPE), survey()))
    assert shown.min() > 0.5
    assert shown.mean() > 0.9


def test_a_small_crystal_is_present_where_it_is() -> None:
    image = picture(HONEYCOMB, FIELD, SHAPE)
    deviation = image.std()
    image[:, 32:] = 0
    image[32:] = 0
    image = image + deviation * noise(3)
    (lattice, shown), *_ = find_grains(image, np.ones(SHAPE), see(torch.zeros(1, *SHAPE), survey()))
    assert lattice.nats > 8
    assert shown[4:28, 4:28].mean() > 0.7
    assert max(shown[40:].mean(), shown[:, 40:].mean()) < 0.25


def test_two_grains_are_told_apart() -> None:
    turned = atoms((3.16, 43.0), (3.16, 103.0), [(0, 0), (1 / 3, 1 / 3)], FIELD)
    image = np.concatenate([picture(HONEYCOMB, FIELD, SHAPE)[:, :32], picture(turned, FIELD, SHAPE)[:, 32:]], 1)
    grains = find_grains(image, np.ones(SHAPE), see(torch.zeros(1, *SHAPE), survey()))
    assert len(grains) >= 2
    sides = sorted([shown[:, :28].mean() - shown[:, 36:].mean() for _, shown in grains[:2]])
    assert sides[0] < -0.5
    assert sides[1] > 0.5
    # One presence or the other, everywhere but at the boundary.
    both = np.max([shown for _, shown in grains], 0)
    assert both[:, np.r_[4:26, 38:60]].mean() > 0.8


def test_the_survey_is_a_halton_sequence_and_the_action_carries_the_defocus() -> None:
    action, memory = LatticeFit(defocus=80.0)(see(torch.zeros(2, *SHAPE), torch.zeros(2, 0, 2)), None, generator=torch.Generator())
    assert torch.equal(action.positions, patterns.halton(40).float().expand(2, -1, -1))
    assert action.defocus == 80.0
    assert memory is None


@pytest.mark.parametrize("phase", [0.0, math.nan, math.inf], ids=str)
def test_without_a_lattice_positions_spread_evenly_between_those_there_are(phase: float) -> None:
    points = propose(LatticeFit(), see(torch.full((1, *SHAPE), phase), survey()))
    together = torch.cat([survey(), points], 1)[0].numpy()
    pitch = math.sqrt(2 / math.sqrt(3) / 90)
    # Halton points are no hexagonal lattice; random points come down to about 0.05.
    assert cKDTree(together).query(together, k=2)[0][:, 1].min() > 0.35 * pitch


@given(
    phase=arrays.arrays(np.float32, (12, 15), elements=st.floats(-1e6, 1e6, width=32)),
    positions=arrays.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(2)), elements=st.floats(0, 1, width=32)),
    probe=st.floats(0.05, 5.0),
)
def test_property_any_potential_gives_finite_positions_in_the_field(phase: np.ndarray, positions: np.ndarray, probe: float) -> None:
    seen = see(torch.from_numpy(phase)[None], torch.from_numpy(positions)[None], count=7, probe=probe)
    points = propose(LatticeFit(), seen)
    assert points.shape == (1, 7, 2)
    assert points.dtype == torch.float32
    assert bool(((points >= 0) & (points <= 1)).all())  # nan compares false
    assert torch.equal(points, propose(LatticeFit(), seen))


def test_a_focused_beam_goes_part_of_the_way_to_the_columns_and_a_defocused_one_does_not() -> None:
    phase = torch.from_numpy(picture(HONEYCOMB, FIELD, SHAPE))[None].float()
    away = {
        pull: cKDTree(HONEYCOMB).query(propose(LatticeFit(pull=pull), see(phase, survey()))[0].numpy() * 20)[0].mean()
        for pull in (0.0, 0.5, 1.0)
    }
    assert abs(away[0.5] / away[0.0] - 0.5) < 0.1
    assert away[1.0] < 0.15
    blurred = [propose(LatticeFit(pull=pull), see(phase, survey(), probe=2.0)) for pull in (0.0, 1.0)]
    assert torch.equal(*blurred)


def test_specimens_do_not_mix() -> None:
    phases = torch.from_numpy(np.stack([picture(CRYSTALS[name], FIELD, SHAPE) for name in ("honeycomb", "square")])).float()
    both = propose(LatticeFit(), see(phases, survey(2)))
    for b in range(2):
        assert torch.equal(both[b], propose(LatticeFit(), see(phases[b : b + 1], survey()))[0])


def settings(family: str, count: int, **scan: float) -> Settings:
    options = {"filling": 0.25} if family == "island" else {}
    changes = {"specimen": {"count": count, "family": family, "options": options}, "scan": scan}
    return update(preset("light"), changes, "test")


def test_end_to_end_clearly_over_random_under_the_papers_protocol() -> None:
    reference = {"reconstruct": {"reference_side": 40, "reference_step": 50.0 * (100 / 40) ** 2}}
    chosen = update(settings("crystal", 3), reference, "test")
    source = build.simulated(chosen)
    truth, descent = build.reference(chosen, source), build.reconstructor(chosen, source.setup)

    def ssim(scanner: Scanner) -> float:
        *_, last = run(source, scanner, descent, split_evenly(250, 5), seed=0)
        return float(metrics.ssim(last.potential, truth, window="uniform").mean())

    random, raster, lattice = (ssim(s) for s in (Fixed("random"), Fixed("raster"), LatticeFit()))
    # Measured on 8 specimens: 0.294, 0.351 and 0.420.
    assert lattice > 1.25 * random
    assert lattice > raster


def test_end_to_end_beats_a_raster_on_islands_and_trusts_no_lattice_on_amorphous_films() -> None:
    chosen = update(settings("island", 4, dose=1e3, positions=64), {"reconstruct": BEST}, "test")
    source = build.simulated(chosen)
    truth, descent = build.truth_in_field(source), build.reconstructor(chosen, source.setup)
    columns = [build.atoms(chosen, source.setup, number) for number in build.numbers(chosen)]
    masks = source.setup.crop(torch.stack([specimen.structure_mask(a, source.setup.object, 1.5) for a in columns]).float())

    def correlation(scanner: Scanner) -> float:
        *_, last = run(source, scanner, descent, split_evenly(64, 4), seed=0)
        inside = [np.corrcoef(v[m > 0], t[m > 0])[0, 1] for v, t, m in zip(last.potential, truth, masks, strict=True)]
        return float(np.mean(inside))

    # Measured with three seeds: 0.72 against 0.66, standard error 0.006 each.
    assert correlation(LatticeFit(defocus=100.0)) > correlation(Fixed("raster", 100.0)) + 0.02

    film = build.simulated(update(settings("amorphous", 2, dose=1e3, positions=64), {"reconstruct": BEST}, "test"))
    for state in run(film, Fixed("halton", 100.0), descent, split_evenly(64, 4), seed=0):
        for phase in state.potential.double().numpy():
            assert fit(phase - phase.mean(), film.setup.field, film.setup.resolution) is None
