"""Column positions and vacancies: Gaussians at known places, the noise they must show, and real potentials with atoms missing."""

import itertools
import math

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from adaptycho.metrics.atoms import (
    Columns,
    Detection,
    column_error,
    columns_of,
    evident_columns,
    find_columns,
    occupancy_of,
    vacancy_detection,
)
from adaptycho.physics import specimen
from adaptycho.physics.optics import Setup

PIXEL, WIDTH = 0.2, 0.4


def spots(places: torch.Tensor, shape: tuple[int, int], pixel: float = PIXEL, width: float = WIDTH) -> torch.Tensor:
    """Gaussians of height one."""
    y, x = ((torch.arange(n, dtype=torch.float64) + 0.5) * pixel for n in shape)
    parts = [torch.exp(-((y - p[0]) ** 2) / 2 / width**2)[:, None] * torch.exp(-((x - p[1]) ** 2) / 2 / width**2) for p in places]
    return torch.stack(parts).sum(0) if parts else torch.zeros(shape, dtype=torch.float64)


def scattered(rows: int, columns: int, spacing: float, seed: int, *, wander: float = 0.5) -> torch.Tensor:
    """A square lattice, the first site one spacing from the corner, each site moved by up to half of `wander` Å."""
    sites = torch.stack(torch.meshgrid(torch.arange(1.0, rows + 1), torch.arange(1.0, columns + 1), indexing="ij"), -1).reshape(-1, 2)
    moves = torch.rand(sites.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
    return sites.double() * spacing + moves * wander


def noise(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matched(found: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Errors (y, x) of the found columns against the nearest true one each."""
    return found - places[torch.cdist(found, places).argmin(1)]


def in_field(atoms: Atoms, setup: Setup) -> np.ndarray:
    """Positions (y, x) in Å from the corner of the image that `setup.crop` cuts out."""
    corner = setup.to_pixels(torch.tensor([[0.5 / n for n in setup.field_shape]], dtype=torch.float64))[0]
    first = np.floor(corner.numpy() + 0.5)
    return atoms.positions[:, 1::-1] + (np.array(setup.object.shape) // 2 - first + 0.5) * setup.object.pixel


def with_vacancies(setup: Setup, seed: int, structure: str = "MoS2", fraction: float = 0.05) -> tuple[torch.Tensor, Columns, torch.Tensor]:
    """Phase inside the field, ideal columns and their occupancies; the same generator makes the ideal crystal and the defective one."""
    unit = specimen.structure(structure)
    ideal = specimen.crystal(unit, setup.object.extent, generator=torch.Generator().manual_seed(seed))
    real = specimen.vacancies(unit, setup.object.extent, generator=torch.Generator().manual_seed(seed), fraction=fraction)
    columns = columns_of(in_field(ideal, setup), ideal.numbers)
    phase = setup.crop(specimen.potential(real, setup, thermal=0.08, dtype=torch.float64))
    return phase, columns, occupancy_of(columns, in_field(real, setup))


def detect(phase: torch.Tensor, columns: Columns, occupancy: torch.Tensor, setup: Setup) -> Detection:
    return vacancy_detection(phase, columns.positions, occupancy, columns.kind, setup.object.pixel)


@pytest.mark.parametrize("pixel", [0.1, 0.154, 0.2, 0.308])
@pytest.mark.parametrize("width", [0.3, 0.4, 0.5])
def test_places_without_noise(pixel: float, width: float) -> None:
    places = scattered(4, 6, 3.0, seed=0)
    found = find_columns(spots(places, (round(15 / pixel), round(21 / pixel)), pixel, width), pixel)
    assert len(found) == 24
    # A paraboloid is the top of a Gaussian (here sqrt(width^2 + 1/9) wide) up to fourth order: below 2 % of a pixel; neighbours 3 Å away
    # leave a slope exp(-4.5 / 0.36) of the height on the widest.
    assert matched(found, places).abs().max() < 0.02


@settings(max_examples=25)
@given(
    scale=st.floats(0.01, 100),
    constant=st.floats(-10, 10),
    slopes=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    shift=st.tuples(st.integers(0, 20), st.integers(0, 20)),
)
def test_what_ptychography_leaves_free_does_not_move_columns(
    scale: float, constant: float, slopes: tuple[float, float], shift: tuple[int, int]
) -> None:
    places = scattered(3, 4, 2.5, seed=1)
    image = spots(places, (50, 63))
    y, x = torch.meshgrid(torch.arange(50.0, dtype=torch.float64), torch.arange(63.0, dtype=torch.float64), indexing="ij")
    found, other = (find_columns(v, PIXEL) for v in (image, scale * (image + slopes[0] * y + slopes[1] * x + constant)))
    # Rounding: values up to 123 on curvatures of about 0.05 a pixel, 1e-16 * 123 / 0.05 of 0.2 Å, and a factor 100 for the filters' sums.
    torch.testing.assert_close(other, found, rtol=0, atol=1e-11)
    # Moved by whole pixels and framed in vacuum, which is another background: 2 Å wide, it slopes by a per cent of the summit's curvature.
    framed = torch.zeros(90, 103, dtype=torch.float64)
    framed[10 + shift[0] : 60 + shift[0], 10 + shift[1] : 73 + shift[1]] = image
    moved = find_columns(framed, PIXEL) - (10 + torch.tensor(shift)) * PIXEL
    assert len(moved) == len(found)
    assert matched(moved, found).abs().max() < 0.01


def test_noise_moves_columns_as_much_as_it_must() -> None:
    pixel, width, smooth, sigma, images = 0.15, 0.4, 1 / 3, 0.1, 20
    places = scattered(6, 6, 3.0, seed=2)
    image = spots(places, (140, 140), pixel, width)
    errors = torch.cat([matched(find_columns(image + sigma * noise(image.shape, i), pixel), places) for i in range(images)])
    assert len(errors) == 36 * images
    # Cramer-Rao for a Gaussian of height one in white noise: sigma pixel sqrt(2 / pi). The summit of the image smoothed by t instead of the
    # width s errs by ((s^2 + t^2) / (2 s t))^2 times that: here 1.034.
    bound = sigma * pixel * math.sqrt(2 / math.pi)
    expected = bound * ((width**2 + smooth**2) / (2 * width * smooth)) ** 2
    # n = 1440 coordinates: a standard deviation is known to 1 / sqrt(2 n) = 1.9 %, four of them 7.5 %. The 3 x 3 paraboloid and the 2 Å
    # background are another 3 % of smoothing.
    assert float(errors.std()) == pytest.approx(expected, rel=0.105)
    assert abs(float(errors.mean())) < 4 * expected / math.sqrt(errors.numel())


def test_one_hot_pixel_hides_nothing() -> None:
    places = scattered(4, 4, 3.0, seed=3)
    image = spots(places, (80, 80))
    image[5, 70] = 100.0
    found = find_columns(image, PIXEL)
    # All sixteen and the hot pixel, which smoothed is 5.8 high where a column is 0.55: a fifth of the highest would leave it alone.
    # Its 2 Å background, 0.16 high, slopes by 0.04 per Å on a curvature of 2 per Å^2.
    assert len(found) == 17 and (torch.cdist(places, found).min(1).values < 0.04).all()


def test_nothing_to_find() -> None:
    for image in (torch.zeros(20, 30), torch.full((20, 30), 0.1), torch.full((20, 30), math.nan), torch.zeros(2, 2)):
        assert find_columns(image, PIXEL).shape == (0, 2)


def test_error_of_a_displaced_copy() -> None:
    places = scattered(5, 7, 2.5, seed=4)
    image = spots(places, (75, 100))
    result = column_error(image, places + torch.tensor([0.3, -0.4]) * 0.8, PIXEL)
    # 0.4 Å, found to 0.02 Å.
    assert result.rms == pytest.approx(0.4, abs=0.02) and result.error == result.rms
    assert result.found == 1 and result.false == 0
    # Further than the reach nothing matches, and each column of the image is as wrong as can be.
    far = column_error(image, places + torch.tensor([0.9, 0.0]), PIXEL)
    assert math.isnan(far.rms) and far.found == 0 and far.false == 1 and far.error == pytest.approx(0.8, rel=1e-12)


def test_unmatched_columns_cost_the_full_reach() -> None:
    places = scattered(4, 5, 3.0, seed=5)
    without = column_error(spots(places[1:], (75, 90)), places, PIXEL)
    assert without.found == pytest.approx(19 / 20) and without.false == 0
    # One of twenty at 0.8 Å, the others below 0.02 Å.
    assert without.error == pytest.approx(0.8 / math.sqrt(20), rel=0.01) and without.rms < 0.02
    extra = column_error(spots(places, (75, 90)), places[1:], PIXEL)
    assert extra.found == 1 and extra.false == pytest.approx(1 / 20) and extra.error == pytest.approx(without.error, rel=0.01)


@pytest.mark.parametrize("seed", range(8))
def test_error_is_the_best_of_all_matchings(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    true = 2 + 3 * torch.rand(5, 2, generator=generator, dtype=torch.float64)
    image = spots(2 + 3 * torch.rand(4, 2, generator=generator, dtype=torch.float64), (35, 35), width=0.25)
    found = find_columns(image, PIXEL)
    many, few = (true, found) if len(true) >= len(found) else (found, true)
    squares = torch.cdist(many, few).clamp(max=0.8) ** 2
    sums = [sum(float(squares[i, j]) for j, i in enumerate(order)) for order in itertools.permutations(range(len(many)), len(few))]
    expected = math.sqrt((min(sums) + 0.64 * (len(many) - len(few))) / len(many))
    assert column_error(image, true, PIXEL, margin=0.0).error == pytest.approx(expected, rel=1e-9)


def test_columns_at_the_edge_do_not_count() -> None:
    places = scattered(4, 4, 3.0, seed=6, wander=0.0)
    image = spots(places, (75, 75))
    inside = column_error(image, places, PIXEL)
    # Seen at 0.5 Å from the edge and not true, or true and not seen: neither is said to be an error.
    edge = torch.tensor([[7.0, 0.5]], dtype=torch.float64)
    assert column_error(image + spots(edge, (75, 75)), places, PIXEL).error == pytest.approx(inside.error, abs=1e-3)
    assert column_error(image, torch.cat([places, edge, torch.tensor([[7.0, -3.0]])]), PIXEL) == inside


def test_column_error_where_there_is_nothing() -> None:
    none, one = torch.zeros(0, 2, dtype=torch.float64), torch.tensor([[5.0, 5.0]], dtype=torch.float64)
    empty, full = torch.zeros(50, 50, dtype=torch.float64), spots(one, (50, 50))
    cases = [column_error(image, true, PIXEL) for image, true in ((empty, none), (empty, one), (full, none))]
    assert all(math.isnan(case.rms) for case in cases)
    assert [(c.found, c.false, c.error) for c in cases] == [(1.0, 0.0, 0.0), (0.0, 0.0, 0.8), (1.0, 1.0, 0.8)]
    broken = full.clone()
    broken[3, 3] = math.inf
    lost = column_error(broken, one, PIXEL)
    assert all(math.isnan(v) for v in (lost.rms, lost.found, lost.false, lost.error))


def test_columns_of_molybdenum_disulfide() -> None:
    unit = specimen.structure("MoS2")
    atoms = specimen.crystal(unit, (20.0, 20.0), generator=torch.Generator().manual_seed(0), layers=2)
    columns = columns_of(atoms.positions[:, 1::-1], atoms.numbers)
    # Of two layers stacked straight: two molybdenum atoms or four of sulfur.
    assert sorted(columns.count.unique().tolist()) == [2, 4] and int(columns.count.sum()) == len(atoms)
    assert all(len(columns.count[columns.kind == k].unique()) == 1 for k in (0, 1)) and int(columns.kind.max()) == 1
    apart = torch.cdist(columns.positions, columns.positions) + 9 * torch.eye(len(columns.positions))
    assert float(apart.min()) == pytest.approx(3.16 / math.sqrt(3), abs=1e-6)
    assert occupancy_of(columns, atoms.positions[:, 1::-1]).eq(1).all()
    half = occupancy_of(columns, atoms[atoms.numbers == 42].positions[:, 1::-1])
    assert half.eq((columns.count == 2).double()).all()


def test_columns_are_joined_by_way_of_a_third_and_of_nothing_there_are_none() -> None:
    chain = columns_of(np.array([[0.0, 0.0], [0.0, 0.25], [0.0, 0.5], [5.0, 5.0]]), np.array([6, 6, 6, 6]))
    assert chain.count.tolist() == [3, 1] and chain.kind.tolist() == [1, 0]
    np.testing.assert_allclose(chain.positions[0], [0.0, 0.25], atol=1e-15)
    none = columns_of(np.zeros((0, 2)), np.zeros(0, dtype=int))
    assert none.positions.shape == (0, 2) and none.count.shape == none.kind.shape == (0,)
    assert occupancy_of(none, np.zeros((3, 2))).shape == (0,) and occupancy_of(chain, np.zeros((0, 2))).tolist() == [0, 0]


@pytest.mark.parametrize("structure", ["MoS2", "WSe2", "graphene"])
def test_every_vacancy_shows_in_the_truth(light: Setup, structure: str) -> None:
    found = [detect(*with_vacancies(light, seed, structure), light) for seed in range(6)]
    # One sulfur atom of two takes 60 % of a column's contrast; like sites differ by 10 % with their neighbours and the pixels.
    assert all(f.f1 == f.precision == f.recall == 1 for f in found)
    # 5 % of about 85 to 110 columns in the field: more than ten in six specimens, some of them half columns of two atoms.
    assert sum(f.hits for f in found) > 10
    if structure != "graphene":
        _, _, occupancy = with_vacancies(light, 0, structure)
        assert (occupancy == 0.5).any() and (occupancy == 0).any()


def test_columns_of_the_true_potential_are_where_the_atoms_are(light: Setup) -> None:
    phase, columns, occupancy = with_vacancies(light, 1)
    result = column_error(phase, columns.positions[occupancy > 0], light.object.pixel)
    # Columns 1.8 Å apart and, smoothed, 0.5 Å wide: where a neighbour is missing, exp(-1.8^2 / 2 / 0.5^2) * 1.8 Å = 3 pm of a lean, and
    # the paraboloid errs by 2 % of a pixel, 6 pm.
    assert result.found == 1 and result.false == 0 and result.error < 0.015


def test_noise_and_blur_hide_vacancies(light: Setup) -> None:
    specimens = [with_vacancies(light, seed) for seed in range(6)]

    def mean_f1(level: float, blur: float = 0.0) -> float:
        found = []
        for seed, (phase, columns, occupancy) in enumerate(specimens):
            soft = torch.from_numpy(gaussian_filter(phase.numpy(), blur / light.object.pixel)) if blur else phase
            found.append(detect(soft + level * noise(phase.shape, seed), columns, occupancy, light).f1)
        return float(np.mean(found))

    # The disk averages 4 pi sigma^2 = 12 pixels: 0.1 rad a pixel leaves 0.03 of noise on a loss of 0.18 rad, where 2.5 times the noise is
    # called. 0.2 rad leaves three times the noise, three of four; 0.8 rad as good as nothing.
    clear, grainy, noisy = (mean_f1(level) for level in (0.1, 0.2, 0.8))
    assert clear > 0.97 and 0.6 < grainy < 0.9 and noisy < 0.25
    # Blurred by 0.6 Å rms (on a column and a disk of 0.5 Å together) the loss is less than half of what it was, in noise that stays.
    assert mean_f1(0.1, 0.6) < clear - 0.2


@settings(max_examples=20)
@given(scale=st.floats(0.01, 100), constant=st.floats(-10, 10), slopes=st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)))
def test_what_ptychography_leaves_free_does_not_change_the_verdict(scale: float, constant: float, slopes: tuple[float, float]) -> None:
    sites = scattered(5, 8, 2.0, seed=7, wander=0.0)
    occupancy = torch.ones(40, dtype=torch.float64)
    occupancy[[12, 21]] = torch.tensor([0.0, 0.5], dtype=torch.float64)
    image = spots(sites, (60, 90)) - sum(float(1 - occupancy[i]) * spots(sites[i : i + 1], (60, 90)) for i in (12, 21))
    y, x = torch.meshgrid(torch.arange(60.0, dtype=torch.float64), torch.arange(90.0, dtype=torch.float64), indexing="ij")
    image = scale * (image + slopes[0] * y + slopes[1] * x + constant)
    result = vacancy_detection(image, sites, occupancy, torch.zeros(40, dtype=torch.long), PIXEL)
    assert result == Detection(1.0, 1.0, 1.0, 2, 0, 0)


def test_verdicts_are_counted() -> None:
    sites, kind = scattered(5, 8, 2.0, seed=8, wander=0.0), torch.zeros(40, dtype=torch.long)
    complete, image = torch.ones(40, dtype=torch.float64), spots(sites, (60, 90))
    less = image - spots(sites[10:11], (60, 90))
    wrong = complete.clone()
    wrong[[10, 20]] = 0.5
    assert vacancy_detection(image, sites, complete, kind, PIXEL) == Detection(1.0, 1.0, 1.0, 0, 0, 0)
    # Called where nothing is missing; not called though missing; one of two.
    assert vacancy_detection(less, sites, complete, kind, PIXEL) == Detection(0.0, 0.0, 1.0, 0, 1, 0)
    assert vacancy_detection(image, sites, wrong, kind, PIXEL) == Detection(0.0, 1.0, 0.0, 0, 0, 2)
    assert vacancy_detection(less, sites, wrong, kind, PIXEL) == Detection(2 / 3, 1.0, 0.5, 1, 0, 1)
    # Columns of another kind are not compared: half as bright, they are complete.
    two = image - 0.5 * spots(sites[::2], (60, 90))
    assert vacancy_detection(two, sites, complete, torch.arange(40) % 2, PIXEL).f1 == 1
    # Three of a kind are too few to say what is normal.
    assert vacancy_detection(less, sites, wrong, torch.arange(40) // 3, PIXEL).missed == 2


def test_sites_at_the_edge_and_beyond_do_not_count() -> None:
    sites, kind = scattered(5, 8, 2.0, seed=9, wander=0.0), torch.zeros(42, dtype=torch.long)
    around = torch.cat([sites, torch.tensor([[0.5, 6.0], [-4.0, 6.0]], dtype=torch.float64)])
    occupancy = torch.cat([torch.ones(40), torch.zeros(2)]).double()
    assert vacancy_detection(spots(sites, (60, 90)), around, occupancy, kind, PIXEL) == Detection(1.0, 1.0, 1.0, 0, 0, 0)


def test_a_diverged_image_scores_nan() -> None:
    sites, kind = scattered(3, 3, 2.0, seed=10), torch.zeros(9, dtype=torch.long)
    occupancy = torch.tensor([0.5] + [1.0] * 8, dtype=torch.float64)
    result = vacancy_detection(torch.full((40, 40), math.nan), sites, occupancy, kind, PIXEL)
    assert math.isnan(result.f1) and math.isnan(result.precision) and math.isnan(result.recall)
    assert (result.hits, result.false, result.missed) == (0, 0, 1)
    none = vacancy_detection(torch.zeros(40, 40), torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, dtype=torch.long), PIXEL)
    assert none == Detection(1.0, 1.0, 1.0, 0, 0, 0)


def test_columns_that_stand_out_of_their_error_are_evident() -> None:
    """The faint one is below its error; where the error is small, a fainter one is believed."""
    y, x = np.mgrid[:60, :60] * 0.2
    places, heights = [(3.0, 3.0), (3.0, 9.0), (9.0, 3.0), (9.0, 9.0)], [1.0, 0.9, 0.15, 0.25]
    image = sum(h * np.exp(-((y + 0.1 - r) ** 2 + (x + 0.1 - c) ** 2) / (2 * 0.35**2)) for (r, c), h in zip(places, heights, strict=True))
    error = np.full_like(image, 0.1)
    error[30:, :30] = 0.02
    found = evident_columns(torch.from_numpy(image), torch.from_numpy(error), 0.2)
    assert sorted(found.round(decimals=1).tolist()) == [[3, 3], [3, 9], [9, 3]]
    assert len(evident_columns(torch.from_numpy(image), torch.from_numpy(error), 0.2, above=1.5)) == 4
    assert len(evident_columns(torch.zeros(9, 9), torch.ones(9, 9), 0.2)) == 0
    told = column_error(torch.from_numpy(image), torch.tensor(places), 0.2, seen=found)
    assert (told.found, told.false) == (0.75, 0.0)
