"""Where strategies send the beam, drawn over the specimen."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from adaptycho.draw.figures.looks import STYLE, WIDTH
from adaptycho.draw.scan import Scan
from adaptycho.draw.style import dots, greys, panels, scale_bar, show

COLUMNS = 4


def overlay(scans: Sequence[Scan]) -> Figure:
    """Positions over the reference phase (else over the last reconstruction), strategies side by side, a colour for each sub-sequence.

    Args:
        scans: of specimens that may differ; all fields are drawn in the shape of the first.

    Raises:
        ValueError: there are no scans.
    """
    if not scans:
        raise ValueError("scans: expected at least one, got none")
    rows = math.ceil(len(scans) / COLUMNS)
    columns = math.ceil(len(scans) / rows)
    most = max(len(s.stages) for s in scans)
    colours = _colours(most)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(rows, columns, scans[0].field, panel=(WIDTH - 1.0) / COLUMNS, lines=1)
        for axis, scan in zip(axes.flat, scans, strict=False):
            phase = scan.stages[-1].potential if scan.reference is None else scan.reference
            low, high = greys(phase)
            # The specimen in dark greys, so that bright dots stand out everywhere.
            show(axis, phase, scan.field, low, high + 0.4 * (high - low))
            count = len(scan.stages[-1].positions_all)
            for i, stage in enumerate(scan.stages):
                size = min(16.0, max(3.0, 2500 / max(1, count)))
                dots(axis, stage.positions_new, scan.field, s=size, color=colours(i), edgecolors="black", linewidths=0.3)
            axis.set_title(scan.strategy)
            axis.set(xlabel=f"{count} positions", xlim=(0, scan.field[1]), ylim=(scan.field[0], 0))
            scale_bar(axis, scan.field)
        for axis in axes.flat[len(scans) :]:
            axis.axis("off")
        if most > 1:
            norm = BoundaryNorm(np.arange(most + 1) + 0.5, most)
            ticks = FixedLocator(sorted({round(i) for i in np.linspace(1, most, min(most, 8))}))
            bar = figure.colorbar(
                ScalarMappable(norm, colours), ax=list(axes.flat), label="sub-sequence", aspect=18 * rows, pad=0.01, ticks=ticks
            )
            bar.ax.minorticks_off()
    return figure


def _colours(count: int) -> Colormap:
    """From pale yellow, which comes first, to magenta: lightness tells the order to everybody."""
    return ListedColormap(matplotlib.colormaps["plasma_r"](np.linspace(0.0, 0.58, count)))
