"""The report: one valid, self-contained, escaped page with every number and picture; and the pictures themselves."""

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image

from adaptycho import draw
from adaptycho.draw import report
from adaptycho.draw.report import Scan, Stage, Table

VOID = {"meta", "img", "br", "hr", "link", "input"}


def scan(
    strategy: str = "halton", specimen: str = "MoS2", *, stages: int = 3, field: tuple[float, float] = (20.0, 30.0), **more: object
) -> Scan:
    generator = torch.Generator().manual_seed(len(strategy) + len(specimen))
    positions = torch.rand(10 * stages, 2, generator=generator, dtype=torch.float64)
    truth = torch.rand(40, 60, generator=generator)
    done = tuple(
        Stage(
            positions_new=positions[10 * i : 10 * i + 10],
            positions_all=positions[: 10 * i + 10],
            dose_all=torch.full((10 * i + 10,), 600.0),
            potential=truth * (i + 1) / stages,
            loss=0.5 / (i + 1),
            scores={"ssim": 0.1234 * (i + 1), "correlation": 0.2345 * (i + 1)},
            seconds={"acquire": 0.0625},
        )
        for i in range(stages)
    )
    settings = {"reference": truth, "iterations_loss": (3.0, 2.0, 1.0), **more}
    return Scan(strategy, specimen, field, 1.5, done, **settings)  # type: ignore[arg-type]


