"""What the learned policies are worth, by the judge: prints one JSON line for each comparison, and keeps every number in a folder.

    python benchmarks/learned.py paper     --weights A/reinforce.safetensors B/reinforce.safetensors ... --out FOLDER
    python benchmarks/learned.py recurrent --weights ... --out FOLDER [--subsequences 2]
    python benchmarks/learned.py saving    --weights ... --out FOLDER
    python benchmarks/learned.py harmless  --weights ... --out FOLDER
    python benchmarks/learned.py cells     --weights ... --out FOLDER

`cells` scans every comparison of docs/results/best.json.gz, against the scans that are in it, and writes the mean over policies beside some
of those to FOLDER/learned.json.gz, to draw from.

Several weights are policies trained from different seeds: every test specimen is scanned by all of them, and the mean over policies is what
an interval over specimens is given for; `by_policy` has the figure of each.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from adaptycho import settings as tree
from adaptycho.evaluate import archive, judge, table, trained
from adaptycho.evaluate.ledger import Ledger
from adaptycho.evaluate.strategies import CONVENTIONAL
from adaptycho.evaluate.trial import Plan
from adaptycho.metrics import statistics
from adaptycho.settings import Settings
from adaptycho.spread import cores
from adaptycho.train.practice import FILLED

REGULAR = ("raster", "hexagonal", "halton", "poisson-disk")
STRONG = ("raster", "hexagonal", "spiral", "dense")  # the best of these is within 0.8 % of the best of all in every cell of docs/results.md
DRAWN = (*CONVENTIONAL, "raster:focused", "oracle-density")
CURVE = (64, 144, 256, 400)  # positions of the conventional scans that doses are compared along
FILLING = [0.15, 0.35]
PLENTY = 1000.0  # electrons per position from which on the learned scan is not offered more positions at less dwell: they take long to scan
# There noise alone makes 1 % of two rasters on 25 specimens: test and training specimens of every scan, also the conventional.
SPECIMENS, TUNING = 50, 12
BEST = judge.PROTOCOLS["best"]
INSIDE = "correlation_inside"
Case = tuple[float, torch.Tensor, torch.Tensor, torch.Tensor]  # dose, scores, and the doses and scores of a curve
RESULTS = Path(__file__).parents[1] / "docs" / "results"
WORKERS = int(os.environ.get("WORKERS", "0"))


def progress(items: Any, total: int, what: str) -> Any:
    for i, item in enumerate(items, 1):
        if i % 50 == 0 or i == total:
            print(f"{what}: {i} of {total}", file=sys.stderr, flush=True)
        yield item


def measure(
    cells: Sequence[Settings],
    rules: judge.Protocol,
    strategies: Sequence[str],
    weights: Sequence[Path],
    learned: str,
    out: Path,
    results: Path | None = None,
) -> list[judge.Cell]:
    """Every cell by every strategy, the learned one once with each file of weights, as `NAME 1`, `NAME 2`, ...

    Finished comparisons are written to the folder `out`, single results to the folder `results`, which is the same if it is not given.
    """
    out.mkdir(parents=True, exist_ok=True)
    ledger = Ledger.open((results or out) / "results.jsonl")
    base = [tree.update(c, dict(rules.changes), "protocol") for c in cells]
    how: dict[str, Any] = {"progress": progress, "workers": WORKERS or cores()}
    done = judge.judge(base, rules, strategies, ledger, **how)
    if weights:
        policies = [replace(policy, strategy=learned) for policy in trained.read(weights)]
        done = [trained.joined(*pair) for pair in zip(done, trained.judged(base, rules, policies, ledger, **how), strict=True)]
    archive.write(out / "cells.json.gz", done)
    return done


def column(cell: judge.Cell, metric: str, name: str) -> torch.Tensor:
    return table.columns(cell, metric)[name].double()


def ours(cell: judge.Cell, metric: str, learned: str) -> torch.Tensor:
    """Mean over policies, for each specimen."""
    found = trained.by_policy(cell, metric, learned)
    assert found is not None, f"{learned} has not been measured"
    return found.double().mean(0)


def listed(estimate: statistics.Estimate) -> list[float]:
    return [round(float(v), 4) for v in (estimate.mean, estimate.low, estimate.high)]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def gains(cell: judge.Cell, learned: str, bases: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """Relative gain over random and over the best of others, in several metrics."""
    found: dict[str, Any] = {}
    for metric in metrics:
        means = {n: float(column(cell, metric, n).mean()) for n in bases}
        best = max((n for n in bases if n != "random"), key=lambda n: means[n])
        mine = ours(cell, metric, learned)
        found[metric] = {
            "learned": round(float(mine.mean()), 4),
            "by_policy": [round(float(column(cell, metric, n).mean()), 4) for n in cell.numbers if n.startswith(f"{learned} ")],
            **{n: round(m, 4) for n, m in means.items()},
            "best_other": best,
            "over_best": listed(statistics.relative(mine, column(cell, metric, best), generator=seeded())),
        }
        if "random" in bases:
            found[metric]["over_random"] = listed(statistics.relative(mine, column(cell, metric, "random"), generator=seeded()))
    return found


def paper(
    weights: Sequence[Path], out: Path, learned: str = "adaptive", subsequences: int = 5, options: dict[str, Any] | None = None
) -> None:
    cell = tree.update(
        tree.preset("light"), {"specimen": {"options": options or {}}, "scan": {"positions": 250}, "evaluate": {"specimens": 25}}, "cell"
    )
    usual = judge.PROTOCOLS["paper"]
    rules = replace(usual, changes={**usual.changes, "scan": {"subsequences": subsequences}})
    names = ["random", *REGULAR, "oracle"]
    done = measure([cell], rules, names, weights, learned, out)[0]
    found = gains(done, learned, ["random", *REGULAR], ["ssim", "ssim_uniform", "ssim_aligned", "correlation"])
    print(
        json.dumps(
            {
                "comparison": learned,
                "subsequences": subsequences,
                "specimens": 25,
                "oracle_ssim": round(float(column(done, "ssim", "oracle").mean()), 4),
                **found,
            }
        )
    )


def recurrent(weights: Sequence[Path], out: Path, subsequences: int) -> None:
    paper(weights, out, "recurrent", subsequences, {"rotation": 0.0})


def saving(weights: Sequence[Path], out: Path) -> None:
    """Dose saved on islands and particles of random filling: doses of the best conventional scan for the same score."""
    specimens = 25
    cells = [
        tree.update(
            tree.preset("light"),
            {
                "specimen": {"family": family, "options": {"filling": FILLING}},
                "scan": {"positions": positions, "dose": dose},
                "evaluate": {"specimens": specimens},
            },
            "cell",
        )
        for family in ("island", "particles")
        for dose in (300.0, 1000.0, 3000.0)
        for positions in CURVE
    ]
    ahead = [c for c in cells if c.scan.positions in (64, 144)]
    done = measure(cells, BEST, list(STRONG), [], "adaptive", out / "conventional")
    mine = scanned(ahead, ["oracle-density"], weights, out / "learned")
    cases: dict[str, list[Case]] = {}
    bounded: dict[str, int] = {}
    for cell in mine:
        dose, positions = cell.settings.scan.dose, cell.settings.scan.positions
        case, line = _saved(cell, [c for c in done if family(c) == family(cell) and c.settings.scan.dose == dose])
        for of in (f"{dose:g}", f"{positions} x {dose:g}"):
            cases.setdefault(of, []).append(case)
            bounded[of] = bounded.get(of, 0) + (line["bounded"] is not None)
        print(json.dumps(line), flush=True)
    # Specimens are drawn alike in all cells of a mean; those beyond the curve's end count with the end.
    means = {of: listed(statistics.mean_dose_saving(found, generator=seeded())) for of, found in cases.items()}
    print(json.dumps({"comparison": "saving", "means": means, "bounded": bounded}))


def strategy(cell: Settings) -> str:
    """The learned strategy of a cell: where electrons are few it may also be the same electrons on more positions."""
    return "adaptive" if cell.scan.dose >= PLENTY else "adaptive-dwell"


def scanned(cells: Sequence[Settings], others: Sequence[str], weights: Sequence[Path], out: Path) -> list[judge.Cell]:
    """Every cell by other strategies and by the learned scan; where electrons are few also by the one that may choose its dwell."""
    found = measure(cells, BEST, others, weights, "adaptive", out)
    few = [i for i, cell in enumerate(cells) if strategy(cell) != "adaptive"]
    for i, cell in zip(few, measure([cells[i] for i in few], BEST, [], weights, "adaptive-dwell", out / "dwell", out), strict=True):
        found[i] = trained.joined(found[i], cell)
    return found


def _saved(cell: judge.Cell, curve: Sequence[judge.Cell]) -> tuple[Case, dict[str, Any]]:
    """One cell against the conventional scans of its family and dose along their numbers of positions."""
    scan = cell.settings.scan
    names = [table.best_of(c, CONVENTIONAL) for c in curve]
    known = torch.stack([column(c, INSIDE, n) for c, n in zip(curve, names, strict=True) if n])
    at = torch.tensor([c.settings.scan.positions * scan.dose for c in curve], dtype=torch.float64)
    same = [c.settings.scan.positions for c in curve].index(scan.positions)

    def factor(score: torch.Tensor) -> statistics.Estimate:
        return statistics.dose_saving(scan.positions * scan.dose, score, at, known, generator=seeded())

    name = strategy(cell.settings)
    score = ours(cell, INSIDE, name)
    saved = factor(score)
    line = {
        "comparison": "saving",
        "family": family(cell),
        "dose": scan.dose,
        "positions": scan.positions,
        "strategy": name,
        "saving": listed(saved),
        "saving_as_asked": listed(factor(ours(cell, INSIDE, "adaptive"))),
        "bounded": saved.bounded,
        "by_policy": [round(float(factor(column(cell, INSIDE, n)).mean), 3) for n in cell.numbers if n.startswith(f"{name} ")],
        "oracle": listed(factor(column(cell, INSIDE, "oracle-density"))),
        "score": round(float(score.mean()), 4),
        "conventional": names[same],
        "conventional_score": round(float(known[same].mean()), 4),
        "gain": listed(statistics.relative(score, known[same], generator=seeded())),
        "plans": [(p.strategy, p.defocus) for n, p in cell.plans.items() if n.startswith(f"{name} ")],
    }
    return (scan.positions * scan.dose, score, at, known), line


def family(cell: judge.Cell) -> str:
    return cell.settings.specimen.family


def harmless(weights: Sequence[Path], out: Path) -> None:
    """Uniform specimens: how far from the best conventional scan."""
    cells = [
        tree.update(
            tree.preset("light"),
            {
                "specimen": {"family": family},
                "scan": {"positions": positions, "dose": dose},
                "evaluate": {"specimens": 25} if dose >= PLENTY else {"specimens": SPECIMENS, "tuning": TUNING},
            },
            "cell",
        )
        for family in ("crystal", "amorphous")
        for dose in (300.0, 1000.0, 3000.0)
        for positions in (64, 144)
    ]
    for cell in scanned(cells, list(STRONG), weights, out):
        name, scan = strategy(cell.settings), cell.settings.scan
        line = {"comparison": "harmless", "family": family(cell), "dose": scan.dose, "positions": scan.positions}
        plans = [(p.strategy, p.defocus) for n, p in cell.plans.items() if n.startswith(f"{name} ")]
        asked = gains(cell, "adaptive", STRONG, [INSIDE])[INSIDE]["over_best"]
        found = gains(cell, name, STRONG, [INSIDE])[INSIDE] | {"over_best_as_asked": asked}
        print(json.dumps({**line, "strategy": name, **found, "plans": plans}), flush=True)


def cells(weights: Sequence[Path], out: Path) -> None:
    """Every cell of the table on the page of results, against its conventional scans and oracles."""
    known, longer = archive.read(RESULTS / "best.json.gz"), archive.read(RESULTS / "further.json")
    found, alike = [], dict[str, list[tuple[float, float]]]()
    for mine, others in zip(scanned([cell.settings for cell in known], [], weights, out), known, strict=True):
        cell = trained.joined(others, mine)
        curve = [c for c in (*known, *longer) if family(c) == family(others) and c.settings.scan.dose == others.settings.scan.dose]
        (spent, score, at, scores), line = _saved(cell, curve)
        print(json.dumps({**line, "comparison": "cells"}), flush=True)
        found.append(_averaged(cell))
        if family(cell) not in FILLED:
            best = line["conventional_score"]
            for name, values in {"learned": score, **{n: column(cell, INSIDE, n) for n in CONVENTIONAL}}.items():
                factor = statistics.dose_saving(spent, values, at, scores, generator=seeded())
                alike.setdefault(name, []).append((float(factor.mean), float(values.mean()) / best - 1))
    # The best conventional scan of a cell is chosen on its test specimens: no single one is the best everywhere either.
    means = {name: [round(sum(v) / len(v), 4) for v in zip(*pairs, strict=True)] for name, pairs in alike.items()}
    print(json.dumps({"comparison": "cells", "where": "specimens alike everywhere", "mean_saving_and_gain": means}))
    archive.write(out / "learned.json.gz", found)


def _averaged(cell: judge.Cell) -> judge.Cell:
    """A cell to draw: some scans, and as `adaptive` what the policies measure on average."""
    name = strategy(cell.settings)
    rows = zip(*(cell.numbers[n] for n in cell.numbers if n.startswith(f"{name} ")), strict=True)
    means = tuple({metric: sum(r[metric] for r in row) / len(row) for metric in row[0]} for row in rows)
    plans, numbers = ({n: of[n] for n in DRAWN} for of in (cell.plans, cell.numbers))
    return replace(cell, plans={**plans, "adaptive": Plan("adaptive")}, numbers={**numbers, "adaptive": means})


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("what", choices=["paper", "recurrent", "saving", "harmless", "cells"])
    asked.add_argument("--weights", type=lambda p: Path(p).resolve(), nargs="+", required=True)
    asked.add_argument("--subsequences", type=int, default=5)
    asked.add_argument("--out", type=Path, required=True)
    given = asked.parse_args()
    if given.what == "recurrent":
        recurrent(given.weights, given.out, given.subsequences)
        return
    work: dict[str, Callable[[Sequence[Path], Path], None]] = {"paper": paper, "saving": saving, "harmless": harmless, "cells": cells}
    work[given.what](given.weights, given.out)


if __name__ == "__main__":
    main()
