"""Reconstructions beside their diffractograms, the finest lattice spot circled: Fig. 4 of Schloz et al., arXiv:2205.04141."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from torch import Tensor

from adaptycho.draw.figures.looks import STYLE, UNKNOWN
from adaptycho.draw.style import colour_bar, greys, round_bar, scale_bar, show
from adaptycho.metrics.spots import diffractogram

PANEL = 1.3  # inches
LETTERS = 24  # of a title that fit above a panel
ROOM = 1.4  # the diffractogram reaches this far beyond the finest spot
CIRCLE = 0.09  # radius of a circle as a part of the frame
SPOT, MATE = "#E69F00", "#B3B3B3"
OUTLINE = [withStroke(linewidth=2, foreground="black")]


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What one strategy ended with.

    Attributes:
        name: of the strategy.
        phase: in rad inside the scan field.
        spot: frequency (ky, kx) in Å⁻¹ of the finest lattice spot that stands above the background; None if there is none.
        resolution: its lattice spacing in Å, for the label; 1 / |spot| if not given.
    """

    name: str
    phase: Float[Tensor, "h w"]
    spot: tuple[float, float] | None = None
    resolution: float | None = None


def diffractograms(entries: Sequence[Reconstruction], pixel: float, *, limit: float | None = None) -> Figure:
    """A row for each strategy: the phase on its own grey scale, and the logarithm of the power of its Fourier transform.

    The finest spot is circled and labelled with its lattice spacing, its Friedel mate circled dimly. All diffractograms end at the same
    frequency.

    Args:
        entries: in the order of the rows.
        pixel: of the phases in Å.
        limit: highest frequency shown in Å⁻¹; a little beyond the finest of all spots, or half the sampling limit if there is none.

    Raises:
        ValueError: there are no entries.
    """
    if not entries:
        raise ValueError("entries: expected at least one reconstruction, got none")
    finest = max((math.hypot(*e.spot) for e in entries if e.spot is not None), default=0.25 / pixel / ROOM)
    # Beyond the sampling limit there is nothing to see, but the circles need room.
    limit = limit or min(ROOM * finest, max(0.5 / pixel, (1 + 2 * CIRCLE) * finest))
    ratio = min(2.0, max(0.4, entries[0].phase.shape[0] / entries[0].phase.shape[1]))
    with matplotlib.rc_context(STYLE):
        height = max(PANEL * ratio, PANEL) + 0.25
        figure = Figure(figsize=(2 * PANEL + 0.9, height * len(entries) + 0.05), layout="constrained")
        axes = figure.subplots(len(entries), 2, squeeze=False)
        for row, (entry, (left, right)) in enumerate(zip(entries, axes, strict=True)):
            size = (entry.phase.shape[0] * pixel, entry.phase.shape[1] * pixel)
            grey = show(left, entry.phase, size, *greys(entry.phase))
            scale_bar(left, size)
            left.set_facecolor(UNKNOWN)  # seen where the phase is not finite
            colour_bar(grey, [left], "phase / rad", aspect=14, pad=0.02, shrink=min(1.0, ratio))
            _spectrum(right, entry, pixel, limit)
            for axis, text in ((left, entry.name), (right, "diffractogram")):
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                letter = chr(ord("a") + 2 * row + (axis is right)) if len(entries) <= 13 else ""
                axis.set_title(textwrap.fill(f"{letter}  {text}".strip(), LETTERS), loc="left")
    return figure


def _spectrum(axis: Axes, entry: Reconstruction, pixel: float, limit: float) -> None:
    """The diffractogram with its circles, label and a bar in Å⁻¹."""
    axis.set(xlim=(-limit, limit), ylim=(limit, -limit), aspect="equal", facecolor="black")
    round_bar(axis, 2 * limit / 3, lambda length: f"{length:g} Å⁻¹")
    if bool(entry.phase.isfinite().all()):
        power, (dy, dx) = diffractogram(entry.phase, pixel)
        values = np.log10(np.maximum(power.cpu().numpy(), np.finfo(float).tiny))
        h, w = values.shape
        y, x = ((np.arange(n) - n // 2) * d for n, d in ((h, dy), (w, dx)))
        edges = (x[0] - dx / 2, x[-1] + dx / 2, y[-1] + dy / 2, y[0] - dy / 2)
        k = np.hypot(y[:, None], x)
        # White are the brightest spots, whatever the slowly varying phase puts into the centre; black is the background, at the frequency
        # of the finest spot if there is one, so that it is seen.
        seen = values[(np.abs(y)[:, None] <= limit) & (np.abs(x) <= limit) & (k > 0.1 * limit)]
        ring = values[np.abs(k - math.hypot(*entry.spot)) < 0.15 * limit] if entry.spot is not None else seen
        low = np.percentile(ring, 50 if entry.spot is not None else 70) if ring.size else 0.0
        high = max(np.percentile(seen, 99.9) if seen.size else 0.0, low + 1e-3)
        axis.imshow(values, cmap="gray", vmin=low, vmax=high, extent=edges, interpolation="nearest")
        axis.set(xlim=(-limit, limit), ylim=(limit, -limit))
    if entry.spot is None:
        axis.annotate("no spot found", (0.5, 0.95), xycoords="axes fraction", color="white", ha="center", va="top", path_effects=OUTLINE)
        return
    # Of the two Friedel mates, the upper one: the scale bar is below.
    ky, kx = entry.spot if entry.spot[0] <= 0 else (-entry.spot[0], -entry.spot[1])
    radius = CIRCLE * limit
    for sign, colour, width in ((1, SPOT, 1.4), (-1, MATE, 0.8)):
        outline = [withStroke(linewidth=width + 1, foreground="black")]
        axis.add_patch(Circle((sign * kx, sign * ky), radius, fill=False, ec=colour, lw=width, path_effects=outline))
    spacing = entry.resolution or 1 / math.hypot(ky, kx)
    side, ha = (-1.4 * radius, "right") if kx > 0 else (1.4 * radius, "left")
    axis.text(kx + side, ky, f"{spacing:.2f} Å", color=SPOT, fontweight="bold", ha=ha, va="center", path_effects=OUTLINE)
