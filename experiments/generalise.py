"""How much of its gain a field policy keeps where it was never trained: other materials, and other conditions of specimen and instrument.

    python experiments/generalise.py --weights A/reinforce.safetensors B/reinforce.safetensors ... --out FOLDER

Policies trained on MoS2 under the paper's protocol (250 positions, 5 sub-sequences) scan test specimens of every case; one JSON line each.
`over_random` is the relative gain over the random scan, `over_best` that over the best of raster, hexagonal, Halton and Poisson disk, and
`oracle_over_random` what pulling positions half-way to the true atoms gains. `kept` is the gain over random here, over that on MoS2, and
`kept_of_oracle` the same of the share of the oracle's gain that is reached: some cases have less to gain. Crystals here and there are
drawn separately for the intervals of both, even where their numbers are the same, which is cautious.

Every specimen has an orientation of its own, so rotation is part of every case. `--cases` takes some of them; MoS2 is always measured.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ase.io
import torch
from ase import Atoms
from ase.build import graphene, mx2
from learned import REGULAR, column, gains, listed, measure, ours, seeded
from torch import Tensor

from adaptycho import settings as tree
from adaptycho.compare import race, table
from adaptycho.metrics import statistics
from adaptycho.metrics.statistics import Estimate
from adaptycho.settings import Settings

TRAINED = "MoS2"
METRICS = ("ssim", "ssim_aligned", "correlation")
LAYER = 10.0  # Å along the beam: a cell needs a height, and one slice makes no use of it
Changes = dict[str, dict[str, Any]]

CONDITIONS: dict[str, Changes] = {
    "80 keV, 25 mrad": {"beam": {"energy": 80e3, "semiangle": 25.0}},
    "strained by 5 %": {"specimen": {"options": {"strain": [0.05, -0.05, 0.03]}}},
    "10 % vacancies": {"specimen": {"family": "vacancies", "options": {"fraction": 0.1}}},
    "two grains": {"specimen": {"family": "boundary"}},
    # Positions and full scan as dense as on 20 x 20 Å.
    "field 30 x 30 Å": {
        "geometry": {"field": [30.0, 30.0], "object": "auto"},
        "scan": {"positions": 562},
        "reconstruct": {"reference_side": 150},
    },
    "field 15 x 30 Å": {
        "geometry": {"field": [15.0, 30.0], "object": "auto"},
        "scan": {"positions": 281},
        "reconstruct": {"reference_side": 106},
    },
    "150 positions": {"scan": {"positions": 150}},
    "400 positions": {"scan": {"positions": 400}},
    "dose / 10": {"scan": {"dose": 2.14e4}},
    "dose / 100": {"scan": {"dose": 2.14e3}},
    "jitter 0.1 Å": {"instrument": {"jitter": 0.1}},
    "jitter 0.3 Å": {"instrument": {"jitter": 0.3}},
    "background 10 %": {"instrument": {"background": 20.9}},  # of the electrons of a pattern, on 32 x 32 pixels
    "contamination 0.1 rad": {"specimen": {"contamination": 0.1}},
    "contamination 0.3 rad": {"specimen": {"contamination": 0.3}},
    "source 0.2 Å": {"instrument": {"source_size": 0.2}},
    "source 0.4 Å": {"instrument": {"source_size": 0.4}},
    "defocus 20 Å": {"beam": {"defocus": 20.0}},
    "defocus 50 Å": {"beam": {"defocus": 50.0}},
}


def sheets() -> dict[str, Atoms | None]:
    """Unit cells of one layer; None are those that the settings know by name. Lattice constants in Å as published for the layers."""
    square = [3.77, 3.77, LAYER]
    return {
        "WSe2": None,
        "graphene": None,
        "MoSe2": mx2("MoSe2", kind="2H", a=3.29, thickness=3.34, vacuum=LAYER / 2),
        "WS2": mx2("WS2", kind="2H", a=3.15, thickness=3.14, vacuum=LAYER / 2),
        "MoTe2": mx2("MoTe2", kind="2H", a=3.52, thickness=3.61, vacuum=LAYER / 2),
        "SnS2": mx2("SnS2", kind="1T", a=3.65, thickness=2.96, vacuum=LAYER / 2),
        "hBN": graphene("BN", a=2.50, vacuum=LAYER / 2),
        # Zigzag rows along x; two puckered half-layers.
        "phosphorene": Atoms(
            "P4",
            cell=[3.31, 4.38, LAYER],
            pbc=True,
            scaled_positions=[[0, 0.081, 0.3935], [0.5, 0.419, 0.3935], [0, 0.919, 0.6065], [0.5, 0.581, 0.6065]],
        ),
        "FeSe": Atoms("Fe2Se2", cell=square, pbc=True, scaled_positions=[[0, 0, 0.5], [0.5, 0.5, 0.5], [0, 0.5, 0.64], [0.5, 0, 0.36]]),
    }


def cases(folder: Path, specimens: int, wanted: Sequence[str] | None = None) -> dict[str, Settings]:
    """Settings of every case by name, the training condition first; structures that have no name are written into the folder.

    Raises:
        ValueError: a case is wanted that does not exist.
    """
    trained = tree.update(tree.preset("light"), {"scan": {"positions": 250}, "evaluate": {"specimens": specimens}}, "cell")
    changes: dict[str, Changes] = {TRAINED: {}}
    for name, unit in sheets().items():
        source = folder / "structures" / f"{name}.xyz"
        changes[name] = {"specimen": {"structure": name if unit is None else source.as_posix()}}
        if unit is not None and not source.exists() and (wanted is None or name in wanted):
            source.parent.mkdir(parents=True, exist_ok=True)
            ase.io.write(source, unit)
    changes |= CONDITIONS
    if unknown := [name for name in wanted or () if name not in changes]:
        raise ValueError(f"cases: expected some of {', '.join(changes)}, found {', '.join(unknown)}")
    return {n: tree.update(trained, c, n) for n, c in changes.items() if wanted is None or n in (TRAINED, *wanted)}


def gain(means: Tensor) -> Tensor:
    """Relative gain of the first of mean scores (S, 2 or more) over the second."""
    return (means[:, 0] - means[:, 1]) / means[:, 1]


def share(means: Tensor) -> Tensor:
    """What the first of mean scores (S, 3) gains over the second, over what the third, the oracle's, does."""
    return (means[:, 0] - means[:, 1]) / (means[:, 2] - means[:, 1])


