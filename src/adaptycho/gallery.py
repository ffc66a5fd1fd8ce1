"""The figures of an evaluation, drawn from its results; scans that are shown are done again."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from adaptycho import figures, report
from adaptycho.evaluate import archive, sample, table, trial
from adaptycho.evaluate.judge import Cell
from adaptycho.evaluate.strategies import ADAPTIVE, CONVENTIONAL, ORACLES
from adaptycho.evaluate.trial import Plan
from adaptycho.figures import Gain, Point, Reconstruction
from adaptycho.metrics.spots import spots
from adaptycho.pictures import Scan, Stage

SHOWN = ("raster", "raster:focused", "dense", "random", "halton", "heuristic", "greedy", "process", "oracle", "oracle-density")
Tell = Callable[[str], None]


def draw(results: Path, out: Path, strategies: Sequence[str], tell: Tell) -> list[Path]:
    """Writes every figure that the results give, as PNG, and returns their names.

    Args:
        results: folder or `cells.json(.gz)` of an evaluation.
        out: folder for the figures.
        strategies: to show in curves; a choice of them if empty.
        tell: is told what is going on.
    """
    cells = archive.read(results / "cells.json" if results.is_dir() else results)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in _figures(cells, strategies):
        tell(f"{name}.png")
        report.save_png(out / f"{name}.png", figure, dpi=200)
        written.append(out / f"{name}.png")
    return written


def _figures(cells: list[Cell], strategies: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    looks = figures.looks(*_grouped(cells))
    primary = cells[0].protocol.primary
    points = [p for cell in cells for p in _points(cell, strategies)]
    if len({p.positions for p in points}) > 1:
        yield "positions", figures.quality(points, "positions", primary, looks)
        yield "time", figures.quality(points, "time", primary, looks)
    if len({p.dose for p in points}) > 1:
        yield "dose", figures.quality(points, "dose", primary, looks)
    for name, ours in (("adaptive", ADAPTIVE), ("oracle", ORACLES)):
        if found := [g for cell in cells if (g := _gain(cell, table.best_of(cell, ours)))]:
            yield f"gain-{name}", figures.gains(found, primary)
    first = cells[0]
    yield "times", figures.times(_times(first))
    yield "scans", figures.overlay(list(_scans(first, [n for n in strategies or SHOWN if n in first.numbers][:8])))
    yield "diffractograms", figures.diffractograms(list(_reconstructions(first)), _sample(first).setup.object.pixel)


def _grouped(cells: list[Cell]) -> list[list[str]]:
    names = list(dict.fromkeys(n for cell in cells for n in cell.numbers))
    return [[n for n in names if n.partition(":")[0] in group] for group in (CONVENTIONAL, ADAPTIVE, ORACLES)]


def _points(cell: Cell, strategies: Sequence[str]) -> Iterator[Point]:
    found = table.table(cell)
    for name in cell.numbers:
        if name in (strategies or SHOWN):
            mean, (low, high) = found[cell.protocol.primary][name], found[f"{cell.protocol.primary}_ci"][name]
            values = (float("nan") if v is None else v for v in (mean, low, high))
            cost = found["dose_mean"][name], found["seconds"][name]
            yield Point(found["family"], name, found["positions"], found["dose"], *cost, *values)


def _gain(cell: Cell, name: str | None) -> Gain | None:
    """What a strategy gains over the best conventional scan of its cell."""
    found = table.table(cell)
    if name is None or "gain" not in found:
        return None
    values = [float("nan") if v is None else v for v in found["gain"][name]]
    return Gain(found["family"], name, found["positions"], found["dose"], *values)


def _times(cell: Cell) -> dict[str, dict[str, float]]:
    tasks = ("decide", "move", "expose", "reconstruct")
    return {n: {task: float(table.column(cell, n, f"seconds_{task}").mean()) for task in tasks} for n in cell.numbers if ":" not in n}


def _sample(cell: Cell) -> sample.Sample:
    """The first specimen of the report."""
    if cell.settings.scan.microscope == "recorded":
        return sample.recorded(cell.settings, 0)
    return sample.simulated(cell.settings, cell.settings.evaluate.test[0])


def _scans(cell: Cell, names: Sequence[str]) -> Iterator[Scan]:
    """Strategies on that specimen, done again."""
    specimen = _sample(cell)
    reference = (specimen.truth if specimen.truth is not None else specimen.full_scan)[0]
    for name in names:
        done = trial.scan(cell.plans[name], cell.settings, specimen)
        stages = [
            Stage(s.latest.positions[0], s.seen.positions[0], s.seen.dose[0], specimen.setup.crop(done.potential)[0]) for s in done.states
        ]
        radius = specimen.setup.probe_radius(defocus=cell.plans[name].defocus)
        yield Scan(name, cell.settings.specimen.family, specimen.setup.field, radius, tuple(stages), reference)


def _reconstructions(cell: Cell) -> Iterator[Reconstruction]:
    """Random, the best adaptive and the full scan, as in Fig. 4."""
    specimen = _sample(cell)
    pixel = specimen.setup.object.pixel
    names = [n for n in ("random:focused", "random") if n in cell.plans][:1] + [n for n in [table.best_of(cell, ADAPTIVE)] if n]
    for name in names:
        plan: Plan = cell.plans[name]
        yield _reconstruction(name, specimen.setup.crop(trial.scan(plan, cell.settings, specimen).potential)[0], pixel)
    yield _reconstruction("full scan", specimen.full_scan[0], pixel)


def _reconstruction(name: str, phase: torch.Tensor, pixel: float) -> Reconstruction:
    """With the strongest spot of the finest ring that is resolved."""
    found = spots(phase, pixel)
    if not bool(found.finest.any()):
        return Reconstruction(name, phase)
    strongest = int(torch.where(found.finest, found.strength, 0.0).argmax())
    ky, kx = found.frequencies[strongest].tolist()
    return Reconstruction(name, phase, (ky, kx), found.resolution)
