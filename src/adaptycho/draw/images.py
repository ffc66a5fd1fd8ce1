"""Scans as images: what was reconstructed, where the beam went, what it cost."""

import math
import textwrap
from collections.abc import Sequence

import matplotlib
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from adaptycho.draw.scan import Scan, Stage
from adaptycho.draw.style import PANEL, STYLE, colour, colour_bar, dots, greys, label, panels, scale_bar, show, styles
from adaptycho.metrics.dose import dose_map

COLUMNS = 6  # sub-sequences shown in one strip
NEW, EARLIER = "#FF9A00", "#9FD3FF"


def strip(scan: Scan) -> Figure:
    """A scan from left to right: reconstruction and positions above, electrons per area below, for each sub-sequence."""
    count = len(scan.stages)
    shown = sorted({round(i * (count - 1) / max(1, min(count, COLUMNS) - 1)) for i in range(min(count, COLUMNS))})
    columns = len(shown) + (scan.reference is not None)
    low, high = _greys(scan)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(2, columns, scan.field, lines=max(len(s.scores) for s in scan.stages))
        taken = [scan.stages[i] for i in shown]
        doses = [dose_map(s.positions_all, s.dose_all, scan.field, scan.probe_radius) for s in taken]
        for i, stage, dose, above, below in zip(shown, taken, doses, axes[0], axes[1], strict=False):
            grey = show(above, stage.potential, scan.field, low, high)
            size = min(16.0, max(2.5, 1500 / len(stage.positions_all)))
            earlier = stage.positions_all[: len(stage.positions_all) - len(stage.positions_new)]
            dots(above, earlier, scan.field, s=0.7 * size, color=EARLIER, alpha=0.8)
            dots(above, stage.positions_new, scan.field, s=size, color=NEW, edgecolors="black", linewidths=0.3)
            above.set_title(f"{i + 1}: {len(stage.positions_all)} positions")
            above.set_xlabel(_score_line(stage), fontsize=7.5)
            extent = (0, scan.field[1], scan.field[0], 0)
            heat = below.imshow(dose, cmap="cividis", vmin=0, vmax=float(doses[-1].max()) or 1.0, extent=extent)
        handles = [Line2D([], [], ls="", marker="o", ms=4, mfc=c, mec=e) for c, e in ((NEW, "black"), (EARLIER, EARLIER))]
        labels = ["new positions", "earlier positions"]
        if scan.reference is not None:
            show(axes[0, -1], scan.reference, scan.field, low, high)
            axes[0, -1].set_title("reference")
            axes[1, -1].axis("off")
            axes[1, -1].legend(handles, labels, loc="upper left", frameon=False, handletextpad=0.1)
        else:
            figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False, handletextpad=0.1)
        scale_bar(axes[0, 0], scan.field)
        colour_bar(grey, list(axes[0]), "phase / rad")
        colour_bar(heat, list(axes[1]), "dose / e Å⁻²")
    return figure


def phase(image: Float[Tensor, "h w"], size: tuple[float, float], title: str = "", uncertain: Float[Tensor, "h w"] | None = None) -> Figure:
    """One reconstructed phase with scale bar and colour bar; grey from the 0.5th to the 99.5th percentile.

    Args:
        image: phase in rad inside the scan field.
        size: of the field (y, x) in Å.
        title: above the picture.
        uncertain: standard error in rad, shown beside it; as bright as can be where nothing is known.
    """
    low, high = greys(image)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(1, 1 if uncertain is None else 2, size, panel=4.0)
        grey = show(axes[0, 0], image, size, low, high)
        axes[0, 0].set_title(textwrap.fill(title, 60))
        scale_bar(axes[0, 0], size)
        colour_bar(grey, [axes[0, 0]], "phase / rad", aspect=30, pad=0.02)
        if uncertain is not None:
            extent = (0, size[1], size[0], 0)
            heat = axes[0, 1].imshow(uncertain.numpy(), cmap="magma", vmin=0, extent=extent)
            colour_bar(heat, [axes[0, 1]], "standard error / rad", aspect=30, pad=0.02)
    return figure


def comparison(scans: Sequence[Scan], colours: dict[str, int] | None = None) -> Figure:
    """The last reconstruction of every strategy on one specimen beside the reference, on one grey scale."""
    first, colours = scans[0], colours or styles(scans)
    reference = next((s.reference for s in scans if s.reference is not None), None)
    low, high = _greys(first)
    entries = [] if reference is None else [("reference", reference, "", "black")]
    entries += [(s.strategy, s.stages[-1].potential, _score_line(s.stages[-1]), colour(colours, s.strategy)) for s in scans]
    rows = math.ceil(len(entries) / 5)
    columns = math.ceil(len(entries) / rows)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(rows, columns, first.field, panel=1.2 * PANEL, lines=max(len(s.stages[-1].scores) for s in scans))
        for axis, (name, image, line, ink) in zip(axes.flat, entries, strict=False):
            grey = show(axis, image, first.field, low, high)
            axis.set_title(name, color=ink, fontweight="bold")
            axis.set_xlabel(line)
        for axis in axes.flat[len(entries) :]:
            axis.axis("off")
        scale_bar(axes[0, 0], first.field)
        colour_bar(grey, list(axes.flat), "phase / rad")
    return figure


def _greys(scan: Scan) -> tuple[float, float]:
    """Range of the grey scale: the reference's, or else the last reconstruction's."""
    return greys(scan.stages[-1].potential if scan.reference is None else scan.reference)


def _score_line(stage: Stage) -> str:
    return "\n".join(f"{label(name)} {value:.3f}" for name, value in stage.scores.items())
