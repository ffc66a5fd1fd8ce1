"""What the commands do once their options are understood: each function makes files and returns what is worth printing."""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptycho import draw, formats
from adaptycho.app.refining import told
from adaptycho.compare import archive, race, table, table1, trained
from adaptycho.compare.ledger import Ledger
from adaptycho.draw import report
from adaptycho.reconstruct.choice import choose
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.reconstruction import Reconstruction
from adaptycho.reconstruct.seeking import REFINED, seek
from adaptycho.reconstruct.stopping import stopping
from adaptycho.reconstruct.uncertainty import uncertainty
from adaptycho.runs import checks, execution, patterns, results, scans, summary
from adaptycho.scan.episode import observe, split_evenly, stream
from adaptycho.settings import Settings, build, dump, microscopes, policies, update
from adaptycho.support import targets
from adaptycho.support.atomic import alone, whole
from adaptycho.support.parallel import spread
from adaptycho.types import Measurement

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


def simulate(out: Path, chosen: Settings, progress: Progress, *, workers: int | None = None, scheduler: str | None = None) -> list[Path]:
    """Writes a conventional scan of every specimen as a recording, and the settings as TOML beside; returns the recordings.

    Raises:
        ValueError: the settings are not of a conventional simulated scan, or a file exists already.
    """
    if not microscopes.of(chosen).capabilities.specimens or chosen.scan.policy not in policies.PATTERNS:
        raise ValueError(
            f"scan.policy: expected a conventional simulated scan to record, found {chosen.scan.microscope}, {chosen.scan.policy}"
        )
    targets.named(out)
    if out.suffix == ".toml":
        raise ValueError(f"{out}: expected a name such as {out.with_suffix('.h5')} for the recording, found that of the settings beside it")
    many = chosen.specimen.count > 1
    paths = [out.with_name(f"{out.stem}-{b:03d}{out.suffix}") if many else out for b in range(chosen.specimen.count)]
    described = out.with_suffix(".toml")
    for path in (*paths, described):
        targets.new_file(path)
    with whole(described) as part:
        part.write_text(dump(chosen), encoding="utf-8")
    tasks = [(chosen, b, path.absolute(), described.name) for b, path in enumerate(paths)]
    for _ in progress(spread(_simulate, tasks, workers=workers, scheduler=scheduler), len(tasks), "specimens"):
        pass
    return paths


def reconstruct(
    file: Path,
    out: Path,
    chosen: Settings,
    progress: Progress,
    device: str = "cpu",
    given: formats.Given | None = None,
    *,
    start: Path | None = None,
    snapshots: int = 0,
    uncertain: bool = False,
) -> dict[str, Any]:
    """Reconstructs a recording; writes the potential and a picture.

    Args:
        file: the recording.
        out: where to.
        chosen: settings.
        progress: shown.
        device: where to compute.
        given: what is said of the recording beside what it says itself.
        start: a result or a snapshot of the same recording to go on from.
        snapshots: iterations after each of which what there is is written too, beside, named by all iterations so far; 0 writes none.
        uncertain: whether to find out how uncertain the phase is at every pixel, too.
    """
    targets.named(out)
    picture = out.with_suffix(".png")
    if out == picture:
        raise ValueError(f"{out}: expected a name such as {out.with_suffix('.h5')} for the potential, found that of the picture beside it")
    for path in (out, picture):
        targets.new_file(path)
    recording = patterns.read(file, given)
    setup, measurement = recording.setup, recording.measurement
    descent, source = build.reconstructor(chosen, setup, recording.counts_per_electron), results.origin(setup, measurement)
    known = None if start is None else results.read_state(start, setup, measurement.positions.shape[1], source)
    before = 0 if known is None else known.loss.shape[1]
    for done in range(snapshots, max(descent.iterations, REFINED), snapshots) if snapshots else ():
        targets.new_file(beside(out, before + done))  # as many as there may be, before anything is decided that takes long
    known, measurement = None if known is None else known.to(device), measurement.to(device)
    descent = _decided(descent, measurement, known, progress)
    more = _uncertain(descent, measurement, progress) if uncertain else {}
    for done, found in enumerate(progress(descent.steps(measurement, known), descent.iterations, "iterations"), 1):
        result = found
        if snapshots and done % snapshots == 0 and done < descent.iterations:
            results.write_state(beside(out, before + done), setup, result, source)
    results.write_state(out, setup, result, source, more)
    phase = setup.crop(result.phase)[0].cpu()
    report.save_png(picture, draw.phase(phase, setup.field, recording.title, *(error[0].cpu() for error in more.values())))
    prior = {"prior": descent.prior, "strength": descent.strength, "blob": descent.blob} if descent.prior != "none" else {"prior": "none"}
    refined = {} if result.refined is None else {"refined": told(result.refined, recording.setup.field)}
    return {"file": str(out), "picture": str(picture), "loss": [round(v, 9) for v in result.loss[0].tolist()], **prior, **refined}


