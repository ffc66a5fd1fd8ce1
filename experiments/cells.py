"""What the learned scan is worth in every comparison of the judge's table (docs/results/best.json.gz), measured again on more specimens.

    python experiments/cells.py --weights A/imitate.safetensors B/imitate.safetensors ... --out FOLDER

In every comparison the learned scan is one candidate among all the conventional ones, and the candidate that is best on training specimens
is what counts (`auto`): a scan that adapts where that pays, and does what everyone does where it does not. Dose saved is along the numbers
of positions of the conventional scans, against two references: the one that is best on the test specimens, which nobody can know
beforehand, and the one that is best on the training specimens. Where specimens are alike everywhere and electrons not few, scans differ by
tenths of a per cent, and there are more specimens.

Prints one JSON line for each comparison, and the means. FOLDER/learned.json.gz has the mean over policies beside the conventional scans, to
draw from. The folder may be that of `learned.py`: what is measured there is not measured again.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from learned import BEST, INSIDE, PLENTY, Case, beside, column, family, listed, measure, saved, scanned, seeded

from adaptycho import settings as tree
from adaptycho.compare import archive, race, trained
from adaptycho.compare.strategies import CONVENTIONAL
from adaptycho.metrics import statistics
from adaptycho.samples.sample import FILLED
from adaptycho.settings import Settings

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SHOWN = (*CONVENTIONAL, "raster:focused", "oracle-density")
POSITIONS = (36, 64, 144, 256, 400)  # of the conventional scans that doses are compared along
FURTHER = 625  # where structure fills a part of the field, learned scans are worth more than those


def wanted(judged: Sequence[Settings]) -> list[Settings]:
    """The comparisons of the table, and those further along their numbers of positions."""
    found = []
    for kind, dose in dict.fromkeys((s.specimen.family, s.scan.dose) for s in judged):
        changes = {"specimen": {"family": kind}, "scan": {"dose": dose}, "evaluate": enough(kind, dose)}
        cell = tree.update(tree.preset("light"), changes, "cell")
        found += [tree.update(cell, {"scan": {"positions": n}}, "cell") for n in (*POSITIONS, *([FURTHER] if kind in FILLED else []))]
    return found


def enough(kind: str, dose: float) -> dict[str, int]:
    """How many specimens to compare scans on, and to choose among them on."""
    if kind in FILLED:
        return {"specimens": 25, "tuning": 32}
    return {"specimens": 50, "tuning": 32} if dose < PLENTY else {"specimens": 100, "tuning": 64}


def compared(weights: Sequence[Path], out: Path) -> tuple[list[race.Cell], list[race.Cell]]:
    """The comparisons of the table with their learned scans, and all conventional ones."""
    table = [cell.settings for cell in archive.read(RESULTS / "best.json.gz")]
    cells = wanted(table)
    conventional = measure(cells, BEST, [*SHOWN, "auto"], [], out)
    asked = {(s.specimen.family, s.scan.dose, s.scan.positions) for s in table}
    some = [i for i, s in enumerate(cells) if (s.specimen.family, s.scan.dose, s.scan.positions) in asked]
    ahead = scanned([cells[i] for i in some], [], weights, out, CONVENTIONAL)
    return [trained.joined(conventional[i], cell) for i, cell in zip(some, ahead, strict=True)], conventional


def described(cell: race.Cell, conventional: Sequence[race.Cell]) -> tuple[tuple[Case, Case], dict[str, Any]]:
    """One comparison against both references."""
    (spent, score, at, best), line = saved(cell, conventional, "auto")
    chosen = (spent, score, at, torch.stack([column(c, INSIDE, "auto") for c in conventional if beside(c, cell)]))
    line["saving_over_chosen"] = listed(statistics.dose_saving(*chosen, generator=seeded()))
    line["chosen"] = cell.plans["auto"].strategy
    line["gain_over_chosen"] = listed(statistics.relative(score, column(cell, INSIDE, "auto"), generator=seeded()))
    return ((spent, score, at, best), chosen), line


def singly(cells: Sequence[race.Cell], conventional: Sequence[race.Cell]) -> dict[str, list[float]]:
    """Mean saving and gain of one conventional scan everywhere, and of the one that is best on training specimens (`auto`)."""
    found: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        (spent, _, at, best), line = saved(cell, conventional, "auto")
        ahead = float(column(cell, INSIDE, line["conventional"]).mean())
        for name in (*CONVENTIONAL, "auto"):
            score = column(cell, INSIDE, name)
            factor = statistics.dose_saving(spent, score, at, best, generator=seeded())
            found.setdefault(name, []).append((float(factor.mean), float(score.mean()) / ahead - 1))
    return {name: [round(sum(v) / len(v), 4) for v in zip(*pairs, strict=True)] for name, pairs in found.items()}


def averaged(cell: race.Cell) -> race.Cell:
    """A comparison to draw: the conventional scans, and what the policies measure on average, with the plan of the first."""
    plans, numbers = {n: cell.plans[n] for n in SHOWN}, {n: cell.numbers[n] for n in SHOWN}
    for name in ("adaptive", "auto"):
        rows = zip(*(cell.numbers[n] for n in cell.numbers if n.startswith(f"{name} ")), strict=True)
        numbers[name] = tuple({metric: sum(r[metric] for r in row) / len(row) for metric in row[0]} for row in rows)
        plans[name] = cell.plans[f"{name} 1"]
    return replace(cell, plans=plans, numbers=numbers)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--weights", type=lambda p: Path(p).resolve(), nargs="+", required=True)
    asked.add_argument("--out", type=Path, required=True)
    given = asked.parse_args()
    cells, conventional = compared(given.weights, given.out)
    groups: dict[str, list[tuple[tuple[Case, Case], dict[str, Any]]]] = {}
    for cell in cells:
        found, line = described(cell, conventional)
        print(json.dumps({"comparison": "cells", **line}), flush=True)
        kind = "filled in part" if family(cell) in FILLED else "alike everywhere"
        for of in (f"{kind}, {line['dose']:g} electrons", f"{kind}, {line['positions']} x {line['dose']:g}"):
            groups.setdefault(of, []).append((found, line))
    for of, some in groups.items():
        best, chosen = (listed(statistics.mean_dose_saving([pair[i] for pair, _ in some], generator=seeded())) for i in (0, 1))
        plain = {key: round(sum(line[key][0] for _, line in some) / len(some), 4) for key in ("saving_as_asked", "gain")}
        means = {"cells": len(some), "saving": best, "saving_over_chosen": chosen, **plain}
        print(json.dumps({"comparison": "cells", "mean of": of, **means}), flush=True)
    alike = [cell for cell in cells if family(cell) not in FILLED]
    print(json.dumps({"comparison": "cells", "conventional scans wherever all is alike": singly(alike, conventional)}))
    archive.write(given.out / "learned.json.gz", [averaged(cell) for cell in cells])


if __name__ == "__main__":
    main()
