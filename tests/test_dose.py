"""Where the electrons went, against closed forms, brute force and the package's own simulated probes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from adaptycho.metrics.dose import coverage, discrepancy, dose_map, local_dose, path_length
from adaptycho.physics.optics import Setup
from adaptycho.scan import patterns

CENTRE = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
FRACTIONS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30)
FIELDS = st.tuples(st.floats(0.5, 100), st.floats(0.5, 100))


def points(values: list[tuple[float, float]]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def grid(field: tuple[float, float], shape: tuple[int, int]) -> np.ndarray:
    """Points from edge to edge of the field in Å, its corners among them."""
    axes = (np.linspace(0, s, n) for s, n in zip(field, shape, strict=True))
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)


# The dose map


def test_a_beam_is_the_gaussian_that_holds_half_within_its_radius() -> None:
    field, radius = (40.0, 60.0), 3.0
    # 120 x 180 pixels of 1/3 Å with a position on the corner of four: a bin's centre is sqrt(2) / 6 Å away.
    dose = dose_map(CENTRE, torch.tensor([5000.0]), field, radius, pixels=180)
    assert dose.shape == (120, 180)
    # The filter ends at 4 sigma, 10 Å, well inside, and is normalised: rounding only.
    assert dose.sum() / 9 == pytest.approx(5000, rel=1e-9)
    # Peak N ln 2 / (pi r^2); the pixels sample the Gaussian and cut exp(-8) of it off.
    assert dose.max() == pytest.approx(5000 * math.log(2) / (math.pi * radius**2), rel=1e-3)
    y, x = ((np.arange(n) + 0.5) / 3 for n in dose.shape)
    inside = np.hypot(y[:, None] - 20 - 1 / 6, x[None, :] - 30 - 1 / 6) < radius
    # The circle is cut out of 1/3 Å pixels: a circumference of 57 pixels errs by about sqrt(57) / 2 of 254 pixels, 1.5 %; three times that.
    assert dose[inside].sum() / 9 == pytest.approx(2500, rel=0.045)


def test_each_position_may_have_its_own_radius() -> None:
    positions, dose = points([(0.2, 0.3), (0.7, 0.6), (0.5, 0.9)]), torch.tensor([100.0, 200.0, 400.0])
    radii = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    together = dose_map(positions, dose, (20.0, 30.0), radii)
    one_by_one = [dose_map(positions[i : i + 1], dose[i : i + 1], (20.0, 30.0), float(radii[i])) for i in range(3)]
    # A linear filter: rounding of values of order 100.
    np.testing.assert_allclose(together, sum(one_by_one), rtol=0, atol=1e-11)


@settings(max_examples=30)
@given(values=FRACTIONS, field=FIELDS, radius=st.floats(0.1, 10))
def test_no_electrons_are_made_and_none_is_negative(values: list[tuple[float, float]], field: tuple[float, float], radius: float) -> None:
    dose = torch.arange(1.0, len(values) + 1)
    found = dose_map(points(values), dose, field, radius, pixels=40)
    assert (found >= 0).all()
    # What falls outside the field is lost; rounding of a sum of 1600 terms.
    assert found.sum() * math.prod(field) / found.size <= float(dose.sum()) * (1 + 1e-12)


@pytest.mark.parametrize(("defocus", "error"), [(0.0, 0.05), (100.0, 0.15)])
def test_peak_dose_of_a_simulated_probe(paper: Setup, defocus: float, error: float) -> None:
    setup = paper.with_defocus(defocus)
    probe = setup.probe().abs().square().reshape(64, 64)
    peak = float(probe.max()) / setup.window.pixel**2
    stated = local_dose(CENTRE, torch.tensor([1.0]), (20.0, 20.0), setup.probe_radius()).peak
    # Focused it is an Airy pattern, 0.6 % from the Gaussian; the radius, good to 0.05 of 2.5 pixels, enters squared. At 100 Å its fringes
    # leave the Gaussian 12 % too high.
    assert stated / peak == pytest.approx(1.0, abs=error)
    # A disk of the same radius is too low in both.
    assert 0.5 / (math.pi * setup.probe_radius() ** 2 * peak) < 0.85


# Local dose


def test_local_dose_of_an_even_scan_is_the_mean() -> None:
    # 20 x 20 positions 1 Å apart under beams of 2 Å overlap to an even dose, but for the edge, from where nothing comes.
    doses = torch.full((400,), 50.0)
    found = local_dose(patterns.raster(400, (20.0, 20.0)), doses, (20.0, 20.0), 2.0)
    assert found.total == 20_000 and found.mean == 50
    # A lattice of Gaussians with sigma = 1.7 spacings varies by 4 exp(-2 pi^2 1.7^2), 1e-24. Counting into bins of 0.156 Å moves each
    # beam by up to 0.078 Å, 4.6 % of sigma; the slope that leaves is averaged over the beams that contribute, 9 in a row: below 2 %.
    assert found.peak == pytest.approx(50, rel=0.02) and found.p95 == pytest.approx(50, rel=0.02)


def test_peak_of_a_sharp_beam_in_a_large_field() -> None:
    # On 128 pixels the beam would be lost in one; a finer map resolves it: sigma is 2.5 pixels or more, its centre half a pixel off.
    found = local_dose(CENTRE, torch.tensor([1e4]), (100.0, 50.0), 0.4)
    assert found.peak == pytest.approx(1e4 * math.log(2) / (math.pi * 0.4**2), rel=0.05)
    assert found.total == 1e4 and found.mean == 2 and found.p95 == 0


def test_nothing_sent() -> None:
    none = torch.zeros(0, 2, dtype=torch.float64)
    assert local_dose(none, torch.zeros(0), (20.0, 10.0), 1.0) == local_dose(CENTRE, torch.zeros(1), (20.0, 10.0), 1.0)
    seen = coverage(none, (20.0, 10.0), 1.0)
    assert seen.fraction == 0 and seen.covering_radius == math.inf
    assert path_length(none, (20.0, 10.0)) == 0 and math.isnan(discrepancy(none))


# Coverage, path and evenness


def test_coverage_of_one_position() -> None:
    seen = coverage(CENTRE, (40.0, 60.0), 5.0)
    # Pixels of 0.234 Å: the circumference of 134 of them errs by about sqrt(134) / 2 of 1430 pixels, 0.4 %; four times that.
    assert seen.fraction == pytest.approx(math.pi * 25 / 2400, rel=0.016)
    assert seen.covering_radius == pytest.approx(math.hypot(20, 30), rel=1e-9)
    assert coverage(points([(0.0, 0.0)]), (40.0, 60.0), 5.0).covering_radius == pytest.approx(math.hypot(40, 60), rel=1e-9)


def test_covering_radius_of_a_square_raster() -> None:
    line = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    square = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    # The centre of four positions 2.5 x 5 Å apart, and as far the corners of the field. Rounding to 1e-9 of the field.
    assert coverage(square, (20.0, 40.0), 1.0).covering_radius == pytest.approx(math.hypot(1.25, 2.5), abs=1e-7)


@settings(max_examples=60)
@given(values=FRACTIONS, field=FIELDS)
def test_covering_radius_is_what_a_fine_grid_finds(values: list[tuple[float, float]], field: tuple[float, float]) -> None:
    positions = points(values)
    shape = (80, 90)
    furthest = cKDTree(values * np.array(field)).query(grid(field, shape))[0].max()
    found = coverage(positions, field, 1.0, pixels=8).covering_radius
    # Distance changes no faster than position: the true maximum is at most half a diagonal of the grid from one of its points.
    step = math.hypot(*(s / (n - 1) for s, n in zip(field, shape, strict=True)))
    assert furthest - 1e-6 * max(field) <= found <= furthest + step / 2 + 1e-6 * max(field)


@settings(max_examples=30)
@given(values=FRACTIONS, field=FIELDS, radius=st.floats(0.1, 20))
def test_coverage_is_complete_within_the_covering_radius(
    values: list[tuple[float, float]], field: tuple[float, float], radius: float
) -> None:
    positions = points(values)
    seen = coverage(positions, field, radius, pixels=64)
    assert 0 <= seen.fraction <= 1
    if radius >= seen.covering_radius * (1 + 1e-6):
        assert seen.fraction == 1
    # More positions and wider beams cover more.
    assert coverage(positions[:1], field, radius, pixels=64).fraction <= seen.fraction
    assert coverage(positions, field, torch.full((len(values),), 2 * radius), pixels=64).fraction >= seen.fraction


def test_coverage_with_a_radius_for_each_position() -> None:
    positions = points([(0.25, 0.25), (0.75, 0.75)])
    seen = coverage(positions, (40.0, 40.0), torch.tensor([2.0, 6.0]))
    # Two circles that do not meet, in pixels of 0.16 Å.
    assert seen.fraction == pytest.approx(math.pi * (4 + 36) / 1600, rel=0.016)


def test_path_length() -> None:
    corners = points([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)])
    assert path_length(corners, (20.0, 30.0)) == 100
    assert path_length(corners[:1], (20.0, 30.0)) == 0
    # The diagonal, once there and once back, in Å.
    assert path_length(points([(0, 0), (1, 1), (0, 0)]), (3.0, 4.0)) == pytest.approx(10, rel=1e-12)


def test_even_patterns_have_a_lower_discrepancy() -> None:
    generator = torch.Generator().manual_seed(0)
    assert discrepancy(patterns.halton(256)) < discrepancy(torch.rand(256, 2, generator=generator, dtype=torch.float64))
    # One point at the centre: 169/144 - 2 + 1, from the definition with |x - 1/2| = 0 (squared discrepancy).
    assert discrepancy(CENTRE) == pytest.approx((13 / 12) ** 2 - 2 + 1, rel=1e-12)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"probe_radius: expected a positive radius in Å for each of 1 positions, got 0.0"):
        dose_map(CENTRE, torch.ones(1), (20.0, 20.0), 0.0)
    with pytest.raises(ValueError, match="field: expected a positive size"):
        coverage(CENTRE, (0.0, 20.0), 1.0)
