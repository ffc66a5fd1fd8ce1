"""What the learned policies are worth, by the judge: prints one JSON line for each comparison, and keeps every number in a folder.

    python experiments/learned.py paper     --weights A/reinforce.safetensors B/reinforce.safetensors ... --out FOLDER
    python experiments/learned.py recurrent --weights ... --out FOLDER [--subsequences 2]
    python experiments/learned.py saving    --weights ... --out FOLDER
    python experiments/learned.py harmless  --weights ... --out FOLDER

The last two write what they compare to FOLDER/saving.json.gz and harmless.json.gz, for `advice.py`.

Several weights are policies trained from different seeds: every test specimen is scanned by all of them, and the mean over policies is what
an interval over specimens is given for; `by_policy` has the figure of each.
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

from adaptycho import settings as tree
from adaptycho.compare import archive, race, table, trained
from adaptycho.compare.ledger import Ledger
from adaptycho.compare.strategies import CONVENTIONAL
from adaptycho.metrics import statistics
from adaptycho.settings import Settings
from adaptycho.support.parallel import cores

REGULAR = ("raster", "hexagonal", "halton", "poisson-disk")
STRONG = ("raster", "hexagonal", "spiral", "dense")  # the best of these is within 0.8 % of the best of all in every cell of docs/results.md
CURVE = (64, 144, 256, 400)  # positions of the conventional scans that doses are compared along
FILLING = [0.15, 0.35]
DOSES = (300.0, 1000.0, 3000.0)
PLENTY = 1000.0  # electrons per position from which on the learned scan is not offered more positions at less dwell: they take long to scan
# Below, noise alone makes 1 % of two rasters on 25 specimens: test and training specimens of every scan, also the conventional.
SPECIMENS, TUNING = 50, 12
BEST = race.PROTOCOLS["best"]
INSIDE = "correlation_inside"
Case = tuple[float, torch.Tensor, torch.Tensor, torch.Tensor]  # dose, scores, and the doses and scores of a curve
WORKERS = int(os.environ.get("WORKERS", "0"))


def progress(items: Any, total: int, what: str) -> Any:
    for i, item in enumerate(items, 1):
        if i % 50 == 0 or i == total:
            print(f"{what}: {i} of {total}", file=sys.stderr, flush=True)
        yield item


def measure(
    cells: Sequence[Settings],
    rules: race.Protocol,
    strategies: Sequence[str],
    weights: Sequence[Path],
    out: Path,
    candidates: Sequence[str] = (),
) -> list[race.Cell]:
    """Every cell by some strategies, and by every policy as `NAME 1`, `NAME 2`, ...; results are kept in the folder.

    A policy is compared as its own strategy, or as every learned one among `candidates`; `auto` there is the best of all of them.
    """
    out.mkdir(parents=True, exist_ok=True)
    ledger = Ledger.open(out / "results.jsonl")
    base = [tree.update(c, dict(rules.changes), "protocol") for c in cells]
    how: dict[str, Any] = {"progress": progress, "workers": WORKERS or cores()}
    done = race.judge(base, rules, strategies, ledger, **how)
    if weights:
        found = trained.judged(base, rules, trained.read(weights), ledger, candidates, **how)
        done = [trained.joined(*pair) for pair in zip(done, found, strict=True)]
    return done


def column(cell: race.Cell, metric: str, name: str) -> torch.Tensor:
    return table.columns(cell, metric)[name].double()


def ours(cell: race.Cell, metric: str, learned: str) -> torch.Tensor:
    """Mean over policies, for each specimen."""
    found = trained.by_policy(cell, metric, learned)
    assert found is not None, f"{learned} has not been measured"
    return found.double().mean(0)


def listed(estimate: statistics.Estimate) -> list[float]:
    return [round(float(v), 4) for v in (estimate.mean, estimate.low, estimate.high)]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def gains(cell: race.Cell, learned: str, bases: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
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
    usual = race.PROTOCOLS["paper"]
    rules = replace(usual, changes={**usual.changes, "scan": {"subsequences": subsequences}})
    names = ["random", *REGULAR, "oracle"]
    done = measure([cell], rules, names, weights, out)[0]
    found = gains(done, learned, ["random", *REGULAR], ["ssim", "ssim_uniform", "ssim_aligned", "correlation"])
    print(
        json.dumps(
            {
                "comparison": learned,
                "subsequences": subsequences,
                "specimens": 25,
                "oracle_ssim": round(float(column(done, "ssim", "oracle").mean()), 4),
                **found,
                **table.source(done),
            }
        )
    )


def recurrent(weights: Sequence[Path], out: Path, subsequences: int) -> None:
    paper(weights, out, "recurrent", subsequences, {"rotation": 0.0})


def saving(weights: Sequence[Path], out: Path, doses: Sequence[float] = DOSES) -> None:
    """Dose saved on islands and particles of random filling: doses of the best conventional scan for the same score."""
    cells = [
        tree.update(
            tree.preset("light"),
            {
                "specimen": {"family": family, "options": {"filling": FILLING}},
                "scan": {"positions": positions, "dose": dose},
                "evaluate": {"specimens": 25},
            },
            "cell",
        )
        for family in ("island", "particles")
        for dose in doses
        for positions in CURVE
    ]
    done = measure(cells, BEST, STRONG, [], out)
    mine = scanned([c for c in cells if c.scan.positions in (64, 144)], ["oracle-density"], weights, out)
    cases: dict[str, list[Case]] = {}
    bounded: dict[str, int] = {}
    for cell in mine:
        dose, positions = cell.settings.scan.dose, cell.settings.scan.positions
        case, line = saved(cell, done, strategy(cell.settings))
        for of in (f"{dose:g}", f"{positions} x {dose:g}"):
            cases.setdefault(of, []).append(case)
            bounded[of] = bounded.get(of, 0) + (line["bounded"] is not None)
        print(json.dumps({"comparison": "saving", **line}), flush=True)
    # Specimens are drawn alike in all cells of a mean; those beyond the curve's end count with the end.
    means = {of: listed(statistics.mean_dose_saving(found, generator=seeded())) for of, found in cases.items()}
    print(json.dumps({"comparison": "saving", "means": means, "bounded": bounded, **table.source(mine[-1])}))
    archive.write(out / "saving.json.gz", along(mine, done))


def strategy(cell: Settings) -> str:
    """The learned strategy of a cell: where electrons are few it may also be the same electrons on more positions, or not adapt at all."""
    return "adaptive" if cell.scan.dose >= PLENTY else "auto"


def scanned(
    cells: Sequence[Settings], strategies: Sequence[str], weights: Sequence[Path], out: Path, conventional: Sequence[str] = ()
) -> list[race.Cell]:
    """Every cell by some strategies without a policy, and by the learned scans.

    Where electrons are few there also is `auto`, which may be the learned scan, the same electrons on more positions, or a dense raster.
    With `conventional` scans it is everywhere, and may be those instead of the dense raster.
    """
    plenty = ["adaptive", *conventional, "auto"] if conventional else ["adaptive"]
    few = ["adaptive", "adaptive-dense", *(conventional or ["dense"]), "auto"]
    found = dict[int, race.Cell]()
    for candidates, some in ((few, [c for c in cells if c.scan.dose < PLENTY]), (plenty, [c for c in cells if c.scan.dose >= PLENTY])):
        found |= zip(map(id, some), measure(some, BEST, strategies, weights, out, candidates), strict=True)
    return [found[id(cell)] for cell in cells]


def along(cells: Sequence[race.Cell], curve: Sequence[race.Cell]) -> list[race.Cell]:
    """The cells of a curve, with what else was measured in some of them."""
    return [next((trained.joined(one, c) for c in cells if c.settings == one.settings), one) for one in curve]


def saved(cell: race.Cell, among: Sequence[race.Cell], name: str) -> tuple[Case, dict[str, Any]]:
    """A learned strategy of one cell against the conventional scans of its family and dose along their numbers of positions."""
    scan = cell.settings.scan
    curve = [c for c in among if beside(c, cell)]
    names = [table.best_of(c, CONVENTIONAL) for c in curve]
    known = torch.stack([column(c, INSIDE, n) for c, n in zip(curve, names, strict=True) if n])
    at = torch.tensor([c.settings.scan.positions * scan.dose for c in curve], dtype=torch.float64)
    same = [c.settings.scan.positions for c in curve].index(scan.positions)

    def factor(score: torch.Tensor) -> statistics.Estimate:
        return statistics.dose_saving(scan.positions * scan.dose, score, at, known, generator=seeded())

    score = ours(cell, INSIDE, name)
    mine = factor(score)
    line = {
        "family": family(cell),
        "dose": scan.dose,
        "positions": scan.positions,
        "strategy": name,
        "saving": listed(mine),
        "saving_as_asked": listed(factor(ours(cell, INSIDE, "adaptive"))),
        "bounded": mine.bounded,
        "by_policy": [round(float(factor(column(cell, INSIDE, n)).mean), 3) for n in cell.numbers if n.startswith(f"{name} ")],
        "oracle": listed(factor(column(cell, INSIDE, "oracle-density"))),
        "score": round(float(score.mean()), 4),
        "conventional": names[same],
        "conventional_score": round(float(known[same].mean()), 4),
        "gain": listed(statistics.relative(score, known[same], generator=seeded())),
        "plans": [(p.strategy, p.defocus) for n, p in cell.plans.items() if n.startswith(f"{name} ")],
        **table.source(cell),
    }
    return (scan.positions * scan.dose, score, at, known), line


def family(cell: race.Cell) -> str:
    return cell.settings.specimen.family


def beside(one: race.Cell, other: race.Cell) -> bool:
    """Whether two are of one family and dose: of the comparisons that are made together they then differ in positions only."""
    return family(one) == family(other) and one.settings.scan.dose == other.settings.scan.dose


def harmless(weights: Sequence[Path], out: Path, doses: Sequence[float] = DOSES) -> None:
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
        for dose in doses
        for positions in (64, 144)
    ]
    done = scanned(cells, STRONG, weights, out)
    for cell in done:
        name, scan = strategy(cell.settings), cell.settings.scan
        line = {"comparison": "harmless", "family": family(cell), "dose": scan.dose, "positions": scan.positions}
        plans = [(p.strategy, p.defocus) for n, p in cell.plans.items() if n.startswith(f"{name} ")]
        asked = gains(cell, "adaptive", STRONG, [INSIDE])[INSIDE]["over_best"]
        found = gains(cell, name, STRONG, [INSIDE])[INSIDE] | {"over_best_as_asked": asked}
        print(json.dumps({**line, "strategy": name, **found, "plans": plans, **table.source(cell)}), flush=True)
    archive.write(out / "harmless.json.gz", done)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("what", choices=["paper", "recurrent", "saving", "harmless"])
    asked.add_argument("--weights", type=lambda p: Path(p).resolve(), nargs="+", required=True)
    asked.add_argument("--subsequences", type=int, default=5)
    asked.add_argument("--doses", type=float, nargs="+", default=DOSES, help="electrons per position, of saving and harmless")
    asked.add_argument("--out", type=Path, required=True)
    given = asked.parse_args()
    match given.what:
        case "paper":
            paper(given.weights, given.out)
        case "recurrent":
            recurrent(given.weights, given.out, given.subsequences)
        case "saving":
            saving(given.weights, given.out, given.doses)
        case _:
            harmless(given.weights, given.out, given.doses)


if __name__ == "__main__":
    main()
