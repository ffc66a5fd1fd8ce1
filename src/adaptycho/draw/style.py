"""What all pictures share: colours and markers, names of scores, frames in the shape of the scan field, scale bars, grey scales."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from adaptycho.draw.scan import Scan

PANEL = 1.85  # inches
ABOVE = 10  # everything else in a frame: order of drawing
# Okabe and Ito's colours, told apart by every kind of colour vision; markers tell them apart in black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
MARKERS = "osD^vP*X"
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


def label(name: str) -> str:
    """What a score is called on paper."""
    return LABELS.get(name, name.replace("_", " "))


def styles(scans: Sequence[Scan]) -> dict[str, int]:
    """Number of each strategy, in order of appearance: the same colour and marker in all pictures of a page."""
    return {name: i for i, name in enumerate(dict.fromkeys(s.strategy for s in scans))}


def colour(colours: dict[str, int], strategy: str) -> str:
    """The colour of a strategy that `styles` has numbered."""
    return COLOURS[colours[strategy] % len(COLOURS)]


def panels(rows: int, columns: int, size: tuple[float, float], *, panel: float = PANEL, lines: int = 0) -> tuple[Figure, Any]:
    """A grid of frames in the shape of the scan field, without ticks, with room for a title and some lines below."""
    height = panel * min(2.0, max(0.4, size[0] / size[1]))
    figure = Figure(figsize=(panel * columns + 1.0, (height + 0.3 + 0.15 * lines) * rows + 0.25), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], xlim=(0, size[1]), ylim=(size[0], 0), aspect="equal")
        axis.spines[:].set_visible(False)
    return figure, axes


def show(axis: Axes, image: Tensor, size: tuple[float, float], low: float, high: float) -> AxesImage:
    """Draws a phase in rad less its median in grey, in a frame `size` Å (y, x)."""
    return axis.imshow(centred(image), cmap="gray", vmin=low, vmax=high, extent=(0, size[1], size[0], 0), interpolation="nearest")


def dots(axis: Axes, positions: Tensor, size: tuple[float, float], **style: Any) -> None:
    """Draws positions, fractions (y, x) of the field, in a frame `size` Å (y, x); those on the edge are not cut in half."""
    y, x = positions.double().cpu().numpy().T
    axis.scatter(x * size[1], y * size[0], clip_on=False, **{"linewidths": 0, **style})


def scale_bar(axis: Axes, size: tuple[float, float]) -> None:
    """A bar of a round length of at most a third of the width, in Å below 1 nm and in nm above."""
    round_bar(axis, size[1] / 3, lambda length: f"{length / 10:g} nm" if length >= 10 else f"{length:g} Å")


def round_bar(axis: Axes, longest: float, text: Callable[[float], str]) -> None:
    """A labelled bar in the lower left corner, 1, 2 or 5 times a power of ten long in the units of the frame."""
    decade = 10.0 ** math.floor(math.log10(longest))
    length = decade * max(m for m in (1, 2, 5) if m * decade <= longest)
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    x, y = left + 0.05 * (right - left), bottom + 0.06 * (top - bottom)
    outline = [withStroke(linewidth=4, foreground="black")]
    axis.plot([x, x + length], [y, y], color="white", lw=2.5, solid_capstyle="butt", path_effects=outline, zorder=ABOVE)
    where, outline = (x + length / 2, y), [withStroke(linewidth=2, foreground="black")]
    style: dict[str, Any] = {"color": "white", "ha": "center", "fontweight": "bold", "path_effects": outline, "zorder": ABOVE}
    axis.annotate(text(length), where, (0, 3), textcoords="offset points", **style)


def colour_bar(image: ScalarMappable, axes: list[Axes], text: str, *, aspect: float = 18, pad: float = 0.01, shrink: float = 1.0) -> None:
    """A colour bar for some frames of one figure, with few and round numbers."""
    ticks = MaxNLocator(4, steps=[1, 2, 5, 10])
    axes[0].figure.colorbar(image, ax=axes, label=text, aspect=aspect, pad=pad, shrink=shrink, ticks=ticks)


def greys(image: Tensor) -> tuple[float, float]:
    """Range of the grey scale of a phase in rad less its median: from the 0.5th to the 99.5th percentile, and never empty."""
    values = centred(image)
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (0.5, 99.5)).tolist() if finite.size else (0.0, 0.0)
    return (low, high) if high > low else (low - 1, low + 1)


def centred(image: Tensor) -> Float[np.ndarray, "h w"]:
    """The image less its median: the constant phase is free."""
    values = image.detach().double().cpu().numpy()
    finite = values[np.isfinite(values)]
    return values - (np.median(finite) if finite.size else 0.0)
