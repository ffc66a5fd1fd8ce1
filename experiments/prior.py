"""What a prior in the reconstruction is worth, and what scans are worth with it: prints one JSON line for each comparison.

    python experiments/prior.py --out FOLDER [--only FAMILY:DOSE ...]

Every scan is reconstructed twice over: without a prior at its best settings (protocol `best`), and with the prior and strength that its own
patterns choose (`regularised`). Doses are compared along the best conventional scan at several numbers of positions. Everybody's defocus is
chosen on the same training specimens. The specimens reported on are numbers 2,020,000 and up, which nothing else looks at.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from learned import STRONG, listed, progress, seeded

from adaptycho import settings as tree
from adaptycho.compare import archive, race, table
from adaptycho.compare.ledger import Ledger
from adaptycho.metrics import statistics
from adaptycho.settings import Settings
from adaptycho.support.parallel import cores

RANGE = [2_020_000, 2_030_000]
DEFOCI = [60.0, 90.0, 120.0]
EVEN = ("raster", "hexagonal")  # with a prior
LOOKING = ("adaptive", "crop", "threshold", "by-hand", "oracle-density")
INSIDE, WHOLE = "correlation_inside", "correlation"
SHOWN = (INSIDE, WHOLE, "column_error", "columns_missed", "columns_invented", "dose_p95")
# Family, electrons per position, positions of the scans compared, and of the conventional ones that doses are compared along.
CASES = (
    ("island", 300.0, 64, (64, 144, 256), (64, 144, 256, 400)),
    ("particles", 300.0, 64, (64, 144, 256), (64, 144, 256, 400)),
    ("island", 1000.0, 144, (144, 256, 400), (144, 256, 400)),
    ("particles", 1000.0, 144, (144, 256, 400), (144, 256, 400)),
)
EMPTY = (("empty field", 300.0, 256, (256, 576, 1024), (256, 1024, 1600)),)  # an island on 5 % of 40 x 40 Å
UNIFORM = tuple((family, dose, count) for family in ("crystal", "amorphous") for dose, count in ((300.0, 64), (1000.0, 144)))


def cell(family: str, dose: float, positions: int) -> Settings:
    """Settings of a comparison."""
    filling = {"island": [0.15, 0.35], "particles": [0.15, 0.35], "empty field": [0.05, 0.05]}.get(family)
    empty = family == "empty field"
    changes = {
        "specimen": {"family": "island" if empty else family, "options": {} if filling is None else {"filling": filling}},
        "geometry": {"field": [40.0, 40.0], "object": "auto"} if empty else {},
        "scan": {"positions": positions, "dose": dose},
        "evaluate": {"specimens": 25, "test": RANGE, "defoci": DEFOCI},
    }
    return tree.update(tree.preset("light"), changes, "cell")


def column(found: race.Cell, name: str, metric: str) -> torch.Tensor:
    """What was measured of one strategy, of every specimen."""
    return table.columns(found, metric)[name].double()


def best(found: race.Cell, names: Sequence[str]) -> str:
    """The strategy with the best mean score."""
    return max((n for n in names if n in found.numbers), key=lambda n: float(column(found, n, INSIDE).mean()))


def curve(cells: Sequence[race.Cell], names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Electrons of the best conventional scan at each number of positions, and its scores."""
    spent = torch.tensor([c.settings.scan.positions * c.settings.scan.dose for c in cells], dtype=torch.float64)
    return spent, torch.stack([column(c, best(c, names), INSIDE) for c in cells])


def compared(family: str, plain: Sequence[race.Cell], regular: Sequence[race.Cell], names: Sequence[str]) -> list[dict[str, Any]]:
    """One line for each strategy of the first cells: its scores, and how much dose it saves."""
    asked, scan = regular[0], regular[0].settings.scan
    spent = scan.positions * scan.dose
    shown = {"family": family, "dose": scan.dose, "positions": scan.positions}
    without = best(plain[0], STRONG)
    lines = [{**shown, "strategy": without, "prior": False, **scores(plain[0], without)}]
    rival = column(asked, best(asked, EVEN), INSIDE)
    for name in (best(asked, EVEN), *names):
        mine = column(asked, name, INSIDE)
        line = {**shown, "strategy": name, "prior": True, "is": asked.plans[name].strategy, **scores(asked, name)}
        line["gain"] = listed(statistics.relative(mine, rival, generator=seeded()))
        for what, some, rivals in (("saving_over_best_without", plain, STRONG), ("saving_over_best_with", regular, EVEN)):
            if len(some) > 1:
                factor = statistics.dose_saving(spent, mine, *curve(some, rivals), generator=seeded())
                line[what], line[f"{what}_bounded"] = listed(factor), factor.bounded
        if "by-hand" in asked.numbers and name == "adaptive":
            line["less_by_hand"] = mean(mine - column(asked, "by-hand", INSIDE))
        lines.append(line)
    return [{**line, **table.source(asked)} for line in lines]


def mean(values: torch.Tensor) -> list[float | None]:
    """Mean and ends of its 95 % interval; nothing where something was not measured."""
    if not bool(values.isfinite().all()):
        return [None, None, None]
    low, high = statistics.bootstrap_interval(values, generator=seeded())
    return [round(float(v), 4) for v in (values.mean(), low, high)]


def scores(found: race.Cell, name: str) -> dict[str, Any]:
    """Means with intervals."""
    some = {metric: column(found, name, metric) for metric in SHOWN if metric in found.numbers[name][0]}
    return {metric: mean(values) for metric, values in some.items()}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--only", nargs="+", metavar="FAMILY:DOSE", help="some of the comparisons")
    given = asked.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    ledger, kept = Ledger.open(given.out / "results.jsonl"), []

    def judge(protocol: str, cells: Sequence[Settings], names: Sequence[str]) -> list[race.Cell]:
        rules = race.PROTOCOLS[protocol]  # type: ignore[index]
        found = race.judge(cells, rules, names, ledger, progress=progress, workers=cores())
        kept.extend(found)
        return found

    every = [*CASES, *((f, d, p, (p,), (p,)) for f, d, p in UNIFORM), *EMPTY]
    for family, dose, positions, regular, plain in every:
        if given.only and f"{family}:{dose:g}" not in given.only:
            continue
        without = judge("best", [cell(family, dose, p) for p in plain], STRONG)
        names = () if (family, dose, positions) in UNIFORM else LOOKING
        (first,) = judge("regularised", [cell(family, dose, positions)], EVEN)
        if names:  # which decide from a reconstruction as the protocol has it, in its sub-sequences
            changed = tree.update(first.settings, dict(race.PROTOCOLS["regularised"].changes), "protocol")
            (looking,) = judge("regularised", [changed], names)
            numbers, plans = ({**getattr(first, of), **getattr(looking, of)} for of in ("numbers", "plans"))
            first = replace(first, numbers=numbers, plans=plans)
        more = judge("regularised", [cell(family, dose, p) for p in regular if p != positions], EVEN)
        for line in compared(family, without, [first, *more], names):
            print(json.dumps({"comparison": "prior", **line}), flush=True)
        archive.write(given.out / "prior.json.gz", kept)
        print(f"{family} {dose:g}: done", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
