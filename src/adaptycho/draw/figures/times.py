"""What strategies spend their time on."""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from adaptycho.draw.figures.looks import STYLE, number

TASKS = ("decide", "move", "expose", "reconstruct")
COLOURS = ("#E69F00", "#56B4E9", "#0072B2", "#B3B3B3", "#009E73", "#CC79A7")
HATCHES = ("", "////", "", "....", "\\\\\\\\", "xxxx")  # for eyes and printers without colour


def times(seconds: Mapping[str, Mapping[str, float]]) -> Figure:
    """Seconds by task as stacked bars, a bar for each strategy, with the total beside it.

    Args:
        seconds: strategy to task (decide, move, expose, reconstruct, others after these) to seconds; nan if unknown, which makes the total
            unknown too.

    Raises:
        ValueError: there are no strategies.
    """
    if not seconds:
        raise ValueError("seconds: expected at least one strategy, got none")
    found = list(dict.fromkeys(task for spent in seconds.values() for task in spent))
    tasks = [t for t in TASKS if t in found] + [t for t in found if t not in TASKS]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.5, 0.75 + 0.2 * len(seconds)), layout="constrained")
        axis = figure.subplots()
        ends = [0.0] * len(seconds)
        for i, task in enumerate(tasks):
            lengths = [_known(spent.get(task, 0.0)) for spent in seconds.values()]
            look: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "hatch": HATCHES[i % len(HATCHES)], "edgecolor": "white"}
            axis.barh(range(len(seconds)), lengths, left=ends, height=0.72, lw=0.4, label=task, **look)
            ends = [end + length for end, length in zip(ends, lengths, strict=True)]
        for row, (end, spent) in enumerate(zip(ends, seconds.values(), strict=True)):
            total = sum(spent.values())
            text = f"{number(total)} s" if math.isfinite(total) else "–"
            axis.annotate(text, (end, row), (3, 0), textcoords="offset points", va="center", fontsize=7)
        axis.set(xlim=(0, 1.15 * max(ends) or 1.0), ylim=(len(seconds) - 0.5, -0.5), xlabel="time / s")
        axis.set_yticks(range(len(seconds)), list(seconds))
        axis.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper left", ncols=4, frameon=False, handlelength=1.2, columnspacing=1.0)
    return figure


def _known(value: float) -> float:
    return value if math.isfinite(value) else 0.0
