"""The report of a run folder: what `adaptycho.draw.report` needs, read from what `adaptycho.runs.scans` wrote."""

from datetime import datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptycho.draw import Scan, Stage, report
from adaptycho.instruments.recorded import distance
from adaptycho.runs.scans import Run, read_reference, read_states
from adaptycho.runs.scores import SCORES

SHOWN = 4  # specimens drawn in full; the table has all


def run_page(target: Run) -> str:
    """The report of a run, finished or not, as HTML.

    Raises:
        ValueError: nothing was recorded yet.
    """
    states = read_states(target)
    if not states:
        raise ValueError(f"{target.path}: expected at least one finished sub-sequence to report on, found none")
    subject, kind, batch = target.subject, target.kind, target.batch
    reference = _reference(target, states)
    names = [subject.title if batch == 1 else f"{subject.title} {b + 1}" for b in range(min(batch, SHOWN))]
    scans = [_scan(target, states, reference, b, name) for b, name in enumerate(names)]
    done = f"{len(states)} of {len(target.lengths)} sub-sequences"
    scored = "There are no scores: nobody knows what a full scan would show."
    if reference is not None:
        scored = f"Scores compare the phase inside the scan field with the reconstruction of {kind.against}."
    intro = f"{kind.verb}: {subject.title}. The {target.settings.scan.policy} scan took {done}. {scored}"
    tables = [_table(states, batch, reference is not None)] if batch > 1 else []
    return report.page(f"Run {target.path.name}", intro, tables, scans, _facts(target, states))


def _reference(target: Run, states: list[dict[str, Any]]) -> Tensor | None:
    """What scores refer to; None if there is none, which a scan without any scores is allowed."""
    scored = any(np.isfinite(values).any() for state in states for values in state["scores"].values())
    return read_reference(target) if scored or target.referenced else None


def _scan(target: Run, states: list[dict[str, Any]], reference: Tensor | None, b: int, what: str) -> Scan:
    stages, positions, doses, snapped = [], [], [], []
    setup, counts = target.setup, target.subject.counts_per_electron
    for state in states:
        measurement = state["measurement"]
        positions.append(measurement.positions[b])
        doses.append(measurement.dose[b] / counts)
        snapped.append(distance(setup, state["requested"][b].clamp(0, 1), measurement.positions[b]))
        scores = {} if reference is None else {name: float(values[b]) for name, values in state["scores"].items()}
        loss = float(state["loss"][b, -1])
        new, every, dose = positions[-1], torch.cat(positions), torch.cat(doses)
        stages.append(Stage(new, every, dose, state["potential"][b], loss, scores, state["seconds"]))
    away = None if target.kind.capabilities.anywhere else float(torch.cat(snapped).mean())
    losses = tuple(states[-1]["loss"][b].tolist())
    probe = setup.probe_radius(defocus=float(measurement.defocus[b].median()))
    shown = None if reference is None else reference[b]
    return Scan(target.settings.scan.policy, what, setup.field, probe, tuple(stages), shown, losses, away)


def _table(states: list[dict[str, Any]], batch: int, scored: bool) -> report.Table:
    rows = []
    for number, state in enumerate(states, 1):
        scores = [float(state["scores"][name].mean()) for name in SCORES if scored]
        seconds = [state["seconds"].get(name, 0.0) for name in ("decide", "acquire", "reconstruct")]
        rows.append((number, state["measurement"].positions.shape[1], *scores, *(round(v, 3) for v in seconds)))
    named = ("SSIM", "SSIM, aligned", "correlation") if scored else ()
    columns = ("sub-sequence", "positions", *named, "decide / s", "acquire / s", "reconstruct / s")
    caption = f"Scores after each sub-sequence, mean of {batch} specimens." if scored else "What each sub-sequence took."
    return report.Table("Sub-sequences", caption, columns, tuple(rows))


def _facts(target: Run, states: list[dict[str, Any]]) -> dict[str, str]:
    setup, counts = target.setup, target.subject.counts_per_electron
    sent = sum(float(s["measurement"].dose[0].sum()) for s in states) / counts
    taken = torch.cat([s["measurement"].positions[0] for s in states])
    beam = f"{setup.energy / 1e3:g} keV" if setup.energy else f"wavelength {setup.wavelength:g} Å"
    return {
        "beam": f"{beam}, {setup.semiangle:g} mrad, defocus {float(states[-1]['measurement'].defocus[0, -1]):g} Å",
        "scan field": f"{setup.field[0]:g} x {setup.field[1]:g} Å",
        "pixel": f"{setup.object.pixel:g} Å",
        "electrons": f"{sent:.3g} in all, {sent / (setup.field[0] * setup.field[1]):.3g} per Å²",
        "positions": f"{len(taken)}, of which {len(taken) - len(torch.unique(taken, dim=0))} were taken again",
        "seed": str(target.provenance.seed),
        "started": _when(target.provenance.created),
        report.FOLDED: ", ".join(f"{name} {number}" for name, number in target.provenance.versions.items()),
    }


def _when(moment: str) -> str:
    """A time as people write it; what is none stays as it is."""
    try:
        return datetime.fromisoformat(moment).strftime("%-d %B %Y, %H:%M %Z").strip()
    except ValueError:
        return moment
