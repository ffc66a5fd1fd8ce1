"""Quality against dose, positions or time: a small panel for each family and setting, a line for each strategy."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from adaptycho.draw.figures.looks import KINDS, STYLE, WIDTH, Look, number
from adaptycho.draw.style import label

Abscissa = Literal["dose", "positions", "time"]
AXES: dict[Abscissa, str] = {"dose": "dose / e Å⁻²", "positions": "positions", "time": "time / s"}
SPREAD = 0.05  # of the axis: strategies stand beside each other by this much, so that their intervals can be told apart
LEGEND = 1.7  # inches: a column of names


@dataclass(frozen=True)
class Point:
    """One strategy at one dose and number of positions on one family: its mean score and the 95 % interval of that mean.

    Attributes:
        family: of specimens.
        strategy: name, one of those given a look.
        positions: number of them that the comparison allows.
        dose: electrons that it allows for each.
        total_dose: electrons per Å² of the scan field.
        seconds: that the scan and its decisions took.
        mean: score; nan if none is known.
        low: end of the interval.
        high: the other end.
    """

    family: str
    strategy: str
    positions: int
    dose: float
    total_dose: float
    seconds: float
    mean: float
    low: float
    high: float


def quality(points: Sequence[Point], x: Abscissa, score: str, looks: Mapping[str, Look]) -> Figure:
    """Mean scores with their 95 % intervals against what they cost.

    Rows of panels are families; columns are what is held fixed: the number of positions against dose, and electrons per position against
    positions and time. With one column the families stand side by side.

    Args:
        points: in any order.
        x: what the scores are drawn against.
        score: its name, for the axis.
        looks: of all strategies.

    Raises:
        ValueError: there are no points, or a strategy has no look.
    """
    if not points:
        raise ValueError("points: expected at least one, got none")
    if missing := {p.strategy for p in points} - set(looks):
        raise ValueError(f"looks: expected one for every strategy, got none for {', '.join(sorted(missing))}")
    families = list(dict.fromkeys(p.family for p in points))
    held = sorted({_fixed(p, x) for p in points})
    panels = [(family, value) for family in families for value in held]
    columns = len(held) if len(held) > 1 else min(3, len(families))
    rows = math.ceil(len(panels) / columns)
    drawn = [name for name in looks if any(p.strategy == name for p in points)]
    width = min(WIDTH, max(3.5, 2.4 * columns))
    entries = _legend_entries(drawn, looks, max(2, int(width / LEGEND)))
    with matplotlib.rc_context(STYLE):
        height = 1.75 * rows + 0.14 * len(entries[0]) + 0.25
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey="row" if len(held) > 1 else False)
        for axis, (family, value) in zip(axes.flat, panels, strict=False):
            here = [p for p in points if p.family == family and _fixed(p, x) == value]
            _panel(axis, here, x, drawn, looks)
            axis.set_title(family, loc="left", fontweight="bold")
            axis.set_title(_held(value, x), loc="right", fontsize=7)
        for axis in axes.flat[len(panels) :]:
            axis.axis("off")
        for axis in axes[:, 0]:
            axis.set_ylabel(label(score))
        for i in range(columns):
            # The lowest panel of a column may stand above an empty place.
            lowest = max(k for k in range(len(panels)) if k % columns == i)
            axes.flat[lowest].set_xlabel(AXES[x])
        _legend(figure, entries)
    return figure


def _fixed(point: Point, x: Abscissa) -> float:
    return point.positions if x == "dose" else point.dose


def _held(value: float, x: Abscissa) -> str:
    return f"{value:g} positions" if x == "dose" else f"{number(value)} e per position"


def _panel(axis: Axes, points: Sequence[Point], x: Abscissa, drawn: Sequence[str], looks: Mapping[str, Look]) -> None:
    at = {"dose": lambda p: p.total_dose, "positions": lambda p: float(p.positions), "time": lambda p: p.seconds}[x]
    # Nothing that is not positive has a place on a logarithmic axis.
    shown = [p for p in points if at(p) > 0 and math.isfinite(at(p))]
    places = [at(p) for p in shown if math.isfinite(p.mean)] or [1.0]
    span = max(math.log(max(places) / min(places)), math.log(2))
    here = [name for name in drawn if any(p.strategy == name for p in shown)]
    for i, name in enumerate(here):
        own = sorted((p for p in shown if p.strategy == name), key=at)
        shift = 0.0 if x == "time" else SPREAD * span * (i / max(1, len(here) - 1) - 0.5)
        _line(axis, [at(p) * math.exp(shift) for p in own], own, looks[name])
    axis.set_xscale("log")
    axis.set_xlim(min(places) * math.exp(-0.08 * span), max(places) * math.exp(0.08 * span))
    values = sorted(set(places))
    # A few values are ticks themselves; many get round numbers.
    few = len(values) < 7 and all(math.log(b / a) > 0.12 * span for a, b in itertools.pairwise(values))
    axis.xaxis.set_major_locator(FixedLocator(values) if few else LogLocator(subs=(1, 3) if span < math.log(300) else (1,)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.grid(lw=0.4, color="#e3e3e3")
    axis.set_axisbelow(True)


def _line(axis: Axes, x: Sequence[float], points: Sequence[Point], look: Look) -> None:
    mean, low, high = (np.array([getattr(p, name) for p in points]) for name in ("mean", "low", "high"))
    # An interval may be unknown, and rounding may put its end on the wrong side of the mean.
    reach = np.nan_to_num(np.clip([mean - low, high - mean], 0, None), nan=0.0, posinf=0.0)
    order = 2.5 + 0.1 * KINDS.index(look.kind)
    axis.errorbar(x, mean, yerr=reach, elinewidth=0.7, zorder=order, **look.style())


def _legend_entries(drawn: Sequence[str], looks: Mapping[str, Look], columns: int) -> list[list[tuple[str, Look | None]]]:
    """Columns of names under their kind, all of one length: the fewest rows from four on that fit beside each other."""
    kinds = {kind: [(name, looks[name]) for name in drawn if looks[name].kind == kind] for kind in KINDS}
    kinds = {kind: names for kind, names in kinds.items() if names}
    columns = max(columns, len(kinds))
    longest = max(len(names) for names in kinds.values())
    rows = next(r for r in range(min(4, longest), longest + 1) if sum(math.ceil(len(n) / r) for n in kinds.values()) <= columns)
    entries: list[list[tuple[str, Look | None]]] = []
    for kind, names in kinds.items():
        for start in range(0, len(names), rows):
            own = names[start : start + rows]
            entries.append([(kind if start == 0 else "", None), *own, *[("", None)] * (rows - len(own))])
    return entries


def _legend(figure: Figure, entries: Sequence[Sequence[tuple[str, Look | None]]]) -> None:
    flat = [entry for column in entries for entry in column]
    handles = [Line2D([], [], ls="") if look is None else Line2D([], [], **look.style()) for _, look in flat]
    style: dict[str, Any] = {"ncols": len(entries), "frameon": False, "handlelength": 2.6, "labelspacing": 0.25}
    legend = figure.legend(handles, [name for name, _ in flat], loc="outside lower center", **style)
    for text, (_, look) in zip(legend.get_texts(), flat, strict=True):
        text.set_fontweight("bold" if look is None else "normal")
