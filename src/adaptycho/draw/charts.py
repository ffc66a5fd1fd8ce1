"""Scans as numbers drawn: scores as electrons arrive, final scores side by side."""

import math
from collections.abc import Sequence

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adaptycho.draw.scan import Scan, mean_dose
from adaptycho.draw.style import MARKERS, STYLE, colour, label, styles
from adaptycho.metrics import bootstrap_interval


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
                mean, ink = float(values.mean()), colour(colours, strategy)
                low, high = bootstrap_interval(values, generator=torch.Generator().manual_seed(0))
                axis.plot(values, [row] * len(values), "o", ms=5, color=ink, alpha=0.35, mec="none")
                axis.plot([low, high] if len(values) > 2 else [], [row, row] if len(values) > 2 else [], color=ink, lw=2)
                axis.plot(mean, row, MARKERS[colours[strategy] % len(MARKERS)], ms=6, color=ink)
                axis.annotate(f"{mean:.3f}", (1.01, row), xycoords=("axes fraction", "data"), va="center", color=ink, fontsize=8)
            axis.set(title=label(name), yticks=range(len(colours)), yticklabels=list(colours))
            axis.set_ylim(len(colours) - 0.5, -0.5)
            axis.grid(axis="x", lw=0.4, color="#dddddd")
    return figure


def _line(axis: Axes, x: Sequence[float], y: Sequence[float | None], strategy: str, colours: dict[str, int], *, mark: bool = True) -> None:
    marker = MARKERS[colours[strategy] % len(MARKERS)] if mark else ""
    values = [math.nan if v is None else v for v in y]
    axis.plot(x, values, color=colour(colours, strategy), marker=marker, ms=4, lw=1.3, label=strategy)
    axis.grid(lw=0.4, color="#dddddd")
