"""The report of a run folder: what `adaptycho.draw.report` needs, read from what `adaptycho.runs.scans` wrote."""

from typing import Any

import torch
from torch import Tensor

from adaptycho.draw import Scan, Stage, report
from adaptycho.instruments.recorded import distance
from adaptycho.physics.optics import Setup
from adaptycho.runs.scans import Run, read_reference, read_states
from adaptycho.settings import Settings

SHOWN = 4  # specimens drawn in full; the table has all


def run_page(target: Run) -> str:
    """The report of a run, finished or not, as HTML.

    Raises:
        ValueError: nothing was recorded yet.
    """
    states = read_states(target)
    if not states:
        raise ValueError(f"{target.path}: expected at least one finished sub-sequence to report on, found none")
    chosen, recording, setup = target.settings, target.recording, target.setup
    counts = recording.counts_per_electron if recording else 1.0
    what = recording.title if recording else f"{chosen.specimen.structure}, {chosen.specimen.family}"
    reference = read_reference(target)
    batch = len(reference)
    scans = [
        _scan(chosen, setup, states, reference, b, what if batch == 1 else f"{what} {b + 1}", counts) for b in range(min(batch, SHOWN))
    ]
    done = f"{len(states)} of {len(target.lengths)} sub-sequences"
    how, whole = ("Replayed", "everything that was recorded") if recording else ("Simulated", "a full scan")
    intro = (
        f"{how}: {what}. The {chosen.scan.policy} scan took {done}. Scores compare the phase inside the scan field with the reconstruction "
        f"of {whole}."
    )
    return report.page(
        f"Run {target.path.name}", intro, [_table(states, batch)] if batch > 1 else [], scans, _facts(target, setup, states, counts)
    )


def _scan(chosen: Settings, setup: Setup, states: list[dict[str, Any]], reference: Tensor, b: int, what: str, counts: float) -> Scan:
    stages, positions, doses, snapped = [], [], [], []
    for state in states:
        measurement = state["measurement"]
        positions.append(measurement.positions[b])
        doses.append(measurement.dose[b] / counts)
        snapped.append(distance(setup, state["requested"][b].clamp(0, 1), measurement.positions[b]))
        scores = {name: float(values[b]) for name, values in state["scores"].items()}
        loss = float(state["loss"][b, -1])
        new, every, dose = positions[-1], torch.cat(positions), torch.cat(doses)
        stages.append(Stage(new, every, dose, state["potential"][b], loss, scores, state["seconds"]))
    away = float(torch.cat(snapped).mean()) if chosen.scan.microscope == "recorded" else None
    losses = tuple(states[-1]["loss"][b].tolist())
    probe = setup.probe_radius(defocus=float(measurement.defocus[b].median()))
    return Scan(chosen.scan.policy, what, setup.field, probe, tuple(stages), reference[b], losses, away)


def _table(states: list[dict[str, Any]], batch: int) -> report.Table:
    rows = []
    for number, state in enumerate(states, 1):
        scores = [float(state["scores"][name].mean()) for name in ("ssim", "ssim_aligned", "correlation")]
        seconds = [state["seconds"].get(name, 0.0) for name in ("decide", "acquire", "reconstruct")]
        rows.append((number, state["measurement"].positions.shape[1], *scores, *(round(v, 3) for v in seconds)))
    columns = ("sub-sequence", "positions", "SSIM", "SSIM, aligned", "correlation", "decide / s", "acquire / s", "reconstruct / s")
    caption = "Scores after each sub-sequence" + f", mean of {batch} specimens."
    return report.Table("Sub-sequences", caption, columns, tuple(rows))


def _facts(target: Run, setup: Setup, states: list[dict[str, Any]], counts: float) -> dict[str, str]:
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
        "started": target.provenance.created,
        "versions": ", ".join(f"{name} {number}" for name, number in target.provenance.versions.items()),
    }
