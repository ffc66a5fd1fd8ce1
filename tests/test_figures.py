"""Figures of an evaluation: what is drawn is what was given, legibly, in colours that everybody can tell apart."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.text import Text
from skimage.color import deltaE_ciede2000, rgb2lab

from adaptycho.draw import Scan, Stage, figures
from adaptycho.draw.figures import Gain, Point, Reconstruction
from adaptycho.draw.figures.looks import number

CONVENTIONAL = ["raster", "hexagonal", "random", "jittered", "halton", "poisson-disk", "spiral", "dense", "raster:focused"]
ADAPTIVE = ["heuristic", "greedy", "lattice", "reduction", "process"]
LOOKS = figures.looks(CONVENTIONAL, ADAPTIVE, ["oracle", "oracle-hexagonal", "oracle-density"])
# Machado, Oliveira and Fernandes, IEEE TVCG 15, 1291 (2009): full deficiency, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def points(families: tuple[str, ...] = ("crystal", "island"), strategies: tuple[str, ...] = tuple(LOOKS)) -> list[Point]:
    return [
        Point(family, name, count, dose, count * dose / 400, count * 1e-3 * (i + 1), 0.02 * i + 0.01 * math.log(count * dose), 0.0, 1.0)
        for family in families
        for dose in (300.0, 1e3, 1e4)
        for count in (64, 144, 256)
        for i, name in enumerate(strategies)
    ]


def cells(families: tuple[str, ...] = ("crystal", "particles on a support")) -> list[Gain]:
    settings = itertools.product(families, (300.0, 1e3, 1e4), (64, 144, 256))
    return [Gain(f, "heuristic", count, dose, 0.1 * i - 0.5, 0.1 * i - 0.75, 0.1 * i - 0.25) for i, (f, dose, count) in enumerate(settings)]


def scan(strategy: str, field: tuple[float, float], stages: int = 3, per_stage: int = 10) -> Scan:
    positions = torch.rand(per_stage * stages, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    phase = torch.rand(20, 30, generator=torch.Generator().manual_seed(2))
    parts = [(positions[per_stage * i : per_stage * (i + 1)], positions[: per_stage * (i + 1)]) for i in range(stages)]
    return Scan(strategy, "MoS2", field, 1.0, tuple(Stage(new, every, torch.ones(len(every)), phase) for new, every in parts))


def wave(shape: tuple[int, int], pixel: float, spot: tuple[float, float]) -> torch.Tensor:
    """A plane wave of some frequency in Å⁻¹ on a little noise."""
    y, x = torch.meshgrid(*(torch.arange(n) * pixel for n in shape), indexing="ij")
    noise = torch.rand(*shape, generator=torch.Generator().manual_seed(3))
    return torch.cos(2 * math.pi * (spot[0] * y + spot[1] * x)) + 0.1 * noise


def reconstructions(shape: tuple[int, int] = (60, 60)) -> list[Reconstruction]:
    return [
        Reconstruction("random", wave(shape, 0.3, (0.2, 0.3)), (0.2, 0.3), 2.77),
        Reconstruction("adaptive", wave(shape, 0.3, (-0.6, 0.5)), (-0.6, 0.5)),
        Reconstruction("full scan", wave(shape, 0.3, (0.0, 0.9)), (0.0, 0.9), 1.11),
        Reconstruction("lost", torch.full(shape, math.nan)),
    ]


def texts(figure: Figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def bars(figure: Figure, panel: int) -> list[ErrorbarContainer]:
    return [c for c in figure.axes[panel].containers if isinstance(c, ErrorbarContainer)]


EVERY = {
    "quality": lambda: figures.quality(points(), "dose", "ssim", LOOKS),
    "quality of one": lambda: figures.quality(points()[:1], "positions", "ssim", LOOKS),
    "quality in time": lambda: figures.quality(points(("a", "b", "c", "d")), "time", "resolution", LOOKS),
    "families": lambda: figures.quality([p for p in points(tuple("abcd")) if p.dose == 1e3], "positions", "ssim_aligned", LOOKS),
    "gains": lambda: figures.gains(cells(), "ssim"),
    "gains of several": lambda: figures.gains([replace(c, strategy=f"strategy {i}") for i, c in enumerate(cells())], "ssim_aligned"),
    "one gain": lambda: figures.gains(cells()[:1], "correlation"),
    "overlay": lambda: figures.overlay([scan(f"strategy {i}", (20.0, 20.0)) for i in range(7)]),
    "wide overlay": lambda: figures.overlay([scan("halton", (10.0, 30.0))]),
    "tall overlay": lambda: figures.overlay([scan("halton", (30.0, 10.0), stages=1), scan("raster", (30.0, 10.0), stages=12)]),
    "diffractograms": lambda: figures.diffractograms(reconstructions(), 0.3),
    "wide diffractograms": lambda: figures.diffractograms(reconstructions((31, 90)), 0.3),
    "tall diffractograms": lambda: figures.diffractograms(reconstructions((90, 40))[1:2], 0.3),
    "times": lambda: figures.times({n: {"decide": 0.5, "move": 0.1, "expose": 0.2, "reconstruct": 3.0, "wait": 1.0} for n in LOOKS}),
    "no time": lambda: figures.times({"raster": {"expose": 0.0}}),
}


@pytest.mark.parametrize("name", EVERY)
def test_figures_are_legible_in_print(name: str) -> None:
    figure = EVERY[name]()
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    assert width <= 7
    box = figure.get_tightbbox()
    # Positions on the very edge stick out by half a dot: 0.03 inch.
    assert box.x0 > -0.03 and box.y0 > -0.03 and box.x1 < width + 0.03 and box.y1 < height + 0.03
    assert min(t.get_fontsize() for t in texts(figure)) >= 7
    for axis in figure.axes:
        titles = [t for t in (axis.title, axis._left_title, axis._right_title) if t.get_text()]
        ticks = [t for a in (axis.xaxis, axis.yaxis) if a.get_visible() and axis.axison for t in a.get_ticklabels() if t.get_text()]
        for first, second in itertools.combinations([t.get_window_extent() for t in (*titles, *ticks, *axis.texts) if t.get_visible()], 2):
            assert not (first.width and second.width and first.overlaps(second))


def test_looks_differ() -> None:
    assert len({(look.colour, look.marker, look.line) for look in LOOKS.values()}) == len(LOOKS)
    many = figures.looks([f"c{i}" for i in range(20)], [f"a{i}" for i in range(20)])
    assert len({(look.colour, look.marker) for look in many.values()}) == 40
    focused, raster = LOOKS["raster:focused"], LOOKS["raster"]
    assert (focused.colour, focused.marker) == (raster.colour, raster.marker) and focused.line != raster.line and focused.hollow
    with pytest.raises(ValueError, match=r"looks: expected every strategy once, got 'raster' twice"):
        figures.looks(["raster"], ["raster"])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_kinds_of_strategies_are_told_apart_by_every_colour_vision(kind: str) -> None:
    def seen(colour: str) -> np.ndarray:
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        dim = (np.array(BLINDNESS[kind]) @ linear).clip(0, 1)
        return rgb2lab(np.where(dim <= 0.0031308, 12.92 * dim, 1.055 * dim ** (1 / 2.4) - 0.055))

    colours = {name: look for name, look in LOOKS.items() if look.line != ":"}
    for first, second in itertools.combinations(colours.values(), 2):
        if first.kind != second.kind:
            # A difference of 2.3 is just noticeable side by side; lines are thin and apart.
            assert deltaE_ciede2000(seen(first.colour), seen(second.colour)) > 9, (first, second)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.5, "0.5"), (48.0, "48"), (1600.0, "1600"), (1e4, "10⁴"), (2.5e5, "2.5·10⁵"), (1e-4, "10⁻⁴"), (0.12345, "0.123")],
)
def test_numbers_on_paper(value: float, text: str) -> None:
    assert number(value) == text


def test_quality_has_a_panel_for_each_family_and_setting() -> None:
    figure = figures.quality(points(), "dose", "ssim", LOOKS)
    titles = [(a.get_title(loc="left"), a.get_title(loc="right")) for a in figure.axes]
    assert titles == [(f, f"{n} positions") for f in ("crystal", "island") for n in (64, 144, 256)]
    assert [a.get_ylabel() for a in figure.axes] == ["SSIM", "", ""] * 2
    assert [a.get_xlabel() for a in figure.axes] == [""] * 3 + ["dose / e Å⁻²"] * 3
    assert all(len(bars(figure, panel)) == len(LOOKS) and figure.axes[panel].get_xscale() == "log" for panel in range(6))
    names = [t.get_text() for t in figure.legends[0].get_texts() if t.get_text()]
    assert names == ["conventional", *CONVENTIONAL, "adaptive", *ADAPTIVE, "oracle", *list(LOOKS)[14:]]
    other = figures.quality(points(), "positions", "ssim", LOOKS)
    assert [a.get_title(loc="right") for a in other.axes[:3]] == ["300 e per position", "1000 e per position", "10⁴ e per position"]


def test_quality_draws_means_intervals_and_looks() -> None:
    given = [
        Point("island", "halton", 64, 1e3, 160.0, 0.5, 0.6, 0.55, 0.7),
        Point("island", "halton", 144, 1e3, 360.0, 1.5, 0.8, 0.75, 0.85),
        Point("island", "oracle", 64, 1e3, 160.0, 0.7, 0.9, 0.85, 0.95),
    ]
    figure = figures.quality(given[::-1], "time", "ssim", LOOKS)
    halton, oracle = bars(figure, 0)  # time is measured: nothing is moved aside
    np.testing.assert_array_equal(halton[0].get_xydata(), [[0.5, 0.6], [1.5, 0.8]])
    # Means less lower ends and back again.
    np.testing.assert_allclose([s[:, 1] for s in halton[2][0].get_segments()], [[0.55, 0.7], [0.75, 0.85]], rtol=1e-12)
    assert [to_rgb(b[0].get_color()) for b in (halton, oracle)] == [to_rgb(LOOKS[n].colour) for n in ("halton", "oracle")]
    # Otherwise by 2.5 % of the axis at most, on a logarithmic scale.
    beside = figures.quality(given, "positions", "ssim", LOOKS)
    shifts = [math.log(b[0].get_xdata()[0] / 64) / math.log(144 / 64) for b in bars(beside, 0)]
    np.testing.assert_allclose(shifts, [-0.025, 0.025], rtol=1e-9)
    assert beside.axes[0].get_xticks().tolist() == [64, 144]


def test_quality_of_what_is_missing() -> None:
    start = points(("crystal",), ("halton",))[0]
    lost = [replace(start, mean=math.nan, low=math.nan, high=math.nan), replace(start, positions=144, low=math.nan, high=math.inf)]
    figure = figures.quality(lost, "positions", "ssim", LOOKS)
    (drawn,) = bars(figure, 0)
    assert np.isnan(drawn[0].get_ydata()[0]) and np.isfinite(drawn[0].get_ydata()[1])
    for seconds in (0.0, math.nan, math.inf):
        figures.quality([replace(start, seconds=seconds)], "time", "ssim", LOOKS).draw_without_rendering()
    with pytest.raises(ValueError, match=r"looks: expected one for every strategy, got none for magic"):
        figures.quality([replace(start, strategy="magic")], "dose", "ssim", LOOKS)
    with pytest.raises(ValueError, match=r"points: expected at least one, got none"):
        figures.quality([], "dose", "ssim", LOOKS)


def test_gains_are_centred_signed_and_starred() -> None:
    figure = figures.gains([*cells()[:6], replace(cells()[6], gain=math.nan), *cells()[8:]], "ssim")
    axis = figure.axes[0]
    image = axis.images[0]
    # The largest gain in per cent, to rounding.
    assert image.get_clim() == pytest.approx((-120.0, 120.0), rel=1e-12)
    # Centred: white at zero. Blue is below and orange above.
    assert min(image.to_rgba(0.0)[:3]) > 0.99
    assert image.to_rgba(-50.0)[2] > image.to_rgba(-50.0)[0] and image.to_rgba(50.0)[0] > image.to_rgba(50.0)[2]
    assert np.ma.getmaskarray(image.get_array())[0].tolist() == [False] * 6 + [True] * 2 + [False]
    found = {t.xy: t.get_text() for t in axis.texts if isinstance(t.xy[0], int)}
    # 0.25 on each side of the gain: certain from 30 % on.
    assert [found[i, 0] for i in range(9)] == ["−50.0*", "−40.0*", "−30.0*", "−20.0", "−10.0", "+0.0", "–", "–", "+30.0*"]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["crystal", "particles on a support"]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["64", "144", "256"] * 3
    assert {"300 e per position", "1000 e per position", "10⁴ e per position"} <= {t.get_text() for t in axis.texts}
    assert "heuristic" in axis.get_title(loc="left")


def test_gains_name_the_strategy_where_they_differ() -> None:
    first, *rest = cells()
    names = [t.get_text() for t in figures.gains([replace(first, strategy="greedy"), *rest], "ssim").axes[0].texts]
    assert names.count("greedy") == 1 and names.count("heuristic") == len(rest)
    with pytest.raises(ValueError, match=r"gains: expected one for each family, dose and number of positions, got two for"):
        figures.gains([first, replace(first, strategy="greedy")], "ssim")
    flat = figures.gains([replace(c, gain=0.0, low=0.0, high=0.0) for c in cells()], "ssim")
    assert not any("*" in t.get_text() for t in flat.axes[0].texts)


def test_overlay_shows_positions_where_they_are() -> None:
    given = scan("halton", (20.0, 30.0))
    figure = figures.overlay([given, scan("raster", (20.0, 30.0), stages=1)])
    dots = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    assert len(dots) == 3 and len({tuple(c.get_facecolor()[0]) for c in dots}) == 3
    for drawn, stage in zip(dots, given.stages, strict=True):
        # Å, (x, y): one multiplication each.
        np.testing.assert_allclose(drawn.get_offsets(), (stage.positions_new * torch.tensor([20.0, 30.0])).flip(1).numpy(), rtol=1e-15)
    assert [(a.get_title(), a.get_xlabel()) for a in figure.axes[:2]] == [("halton", "30 positions"), ("raster", "10 positions")]
    assert [[t.get_text() for t in a.texts] for a in figure.axes[:2]] == [["1 nm"], ["1 nm"]]
    assert figure.axes[2].get_ylabel() == "sub-sequence"
    assert len(figures.overlay([scan("raster", (20.0, 30.0), stages=1)]).axes) == 1
    with pytest.raises(ValueError, match=r"scans: expected at least one, got none"):
        figures.overlay([])
    figures.overlay([scan("nothing", (20.0, 30.0), per_stage=0)]).draw_without_rendering()


@pytest.mark.parametrize("shape", [(60, 60), (61, 45), (40, 75)])
@pytest.mark.parametrize("spot", [(0.2, 0.3), (-0.6, 0.5), (0.0, 0.9), (0.0, -0.9)])
def test_diffractograms_circle_the_spot(shape: tuple[int, int], spot: tuple[float, float]) -> None:
    figure = figures.diffractograms([Reconstruction("adaptive", wave(shape, 0.3, spot), spot)], 0.3)
    left, right = figure.axes[:2]
    circles = [p for p in right.patches if isinstance(p, Circle)]
    up = -1 if spot[0] > 0 else 1  # the upper of the Friedel mates comes first
    assert [c.center for c in circles] == [(up * spot[1], up * spot[0]), (-up * spot[1], -up * spot[0])]
    # What is drawn below the circle is the wave's peak: its pixel in the picture, extent and all.
    values = np.array(right.images[0].get_array())
    (x0, x1, y1, y0), (row, column) = right.images[0].get_extent(), np.unravel_index(values.argmax(), values.shape)
    pixel_y, pixel_x = (y1 - y0) / values.shape[0], (x1 - x0) / values.shape[1]
    peak = np.array([y0 + (row + 0.5) * pixel_y, x0 + (column + 0.5) * pixel_x])
    # A wave between two pixels is brightest in the nearer one: half a pixel off at most, and rounding.
    away = np.minimum(np.abs(peak - spot), np.abs(peak + spot))
    assert (away <= np.array([pixel_y, pixel_x]) * 0.501).all()
    assert f"{1 / math.hypot(*spot):.2f} Å" in [t.get_text() for t in right.texts]
    assert left.images[0].get_extent() == pytest.approx((0, shape[1] * 0.3, shape[0] * 0.3, 0))
    low, high = right.get_xlim()
    assert -low == high > max(abs(spot[0]), abs(spot[1])) and right.get_ylim() == (high, low)


def test_diffractograms_have_units_letters_and_labels() -> None:
    figure = figures.diffractograms(reconstructions(), 0.3)
    panels = figure.axes[:8]
    assert [a.get_title(loc="left") for a in panels[::2]] == ["a  random", "c  adaptive", "e  full scan", "g  lost"]
    assert [a.get_title(loc="left") for a in panels[1::2]] == [f"{letter}  diffractogram" for letter in "bdfh"]
    labels = [[t.get_text() for t in a.texts] for a in panels]
    assert labels[::2] == [["5 Å"]] * 4
    assert [row[-1] for row in labels[1::2]] == ["2.77 Å", "1.28 Å", "1.11 Å", "no spot found"]
    assert [a.get_ylabel() for a in figure.axes[8:]] == ["phase / rad"] * 4
    assert len({a.get_xlim() for a in panels[1::2]}) == 1
    bar = panels[1].lines[0].get_xdata()
    value, unit = labels[1][0].split()
    assert unit == "Å⁻¹" and np.ptp(bar) == pytest.approx(float(value), rel=1e-12)
    assert figures.diffractograms(reconstructions(), 0.3, limit=0.7).axes[1].get_xlim() == (-0.7, 0.7)
    with pytest.raises(ValueError, match=r"entries: expected at least one reconstruction, got none"):
        figures.diffractograms([], 0.3)


def test_times_add_up() -> None:
    spent = {
        "raster": {"expose": 1.0, "move": 0.5},
        "greedy": {"reconstruct": 2.0, "decide": 0.25, "expose": 1.0},
        "lost": {"move": math.nan},
    }
    axis = figures.times(spent).axes[0]
    stacks = {str(c.get_label()): c for c in axis.containers if isinstance(c, BarContainer)}
    assert list(stacks) == ["decide", "move", "expose", "reconstruct"]
    for row, tasks in enumerate(spent.values()):
        for name, stack in stacks.items():
            expected = tasks.get(name, 0.0)
            assert stack[row].get_width() == (0.0 if math.isnan(expected) else expected)
    # Each bar begins where the one before ends.
    assert [stacks[n][1].get_x() for n in stacks] == [0.0, 0.25, 0.25, 1.25]
    assert [t.get_text() for t in axis.texts] == ["1.5 s", "3.25 s", "–"]
    assert len({c[0].get_facecolor() for c in stacks.values()}) == 4
    with pytest.raises(ValueError, match=r"seconds: expected at least one strategy, got none"):
        figures.times({})
