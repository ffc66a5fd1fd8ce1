"""Conventional scans: the right number of positions, inside the field, evenly spread."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.stats import qmc

from adaptycho.scan import Pattern, patterns
from adaptycho.scan.patterns import pattern

NAMES = get_args(Pattern)
FIELDS = st.tuples(st.floats(1.0, 100.0), st.floats(1.0, 100.0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def largest_hole(positions: torch.Tensor, field: tuple[float, float]) -> float:
    """Largest distance in Å from a fine grid of places to the nearest position."""
    y, x = ((np.arange(120) + 0.5) / 120 * size for size in field)
    places = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
    return float(cKDTree(positions.numpy() * np.array(field)).query(places)[0].max())


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 400), field=FIELDS, seed=st.integers(0, 2**31))
@pytest.mark.parametrize("name", NAMES)
def test_exact_count_inside_and_distinct(name: Pattern, count: int, field: tuple[float, float], seed: int) -> None:
    positions = pattern(name, count, field, generator=seeded(seed))
    assert positions.shape == (count, 2) and positions.dtype == torch.float64
    assert bool(((positions >= 0) & (positions <= 1)).all())
    assert len(torch.unique(positions, dim=0)) == count


@pytest.mark.parametrize("name", NAMES)
def test_same_generator_same_scan(name: Pattern) -> None:
    first, again, other = (pattern(name, 60, (20.0, 30.0), generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name not in ("random", "poisson-disk", "jittered"))


@settings(max_examples=25, deadline=None)
@given(count=st.integers(16, 300), aspect=st.floats(0.25, 4.0), seed=st.integers(0, 2**31))
@pytest.mark.parametrize(
    # Largest hole in units of the spacing sqrt(area / count): half a diagonal (0.71) for square cells, and what each scan adds: cells as
    # oblong as 2:1 when a row is missing, jitter up to a cell (twice the diagonal), the spiral's cut edge.
    ("name", "bound"),
    [("raster", 1.0), ("hexagonal", 1.2), ("jittered", 2.0), ("poisson-disk", 1.5), ("spiral", 1.7)],
)
def test_no_large_holes(name: Pattern, bound: float, count: int, aspect: float, seed: int) -> None:
    field = (20.0 * aspect, 20.0)
    positions = pattern(name, count, field, generator=seeded(seed))
    assert largest_hole(positions, field) < bound * math.sqrt(math.prod(field) / count)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "random"])
def test_more_even_than_random(name: Pattern) -> None:
    # Centred discrepancy; the mean of 40 random scans of 250 positions has a standard error of 10 % of itself: five below.
    random = np.mean([qmc.discrepancy(pattern("random", 250, (1.0, 1.0), generator=seeded(s)).numpy()) for s in range(40)])
    assert qmc.discrepancy(pattern(name, 250, (1.0, 1.0), generator=seeded()).numpy()) < 0.5 * random


def test_raster_reads_like_a_page() -> None:
    positions = patterns.raster(6, (20.0, 30.0))
    expected = [[y, x] for y in (1 / 4, 3 / 4) for x in (1 / 6, 3 / 6, 5 / 6)]
    # One rounding of a division each.
    torch.testing.assert_close(positions, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-16)


@settings(deadline=None)
@given(count=st.integers(1, 500), field=FIELDS)
def test_raster_rows_differ_by_at_most_one(count: int, field: tuple[float, float]) -> None:
    rows = torch.unique(patterns.raster(count, field)[:, 0], return_counts=True)[1]
    assert int(rows.max() - rows.min()) <= 1


@settings(deadline=None)
@given(count=st.integers(1, 300), field=FIELDS, seed=st.integers(0, 2**31))
def test_jitter_stays_in_its_cell(count: int, field: tuple[float, float], seed: int) -> None:
    centre, moved = patterns.raster(count, field), patterns.jittered(count, field, generator=seeded(seed))
    _, row, length = torch.unique(centre[:, 0], return_inverse=True, return_counts=True)
    half = torch.stack([length[row] / count, 1 / length[row]], 1) / 2
    # Both are computed from sums of order one in float64.
    assert bool(((moved - centre).abs() <= half + 1e-15).all())


def test_hexagonal_neighbours_are_equally_far() -> None:
    # 12 rows of 10 in a field whose sides make the lattice exact: pitch 1 Å, rows sqrt(3)/2 Å apart.
    field = (12 * math.sqrt(3) / 2, 10.0)
    places = patterns.hexagonal(120, field) * torch.tensor(field, dtype=torch.float64)
    distances = cKDTree(places.numpy()).query(places.numpy(), k=7)[0][:, 1:]
    inner = ((places > 1.1) & (places < torch.tensor(field) - 1.1)).all(1).numpy()
    assert inner.sum() > 50
    # Coordinates of up to 10 Å in float64.
    np.testing.assert_allclose(distances[inner], 1.0, atol=1e-14)


def test_halton_is_the_radical_inverse() -> None:
    def mirror(index: int, base: int) -> float:
        value, place = 0.0, 1.0 / base
        while index:
            index, digit = divmod(index, base)
            value, place = value + digit * place, place / base
        return value

    expected = torch.tensor([[mirror(i, 2), mirror(i, 3)] for i in range(1, 301)], dtype=torch.float64)
    # Up to nine digits are added, each with one rounding.
    torch.testing.assert_close(patterns.halton(300), expected, rtol=0, atol=1e-15)
    assert torch.equal(patterns.halton(300)[:50], patterns.halton(50))


@settings(max_examples=25, deadline=None)
@given(count=st.integers(2, 300), aspect=st.floats(0.1, 10.0), seed=st.integers(0, 2**31))
def test_poisson_disk_keeps_its_distance(count: int, aspect: float, seed: int) -> None:
    field = (20.0 * aspect, 20.0)
    places = patterns.poisson_disk(count, field, generator=seeded(seed)).numpy() * np.array(field)
    nearest = cKDTree(places).query(places, k=2)[0][:, 1].min()
    # Random sequential adsorption jams at a covered share of 0.547: 0.83 spacings; a finite number of darts stops a little earlier.
    assert nearest > 0.7 * math.sqrt(math.prod(field) / count)


def test_spiral_starts_in_the_centre_and_goes_outwards() -> None:
    field = (10.0, 40.0)
    radius = ((patterns.spiral(200, field) - 0.5) * torch.tensor(field, dtype=torch.float64)).norm(dim=1)
    assert bool((radius.diff() > 0).all())
    # Density of one per cell out to the nearest edge: pi 5^2 / (10 * 40 / 200) = 39 positions within 5 Å of the centre.
    assert int((radius < 5).sum()) == pytest.approx(39, abs=2)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(20, 300), share=st.floats(0.2, 1.0))
def test_spread_covers_the_field_from_the_start(count: int, share: float) -> None:
    scan, field = patterns.raster(count, (20.0, 30.0)), (20.0, 30.0)
    spread = patterns.spread(scan, field)
    assert torch.equal(*(torch.unique(p, dim=0) for p in (scan, spread)))
    first = spread[: max(4, int(share * count))]
    # Farthest-point order is within a factor two of the best covering (Gonzalez 1985), classes of distance add sqrt(2), and a square
    # lattice leaves holes of 0.71 spacings.
    assert largest_hole(first, field) < 2 * math.sqrt(2) * 0.71 * math.sqrt(600 / len(first))


@pytest.mark.parametrize("count", [100, 250, 1000])
def test_spread_leaves_no_side_for_later(count: int) -> None:
    quarter = (patterns.spread(patterns.raster(count, (20.0, 20.0)), (20.0, 20.0)) * 2).long().clamp(max=1) @ torch.tensor([2, 1])
    visits = torch.nn.functional.one_hot(quarter, 4).cumsum(0).double()
    k = torch.arange(1, count + 1, dtype=torch.float64)[:, None]
    # A random order errs by sqrt(3/16 K) = 0.43 sqrt(K) (one standard deviation), its worst of many K and four quarters by twice that;
    # a raster row by row by K / 4, which is 4 sqrt(K) for 250.
    assert bool(((visits - k / 4).abs() < 0.75 * k.sqrt() + 1).all())


def test_subsequences_are_consecutive() -> None:
    scan = patterns.halton(10)
    parts = patterns.subsequences(scan, (2, 3, 5))
    assert [len(p) for p in parts] == [2, 3, 5] and torch.equal(torch.cat(parts), scan)
    with pytest.raises(ValueError, match=r"add up to 10 positions, got \[2, 3\]"):
        patterns.subsequences(scan, (2, 3))


def test_errors_name_the_choices() -> None:
    with pytest.raises(ValueError, match="expected one of raster, hexagonal, random, halton, poisson-disk, jittered, spiral, got 'zigzag'"):
        pattern("zigzag", 5, (1.0, 1.0), generator=seeded())
    for name in NAMES:
        with pytest.raises(ValueError, match="count"):
            pattern(name, 0, (1.0, 1.0), generator=seeded())
        with pytest.raises(ValueError, match="field"):
            pattern(name, 5, (0.0, 1.0), generator=seeded())


def test_a_place_that_is_there_twice_is_visited_twice() -> None:
    """After all others."""
    places = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    order = patterns.spread(places.repeat(2, 1), (1.0, 1.0)).tolist()
    assert sorted(order[:50]) == sorted(order[50:]) == sorted(places.tolist())
