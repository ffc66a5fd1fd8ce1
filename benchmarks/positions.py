"""Scores under the paper's protocol against the number of positions, on validation specimens: what a row of Table I is made of.

    python benchmarks/positions.py --positions 250 335 420 500 [--weights FILE] [--preset paper] [--specimens 8]

Prints one JSON line for each number of positions, with mean SSIM, SSIM aligned and correlation of

- `random`, `halton`, `hexagonal`: conventional scans;
- `oracle`: Halton positions pulled half-way to the true columns;
- `adaptive`: the field policy;
- `undisplaced`: what the field policy would do if it displaced nothing: the same survey and the same lattice after it;
- `adaptive, step x 250/P` and `random, step x 250/P`: the same patterns, reconstructed with a step that goes as far in all as that of 250.
"""

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from adaptycho import build, metrics
from adaptycho import settings as tree
from adaptycho.episode import run, split_evenly
from adaptycho.evaluate import judge, sample, trial
from adaptycho.forward import Measurement
from adaptycho.policy import Scanner, library
from adaptycho.policy.field import Field
from adaptycho.settings import Settings

PAPER = judge.PROTOCOLS["paper"]
USUAL = 250  # positions that the paper's step was chosen for
FURTHER = 100  # first validation specimen, counted from the first of the range: the earlier ones choose weights
PLAIN = ("random", "halton", "hexagonal", "oracle")
SCORES = ("ssim", "ssim_aligned", "correlation")


def measured(settings: Settings, specimen: sample.Sample, scan: Scanner | None = None, strategy: str = "random") -> Measurement:
    """Everything that one scan of a specimen sees: of a scanner, or of a strategy by name."""
    if scan is None:
        return trial.scan(trial.Plan(strategy), settings, specimen).states[-1].seen
    lengths = split_evenly(settings.scan.positions, settings.scan.subsequences)
    descent = build.reconstructor(settings, specimen.setup)
    *_, last = run(specimen.microscope, scan, descent, lengths, seed=trial.seed(settings, specimen))
    return last.seen


def scores(settings: Settings, specimen: sample.Sample, seen: Measurement, step: float = 1.0) -> list[float]:
    """SCORES of the reconstruction from a scan, with its step multiplied."""
    usual = build.reconstructor(settings, specimen.setup)
    assert isinstance(usual.step, float)
    phase = specimen.setup.crop(replace(usual, step=usual.step * step)(seen).phase)
    return [float(getattr(metrics, name)(phase, specimen.full_scan)[0]) for name in SCORES]


def scanned(settings: Settings, specimen: sample.Sample, network: Field) -> dict[str, list[float]]:
    """SCORES of every scan of one specimen."""
    still = library.scanner(Field(network.widths, survey=network.survey, lattice=network.lattice))  # untrained, it displaces nothing
    found = {name: measured(settings, specimen, strategy=name) for name in PLAIN}
    found |= {"adaptive": measured(settings, specimen, library.scanner(network)), "undisplaced": measured(settings, specimen, still)}
    shorter = USUAL / settings.scan.positions
    said = {name: scores(settings, specimen, seen) for name, seen in found.items()}
    return said | {f"{n}, step x {USUAL}/P": scores(settings, specimen, found[n], shorter) for n in ("random", "adaptive")}


def line(positions: int, found: Mapping[str, Tensor]) -> dict[str, object]:
    """Means over specimens, scores (B, 3)."""
    means = {name: values.mean(0).tolist() for name, values in found.items()}
    gain = 100 * (means["adaptive"][0] / means["random"][0] - 1)
    shown = {name: dict(zip(SCORES, (round(v, 4) for v in values), strict=True)) for name, values in means.items()}
    return {"positions": positions, "specimens": len(found["random"]), "gain_over_random": round(gain, 1), **shown}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--positions", type=int, nargs="+", default=[250, 270, 300, 320, 335, 350, 380, 420, 460, 500])
    asked.add_argument("--subsequences", type=int, default=5)
    asked.add_argument("--specimens", type=int, default=8)
    asked.add_argument("--preset", choices=tree.PRESETS, default="light")
    asked.add_argument("--weights", type=Path, help="of a field policy; the shipped one if left out")
    given = asked.parse_args()
    torch.set_num_threads(1)
    network = library.load(given.weights) if given.weights else library.shipped("lattice")
    if not isinstance(network, Field):
        asked.error(f"weights: expected those of a field policy, found {type(network).__name__}")
    base = tree.update(tree.preset(given.preset), {**PAPER.changes, "scan": {"subsequences": given.subsequences}}, "positions")
    first = base.evaluate.validation[0] + FURTHER
    specimens = [sample.simulated(base, first + i) for i in range(given.specimens)]
    for positions in given.positions:
        cell = tree.update(base, {"scan": {"positions": positions}}, "positions")
        found = [scanned(cell, specimen, network) for specimen in specimens]
        print(json.dumps(line(positions, {n: torch.tensor([each[n] for each in found]) for n in found[0]})), flush=True)


if __name__ == "__main__":
    main()