def _decided(descent: Reconstructor, measurement: Measurement, start: Reconstruction | None, progress: Progress) -> Reconstructor:
    """With everything that the data decide: whether the probe is refined, which prior, when to stop.

    Raises:
        ValueError: what was to be held back has been seen.
    """
    if descent.stop == "held-out" and start is not None:
        raise ValueError("reconstruct.stop: expected iterations to go on from a result, which has seen what would be held back")
    if descent.refine == "auto" and (start is None or start.refined is None):
        (descent,) = progress((seek(descent, measurement) for _ in range(1)), 1, "trying whether to refine the probe")
    if descent.prior == "auto":
        (descent,) = progress((choose(descent, measurement) for _ in range(1)), 1, "choosing a prior")
    if descent.stop == "held-out":
        *_, descent = progress(stopping(descent, measurement), descent.iterations, "finding where to stop")
    return descent


def _uncertain(descent: Reconstructor, measurement: Measurement, progress: Progress) -> dict[str, Tensor]:
    """Standard error of the phase inside the field, by the name that it has in a file.

    Raises:
        ValueError: nobody can say.
    """
    (found,) = progress((uncertainty(descent, measurement) for _ in range(1)), 1, "finding out how uncertain it is")
    return {"uncertainty_in_field": descent.setup.crop(found)}


def beside(out: Path, done: int) -> Path:
    """The name of what there is after some iterations."""
    return out.with_name(f"{out.stem}-{done:04d}{out.suffix}")


def rehearse(chosen: Settings) -> dict[str, Any]:
    """What the first sub-sequence of a scan would do to the specimen: nothing is exposed, and nothing written.

    Returns:
        `positions` in Å and what is asked for limits, in Å and electrons; None where nobody tells how many electrons will be sent.

    Raises:
        ValueError: the settings cannot be scanned, or a limit is in the way.
    """
    kind = microscopes.of(chosen)
    with closing(kind.open(chosen)) as microscope:
        checks.check_scan(chosen, kind, microscope)
        lengths = split_evenly(chosen.scan.positions, chosen.scan.subsequences)
        action, _ = build.scanner(chosen)(observe(None, microscope, lengths, 0), None, generator=stream(chosen.scan.seed, 0))
        guard = build.guard(chosen, microscope, kind.look(chosen).counts_per_electron)
        guard.limits = replace(guard.limits, local=guard.limits.local or math.inf)  # told, though nothing may limit it
        ahead = guard.consider(action)
        size = torch.tensor(microscope.setup.field)
        figures = {name: getattr(ahead, name) for name in ("outside", "jump", "dose", "local")}
        return {
            "positions": [[[round(v, 3) for v in position] for position in specimen] for specimen in (action.positions * size).tolist()],
            **{name: None if math.isnan(value) else float(f"{value:.6g}") for name, value in figures.items()},
        }


def scan(target: scans.Run, progress: Progress, device: str = "cpu") -> dict[str, Any]:
    """Runs or goes on with a scan, writes its report, and returns its final scores (NaN where nobody knows what they refer to).

    Of one that is finished the report is written again.

    Raises:
        ValueError: it was told to stop before its first sub-sequence.
    """
    if not target.finished:
        for _ in progress(execution.execute(target, device), len(target.lengths), "sub-sequences"):
            pass
    states = scans.read_states(target)
    if not states:
        raise ValueError(f"{target.path}: expected a sub-sequence, found a scan that was stopped before (go on with `resume`)")
    scores = {name: round(float(values.mean()), 4) for name, values in states[-1]["scores"].items()}
    return {
        "run": str(target.path),
        "positions": sum(target.lengths[: len(states)]),
        "subsequences": len(states),
        "policy": target.settings.scan.policy,
        "scores": scores,
        "report": str(write_report(target)),
    }


