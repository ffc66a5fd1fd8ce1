"""What the field policy gains under the paper's protocol against the number of positions: why rows of Table I differ as they do.

    python experiments/positions.py [--positions 250 335 420 500] [--weights FILE] [--preset paper] [--specimens 8]

Prints one JSON line for each number of positions, of validation specimens: `rows`, of the hexagonal lattice that the policy displaces after
its survey; gains in SSIM over the random scan in per cent; mean SSIM, SSIM aligned and correlation of

- `random`; `oracle`, Halton positions pulled half-way to the true columns; `adaptive`, the field policy;
- `still`: the policy's survey and lattice with nothing displaced;
- `transposed`, `shifted`: the policy on another lattice of as many positions, with rows for columns, or half a pitch further both ways;
- `shorter survey`: the policy after a survey as long as at 250 positions;
- `random, shorter steps` and `adaptive, shorter steps`: the same patterns, with a step that goes as far in all as at 250 positions.
"""

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from adaptycho import metrics
from adaptycho import settings as tree
from adaptycho.compare import race, trial
from adaptycho.samples import sample
from adaptycho.scan.episode import run, split_evenly
from adaptycho.scan.networks import library
from adaptycho.scan.networks.field import Field, Plan, outlook
from adaptycho.scan.policies.learned import Learned
from adaptycho.settings import Settings, build
from adaptycho.types import Measurement, Memory, Observation, Scanner

PAPER = race.PROTOCOLS["paper"]
USUAL = 250  # positions that the paper's step was chosen for, and the policy trained with
FURTHER = 100  # of the validation specimens that many choose weights in training
SCORES = ("ssim", "ssim_aligned", "correlation")


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """A field policy that finds another lattice than its own after the survey, with as many positions."""

    network: Field
    how: str

    def __call__(self, seen: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """What the policy proposes there."""
        if memory is None:
            usual = outlook(seen.positions[0], seen.total, seen.field, self.network.survey)
            survey, lattice = usual.split([seen.positions.shape[1], seen.total - seen.positions.shape[1]])
            other = lattice.flip(1) if self.how == "transposed" else (lattice + 0.5 / len(lattice) ** 0.5) % 1
            memory = Plan(torch.cat([survey, other]), seen.positions)
        return self.network(seen, memory)


def scanners(network: Field) -> dict[str, Scanner]:
    """The policy, and what differs from it in one thing."""
    still = Field(network.widths, survey=network.survey, lattice=network.lattice)  # untrained, it displaces nothing
    found: dict[str, Scanner] = {"adaptive": library.scanner(network), "still": library.scanner(still)}
    return found | {how: Learned(Elsewhere(network, how), survey=network.survey) for how in ("transposed", "shifted")}


def seen(settings: Settings, specimen: sample.Sample, scanner: Scanner, survey: int | None = None) -> Measurement:
    """Everything that a scan of a specimen measures, with sub-sequences of equal length but for the survey."""
    total, parts = settings.scan.positions, settings.scan.subsequences
    lengths = split_evenly(total, parts) if survey is None else [survey, *split_evenly(total - survey, parts - 1)]
    descent = build.reconstructor(settings, specimen.setup)
    *_, last = run(specimen.microscope, scanner, descent, lengths, seed=trial.seed(settings, specimen))
    return last.seen


def scores(settings: Settings, specimen: sample.Sample, measured: Measurement, step: float = 1.0) -> list[float]:
    """SCORES of the reconstruction, with its step multiplied."""
    usual = build.reconstructor(settings, specimen.setup)
    assert isinstance(usual.step, float)
    phase = specimen.setup.crop(replace(usual, step=usual.step * step)(measured).phase)
    return [float(getattr(metrics, name)(phase, specimen.full_scan)[0]) for name in SCORES]


def scanned(settings: Settings, specimen: sample.Sample, network: Field) -> dict[str, list[float]]:
    """SCORES of every scan of one specimen."""
    known = {name: trial.scan(trial.Plan(name), settings, specimen).states[-1].seen for name in ("random", "oracle")}
    known |= {name: seen(settings, specimen, scanner) for name, scanner in scanners(network).items()}
    known["shorter survey"] = seen(settings, specimen, library.scanner(network), USUAL // settings.scan.subsequences)
    found = {name: scores(settings, specimen, measured) for name, measured in known.items()}
    shorter = USUAL / settings.scan.positions
    return found | {f"{n}, shorter steps": scores(settings, specimen, known[n], shorter) for n in ("random", "adaptive")}


def line(settings: Settings, network: Field, found: Mapping[str, Tensor]) -> dict[str, object]:
    """Means over specimens of scores (B, 3)."""
    survey, *later = split_evenly(settings.scan.positions, settings.scan.subsequences)
    lattice = outlook(torch.zeros(survey, 2), settings.scan.positions, settings.geometry.field, network.survey)[survey:]
    means = {name: values.mean(0).tolist() for name, values in found.items()}
    base = {n: means["random, shorter steps" if n.endswith("shorter steps") else "random"][0] for n in means}
    return {
        "positions": settings.scan.positions,
        "specimens": len(found["random"]),
        "lattice": sum(later),
        "rows": len(lattice[:, 0].unique()),
        "gain": {n: round(100 * (v[0] / base[n] - 1), 1) for n, v in means.items() if not n.startswith("random")},
        **{n: dict(zip(SCORES, (round(x, 4) for x in v), strict=True)) for n, v in means.items()},
    }


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--positions", type=int, nargs="+", default=[228, 230, 250, 260, 262, 300, 335, 380, 420, 500])
    asked.add_argument("--subsequences", type=int, default=5)
    asked.add_argument("--specimens", type=int, default=8)
    asked.add_argument("--preset", choices=tree.PRESETS, default="light")
    asked.add_argument("--weights", type=Path, help="of a field policy; the shipped one if left out")
    given = asked.parse_args()
    torch.set_num_threads(1)
    network = library.load(given.weights) if given.weights else library.shipped("lattice")
    if not isinstance(network, Field):
        asked.error(f"weights: expected those of a field policy, found {type(network).__name__}")
    changes = {**PAPER.changes, "scan": {"subsequences": given.subsequences}}
    base = tree.update(tree.preset(given.preset), changes, "positions")
    first = base.evaluate.validation[0] + FURTHER
    specimens = [sample.simulated(base, first + i) for i in range(given.specimens)]
    for positions in given.positions:
        cell = tree.update(base, {"scan": {"positions": positions}}, "positions")
        found = [scanned(cell, specimen, network) for specimen in specimens]
        means = {name: torch.tensor([each[name] for each in found]) for name in found[0]}
        print(json.dumps(line(cell, network, means)), flush=True)


if __name__ == "__main__":
    main()
