"""The figures of an evaluation, drawn from its results; scans that are shown are done again."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from adaptycho.compare import archive, table, trial
from adaptycho.compare.race import Cell
from adaptycho.compare.strategies import AUTO, CONVENTIONAL, ORACLES, STRATEGIES
from adaptycho.compare.trial import Plan
from adaptycho.draw import Scan, Stage, figures, report
from adaptycho.draw.figures import Gain, Point, Reconstruction
from adaptycho.metrics.spots import spots
from adaptycho.samples import sample
from adaptycho.settings import ADAPTIVE, microscopes

SHOWN = ("raster", "raster:focused", "dense", "random", "halton", "heuristic", "greedy", "process", "oracle", "oracle-density")
Tell = Callable[[str], None]


def draw(results: Path, out: Path, strategies: Sequence[str], tell: Tell) -> list[Path]:
    """Writes every figure that the results give, as PNG, and returns their names.

    Args:
        results: folder or `cells.json(.gz)` of an evaluation.
        out: folder for the figures.
        strategies: to show in curves; a choice of them if empty.
        tell: is told what is going on.

    Raises:
        ValueError: there are no results, or they do not have a strategy.
    """
    cells = archive.read(results / "cells.json" if results.is_dir() else results)
    for name in strategies:
        if any(name not in cell.numbers for cell in cells):
            raise ValueError(f"strategies: expected some of {', '.join(cells[0].numbers)}, found {name!r}")
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
    tables = [table.table(cell) for cell in cells]
    points = [p for cell, found in zip(cells, tables, strict=True) for p in _points(cell, found, strategies)]
    if len({p.positions for p in points}) > 1:
        yield "positions", figures.quality(points, "positions", primary, looks)
        yield "time", figures.quality(points, "time", primary, looks)
    if len({p.dose for p in points}) > 1:
        yield "dose", figures.quality(points, "dose", primary, looks)
    for name, ours in (("adaptive", ADAPTIVE), ("auto", (AUTO,)), ("oracle", ORACLES)):
        if gains := [g for cell, found in zip(cells, tables, strict=True) if (g := _gain(cell, found, ours))]:
            yield f"gain-{name}", figures.gains(gains, primary)
    first = cells[0]
    yield "times", figures.times(_times(first))
    yield "scans", figures.overlay(list(_scans(first, _shown(first, strategies)[:8])))
    yield "diffractograms", figures.diffractograms(list(_reconstructions(first)), _sample(first).setup.object.pixel)


def _shown(cell: Cell, strategies: Sequence[str]) -> list[str]:
    """Strategies for curves and overlays: those asked for, else a choice, else all there are."""
    return list(strategies) or [n for n in SHOWN if n in cell.numbers] or list(cell.numbers)


def _grouped(cells: list[Cell]) -> list[list[str]]:
    names = list(dict.fromkeys(n for cell in cells for n in cell.numbers))
    adaptive = {*STRATEGIES} - {*CONVENTIONAL, *ORACLES}
    return [[n for n in names if n.partition(":")[0] in group] for group in (CONVENTIONAL, adaptive, ORACLES)]


def _points(cell: Cell, found: table.Table, strategies: Sequence[str]) -> Iterator[Point]:
    for name in cell.numbers:
        if name in _shown(cell, strategies):
            mean, (low, high) = found[cell.protocol.primary][name], found[f"{cell.protocol.primary}_ci"][name]
            values = (float("nan") if v is None else v for v in (mean, low, high))
            cost = found["dose_mean"][name], found["seconds"][name]
            yield Point(found["family"], name, found["positions"], found["dose"], *cost, *values)


def _gain(cell: Cell, found: table.Table, ours: Sequence[str]) -> Gain | None:
    """What the best of a group gains over the best conventional scan of its cell (`table.cautious_gain`)."""
    name = table.best_of(cell, ours)
    if name is None or "best_conventional" not in found:
        return None
    values = [float("nan") if v is None else v for v in table.cautious_gain(cell, ours)]
    # Cells are small, and which group it is the figure says.
    return Gain(found["family"], name.removeprefix("oracle-"), found["positions"], found["dose"], *values)


def _times(cell: Cell) -> dict[str, dict[str, float]]:
    tasks = ("decide", "move", "expose", "reconstruct")
    seconds = {task: table.columns(cell, f"seconds_{task}") for task in tasks}
    return {n: {task: float(seconds[task][n].mean()) for task in tasks} for n in cell.numbers if ":" not in n or len(cell.numbers) == 1}


def _sample(cell: Cell) -> sample.Sample:
    """The first specimen of the report."""
    if microscopes.of(cell.settings).capabilities.specimens:
        return sample.simulated(cell.settings, cell.settings.evaluate.test[0])
    return sample.recorded(cell.settings, 0)


def _scans(cell: Cell, names: Sequence[str]) -> Iterator[Scan]:
    """Strategies on that specimen, done again."""
    specimen = _sample(cell)
    reference = (specimen.truth if specimen.truth is not None else specimen.full_scan)[0]
    for name in names:
        done = trial.scan(cell.plans[name], cell.settings, specimen)
        seen = [s.potential[0] for s in done.states[:-1]] + [specimen.setup.crop(done.potential)[0]]
        stages = [Stage(s.latest.positions[0], s.seen.positions[0], s.seen.dose[0], v) for s, v in zip(done.states, seen, strict=True)]
        radius = specimen.setup.probe_radius(defocus=float(done.states[-1].seen.defocus[0, -1]))
        yield Scan(name, cell.settings.specimen.family, specimen.setup.field, radius, tuple(stages), reference)


def _reconstructions(cell: Cell) -> Iterator[Reconstruction]:
    """Random, the heuristic, the best adaptive and the full scan, as in Fig. 4."""
    specimen = _sample(cell)
    pixel = specimen.setup.object.pixel
    random = [n for n in ("random:focused", "random") if n in cell.plans][:1]
    adaptive = [n for n in ("heuristic", table.best_of(cell, ADAPTIVE)) if n is not None and n in cell.plans]
    for name in dict.fromkeys(random + adaptive):
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
