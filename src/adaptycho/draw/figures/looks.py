"""How a strategy is drawn, the same in every figure: blues and greys are conventional, oranges adaptive, black and dashed oracles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["conventional", "adaptive", "oracle"]
KINDS: tuple[Kind, ...] = get_args(Kind)

WIDTH = 7.0  # inches: two columns of a journal
# Letters of 7 pt and more at that width; names may hold dollars, which are not mathematics.
STYLE: dict[Any, Any] = {
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,
}
UNKNOWN = "#E0E0E0"  # where there is no number
# Okabe and Ito's blue, sky blue, vermilion and orange, with darker and paler relatives. Numbers of colours and markers have no common
# divisor, so that many strategies of a kind differ in one of them.
COLOURS: dict[Kind, tuple[str, ...]] = {
    "conventional": ("#0072B2", "#7F7F7F", "#56B4E9", "#003E61", "#B3B3B3", "#4D4D4D"),
    "adaptive": ("#D55E00", "#E69F00", "#8C3D00", "#F5B971", "#A6761D"),
    "oracle": ("#000000",),
}
MARKERS: dict[Kind, str] = {"conventional": "os^vDPX", "adaptive": "os^DvP", "oracle": "os^Dv"}


@dataclass(frozen=True)
class Look:
    """How one strategy is drawn.

    Attributes:
        kind: of strategy.
        colour: of line and marker.
        marker: as matplotlib names it.
        line: line style as matplotlib names it.
        width: of the line in points.
        hollow: whether markers are.
    """

    kind: Kind
    colour: str
    marker: str
    line: str
    width: float
    hollow: bool = False

    def style(self) -> dict[str, Any]:
        """Keywords for matplotlib."""
        hollow = {"mfc": "white", "mew": 0.9} if self.hollow else {"mew": 0.0}
        return {"color": self.colour, "marker": self.marker, "ls": self.line, "lw": self.width, "ms": 4.2, **hollow}


def looks(conventional: Sequence[str], adaptive: Sequence[str] = (), oracle: Sequence[str] = ()) -> dict[str, Look]:
    """A look for each strategy; make it once from the full list, so that a strategy looks alike in all figures.

    What follows a colon in a name is a variant (`raster:focused`): it has the colour and marker of the strategy, but dotted and hollow.

    Args:
        conventional: names of the scans that are laid out beforehand.
        adaptive: of those that look at what they have seen.
        oracle: of those that know the truth.

    Raises:
        ValueError: a strategy is named twice.
    """
    lines = {"conventional": ("-", 0.9), "adaptive": ("-", 1.5), "oracle": ("--", 1.2)}
    found: dict[str, Look] = {}
    for kind, names in zip(KINDS, (conventional, adaptive, oracle), strict=True):
        order = list(dict.fromkeys(name.partition(":")[0] for name in names))
        colours, markers, (line, width) = COLOURS[kind], MARKERS[kind], lines[kind]
        for name in names:
            if name in found:
                raise ValueError(f"looks: expected every strategy once, got {name!r} twice")
            base, variant, _ = name.partition(":")
            i = order.index(base)
            found[name] = Look(kind, colours[i % len(colours)], markers[i % len(markers)], ":" if variant else line, width, bool(variant))
    return found


def number(value: float) -> str:
    """A number on paper: three digits, powers of ten from 10⁴ on and below 10⁻³."""
    if value == 0 or 1e-3 <= abs(value) < 9999.5:
        return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if mantissa == "1" else f"{mantissa}·{power}"
