"""Dose saved over electrons per position and density of positions, a panel for each family, with the user's scan in it."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from adaptycho.compare.advice.decide import Decision
from adaptycho.compare.advice.read import read_off
from adaptycho.compare.advice.table import Row, Table
from adaptycho.draw.figures.gains import COLOURS
from adaptycho.draw.figures.looks import STYLE, UNKNOWN, WIDTH

SHOWN = ("island", "particles", "crystal", "amorphous")
STEPS = 24  # points along each side of a panel, with colours interpolated between
ROOM = 1.6  # factor between the outermost cells, or the user's scan, and the frame
MOST = 3.0  # factor at which colours end


def picture(found: Decision, table: Table) -> Figure:
    """The measured cells with their factors, what is interpolated between them in colour, and a star at the user's scan.

    Electrons are those of the measured energy that say as much, and positions are counted per squared probe width lambda / alpha.
    """
    own = found.ends[0].nearest
    panels = {family: _rows(table, family, own) for family in dict.fromkeys((own.family, *SHOWN))}
    panels = {family: rows for family, rows in panels.items() if rows}
    with matplotlib.rc_context(STYLE):
        columns = 2
        lines = math.ceil(len(panels) / columns)
        figure = Figure(figsize=(WIDTH, 2.3 * lines + 0.5), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        images = [_panel(axis, family, rows, found) for axis, (family, rows) in zip(axes.flat, panels.items(), strict=False)]
        for axis in axes.flat[len(panels) :]:
            axis.axis("off")
        for axis in axes[-1]:
            axis.set_xlabel(f"electrons per position, of {table.beam.energy / 1e3:g} keV")
        for axis in axes[:, 0]:
            axis.set_ylabel("positions per (λ/α)²")
        _limits(axes[0, 0], list(panels.values()), found)
        bar = figure.colorbar(images[0], ax=list(axes.flat), label="times less dose than the best conventional scan", aspect=25, pad=0.01)
        bar.set_ticks([1 / MOST, 0.5, 1, 2, MOST], labels=[f"{v:.2g}" for v in (1 / MOST, 0.5, 1, 2, MOST)])
        bar.minorticks_off()
        figure.suptitle("dose saved by the adaptive scan: points were measured, grey was not\nstar: your scan, filled where it counts")
    return figure


def _rows(table: Table, family: str, own: Row) -> tuple[Row, ...]:
    """The grid that the answer is from; of other families, that of the same kind of scan."""
    groups = table.groups(family, focused=own.focused)
    same = [g for g in groups if g[0].scan == own.scan and (family != own.family or g[0].source == own.source)]
    return (same or [*groups, ()])[0]


def _panel(axis: Axes, family: str, rows: Sequence[Row], found: Decision) -> QuadMesh:
    where = found.place
    density = where.density / where.equivalent  # of one position in the measured field
    electrons, positions = sorted({r.electrons for r in rows}), sorted({r.positions for r in rows})
    x = np.geomspace(electrons[0], electrons[-1], STEPS)
    y = np.geomspace(positions[0], positions[-1], STEPS)
    factor = np.array([[read_off(rows, float(e), float(p), found.base).saving.mean for e in x] for p in y])
    image = axis.pcolormesh(x, y * density, factor, cmap=COLOURS, norm=LogNorm(1 / MOST, MOST), shading="gouraud", rasterized=True)
    for row in rows:
        against = row.against[found.base]
        sign = {"below": "≤ ", "above": "≥ ", None: ""}[against.bounded]
        box = {"boxstyle": "round,pad=0.25", "fc": COLOURS(LogNorm(1 / MOST, MOST)(against.saving.mean)), "ec": "black", "lw": 0.6}
        node = (row.electrons, row.positions * density)
        axis.plot(*node, marker="o", ms=3, color="black", clip_on=False)
        # Above it, where no star hides it.
        axis.annotate(
            f"{sign}{against.saving.mean:.2f}", node, (0, 14), textcoords="offset points", ha="center", va="center", fontsize=7, bbox=box
        )
    theirs = family in {end.nearest.family for end in found.ends}
    style: dict[str, Any] = {"marker": "*", "ms": 15, "mec": "black", "mew": 0.9, "ls": "", "zorder": 5, "clip_on": False}
    axis.plot([where.worth], [where.density], mfc="#F0E442" if theirs else "none", **style)
    axis.set_facecolor(UNKNOWN)
    low, high = rows[0].filling
    axis.set_title(family, loc="left", fontweight="bold")
    axis.set_title(f"{rows[0].scan}, filling {low:g}" + (f" to {high:g}" if high > low else ""), loc="right", fontsize=7)
    return image


def _limits(axis: Axes, panels: Sequence[Sequence[Row]], found: Decision) -> None:
    """Logarithmic axes that hold all cells and the user's scan."""
    where = found.place
    density = where.density / where.equivalent
    xs = [r.electrons for rows in panels for r in rows]
    ys = [r.positions * density for rows in panels for r in rows]
    axis.set(xscale="log", yscale="log")
    axis.set_xlim(min([*xs, where.worth]) / ROOM, max([*xs, where.worth]) * ROOM)
    axis.set_ylim(min([*ys, where.density]) / ROOM, max([*ys, where.density]) * ROOM)
    for along, values in ((axis.xaxis, xs), (axis.yaxis, ys)):
        along.set_major_locator(FixedLocator(sorted(set(values))))
        along.set_minor_locator(NullLocator())
        along.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}" if v >= 10 else f"{v:.2g}"))
