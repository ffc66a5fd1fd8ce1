"""Jump flooding against an exact search, on scans and on whatever positions and fields hypothesis comes up with."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from adaptycho.learn.voronoi import cells


def positions(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def excess(places: torch.Tensor, shape: tuple[int, int], field: tuple[float, float]) -> np.ndarray:
    """By how many Å the position found for each pixel "B h w" is further away than the nearest."""
    y, x = ((np.arange(n) + 0.5) / n for n in shape)
    centres = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2) * field
    found = cells(places, shape, field).flatten(1).numpy()
    over = []
    for points, index in zip(places.numpy() * field, found, strict=True):
        over.append(np.linalg.norm(centres - points[index], axis=1) - cKDTree(points).query(centres)[0])
    return np.array(over)


@pytest.mark.parametrize(
    ("count", "shape", "field"),
    [(250, (65, 65), (20.0, 20.0)), (50, (65, 65), (20.0, 20.0)), (250, (130, 130), (20.0, 20.0)), (400, (48, 97), (10.0, 20.0))],
)
def test_scans_are_divided_as_an_exact_search_divides_them(count: int, shape: tuple[int, int], field: tuple[float, float]) -> None:
    over = excess(positions(count, 12, count), shape, field)
    # What the module promises; 1e-9 Å is rounding.
    assert (over > 1e-9).mean() < 1e-4
    # Before the last round a neighbour knew its nearest position, which is at most twice their distance further from here (triangle).
    assert over.max() < 2 * field[0] / shape[0]


def test_crowded_positions_share_pixels_and_keep_their_cells() -> None:
    # 250 positions within 1 Å: up to five in a pixel, many with a wedge that widens towards the edge of the field.
    jitter = torch.randn(24, 250, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places = 0.5 + 0.05 * jitter
    over = excess(places, (65, 65), (20.0, 20.0))
    # Fewer than with the published rounds alone (13 in 100,000 here) or with one position to a pixel.
    assert (over > 1e-9).mean() < 1e-4


@settings(max_examples=60)
@given(
    count=st.integers(1, 60),
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    pixel=st.tuples(st.floats(0.2, 0.4), st.floats(0.2, 0.4)),
    seed=st.integers(0, 1 << 30),
    overshoot=st.sampled_from([0.0, 0.03]),
)
def test_any_count_shape_and_field(count: int, shape: tuple[int, int], pixel: tuple[float, float], seed: int, overshoot: float) -> None:
    places = positions(seed, 1, count) * (1 + 2 * overshoot) - overshoot
    over = excess(places, shape, (shape[0] * pixel[0], shape[1] * pixel[1]))
    # Two short pixel edges, the triangle inequality above; none is nearer than the nearest (rounding of lengths up to 30 Å).
    assert over.min() > -1e-12 and over.max() < 2 * min(pixel)


@given(count=st.integers(1, 40), seed=st.integers(0, 1 << 30))
def test_a_batch_is_divided_one_by_one(count: int, seed: int) -> None:
    places = positions(seed, 3, count)
    batch = cells(places, (21, 33), (7.0, 10.0))
    assert all(torch.equal(batch[b : b + 1], cells(places[b : b + 1], (21, 33), (7.0, 10.0))) for b in range(3))


def test_two_positions_share_the_field_at_their_bisector_in_angstrom() -> None:
    places = torch.tensor([[[0.5, 0.25], [0.5, 0.75]], [[0.1, 0.1], [0.9, 0.9]]])
    left, corner = cells(places, (10, 20), (40.0, 10.0))
    assert torch.equal(left, (torch.arange(20) >= 10).long().expand(10, 20))
    # On a field four times as high as wide the bisector of the corners' line is all but level: 16 dy + dx = 0 about the centre.
    y, x = (torch.arange(10) + 0.5) / 10 - 0.5, (torch.arange(20) + 0.5) / 20 - 0.5
    assert torch.equal(corner, (16 * y[:, None] + x > 0).long())


def test_of_positions_at_one_place_the_first_gets_the_cell() -> None:
    places = positions(3, 2, 30)
    once = cells(places, (40, 30), (12.0, 9.0))
    assert torch.equal(cells(torch.cat([places, places], 1), (40, 30), (12.0, 9.0)), once)
    assert torch.equal(cells(places[:, :1].expand(-1, 5, -1), (40, 30), (12.0, 9.0)), torch.zeros_like(once))


def test_a_pixel_with_a_position_at_its_centre_is_its_own_in_single_precision() -> None:
    y, x = torch.meshgrid(torch.arange(16), torch.arange(24), indexing="ij")
    grid = torch.stack([(y.flatten() + 0.5) / 16, (x.flatten() + 0.5) / 24], -1)
    order = torch.randperm(384, generator=torch.Generator().manual_seed(4))
    assert torch.equal(cells(grid[order][None], (16, 24), (8.0, 6.0)).flatten(), order.argsort())


@pytest.mark.parametrize("places", [torch.zeros(1, 0, 2), torch.tensor([[[0.5, torch.nan]]]), torch.tensor([[[torch.inf, 0.5]]])])
def test_positions_have_to_be_there(places: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="positions: expected at least one, all finite, got shape"):
        cells(places, (8, 8), (1.0, 1.0))
