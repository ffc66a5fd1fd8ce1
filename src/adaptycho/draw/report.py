"""A run or a comparison on one self-contained HTML page, for somebody who was not there.

The page holds everything (pictures as data URIs, no scripts, no other files), so it can be sent by mail and opened in ten years. It knows
nothing of run folders: whoever has results fills in `Scan` and `Table`.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from adaptycho.draw import COLUMNS, Scan, Stage, comparison, curves, label, mean_dose, ranks, strip, styles
from adaptycho.support.atomic import whole

__all__ = ["Scan", "Stage", "Table", "page", "save_png", "write"]

LIMIT = 4_500_000  # bytes of embedded pictures; strips beyond it are left out and the page says so
FOLDED = "versions"  # a fact that is long and seldom wanted
Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Numbers under a heading; units belong into the column names. Floats are shown with three significant digits."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def page(
    title: str,
    intro: str,
    tables: Sequence[Table],
    scans: Sequence[Scan],
    facts: dict[str, str],
    *,
    ranked: Sequence[Scan] | None = None,
) -> str:
    """The whole page as HTML.

    Args:
        title: heading.
        intro: what this is, plain text; a blank line begins a paragraph.
        tables: shown before the pictures.
        scans: any number of strategies on any number of specimens, grouped by specimen in the order given.
        facts: settings worth knowing at a glance, name to value with unit; that of `FOLDED` is shown when asked for.
        ranked: scans whose final scores are drawn strategy by strategy, all on specimens of one kind; by default all that are shown.
    """
    ranked, colours = scans if ranked is None else ranked, styles(scans)
    specimens: dict[str, list[Scan]] = {}
    for scan in scans:
        specimens.setdefault(scan.specimen, []).append(scan)
    ranking = _embed(ranks(ranked, colours)) if len(colours) > 1 and any(s.stages[-1].scores for s in ranked) else ""
    sections: list[dict[str, Any]] = [
        {
            "name": name,
            "comparison": _embed(comparison(group, colours)),
            "curves": _embed(curves(group, colours)) if any(_has_course(s) for s in group) else "",
            "referenced": any(s.reference is not None for s in group),
            "strips": [{"scan": s, "table": _numbers(s), "picture": "", "skipped": len(s.stages) > COLUMNS} for s in group],
        }
        for name, group in specimens.items()
    ]
    left_out = _fill_strips(sections, LIMIT - len(ranking) - sum(len(s["comparison"]) + len(s["curves"]) for s in sections))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = _cell
    template = environment.from_string(files("adaptycho.draw").joinpath("report.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        title=title,
        intro=intro.strip().split("\n\n"),
        tables=tables,
        facts=facts,
        folded=FOLDED,
        ranking=ranking,
        ranked_on=f" on {len({s.specimen for s in ranked})} specimens" if len(ranked) > len(colours) else "",
        sections=sections,
        left_out=left_out,
        named={name for scan in scans for stage in scan.stages for name in stage.scores},
        referenced=any(s["referenced"] for s in sections),
    )


def write(path: Path, html: str) -> None:
    """Writes a page; a reader sees the old page or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_text(html, encoding="utf-8")


def save_png(path: Path, figure: Figure, *, dpi: int = 160) -> None:
    """Writes a picture, atomically like `write`, and without date or version, so that the same picture is the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_bytes(_png(_drawn(figure, dpi)))


def _fill_strips(sections: list[dict[str, Any]], room: int) -> list[str]:
    """Draws the strips while there is room, the first strategies of every specimen first; returns the names of those left out."""
    waiting = [(rank, strip_) for section in sections for rank, strip_ in enumerate(section["strips"])]
    left_out = []
    for _, entry in sorted(waiting, key=lambda pair: pair[0]):
        picture = _embed(strip(entry["scan"])) if room > 0 else ""
        room -= len(picture)
        if room > 0:
            entry["picture"] = picture
        else:
            left_out.append(f"{entry['scan'].strategy} on {entry['scan'].specimen}")
    return left_out


def _has_course(scan: Scan) -> bool:
    """Whether anything can be plotted against dose or iterations: one point is not a curve."""
    return bool(scan.iterations_loss) or (len(scan.stages) > 1 and any(s.scores or s.loss is not None for s in scan.stages))


def _numbers(scan: Scan) -> Table:
    """What happened in each sub-sequence."""
    scores = list(dict.fromkeys(n for stage in scan.stages for n in stage.scores))
    tasks = list(dict.fromkeys(n for stage in scan.stages for n in stage.seconds))
    columns = ("sub-sequence", "new positions", "positions", "electrons", "mean dose /\u00a0e\u00a0Å⁻²", "loss")
    rows = tuple(
        (
            i + 1,
            len(stage.positions_new),
            len(stage.positions_all),
            float(stage.dose_all.double().sum()),
            mean_dose(scan, stage),
            stage.loss,
            *(stage.scores.get(n) for n in scores),
            *(stage.seconds.get(n) for n in tasks),
        )
        for i, stage in enumerate(scan.stages)
    )
    return Table("", "", (*columns, *map(label, scores), *(f"{t} /\u00a0s" for t in tasks)), rows)


def _cell(value: Cell) -> str:
    """A table cell as text: three significant digits, large numbers as 1.2 × 10⁵, a dash for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if not isinstance(value, float):
        return str(value)
    if value and math.isfinite(value) and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa} × 10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{value:.0f}" if value == 0 or abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _embed(figure: Figure) -> str:
    """A picture as a data URI, in 32 levels of each colour: half the size, and no difference to the eye."""
    small = _drawn(figure, 110).point(lambda level: min(255, (level + 4) // 8 * 8))
    return "data:image/png;base64," + base64.b64encode(_png(small)).decode()


def _drawn(figure: Figure, dpi: int) -> Image.Image:
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="png", compress_level=6)
    return buffer.getvalue()
