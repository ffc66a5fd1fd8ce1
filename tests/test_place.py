"""Points placed by density: as even as can be, in proportion, and round those that are there already."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial import cKDTree

from adaptycho.scan import patterns
from adaptycho.scan.place import coverage, place

SQUARE = (20.0, 20.0)


def spacing(points: torch.Tensor, field: tuple[float, float]) -> np.ndarray:
    """Distance of each point to its nearest neighbour, in units of the pitch of a hexagonal lattice of as many points."""
    size = np.array(field)
    nearest = cKDTree(points.numpy() * size).query(points.numpy() * size, k=2)[0][:, 1]
    return np.asarray(nearest / math.sqrt(2 / math.sqrt(3) * size.prod() / len(points)))


@pytest.mark.parametrize("count", [16, 64, 250, 256])
@pytest.mark.parametrize("shape", [(65, 65), (65, 30), (12, 48), (130, 130)], ids=str)
def test_a_constant_density_gives_a_nearly_hexagonal_spread(count: int, shape: tuple[int, int]) -> None:
    points = place(torch.full(shape, 3.0), count)
    # A square lattice has 0.93, random points have a mean of 0.47 and a minimum near zero.
    assert spacing(points, shape).min() > 0.7
    assert spacing(points, shape).mean() > 0.8


def test_a_constant_density_leaves_a_raster_as_it_is() -> None:
    """Also when some of it has been scanned: the others are those that are missing."""
    field = (20.0, 32.0)
    raster = patterns.spread(patterns.raster(60, field).double(), field)
    points = place(torch.ones(50, 80), 48, fixed=raster[:12], field=field, lattice="raster")
    away = cKDTree(raster[12:].numpy() * field).query(points.numpy() * field)[0]
    assert away.max() < 0.1 * math.sqrt(20 * 32 / 60)  # of the pitch


def test_even_means_even_on_the_specimen() -> None:
    # Pixels of 1 x 2 Å: even in pixels would be far from even in Å.
    points = place(torch.ones(40, 40), 100, field=(20.0, 40.0))
    assert spacing(points, (20.0, 40.0)).min() > 0.7
    assert spacing(points, (20.0, 20.0)).min() < 0.7


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_points_follow_the_density(share: float) -> None:
    # A disc of a quarter of the field's area is to hold a given share of the points.
    y, x = np.mgrid[:65, :65] / 64 - 0.4
    inside = torch.from_numpy(np.hypot(y, x) < math.sqrt(0.25 / math.pi))
    area = float(inside.double().mean())
    density = torch.where(inside, share / area, (1 - share) / (1 - area))
    points = place(density, 128)
    pixels = (points * 65).long().clamp(max=64)
    # A cell astride the outline counts on either side: about half of the 20 or so there may go the wrong way.
    assert abs(float(inside[pixels[:, 0], pixels[:, 1]].double().mean()) - share) < 10 / 128


def test_nothing_goes_where_nothing_is_wanted() -> None:
    density = torch.zeros(64, 64)
    density[:, :32] = 1.0
    # Resampling to pixels of the points' own scale blurs the border by one of them, 2 of 64 here.
    assert float(place(density, 40)[:, 1].max()) < 34 / 64


def test_new_points_go_between_those_that_are_there() -> None:
    fixed = patterns.hexagonal(32, SQUARE)
    points = place(torch.ones(65, 65), 32, fixed=fixed)
    together = torch.cat([fixed, points])
    # Fixed points leave less freedom; points placed without looking come as near as chance has it.
    assert spacing(together, SQUARE).min() > 0.5
    assert spacing(torch.cat([fixed, place(torch.ones(65, 65), 32)]), SQUARE).min() < 0.5


def test_points_that_are_there_count() -> None:
    fixed = patterns.halton(32) * torch.tensor([1.0, 0.5])
    new = place(torch.ones(65, 65), 32, fixed=fixed)
    # 32 on either half is even; those on the border may lean over.
    assert int((new[:, 1] > 0.5).sum()) >= 28


@given(
    density=arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(0, 1e6, width=32)),
    fixed=arrays.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(2)), elements=st.floats(0, 1, width=32)),
    count=st.integers(0, 12),
    field=st.tuples(st.floats(0.1, 1e3), st.floats(0.1, 1e3)),
)
def test_property_points_are_in_the_field_and_the_same_again(
    density: np.ndarray, fixed: np.ndarray, count: int, field: tuple[float, float]
) -> None:
    density = density + np.float32(density.max() == 0)
    points = place(torch.from_numpy(density), count, fixed=torch.from_numpy(fixed), field=field)
    assert points.shape == (count, 2)
    assert bool(((points >= 0) & (points <= 1)).all())  # nan compares false
    assert torch.equal(points, place(torch.from_numpy(density), count, fixed=torch.from_numpy(fixed), field=field))


def test_a_generator_gives_other_points_as_evenly() -> None:
    def drawn(seed: int) -> torch.Tensor:
        return place(torch.ones(65, 65), 64, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(1), drawn(1))
    assert float((drawn(1) - drawn(2)).abs().max()) > 0.01
    assert spacing(drawn(1), SQUARE).min() > 0.6


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
def test_a_density_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="density: expected"):
        place(torch.full((5, 5), value), 3)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="count: expected"):
        place(torch.ones(5, 5), -1)


def test_coverage_counts_beams() -> None:
    radii = np.array([3.0, 2.0])
    middle = coverage(np.array([[20.5 / 40, 15.5 / 30]]), (40, 30), radii)
    # A Gaussian of height 1, sampled and cut off at four radii.
    assert abs(middle[20, 15] - 1) < 1e-3
    assert abs(middle[23, 15] - math.exp(-0.5)) < 1e-2
    # Mirrored at the edges, no beam is lost: rounding only.
    edge = coverage(np.array([[0.0, 1.0]] * 3), (40, 30), radii)
    assert abs(edge.sum() / (3 * middle.sum()) - 1) < 1e-9
    assert not coverage(np.zeros((0, 2)), (40, 30), radii).any()
