"""Pictures of scans: where the beam went, what was seen there, what it cost.

Every function takes results and returns a matplotlib figure that belongs to nobody (no pyplot, no global state); reports and the README
show them.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter
from torch import Tensor

from adaptycho.metrics import bootstrap_interval

COLUMNS = 6  # sub-sequences shown in one strip
PANEL = 1.85  # inches
# Okabe and Ito's colours, told apart by every kind of colour vision; markers tell them apart in black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
MARKERS = "osD^vP*X"
NEW, EARLIER = "#FF9A00", "#9FD3FF"
STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "text.parse_math": False,  # a strategy may be called anything, dollars included
}
LABELS = {
    "ssim": "SSIM",
    "ssim_aligned": "SSIM, aligned",
    "correlation": "correlation",
    "resolution": "resolution / Å",
    "loss": "loss of the reconstruction",
}


@dataclass(frozen=True, eq=False)
class Stage:
    """What was known after one sub-sequence.

    Attributes:
        positions_new: of this sub-sequence, fractions (y, x) of the scan field.
        positions_all: of this and all earlier ones.
        dose_all: electrons sent to each of those.
        potential: phase in rad inside the scan field, reconstructed from all of them.
        loss: final loss of that reconstruction.
        scores: against the reference, by name (`ssim`, `ssim_aligned`, `correlation`, ...).
        seconds: wall-clock time by task (`acquire`, `reconstruct`, `decide`, ...).
    """

    positions_new: Float[Tensor, "K 2"]
    positions_all: Float[Tensor, "P 2"]
    dose_all: Float[Tensor, " P"]
    potential: Float[Tensor, "h w"]
    loss: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scan:
    """One strategy on one specimen.

    Attributes:
        strategy: who chose the positions.
        specimen: name of what was scanned.
        field: size (y, x) of the scan field in Å.
        probe_radius: radius in Å that holds half of the beam's intensity.
        stages: one for each sub-sequence, at least one.
        reference: phase in rad that scores compare with.
        iterations_loss: loss after each iteration of the last reconstruction.
        snapped: on recorded data, mean distance in Å between the position asked for and the one served.
    """

    strategy: str
    specimen: str
    field: tuple[float, float]
    probe_radius: float
    stages: tuple[Stage, ...]
    reference: Float[Tensor, "h w"] | None = None
    iterations_loss: tuple[float, ...] = ()
    snapped: float | None = None

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError(f"stages: expected at least one sub-sequence in the scan {self.strategy!r} of {self.specimen!r}, got none")


def strip(scan: Scan) -> Figure:
    """A scan from left to right: reconstruction and positions above, electrons per area below, for each sub-sequence."""
    count = len(scan.stages)
    shown = sorted({round(i * (count - 1) / max(1, min(count, COLUMNS) - 1)) for i in range(min(count, COLUMNS))})
    columns = len(shown) + (scan.reference is not None)
    low, high = _greys(scan)
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(2, columns, scan.field, lines=max(len(s.scores) for s in scan.stages))
        doses = [dose_map(scan.stages[i], scan.field, scan.probe_radius) for i in shown]
        for i, dose, above, below in zip(shown, doses, axes[0], axes[1], strict=False):
            stage = scan.stages[i]
            grey = _show(above, stage.potential, scan.field, low, high)
            size = min(16.0, max(2.5, 1500 / len(stage.positions_all)))
            earlier = stage.positions_all[: len(stage.positions_all) - len(stage.positions_new)]
            _dots(above, earlier, scan.field, s=0.7 * size, color=EARLIER, alpha=0.8)
            _dots(above, stage.positions_new, scan.field, s=size, color=NEW, edgecolors="black", linewidths=0.3)
            above.set_title(f"{i + 1}: {len(stage.positions_all)} positions")
            above.set_xlabel(_score_line(stage), fontsize=7.5)
            extent = (0, scan.field[1], scan.field[0], 0)
            heat = below.imshow(dose, cmap="cividis", vmin=0, vmax=float(doses[-1].max()) or 1.0, extent=extent)
        handles = [Line2D([], [], ls="", marker="o", ms=4, mfc=c, mec=e) for c, e in ((NEW, "black"), (EARLIER, EARLIER))]
        labels = ["new positions", "earlier positions"]
        if scan.reference is not None:
            _show(axes[0, -1], scan.reference, scan.field, low, high)
            axes[0, -1].set_title("reference")
            axes[1, -1].axis("off")
            axes[1, -1].legend(handles, labels, loc="upper left", frameon=False, handletextpad=0.1)
        else:
            figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False, handletextpad=0.1)
        _scale_bar(axes[0, 0], scan.field)
        figure.colorbar(grey, ax=list(axes[0]), label="phase / rad", aspect=18, pad=0.01, ticks=MaxNLocator(4, steps=[1, 2, 5, 10]))
        figure.colorbar(heat, ax=list(axes[1]), label="dose / e Å⁻²", aspect=18, pad=0.01, ticks=MaxNLocator(4, steps=[1, 2, 5, 10]))
    return figure


def phase(image: Float[Tensor, "h w"], size: tuple[float, float], title: str = "") -> Figure:
    """One reconstructed phase with scale bar and colour bar; grey from the 0.5th to the 99.5th percentile.

    Args:
        image: phase in rad inside the scan field.
        size: of the field (y, x) in Å.
        title: above the picture.
    """
    low, high = np.nanpercentile(_centred(image), (0.5, 99.5)).tolist()
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(1, 1, size, panel=4.0)
        grey = _show(axes[0, 0], image, size, low, high if high > low else low + 1)
        axes[0, 0].set_title(textwrap.fill(title, 60))
        _scale_bar(axes[0, 0], size)
        figure.colorbar(grey, ax=axes[0, 0], label="phase / rad", aspect=30, pad=0.02, ticks=MaxNLocator(5, steps=[1, 2, 5, 10]))
    return figure


def comparison(scans: Sequence[Scan], colours: dict[str, int] | None = None) -> Figure:
    """The last reconstruction of every strategy on one specimen beside the reference, on one grey scale."""
    first, colours = scans[0], colours or styles(scans)
    reference = next((s.reference for s in scans if s.reference is not None), None)
    low, high = _greys(first)
    entries = [] if reference is None else [("reference", reference, "", "black")]
    entries += [(s.strategy, s.stages[-1].potential, _score_line(s.stages[-1]), _colour(colours, s.strategy)) for s in scans]
    rows = math.ceil(len(entries) / 5)
    columns = math.ceil(len(entries) / rows)
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(rows, columns, first.field, panel=1.2 * PANEL, lines=max(len(s.stages[-1].scores) for s in scans))
        for axis, (name, image, line, colour) in zip(axes.flat, entries, strict=False):
            grey = _show(axis, image, first.field, low, high)
            axis.set_title(name, color=colour, fontweight="bold")
            axis.set_xlabel(line)
        for axis in axes.flat[len(entries) :]:
            axis.axis("off")
        _scale_bar(axes[0, 0], first.field)
        figure.colorbar(grey, ax=list(axes.flat), label="phase / rad", aspect=18, pad=0.01, ticks=MaxNLocator(4, steps=[1, 2, 5, 10]))
    return figure


def curves(scans: Sequence[Scan], colours: dict[str, int] | None = None) -> Figure:
    """How scores and loss change as electrons arrive, a line for each strategy."""
    colours = colours or styles(scans)
    names = list(dict.fromkeys(n for s in scans for stage in s.stages for n in stage.scores))
    names += ["loss"] * any(stage.loss is not None for s in scans for stage in s.stages)
    iterated = [s for s in scans if s.iterations_loss]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.9 * max(3, len(names) + bool(iterated)), 2.4), layout="constrained")
        axes = figure.subplots(1, max(1, len(names) + bool(iterated)), squeeze=False)[0]
        for axis, name in zip(axes, names, strict=False):
            for scan in scans:
                values = [s.loss if name == "loss" else s.scores.get(name) for s in scan.stages]
                _line(axis, [mean_dose(scan, s) for s in scan.stages], values, scan.strategy, colours)
            axis.set(xlabel="mean dose / e Å⁻²", title=label(name))
        for scan in iterated:
            _line(axes[-1], list(range(1, len(scan.iterations_loss) + 1)), scan.iterations_loss, scan.strategy, colours, mark=False)
            axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
            axes[-1].set(xlabel="iteration", title="loss of the last reconstruction")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=6, frameon=False)
    return figure


def ranks(scans: Sequence[Scan], colours: dict[str, int] | None = None) -> Figure:
    """Final scores of every strategy: a pale dot for each specimen, the mean, and from three specimens on its 95 % bootstrap interval."""
    colours = colours or styles(scans)
    names = list(dict.fromkeys(n for s in scans for n in s.stages[-1].scores))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.5, 0.9 + 0.33 * len(colours)), layout="constrained")
        for axis, name in zip(figure.subplots(1, len(names), squeeze=False, sharey=True)[0], names, strict=True):
            for row, strategy in enumerate(colours):
                finals = [s.stages[-1].scores.get(name, math.nan) for s in scans if s.strategy == strategy]
                values = torch.tensor([v for v in finals if math.isfinite(v)], dtype=torch.float64)
                if not len(values):
                    continue
                mean, colour = float(values.mean()), _colour(colours, strategy)
                low, high = bootstrap_interval(values, generator=torch.Generator().manual_seed(0))
                axis.plot(values, [row] * len(values), "o", ms=5, color=colour, alpha=0.35, mec="none")
                axis.plot([low, high] if len(values) > 2 else [], [row, row] if len(values) > 2 else [], color=colour, lw=2)
                axis.plot(mean, row, MARKERS[colours[strategy] % len(MARKERS)], ms=6, color=colour)
                axis.annotate(f"{mean:.3f}", (1.01, row), xycoords=("axes fraction", "data"), va="center", color=colour, fontsize=8)
            axis.set(title=label(name), yticks=range(len(colours)), yticklabels=list(colours))
            axis.set_ylim(len(colours) - 0.5, -0.5)
            axis.grid(axis="x", lw=0.4, color="#dddddd")
    return figure


def dose_map(stage: Stage, size: tuple[float, float], probe_radius: float, *, pixels: int = 128) -> Float[np.ndarray, "h w"]:
    """Electrons per Å² over the field: every position's electrons spread over a Gaussian that holds half of them within `probe_radius` Å.

    What the beam's skirt sends beyond the edge of the field is not shown.
    """
    pixel = max(size) / pixels
    shape = tuple(max(1, round(s / pixel)) for s in size)
    y, x = (stage.positions_all.double().cpu().numpy().clip(0, 1)).T
    counts = np.histogram2d(y, x, bins=shape, range=((0, 1), (0, 1)), weights=stage.dose_all.double().cpu().numpy())[0]
    # A two-dimensional Gaussian holds half of itself within sqrt(2 ln 2) sigma.
    sigma = [probe_radius / math.sqrt(2 * math.log(2)) * n / s for n, s in zip(shape, size, strict=True)]
    return gaussian_filter(counts, sigma, mode="constant") * math.prod(shape) / math.prod(size)


def label(name: str) -> str:
    """What a score is called on paper."""
    return LABELS.get(name, name.replace("_", " "))


def mean_dose(scan: Scan, stage: Stage) -> float:
    """Electrons sent so far per Å² of the scan field."""
    return float(stage.dose_all.double().sum()) / math.prod(scan.field)


def styles(scans: Sequence[Scan]) -> dict[str, int]:
    """Number of each strategy, in order of appearance: the same colour and marker in all pictures of a page."""
    return {name: i for i, name in enumerate(dict.fromkeys(s.strategy for s in scans))}


def _colour(colours: dict[str, int], strategy: str) -> str:
    return COLOURS[colours[strategy] % len(COLOURS)]


def _greys(scan: Scan) -> tuple[float, float]:
    """Range of the grey scale: the reference's, or else the last reconstruction's, about its median and without outliers."""
    image = _centred(scan.stages[-1].potential if scan.reference is None else scan.reference)
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, (0.5, 99.5)).tolist() if finite.size else (0.0, 0.0)
    return (low, high) if high > low else (low - 1, low + 1)


def _centred(image: Tensor) -> Float[np.ndarray, "h w"]:
    """The image less its median: the constant phase is free."""
    values = image.detach().double().cpu().numpy()
    finite = values[np.isfinite(values)]
    return values - (np.median(finite) if finite.size else 0.0)


def _panels(rows: int, columns: int, size: tuple[float, float], *, panel: float = PANEL, lines: int = 0) -> tuple[Figure, Any]:
    """A grid of frames in the shape of the scan field, without ticks, with room for a title and some lines below."""
    height = panel * min(2.0, max(0.4, size[0] / size[1]))
    figure = Figure(figsize=(panel * columns + 1.0, (height + 0.3 + 0.15 * lines) * rows + 0.25), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], xlim=(0, size[1]), ylim=(size[0], 0), aspect="equal")
        axis.spines[:].set_visible(False)
    return figure, axes


def _show(axis: Axes, image: Tensor, size: tuple[float, float], low: float, high: float) -> AxesImage:
    return axis.imshow(_centred(image), cmap="gray", vmin=low, vmax=high, extent=(0, size[1], size[0], 0), interpolation="nearest")


def _dots(axis: Axes, positions: Tensor, size: tuple[float, float], **style: Any) -> None:
    y, x = positions.double().cpu().numpy().T
    axis.scatter(x * size[1], y * size[0], clip_on=False, **{"linewidths": 0, **style})


def _scale_bar(axis: Axes, size: tuple[float, float]) -> None:
    """A bar of a round length of at most a third of the width, in Å below 1 nm and in nm above."""
    longest = size[1] / 3
    decade = 10.0 ** math.floor(math.log10(longest))
    length = decade * max(m for m in (1, 2, 5) if m * decade <= longest)
    label = f"{length / 10:g} nm" if length >= 10 else f"{length:g} Å"
    x, y = 0.05 * size[1], 0.94 * size[0]
    outline = [withStroke(linewidth=4, foreground="black")]
    axis.plot([x, x + length], [y, y], color="white", lw=2.5, solid_capstyle="butt", path_effects=outline)
    outline = [withStroke(linewidth=2, foreground="black")]
    axis.annotate(
        label, (x + length / 2, y), (0, 3), textcoords="offset points", color="white", ha="center", fontweight="bold", path_effects=outline
    )


def _line(axis: Axes, x: Sequence[float], y: Sequence[float | None], strategy: str, colours: dict[str, int], *, mark: bool = True) -> None:
    marker = MARKERS[colours[strategy] % len(MARKERS)] if mark else ""
    values = [math.nan if v is None else v for v in y]
    axis.plot(x, values, color=_colour(colours, strategy), marker=marker, ms=4, lw=1.3, label=strategy)
    axis.grid(lw=0.4, color="#dddddd")


def _score_line(stage: Stage) -> str:
    return "\n".join(f"{label(name)} {value:.3f}" for name, value in stage.scores.items())
