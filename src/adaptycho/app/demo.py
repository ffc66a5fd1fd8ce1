"""The five-minute tour: an adaptive scan against conventional ones, on simulated MoS2 and on recorded electron diffraction patterns."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho import draw, settings
from adaptycho.draw import Scan, Stage, report
from adaptycho.instruments import Microscope
from adaptycho.instruments.recorded import Recorded, distance
from adaptycho.metrics import bootstrap_interval
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.runs.scores import SCORES, Outcome, compare, improvement
from adaptycho.samples.windows import checkerboard
from adaptycho.scan.episode import split_evenly
from adaptycho.settings import Settings, build, microscopes
from adaptycho.types import Measurement

CONVENTIONAL = ("random", "raster", "halton")
OURS = {"simulated": "adaptive", "recorded": "heuristic"}  # the learned policy that comes along knows crystals, not viruses
STRATEGIES = {"simulated": ("adaptive", "heuristic", *CONVENTIONAL), "recorded": ("heuristic", *CONVENTIONAL)}
SPECIMENS = 8


@dataclass(frozen=True, eq=False)
class Comparison:
    """One specimen class in the demo: every strategy's outcome and what the scores refer to."""

    name: str
    settings: Settings
    microscope: Microscope
    reference: Float[Tensor, "B h w"]
    outcomes: tuple[Outcome, ...]
    counts_per_electron: float = 1.0