def kept(
    measure: Callable[[Tensor], Tensor], here: Sequence[Tensor], there: Sequence[Tensor], *, generator: torch.Generator
) -> Estimate | None:
    """A function of mean scores (S, M) -> (S,) on some specimens, over the same on others, with a 95 % bootstrap interval.

    Both sets of specimens are drawn anew, each on its own, and the interval is expanded for the smaller of the two as in
    `adaptycho.metrics.statistics`. None where there is nothing to keep: if resampling takes what is divided by to zero or below.
    """
    tables = [torch.stack(statistics.filled(scores), 1) for scores in (here, there)]
    part, whole = (float(measure(t.mean(0, keepdim=True))) for t in tables)
    drawn = []
    for scores in tables:
        which = torch.randint(len(scores), (statistics.SAMPLES, len(scores)), generator=generator)
        drawn.append(measure(scores[which].mean(1)))
    count = min(len(t) for t in tables)
    level = statistics.expanded(count)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    if not (math.isfinite(part) and float(torch.quantile(drawn[1], ends)[0]) > 0):
        return None
    low, high = torch.quantile(drawn[0] / drawn[1].clamp(min=1e-9), ends).tolist()
    return Estimate(part / whole, low, high, count)


def line(name: str, cell: race.Cell, trained: race.Cell) -> dict[str, Any]:
    """What is said about one case."""
    found = gains(cell, "adaptive", ["random", *REGULAR], METRICS)
    for metric in METRICS:
        here, there = ([ours(c, metric, "adaptive"), column(c, metric, "random"), column(c, metric, "oracle")] for c in (cell, trained))
        found[metric]["oracle_over_random"] = listed(statistics.relative(here[2], here[1], generator=seeded()))
        reached = statistics.oracle_fraction(*here, generator=seeded())
        found[metric]["of_oracle"] = listed(reached) if math.isfinite(reached.mean) else None
        for key, function in (("kept", gain), ("kept_of_oracle", share)):
            estimate = kept(function, here, there, generator=seeded())
            known = key == "kept" or math.isfinite(reached.mean)
            found[metric][key] = listed(estimate) if known and estimate is not None else None
    return {"comparison": "generalise", "case": name, "specimens": len(cell.numbers["random"]), **found, **table.source(cell)}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--weights", type=lambda p: Path(p).resolve(), nargs="+", required=True)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--specimens", type=int, default=25)
    asked.add_argument("--cases", nargs="+", help="some of the cases by name; all if left out")
    given = asked.parse_args()
    try:
        wanted = cases(given.out, given.specimens, given.cases)
    except ValueError as error:
        asked.error(str(error))
    done = measure(list(wanted.values()), race.PROTOCOLS["paper"], ["random", *REGULAR, "oracle"], given.weights, given.out)
    for name, cell in zip(wanted, done, strict=True):
        print(json.dumps(line(name, cell, done[0])), flush=True)


if __name__ == "__main__":
    main()
