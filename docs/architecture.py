"""Draws docs/pictures/architecture.svg and writes the table of docs/architecture.md: the rooms of the package and what each imports.

The floors are the import contract in pyproject.toml, the dots the imports in the sources. `python docs/architecture.py` writes both anew.
"""

import ast
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

ROOT = Path(__file__).parents[1]
PAGE, PICTURE = ROOT / "docs" / "architecture.md", ROOT / "docs" / "pictures" / "architecture.svg"
TABLE = re.compile(r"(<!-- rooms -->\n).*?(<!-- end -->)", re.DOTALL)
HOLDS = {
    "app": "commands, demo",
    "compare": "strategies, advice",
    "learn": "training, environments",
    "runs": "folders, resume",
    "samples": "specimens, windows",
    "settings": "tree, build",
    "draw": "pictures, reports",
    "scan": "the loop, policies",
    "reconstruct": "patterns to phase",
    "instruments": "positions to patterns",
    "formats": "files",
    "metrics": "scores",
    "physics": "beam, specimen, noise",
    "types": "protocols",
    "support": "files, processes",
}
INK, PAPER = "#1d3a57", "#eef3f8"
Imports = dict[str, frozenset[str]]


def rows() -> list[list[str]]:
    """The rooms of each row of the contract, from the top."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (c for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    return [re.findall(r"\((\w+)\)", row) for row in contract["layers"]]


def imports() -> Imports:
    """What each room imports from other rooms."""
    rooms = [room for row in rows() for room in row]
    return {room: frozenset(found for path in _sources(room) for found in _imported(path, rooms)) - {room} for room in rooms}


def table(found: Imports) -> str:
    """The rooms from top to bottom, with what each holds and imports, in Markdown."""
    lines = ["| room | what it holds | imports |", "| --- | --- | --- |"]
    order = [room for row in rows() for room in row]
    for room in order:
        names = ", ".join(name for name in order if name in found[room])
        lines.append(f"| [{room}](reference/rooms/{room}.md) | {HOLDS[room]} | {names} |".replace("[app](reference/rooms/app.md)", "app"))
    return "\n".join(lines) + "\n"


def draw(found: Imports) -> Figure:
    """The rooms on their floors, and beside them a dot for each import."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    house, imported = figure.subplots(1, 2, width_ratios=(1.1, 1))
    _floors(house)
    _dots(imported, found)
    return figure


def main() -> None:
    """Writes the picture and the table."""
    found = imports()
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda mark: mark[1] + table(found) + mark[2], page), encoding="utf-8")
    # The picture carries what it was drawn from, and no date.
    with matplotlib.rc_context({"svg.hashsalt": "adaptycho", "font.family": "DejaVu Sans"}):
        draw(found).savefig(PICTURE, bbox_inches="tight", metadata={"Date": None, "Description": table(found)})


def _floors(axis: Axes) -> None:
    floors = rows()
    axis.set(xlim=(0, 12), ylim=(-0.1, len(floors)), title="a room imports only rooms of floors below")
    axis.axis("off")
    for level, floor in enumerate(floors):
        width, y = 12 / len(floor), len(floors) - level - 1
        for i, room in enumerate(floor):
            axis.add_patch(Rectangle((i * width + 0.05, y + 0.05), width - 0.1, 0.9, facecolor=PAPER, edgecolor=INK))
            axis.text((i + 0.5) * width, y + 0.66, room, ha="center", va="center", fontweight="bold", color=INK)
            axis.text((i + 0.5) * width, y + 0.3, HOLDS[room], ha="center", va="center", fontsize=7.5, color=INK)


def _dots(axis: Axes, found: Imports) -> None:
    order = [room for floor in rows() for room in floor]
    places = range(len(order))
    pairs = [(order.index(to), order.index(room)) for room in order for to in found[room]]
    across, down = zip(*sorted(pairs), strict=True)
    axis.scatter(across, down, color=INK, s=26, zorder=2)
    axis.set_xticks(places, order, rotation=90)
    axis.set_yticks(places, order)
    axis.set(xlim=(-0.6, len(order) - 0.4), ylim=(len(order) - 0.4, -0.6), title="what the room at the left imports")
    axis.grid(color="#d8e0e8", linewidth=0.6)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _sources(room: str) -> Iterable[Path]:
    where = ROOT / "src" / "adaptycho" / room
    return sorted(where.rglob("*.py")) if where.is_dir() else [where.with_suffix(".py")]


def _imported(path: Path, rooms: list[str]) -> Iterable[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, inner = name.partition(".")
            if package == "adaptycho" and inner.split(".")[0] in rooms:
                yield inner.split(".")[0]


if __name__ == "__main__":
    main()