def run(out: Path, *, seed: int = 0, specimens: int = SPECIMENS, tell: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Runs the tour and writes `report.html` and its main pictures as PNG into a folder.

    Args:
        out: folder for the report.
        seed: of specimens, noise and random scans.
        specimens: number of simulated specimens.
        tell: is told what is going on.

    Returns:
        JSON-ready: `ssim`, `ssim_aligned` and `correlation` by specimen class and strategy (means), `ssim_ci` (95 % bootstrap),
        `q_ssim_vs_random`, `q_ssim_vs_best_baseline`, `seconds`, `report`.
    """
    started = time.perf_counter()
    parts = [_simulated(seed, specimens, tell), _recorded(seed, tell)]
    tell("writing the report")
    summary: dict[str, Any] = {name: {} for name in ("ssim", "ssim_ci", "ssim_aligned", "correlation")}
    summary |= {"q_ssim_vs_random": {}, "q_ssim_vs_best_baseline": {}}
    for part in parts:
        final = {o.strategy: o.scores[-1] for o in part.outcomes}
        ssim = {name: s.ssim for name, s in final.items()}
        for key in SCORES:
            summary[key][part.name] = {name: round(float(getattr(s, key).mean()), 4) for name, s in final.items()}
        summary["ssim_ci"][part.name] = {name: [round(v, 4) for v in _interval(s)] for name, s in ssim.items()}
        ours = OURS[part.name]
        rivals = {name: ssim[name] for name in (ours, *CONVENTIONAL)}
        summary["q_ssim_vs_random"][part.name] = round(improvement(rivals, ours, "random"), 4)
        summary["q_ssim_vs_best_baseline"][part.name] = round(improvement(rivals, ours), 4)
    seconds = time.perf_counter() - started
    out.mkdir(parents=True, exist_ok=True)
    report.write(out / "report.html", _page(parts, summary, seconds))
    for part in parts:
        drawn = list(_scans(part))
        report.save_png(out / f"{part.name}.png", draw.comparison(drawn), dpi=110)
        ours = OURS[part.name]
        report.save_png(out / f"{part.name}-{ours}.png", draw.strip(drawn[STRATEGIES[part.name].index(ours)]), dpi=110)
    summary["seconds"] = round(time.perf_counter() - started, 1)
    summary["report"] = str(out / "report.html")
    return summary


def _simulated(seed: int, specimens: int, tell: Callable[[str], None]) -> Comparison:
    chosen = settings.update(settings.preset("light"), {"scan": {"seed": seed}}, "demo")
    first, last = settings.USED  # no policy has practised on these, and those of evaluate.test are kept for reports
    numbered = {"count": specimens, "first": first + seed * specimens % (last - first - specimens)}
    chosen = settings.update(chosen, {"specimen": numbered}, "demo")
    tell(f"simulating {specimens} MoS2 specimens and their full scans of {chosen.reconstruct.reference_side**2} positions")
    microscope = build.simulated(chosen)
    reference = build.reference(chosen, microscope)
    outcomes = _compare(chosen, microscope, build.reconstructor(chosen, microscope.setup), reference, "simulated", tell)
    return Comparison("simulated", chosen, microscope, reference, outcomes)


def _recorded(seed: int, tell: Callable[[str], None]) -> Comparison:
    """Split halves: the scan replays one half of the recorded positions, the score refers to the other half, and the other way round."""
    scan = {"microscope": "recorded", "positions": 250, "seed": seed}
    chosen = settings.update(settings.Settings(), {"scan": scan, "reconstruct": settings.BEST}, "demo")
    tell("reading 4,096 recorded patterns of rotavirus particles in ice")
    recording = build.recording(chosen)
    halves = checkerboard(recording.setup, recording.measurement)
    descent = build.reconstructor(chosen, recording.setup, recording.counts_per_electron)
    microscope = Recorded(recording.setup, Measurement.stack(halves), recording.counts_per_electron)
    reference = recording.setup.crop(descent(Measurement.stack(halves[::-1])).phase)
    outcomes = _compare(chosen, microscope, descent, reference, "recorded", tell)
    return Comparison("recorded", chosen, microscope, reference, outcomes, recording.counts_per_electron)


def _compare(
    chosen: Settings, microscope: Microscope, descent: Reconstructor, reference: Tensor, part: str, tell: Callable[[str], None]
) -> tuple[Outcome, ...]:
    lengths = split_evenly(chosen.scan.positions, chosen.scan.subsequences)
    scanners = {name: build.scanner(chosen, name) for name in STRATEGIES[part]}
    outcomes = []
    for outcome in compare(microscope, scanners, descent, lengths, reference, seed=chosen.scan.seed):
        tell(f"{part}, {outcome.strategy}: SSIM {float(outcome.scores[-1].ssim.mean()):.3f}")
        outcomes.append(outcome)
    return tuple(outcomes)


def _interval(values: Float[Tensor, " B"]) -> tuple[float, float]:
    return bootstrap_interval(values, generator=torch.Generator().manual_seed(0))


def _page(parts: list[Comparison], summary: dict[str, Any], seconds: float) -> str:
    tables = [_table(part, summary) for part in parts]
    scans = [scan for part in parts for scan in _scans(part)]
    ranked = [scan for specimen in range(len(parts[0].reference)) for scan in _scans(parts[0], specimen)]
    simulated = parts[0].settings
    intro = (
        "Every strategy gets the same number of beam positions on the same specimen. The conventional ones lay them out beforehand; the "
        "adaptive one looks at the reconstruction after each sub-sequence and decides where the next positions go.\n\n"
        "The simulated specimens are MoS2 monolayers of random orientation under the protocol of Schloz et al.: 250 positions in 5 "
        "sub-sequences, 5 gradient steps on the squared error of intensities, scored against the reconstruction of a full scan of 10,000 "
        "positions. The recorded one is a cryo-electron ptychography data set of rotavirus particles in ice: a scan may choose among the "
        "positions of one checkerboard half and is scored against the reconstruction of the other half."
    )
    facts = {
        "beam (simulated)": f"{simulated.beam.energy / 1e3:g} keV, {simulated.beam.semiangle:g} mrad" if simulated.beam.energy else "",
        "electrons per position (simulated)": f"{simulated.scan.dose:.3g}",
        "positions": " and ".join(f"{p.settings.scan.positions} ({p.name})" for p in parts),
        "seed": str(simulated.scan.seed),
        "time": f"{seconds:.0f} s",
    }
    return report.page("An adaptive scan against conventional ones", intro, tables, scans, facts, ranked=ranked)


def _table(part: Comparison, summary: dict[str, Any]) -> report.Table:
    count = len(part.reference)
    rows = []
    for outcome in part.outcomes:
        name = outcome.strategy
        low, high = summary["ssim_ci"][part.name][name]
        gain = improvement({o.strategy: o.scores[-1].ssim for o in part.outcomes}, name, "random")
        values = [summary[key][part.name][name] for key in SCORES]
        rows.append((name, values[0], f"{low:.3f} to {high:.3f}", f"{100 * gain:+.1f} %", values[1], values[2]))
    caption = {
        "simulated": f"Mean of {count} specimens with a 95 % bootstrap interval; Q is the relative gain in SSIM over the random scan.",
        "recorded": f"Mean of {count} scans, one on each half of the recorded positions; Q is the gain in SSIM over the random scan.",
    }[part.name]
    title = {"simulated": "Simulated MoS2", "recorded": "Recorded rotavirus particles"}[part.name]
    columns = ("strategy", "SSIM", "95 % interval", "Q over random", "SSIM, aligned", "correlation")
    return report.Table(title, caption, columns, tuple(rows))


def _scans(part: Comparison, specimen: int = 0) -> Iterator[Scan]:
    """One specimen's scans as the report draws them."""
    setup = part.microscope.setup
    for outcome in part.outcomes:
        stages, snapped = [], []
        for state, scores in zip(outcome.states, outcome.scores, strict=True):
            snapped.append(distance(setup, state.action.positions[specimen], state.latest.positions[specimen]))
            stages.append(
                Stage(
                    state.latest.positions[specimen],
                    state.seen.positions[specimen],
                    state.seen.dose[specimen] / part.counts_per_electron,
                    state.potential[specimen],
                    loss=float(state.reconstruction.loss[specimen, -1]),
                    scores=scores.of(specimen),
                    seconds=state.seconds,
                )
            )
        name = {"simulated": "MoS2, simulated", "recorded": "rotavirus particles, recorded"}[part.name] + (
            f" ({specimen + 1})" if specimen else ""
        )
        losses = tuple(outcome.states[-1].reconstruction.loss[specimen].tolist())
        mean = float(torch.cat(snapped).mean()) if not microscopes.of(part.settings).capabilities.anywhere else None
        yield Scan(outcome.strategy, name, setup.field, setup.probe_radius(), tuple(stages), part.reference[specimen], losses, mean)
