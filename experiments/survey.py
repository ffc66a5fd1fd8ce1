"""How well single patterns of a survey tell structure from vacuum: prints one JSON line for each statistic.

    python experiments/survey.py [--positions 16] [--specimens 40]

Every pattern of an even survey of islands gets a number by itself, before anything is reconstructed, and the reconstruction gives one for
its place. The area under the curve (AUC) is the chance that a pattern on structure has a higher number than one beside it; a position is on
structure if the specimen's outline holds it. Specimens are those that policies learn on.

- dark field: electrons outside the bright-field disc; with its neighbours, their Gaussian mean, as `adaptycho.scan.mask` takes it.
- likelihood ratio: of the mean pattern on structure against the vacuum's, both from other specimens (Neyman-Pearson for mean patterns).
- deviance: how unlikely the pattern is in vacuum, against any pattern at all.
- centre of mass: its squared distance from that of vacuum.
- variance: of the counts over those expected in vacuum, in the bright-field disc.
- phase energy: local mean of the squared fine phase, times the light, as `reduction` and `process` see it.
"""

import argparse
import json
import os
from collections.abc import Mapping

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor

from adaptycho import settings as tree
from adaptycho.metrics import statistics
from adaptycho.physics.forward import diffract
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.samples import sample
from adaptycho.samples.sample import Specimen
from adaptycho.scan import patterns
from adaptycho.scan.policies.gaussian_process import observe as energies
from adaptycho.scan.policies.reduction import mean_spacing
from adaptycho.types import Action, Measurement, Observation

FIRST = 20_000  # of the specimens, in the range to learn on
DOSES = (100.0, 300.0, 1000.0)
DEFOCI = (0.0, 30.0, 60.0, 90.0, 120.0)
TINY = 1e-6
NEAR = 0.5  # rms width of the Gaussian that neighbours count by, in mean distances between positions


def taken(found: Specimen, positions: int, dose: float, defocus: float) -> tuple[Measurement, Tensor]:
    """A survey, and which of its positions are on structure."""
    where = patterns.hexagonal(positions, found.setup.field).float()[None]
    seen = found.microscope.acquire(Action(where, defocus, dose), generator=torch.Generator().manual_seed(found.number))
    size = torch.tensor(found.inside.shape)
    rows, columns = (where[0] * size).long().clamp(max=size - 1).T
    return seen, found.inside[rows, columns]


def vacuum(setup: Setup, seen: Measurement) -> Tensor:
    """Expected counts (K, Q, Q) with nothing there."""
    return seen.dose[0, :, None, None] * diffract(setup, torch.zeros(setup.object.shape), seen.positions[0], seen.defocus[0])


def signals(seen: Measurement, empty: Tensor, mean: Tensor, found: Specimen) -> Mapping[str, Tensor]:
    """Every statistic of every pattern.

    Args:
        seen: the survey.
        empty: expected counts in vacuum.
        mean: pattern on structure over that in vacuum, from other specimens, (Q, Q).
        found: the specimen.
    """
    counts, setup = seen.patterns[0].double(), found.setup
    bright = empty[0] > 1e-3 * empty[0].amax()
    ky, kx = (torch.fft.fftfreq(n, dtype=torch.float64) for n in setup.detector)
    place = [
        torch.stack([(p * ky[:, None]).sum((1, 2)), (p * kx).sum((1, 2))], 1) / p.sum((1, 2))[:, None].clamp(min=1) for p in (counts, empty)
    ]
    expected = empty.double() + TINY
    state = Reconstructor.best(setup, iterations=10)(seen)
    count, radius = counts.shape[0], setup.probe_radius(defocus=float(seen.defocus[0, 0]))
    observation = Observation(setup.crop(state.phase), seen.positions, seen.dose, setup.field, radius, setup.resolution, count, count)
    size = np.array(setup.field)
    energy = energies(
        observation.potential[0].double().numpy(), seen.positions[0].double().numpy() * size, seen.dose[0].numpy(), observation
    )
    dark, away = counts[:, ~bright].sum(1), torch.cdist(seen.positions[0] * torch.tensor(size), seen.positions[0] * torch.tensor(size))
    near = torch.exp(-((away / (NEAR * mean_spacing(observation, count))) ** 2) / 2)
    return {
        "dark field": dark,
        "dark field with its neighbours": near @ dark / near.sum(1),
        "likelihood ratio": (counts * mean.log()).sum((1, 2)),
        "deviance": (counts * ((counts + TINY) / expected).log() - counts + expected).sum((1, 2)),
        "centre of mass": (place[0] - place[1]).square().sum(1),
        "variance": ((counts - expected).square() / expected)[:, bright].sum(1),
        "phase energy": torch.from_numpy(energy),
    }


def area(values: Tensor, on: Tensor) -> float:
    """Chance that a value on structure is above one beside it; ties count half."""
    high, low = values[on], values[~on]
    return float(((high[:, None] > low).double() + 0.5 * (high[:, None] == low)).mean())


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--positions", type=int, default=16)
    asked.add_argument("--specimens", type=int, default=40)
    given = asked.parse_args()
    changes = {"specimen": {"family": "island", "options": {"filling": [0.15, 0.35]}}}
    settings = tree.update(tree.preset("light"), changes, "survey")
    every = [sample.simulated(settings, FIRST + i) for i in range(2 * given.specimens)]
    for dose in DOSES:
        for defocus in DEFOCI:
            surveys = [taken(one, given.positions, dose, defocus) for one in every]
            first = vacuum(every[0].setup, surveys[0][0])
            others = surveys[given.specimens :]
            on = torch.cat([seen.patterns[0][there] for seen, there in others]).double().mean(0)
            mean = (on + 1e-3 * dose / on.numel()) / (first.double().mean(0) + 1e-3 * dose / on.numel())
            values = [signals(seen, first, mean, one) for one, (seen, _) in zip(every, surveys[: given.specimens], strict=False)]
            for name in values[0]:
                # Of each specimen, since the reconstruction's scale is its own; specimens that are all one or the other tell nothing.
                areas = [area(v[name], there) for v, (_, there) in zip(values, surveys, strict=False) if 0 < int(there.sum()) < len(there)]
                low, high = statistics.bootstrap_interval(torch.tensor(areas), generator=torch.Generator().manual_seed(0))
                line = {"comparison": "survey", "dose": dose, "defocus": defocus, "positions": given.positions, "signal": name}
                print(json.dumps({**line, "auc": [round(v, 3) for v in (sum(areas) / len(areas), low, high)]}), flush=True)


if __name__ == "__main__":
    main()
