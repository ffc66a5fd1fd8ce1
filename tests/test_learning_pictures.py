"""Pictures of learning: what is drawn is what was given."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import FillBetweenPolyCollection, LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.text import Text

from adaptycho.draw import learning
from adaptycho.learn.voronoi import cells

FIELD = (12.0, 20.0)


def rand(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(figure: Figure) -> set[str]:
    """Draws the figure and returns all its texts."""
    assert figure.get_figwidth() <= 7  # inches: a page's
    figure.draw_without_rendering()
    return {text.get_text() for text in figure.findobj(Text)}


def places(collection: PathCollection) -> np.ndarray:
    """Dots as fractions (y, x) of the field."""
    return np.asarray(collection.get_offsets())[:, ::-1] / FIELD


def area(corners: np.ndarray) -> float:
    """Of a convex polygon with corners (x, y)."""
    x, y = (corners - corners.mean(0)).T
    order = np.argsort(np.arctan2(y, x))
    x, y = x[order], y[order]
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def test_curves_show_means_and_bands() -> None:
    voronoi = [(float(s), 0.1 * s, 0.1 * s - 0.5, 0.1 * s + 1) for s in range(0, 100, 10)]
    shared = [(0.0, 1.0, 0.5, 1.5), (50.0, math.nan, math.nan, math.nan), (90.0, 2.0, 1.5, 2.5)]
    figure = learning.curves({"Voronoi reward": voronoi, "shared $reward$": shared, "none": []}, quantity="return")
    assert {"Voronoi reward", "shared $reward$", "return", "iteration"} <= drawn(figure)
    axis = figure.axes[0]
    for line, band, points in zip(axis.lines, axis.collections, (voronoi, shared), strict=False):
        steps, mean, low, high = np.array(points).T
        np.testing.assert_array_equal(line.get_xydata(), np.stack([steps, mean], 1))
        assert isinstance(band, FillBetweenPolyCollection)
        corners = {(float(x), float(y)) for path in band.get_paths() for x, y in path.vertices}
        assert {(s, v) for v in (low[0], high[-1]) for s in steps[[0 if v == low[0] else -1]]} <= corners
        assert to_rgb(line.get_color()) == to_rgb(band.get_facecolor()[0])
    assert len({line.get_color() for line in axis.lines}) == len({line.get_marker() for line in axis.lines}) == 3
    with pytest.raises(ValueError, match="named: expected at least one curve with a point, got none"):
        learning.curves({"none": []})


def test_the_tessellation_is_the_one_that_rewards_are_paid_for() -> None:
    positions = rand(1, 40, 2)
    polygons, owner = learning._polygons(positions, FIELD)
    pixels = (60, 100)
    expected = cells(positions[None], pixels, FIELD)[0].numpy()
    y, x = np.meshgrid(*((np.arange(n) + 0.5) / n * f for n, f in zip(pixels, FIELD, strict=True)), indexing="ij")
    centres = np.stack([x.ravel(), y.ravel()], 1)
    for i in range(40):
        corners = polygons[owner[i]]
        around = corners - corners.mean(0)
        path = Path(corners[np.argsort(np.arctan2(*around.T))])
        inside = path.contains_points(centres).reshape(pixels)
        # Jump flooding leaves one pixel in ten thousand wrong, of 6000.
        assert int((inside != (expected == i)).sum()) <= 1


@given(count=st.integers(1, 60), seed=st.integers(0, 1 << 30), grid=st.sampled_from([0, 1, 3, 10]))
def test_cells_cover_the_field_once_whatever_coincides_or_lies_on_its_edge(count: int, seed: int, grid: int) -> None:
    positions = rand(seed, count, 2) * 1.4 - 0.2
    if grid:
        positions = (positions * grid).round() / grid
    polygons, owner = learning._polygons(positions, FIELD)
    assert len(owner) == count and set(owner) == set(range(len(polygons)))
    # Positions are rounded to 1e-9 of the field and moved by 1e-6 off its edge, which do not change that the cells fill it.
    assert sum(area(p) for p in polygons) == pytest.approx(12 * 20, rel=1e-6)


def test_the_tessellation_shows_positions_and_shades_the_first_cells() -> None:
    positions = torch.cat([rand(2, 30, 2), torch.tensor([[0.5, 1.2]], dtype=torch.float64)])
    figure = learning.tessellation(rand(3, 24, 40), positions, FIELD, first=10)
    assert {"31 positions; shaded: the first 10", "phase / rad", "5 Å"} <= drawn(figure)
    shade, lines, dots = figure.axes[0].collections
    assert isinstance(shade, PolyCollection) and isinstance(lines, LineCollection) and isinstance(dots, PathCollection)
    assert len(shade.get_paths()) == 10 and len(lines.get_paths()) == 31
    # Outside counts at the edge; rounding of products.
    np.testing.assert_allclose(places(dots), positions.clamp(0, 1).numpy(), atol=1e-15)
    for path in shade.get_paths():
        assert sum(path.contains_point((x * FIELD[1], y * FIELD[0])) for y, x in positions[:10].tolist()) == 1
    assert "31 positions" in drawn(learning.tessellation(rand(3, 24, 40), positions, FIELD))


def test_compression_shows_the_four_liveliest_channels_between_input_and_output() -> None:
    phase, latent = rand(4, 24, 40), rand(5, 8, 6, 10) * torch.arange(8)[[3, 7, 0, 6, 1, 5, 4, 2], None, None]
    figure = learning.compression(phase, latent, 0.5 * phase, FIELD)
    texts = drawn(figure)
    chosen = [1, 3, 5, 6]  # scaled by 7, 6, 5 and 4
    titles = [f"{letter}) channel {c + 1} of 8" for letter, c in zip("bcde", chosen, strict=True)]
    assert {"a) reconstruction", *titles, "f) decoded", "phase / rad (a, f)", "5 Å"} <= texts
    images = [axis.images[0] for axis in figure.axes[:6]]
    for image, values in zip(images, (phase, *latent[chosen], 0.5 * phase), strict=True):
        np.testing.assert_array_equal(np.asarray(image.get_array()), values.numpy() - np.median(values))
    assert images[0].get_clim() == images[5].get_clim() != images[1].get_clim()
    few = learning.compression(phase, latent[:2], phase, FIELD)
    assert "f) decoded" in drawn(few) and [len(axis.images) for axis in few.axes[:6]] == [1, 1, 1, 0, 0, 1]


def test_trajectories_lead_from_b_to_c() -> None:
    first, good = rand(6, 10, 2), rand(7, 5, 20, 2)
    bad = 0.4 + 0.2 * rand(8, 3, 30, 2)
    good[0, 3] = torch.tensor([1.1, 0.5])  # outside: no dot
    figure = learning.trajectories(rand(9, 24, 40), {"not initialised": bad, "initialised": good}, first, FIELD)
    assert {"a) not initialised", "b) initialised", "A: given", "B: before training", "C: after", "5 Å"} <= drawn(figure)
    for axis, track in zip(figure.axes, (bad, good), strict=False):
        paths, *dots = axis.collections
        assert isinstance(paths, LineCollection) and paths.get_linestyle()[0][1] is not None  # dashed
        drawn_paths = np.stack([p.vertices[:, ::-1] / FIELD for p in paths.get_paths()], 1)
        np.testing.assert_allclose(drawn_paths, track.numpy(), atol=1e-15)  # rounding of products
        begin = track[0][(track[0] <= 1).all(1)]
        for found, expected in zip(dots, (first, begin, track[-1]), strict=True):
            np.testing.assert_allclose(places(found), expected.numpy(), atol=1e-15)
    assert "initialised" in drawn(learning.trajectories(rand(9, 24, 40), {"initialised": good.float()}, first.float(), FIELD))
    for named in ({}, {"initialised": good[:0]}):
        with pytest.raises(ValueError, match="named: expected at least one training with a moment"):
            learning.trajectories(rand(9, 24, 40), named, first, FIELD)