def cells(base: Settings, families: Sequence[str], positions: Sequence[int], doses: Sequence[float]) -> list[Settings]:
    """Every combination of families, numbers of positions and electrons per position; what is not given stays as it is."""
    scan = base.scan
    combinations = dict.fromkeys(itertools.product(families or [base.specimen.family], positions or [scan.positions], doses or [scan.dose]))
    return [
        update(base, {"specimen": {"family": family}, "scan": {"positions": count, "dose": dose}}, "command line")
        for family, count, dose in combinations
    ]


def evaluate(
    out: Path,
    cells: Sequence[Settings],
    protocol: race.ProtocolName,
    strategies: Sequence[str],
    progress: Progress,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Compares strategies in every cell; results are kept in the folder and what is there already is not measured again.

    Returns:
        `cells`, a table for each (`adaptycho.compare.table`), and `dose_savings` along the numbers of positions.
    """
    with _results(out) as ledger:
        rules = race.PROTOCOLS[protocol]
        names = strategies or race.everything(rules, cells[0])
        done = race.judge(cells, rules, names, ledger, progress=progress, workers=workers, scheduler=scheduler)
        archive.write(out / "cells.json", done)
        found = {"cells": [table.table(cell) for cell in done], "dose_savings": table.dose_savings(done)}
        with whole(out / "tables.json") as part:
            part.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def first_table(
    out: Path,
    base: Settings,
    rows: Sequence[table1.Published],
    weights: Sequence[Path],
    progress: Progress,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Rows of Table I of the paper (`adaptycho.compare.table1`); results are kept as those of `evaluate` are.

    Raises:
        ValueError: settings of a recording, or weights that are no policies of one kind.
    """
    if not microscopes.of(base).capabilities.specimens:
        raise ValueError(f"scan.microscope: expected simulated specimens for Table I, found {base.scan.microscope}")
    policies = trained.read(weights)
    with _results(out) as ledger:
        found = table1.table1(base, rows, policies, ledger, progress=progress, workers=workers, scheduler=scheduler)
        with whole(out / "table1.json") as part:
            part.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def evaluation_lines(found: dict[str, Any]) -> list[str]:
    """What `evaluate` found, to read."""
    lines = [line for part in found["cells"] for line in [*table.text(part), ""]]
    if found["dose_savings"]:
        lines.append("dose saving: times the dose that the best conventional scan needs for the same score")
    for row in found["dose_savings"]:
        beyond = {"above": ">= ", "below": "<= ", None: ""}[row["bounded"]]
        name = f"{row['family']}, {row['positions']} positions, {row['dose']:g} electrons, {row['strategy']}"
        lines.append(f"  {name}: {beyond}{table.between(row['dose_saving'], 2)}")
    return lines


def write_report(target: scans.Run) -> Path:
    """Writes the report of a run into its folder."""
    page = target.path / "report.html"
    report.write(page, summary.run_page(target))
    return page


@contextmanager
def _results(out: Path) -> Iterator[Ledger]:
    """The ledger of a folder for results, which is made if there is none, for one process at a time."""
    targets.folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        yield Ledger.open(out / "results.jsonl")


def _simulate(task: tuple[Settings, int, Path, str]) -> None:
    """One specimen's whole conventional scan, without reconstructing it."""
    chosen, b, path, described = task
    alone = build.simulated(build.one(chosen, b))
    seen = observe(None, alone, [chosen.scan.positions], 0)
    generator = stream(chosen.scan.seed, b)
    action, _ = build.scanner(chosen)(seen, None, generator=generator)
    measurement = alone.acquire(action, generator=generator)
    setup = alone.setup if chosen.scan.defocus is None else alone.setup.with_defocus(chosen.scan.defocus)
    title = f"simulated {chosen.specimen.structure}, {chosen.specimen.family}"
    formats.write(
        path, formats.Recording(setup, measurement, title, f"adaptycho simulate, specimen {b}, settings in {described}", path=path)
    )
