"""How far a reconstruction is behind its best iteration when it stops by held-out electrons, and after twenty: one JSON line for each cell.

`python experiments/stopping.py [--first 820000] [--specimens 6] [--positions 64 250]`

Training specimens, hexagonal scans, the default settings (`Reconstructor.best`), at most a hundred iterations. `held_out` and `twenty` are
correlations with the truth inside the structure less that at the iteration that is best for the specimen, mean and 95 % interval (normal).
"""

import argparse
import json
import math
import os
import statistics
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from adaptycho import metrics, settings
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.stopping import stop
from adaptycho.samples import sample
from adaptycho.samples.sample import Specimen
from adaptycho.scan import patterns
from adaptycho.types import Action

FAMILIES = ("crystal", "island", "particles", "amorphous")
DOSES = (300.0, 1000.0, 1e4, 2e5)
MOST = 100


def specimen(family: str, number: int) -> Specimen:
    """A training specimen in a field of 16 Å."""
    options = {"filling": 0.3} if family == "island" else {}
    changes = {"specimen": {"family": family, "options": options}, "geometry": {"field": [16.0, 16.0], "object": "auto"}}
    return sample.simulated(settings.update(settings.preset("light"), changes, "experiment"), number)


def likeness(phase: Tensor, found: Specimen) -> float:
    """Correlation with the truth inside the structure."""
    return float(metrics.correlation(found.setup.crop(phase), found.truth, mask=found.inside)[0])


def behind(family: str, number: int, dose: float, positions: int) -> tuple[float, float, int]:
    """How far stopping and twenty iterations are behind the best, and where it stopped."""
    found = specimen(family, number)
    where = patterns.hexagonal(positions, found.setup.field)[None].float()
    seen = found.microscope.acquire(Action(where, 90.0, dose), generator=torch.Generator().manual_seed(number))
    descent = Reconstructor.best(found.setup, iterations=MOST)
    every = [likeness(one.phase, found) for one in descent.steps(seen)]
    chosen = stop(descent, seen).iterations
    return every[chosen - 1] - max(every), every[19] - max(every), chosen


def spread(values: list[float]) -> list[float]:
    """Mean and half of its 95 % interval."""
    return [round(statistics.fmean(values), 4), round(1.96 * statistics.stdev(values) / math.sqrt(len(values)), 4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=820_000)
    parser.add_argument("--specimens", type=int, default=6)
    parser.add_argument("--positions", type=int, nargs="+", default=[64, 250])
    given = parser.parse_args()
    torch.set_num_threads(1)
    for family in FAMILIES:
        for dose in DOSES:
            for positions in given.positions:
                each = [behind(family, given.first + i, dose, positions) for i in range(given.specimens)]
                held, twenty, stops = (list(column) for column in zip(*each, strict=True))
                cell: dict[str, Any] = {"family": family, "dose": dose, "positions": positions}
                print(json.dumps(cell | {"held_out": spread(held), "twenty": spread(twenty), "stops": stops}), flush=True)


if __name__ == "__main__":
    main()