class Reader(HTMLParser):
    """Checks that tags close in order, and collects text and links."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        given = dict(attrs)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]
        self.ids += [given["id"] or ""] if "id" in given else []
        assert tag not in ("script", "link", "iframe", "object")
        assert tag != "img" or given["alt"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def images(reader: Reader) -> list[np.ndarray]:
    data = [link.removeprefix("data:image/png;base64,") for link in reader.links if link.startswith("data:image/png;base64,")]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(d, validate=True))).convert("RGB")) for d in data]


@pytest.fixture(scope="module")
def comparison() -> Reader:
    scans = [scan("random"), scan("adaptive"), scan("adaptive", "island", stages=1)]
    table = Table("Table I", "all of it", ("strategy", "dose / e Å⁻²", "n"), (("random", 123456.0, 7), ("adaptive", 0.00012, None)))
    return Reader(report.page("Where to go", "First.\n\nSecond.", [table], scans, {"beam energy": "60 keV"}))


def test_page_needs_nothing_else(comparison: Reader) -> None:
    for link in comparison.links:
        assert link.startswith("data:image/png;base64,") or (link.startswith("#") and link[1:] in comparison.ids)
    assert len(comparison.ids) == len(set(comparison.ids))
    template = Path(report.__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(", template)


def test_page_shows_every_strategy_and_number(comparison: Reader) -> None:
    words = (
        "Where to go",
        "Second.",
        "beam energy",
        "60 keV",
        "Table I",
        "all of it",
        "dose / e Å⁻²",
        "random",
        "adaptive",
        "MoS2",
        "island",
    )
    # 18 000 electrons in 30 positions on 600 Å²; last loss and scores; time.
    numbers = ("1.23 × 10⁵", "1.20 × 10⁻⁴", "–", "18000", "30.0", "0.167", "0.370", "0.704", "0.0625")
    for expected in words + numbers:
        assert expected in comparison.text


def test_every_picture_shows_something(comparison: Reader) -> None:
    pixels = images(comparison)
    # One ranking, then for each specimen a comparison, curves and its strips.
    assert len(pixels) == 1 + (2 + 2) + (2 + 1)
    for picture in pixels:
        # Ink on at least 2 % of the white paper, in many shades.
        assert (picture < 250).any(2).mean() > 0.02 and len(np.unique(picture @ np.array([65536, 256, 1]))) > 20
        assert picture[0, 0].tolist() == [255, 255, 255]


def test_what_people_type_is_escaped() -> None:
    bad = "<script>alert('&')</script>"
    html = report.page(bad, bad, [Table(bad, bad, (bad,), ((bad,),))], [scan(bad, bad, stages=1)], {bad: bad})
    assert "<script" not in html
    assert Reader(html).text.count(bad) > 8


def test_names_with_dollars_are_not_mathematics() -> None:
    # matplotlib would read "$...$" as a formula and fail on a broken one.
    assert images(Reader(report.page("", "", [], [scan(r"$\frac{$", "a $ b", stages=1), scan("$5 $", stages=1)], {})))


def test_page_without_scans_is_a_page_of_tables() -> None:
    reader = Reader(report.page("Numbers", "", [Table("T", "", ("a",), ((1.0,),))], [], {}))
    assert "1.00" in reader.text and images(reader) == []


def test_live_scan_without_reference_or_scores() -> None:
    stages = [replace(stage, scores={}) for stage in scan(stages=2).stages]
    bare = [replace(stage, loss=None) for stage in stages]
    # Comparison and strip; curves only of at least two points of something.
    for done, expected in ((stages, 3), (stages[:1], 2), (bare, 2)):
        reader = Reader(report.page("Live", "", [], [Scan("adaptive", "unknown", (20.0, 30.0), 1.5, tuple(done), snapped=0.25)], {}))
        assert "0.25 Å away" in reader.text and "reference" not in reader.text
        assert len(images(reader)) == expected


def test_diverged_reconstruction_is_shown_not_fatal() -> None:
    good = scan(stages=1)
    stage = good.stages[-1]
    lost = Stage(stage.positions_new, stage.positions_all, stage.dose_all, torch.full((40, 60), math.nan), math.inf, {"ssim": math.nan})
    reader = Reader(report.page("Lost", "", [], [good, Scan("wild", "MoS2", good.field, 1.5, (lost,))], {}))
    assert "inf" in reader.text and "–" in reader.text and len(images(reader)) == 5


def test_large_pages_leave_strips_out_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    scans = [scan("random", stages=1), scan("adaptive", stages=1)]
    full = report.page("", "", [], scans, {})
    monkeypatch.setattr(report, "LIMIT", len(full) - 20_000)
    small = report.page("", "", [], scans, {})
    assert len(images(Reader(full))) == 5 and len(images(Reader(small))) == 4
    assert "adaptive on MoS2" in Reader(small).text and len(small) < len(full)


def test_strip_shows_positions_where_they_are() -> None:
    figure = draw.strip(scan(stages=8))
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    # First and last always, six in all, then the reference.
    assert len(titles) == 7 and titles[0] == "1: 10 positions" and titles[5] == "8: 80 positions" and titles[6] == "reference"
    last = scan(stages=8).stages[-1]
    earlier, new = (c.get_offsets() for c in figure.axes[5].collections if isinstance(c, PathCollection))
    assert len(earlier) == 70
    # Å, (x, y): one multiplication each.
    np.testing.assert_allclose(new, (last.positions_new * torch.tensor([20.0, 30.0])).flip(1).numpy(), rtol=1e-15)


@pytest.mark.parametrize("field", [(20.0, 20.0), (8.0, 20.0)])
def test_nothing_is_cut_off(field: tuple[float, float]) -> None:
    done = scan(field=field)
    stage = replace(done.stages[-1], scores={f"score {i}": 0.5 for i in range(4)})
    many = [replace(done, strategy=f"strategy {i}", stages=(stage,)) for i in range(7)]
    figures = [draw.strip(done), *(f(s) for f in (draw.comparison, draw.curves, draw.ranks) for s in ([done], many))]
    for figure in figures:
        figure.draw_without_rendering()
        box, size = figure.get_tightbbox(), figure.get_size_inches()
        # Positions on the very edge stick out by half a dot: 0.03 inch.
        assert box.x0 > -0.03 and box.y0 > -0.03 and box.x1 < size[0] + 0.03 and box.y1 < size[1] + 0.03


@pytest.mark.parametrize(("width", "text"), [(20.0, "5 Å"), (31.0, "1 nm"), (3.1, "1 Å"), (900.0, "20 nm")])
def test_scale_bar_is_round_and_true(width: float, text: str) -> None:
    axis = draw.comparison([scan(field=(20.0, width))]).axes[0]
    assert [t.get_text() for t in axis.texts] == [text]
    value, unit = text.split()
    # A difference of two numbers as large as the field.
    assert np.ptp(axis.lines[0].get_xdata()) == pytest.approx(float(value) * {"Å": 1, "nm": 10}[unit], abs=1e-12 * width)


def test_ranks_give_means_and_intervals() -> None:
    scans = [scan("halton", specimen) for specimen in ("a", "b", "c")]
    texts = [t.get_text() for axis in draw.ranks(scans).axes for t in axis.texts]
    assert texts == ["0.370", "0.704"]


def test_files_are_whole_and_repeatable(tmp_path: Path) -> None:
    report.write(tmp_path / "new" / "page.html", "<p>Å</p>")
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == "<p>Å</p>"
    for name in ("a.png", "b.png"):
        report.save_png(tmp_path / name, draw.curves([scan()]), dpi=50)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

    class Broken(Figure):
        def draw(self, renderer: object) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        report.save_png(tmp_path / "a.png", Broken())
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        report.write(tmp_path / "taken", "a directory is in the way")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png", "new", "taken"]


def test_a_scan_has_stages() -> None:
    with pytest.raises(ValueError, match=r"stages: expected at least one sub-sequence in the scan 'raster' of 'x', got none"):
        Scan("raster", "x", (1.0, 1.0), 0.5, ())
