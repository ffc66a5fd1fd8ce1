"""What a strategy gains over the best conventional scan, as a table in colour: families down, doses and positions across."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from adaptycho.draw.figures.looks import STYLE, UNKNOWN, WIDTH, number
from adaptycho.draw.style import colour_bar, label

# Blue where the conventional scan is better and orange where the strategy is, as in the other figures; light enough for black letters.
COLOURS = LinearSegmentedColormap.from_list("gain", ["#4C9CD0", "#FFFFFF", "#E6823A"])
LETTERS = 12  # of a strategy's name that fit into a cell
Cell = tuple[str, float, int]


@dataclass(frozen=True)
class Gain:
    """What one strategy gains on one family at one dose and number of positions.

    Attributes:
        family: of specimens.
        strategy: the one that gains; in a table of the best adaptive scans each cell may have another.
        positions: number of them.
        dose: electrons per position.
        gain: relative, (its score - the best conventional scan's) / the latter; nan if unknown.
        low: end of the 95 % interval of the gain.
        high: the other end.
    """

    family: str
    strategy: str
    positions: int
    dose: float
    gain: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def gains(entries: Sequence[Gain], score: str) -> Figure:
    """The gain in every cell in per cent on its colour, with a star where its 95 % interval excludes zero.

    Colours are centred at zero. Cells name their strategy if it is not the same in all. Cells without entry, or with an unknown gain, are
    grey.

    Args:
        entries: at most one for each family, dose and number of positions.
        score: name of the score, for the title.

    Raises:
        ValueError: there are no entries, or two for one cell.
    """
    if not entries:
        raise ValueError("gains: expected at least one, got none")
    cells: dict[Cell, Gain] = {}
    for entry in entries:
        key = (entry.family, entry.dose, entry.positions)
        if key in cells:
            raise ValueError(f"gains: expected one for each family, dose and number of positions, got two for {key}")
        cells[key] = entry
    families = list(dict.fromkeys(e.family for e in entries))
    settings = sorted({(e.dose, e.positions) for e in entries})
    strategies = {e.strategy for e in entries}
    table = np.array([[100 * cells[f, *s].gain if (f, *s) in cells else math.nan for s in settings] for f in families])
    most = max((abs(v) for v in table[np.isfinite(table)]), default=0.0) or 1.0
    with matplotlib.rc_context(STYLE):
        height = 0.3 if len(strategies) == 1 else 0.52
        width = min(WIDTH, max(3.5, 1.9 + 0.62 * len(settings)))
        figure = Figure(figsize=(width, max(2.0, height * len(families) + 1.0)), layout="constrained")
        axis = figure.subplots()
        colours = COLOURS.with_extremes(bad=UNKNOWN)
        image = axis.imshow(np.ma.masked_invalid(table), cmap=colours, vmin=-most, vmax=most, aspect="auto")
        for row, column in np.ndindex(table.shape):
            cell = cells.get((families[row], *settings[column]))
            _write(axis, (column, row), cell, named=len(strategies) > 1)
        _frame(axis, families, settings)
        who = next(iter(strategies)) if len(strategies) == 1 else "the strategy named"
        title = textwrap.fill(f"{who} over the best conventional scan: gain in {label(score)} / %", int(15 * (width - 1.1)))
        axis.set_title(f"{title}\n* the 95 % interval excludes zero", loc="left", fontsize=7.5, pad=18)
        colour_bar(image, [axis], f"gain in {label(score)} / %")
    return figure


def _write(axis: Axes, where: tuple[int, int], cell: Gain | None, *, named: bool) -> None:
    style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 7}
    if cell is None or not math.isfinite(cell.gain):
        axis.annotate("–", where, (0, -2), **style)
        return
    text = f"{100 * cell.gain:+.1f}".replace("-", "−") + "*" * cell.certain
    axis.annotate(text, where, (0, 2 if named else -2.5), fontweight="bold" if cell.certain else "normal", **style)
    if named:
        axis.annotate(textwrap.shorten(cell.strategy, LETTERS, placeholder="…"), where, (0, -8), **style)


def _frame(axis: Axes, families: Sequence[str], settings: Sequence[tuple[float, int]]) -> None:
    """Names of rows and columns, electrons per position above them; a wide white rule stands between doses."""
    axis.spines[:].set_visible(False)
    axis.set_yticks(range(len(families)), families)
    axis.set_xticks(range(len(settings)), [str(positions) for _, positions in settings])
    axis.set_xlabel("positions")
    axis.tick_params(length=0)
    axis.set_xticks(np.arange(len(settings) - 1) + 0.5, minor=True)
    axis.set_yticks(np.arange(len(families) - 1) + 0.5, minor=True)
    axis.grid(which="minor", color="white", lw=0.8)
    axis.tick_params(which="minor", length=0)
    doses = [dose for dose, _ in settings]
    for dose in dict.fromkeys(doses):
        first, count = doses.index(dose), doses.count(dose)
        middle = (first + (count - 1) / 2, 1.0)
        axis.annotate(f"{number(dose)} e per position", middle, (0, 4), ("data", "axes fraction"), "offset points", ha="center")
        if first:
            axis.axvline(first - 0.5, color="white", lw=4)
