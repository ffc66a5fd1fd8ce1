"""What choosing a prior without the truth costs against the best one in hindsight: prints one JSON line for each family and dose.

    python experiments/hindsight.py [--first N] [--specimens N] [--only FAMILY ...]

Each specimen is scanned hexagonally and reconstructed with the prior that its own patterns choose (`adaptycho.reconstruct.choice`), with
every candidate, and without a prior after several numbers of iterations; scores are correlations with the true phase inside the structure.
*Best in hindsight* is the candidate, or the number of iterations without one, with the best mean over these specimens, which only the truth
tells: it is favoured by having been picked on them. `lost` is how much less the chosen ones score, `over_none` how much more they do than
the default without a prior.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from learned import listed, seeded

from adaptycho import metrics
from adaptycho import settings as tree
from adaptycho.metrics import statistics
from adaptycho.reconstruct import choice
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.samples import sample
from adaptycho.samples.sample import Specimen
from adaptycho.scan import patterns
from adaptycho.support.parallel import cores, spread
from adaptycho.types import Action, Measurement

# Electrons in a pattern, positions, underfocus in Å.
SCANS = ((100.0, 64, 90.0), (300.0, 64, 90.0), (1000.0, 144, 90.0), (1000.0, 250, 0.0), (30_000.0, 144, 60.0), (200_000.0, 250, 0.0))
FAMILIES = ("island", "particles", "crystal", "vacancies", "edge", "boundary", "amorphous")
STOPS = (3, 5, 10, 20, 50)  # iterations without a prior
Scan = tuple[float, int, float]


def scanned(family: str, scan: Scan, number: int) -> tuple[Specimen, Measurement]:
    """A specimen and what an even scan sees of it."""
    dose, count, defocus = scan
    filling = {"filling": [0.15, 0.35]} if family in ("island", "particles") else {}
    found = sample.simulated(tree.update(tree.preset("light"), {"specimen": {"family": family, "options": filling}}, "cell"), number)
    where = patterns.hexagonal(count, found.setup.field)[None].float()
    draws = torch.Generator().manual_seed(number)
    return found, found.microscope.acquire(Action(where, defocus, dose), generator=draws)


def scores(task: tuple[str, Scan, int]) -> dict[str, float]:
    """Of what is chosen, and of everything that could have been."""
    found, seen = scanned(*task)

    def score(phase: torch.Tensor) -> float:
        return float(metrics.correlation(found.setup.crop(phase), found.truth, mask=found.inside)[0])

    default = Reconstructor.best(found.setup)
    told = {"chosen": score(replace(default, prior="auto")(seen).phase), "default": score(default(seen).phase)}
    for name, one in choice.candidates(default).items():
        told[name] = score(one(seen).phase)
    for done, state in enumerate(replace(default, iterations=max(STOPS)).steps(seen), 1):
        if done in STOPS:
            told[f"none, {done} iterations"] = score(state.phase)
    return told


def lines(found: dict[tuple[str, Scan], list[dict[str, float]]]) -> Iterator[dict[str, Any]]:
    """One for each family and scan."""
    for (family, (dose, count, defocus)), rows in found.items():
        table = {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}
        best = max((name for name in table if name not in ("chosen", "default")), key=lambda name: float(table[name].mean()))
        yield {
            "comparison": "hindsight",
            "family": family,
            "dose": dose,
            "positions": count,
            "defocus": defocus,
            "specimens": len(rows),
            "chosen": mean(table["chosen"]),
            "default": mean(table["default"]),
            "best": best,
            "best_score": mean(table[best]),
            "lost": mean(table[best] - table["chosen"]),
            "over_none": mean(table["chosen"] - table["default"]),
        }


def mean(values: torch.Tensor) -> list[float]:
    """Mean and ends of its 95 % interval."""
    return listed(statistics.interval(values, generator=seeded()))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--first", type=int, default=800_000, help="number of the first specimen")
    asked.add_argument("--specimens", type=int, default=8, help="of each family")
    asked.add_argument("--only", nargs="+", choices=FAMILIES, default=FAMILIES, metavar="FAMILY")
    given = asked.parse_args()
    cells = [(family, scan) for scan in SCANS for family in given.only]
    tasks = [(*cell, number) for cell in cells for number in range(given.first, given.first + given.specimens)]
    done: dict[int, dict[str, float]] = {}
    for number, told in spread(scores, tasks, workers=cores()):
        done[number] = told
        print(f"\r{len(done)} of {len(tasks)}", end="", file=sys.stderr, flush=True)
    found = {cell: [done[i] for i, task in enumerate(tasks) if task[:2] == cell] for cell in cells}
    for line in lines(found):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
