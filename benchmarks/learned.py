"""What the learned policies are worth, by the judge: prints one JSON line for each comparison, and keeps every number in a folder.

    python benchmarks/learned.py paper     --weights A/reinforce.safetensors B/reinforce.safetensors ... --out FOLDER
    python benchmarks/learned.py recurrent --weights ... --out FOLDER [--subsequences 2]
    python benchmarks/learned.py saving    --weights ... --out FOLDER
    python benchmarks/learned.py harmless  --weights ... --out FOLDER
    python benchmarks/learned.py gain      --before A/imitate.safetensors ... --weights A/reinforce.safetensors ... --out FOLDER
    python benchmarks/learned.py recorded  --weights ... --file RECORDING.h5 --out FOLDER

Several weights are policies trained from different seeds: every test specimen is scanned by all of them, and the mean over policies is what
an interval over specimens is given for; `by_policy` has the figure of each.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from adaptycho import build, metrics
from adaptycho import settings as tree
from adaptycho import weights as weights_file
from adaptycho.episode import run
from adaptycho.evaluate import archive, judge, table, trial
from adaptycho.evaluate.ledger import Ledger
from adaptycho.evaluate.sample import Sample
from adaptycho.evaluate.strategies import CONVENTIONAL
from adaptycho.metrics import statistics
from adaptycho.microscope.recorded import Recorded, checkerboard, window
from adaptycho.policy import library
from adaptycho.settings import Settings
from adaptycho.spread import cores
from adaptycho.train import stages
from adaptycho.train.practice import local_energy, prepare, share
from adaptycho.train.reinforce import rewards

REGULAR = ("raster", "hexagonal", "halton", "poisson-disk")
STRONG = ("raster", "hexagonal", "spiral", "dense")  # the best of these is within 0.8 % of the best of all in every cell of docs/results.md
CURVE = (64, 144, 256, 400)  # positions of the conventional scans that doses are compared along
FILLING = [0.15, 0.35]
WORKERS = int(os.environ.get("WORKERS", "0"))
TEST = 60  # first column of the recording that no policy was trained on
TALL, WINDOWS = 63, (0, 21, 42, 64)  # rows of a test window, and where they begin


def progress(items: Any, total: int, what: str) -> Any:
    for i, item in enumerate(items, 1):
        if i % 50 == 0 or i == total:
            print(f"{what}: {i} of {total}", file=sys.stderr, flush=True)
        yield item


def measure(
    cells: Sequence[Settings], protocol: str, strategies: Sequence[str], weights: Sequence[Path], learned: str, out: Path
) -> list[judge.Cell]:
    """Every cell by every strategy, the learned one once with each file of weights, as `NAME 1`, `NAME 2`, ..."""
    out.mkdir(parents=True, exist_ok=True)
    ledger = Ledger.open(out / "results.jsonl")
    rules = judge.PROTOCOLS[protocol]
    base = [tree.update(c, dict(rules.changes), "protocol") for c in cells]
    done = judge.judge(base, rules, strategies, ledger, progress=progress, workers=WORKERS or cores())
    for number, path in enumerate(weights, 1):
        with_weights = [tree.update(c, {"scan": {"weights": str(path)}}, "weights") for c in base]
        found = judge.judge(with_weights, rules, [learned], ledger, progress=progress, workers=WORKERS or cores())
        done = [
            judge.Cell(
                a.settings,
                a.protocol,
                {**a.plans, f"{learned} {number}": b.plans[learned]},
                {**a.numbers, f"{learned} {number}": b.numbers[learned]},
            )
            for a, b in zip(done, found, strict=True)
        ]
    archive.write(out / "cells.json.gz", done)
    return done


def column(cell: judge.Cell, metric: str, name: str) -> torch.Tensor:
    return table.columns(cell, metric)[name].double()


def ours(cell: judge.Cell, metric: str, learned: str) -> torch.Tensor:
    """Mean over policies, for each specimen."""
    return torch.stack([column(cell, metric, n) for n in cell.numbers if n.startswith(f"{learned} ")]).mean(0)


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
    rules = judge.PROTOCOLS["paper"]
    changed = {**rules.changes, "scan": {"subsequences": subsequences}}
    judge.PROTOCOLS["paper"] = judge.Protocol("paper", rules.reference, rules.primary, rules.tuned, changed)
    names = ["random", *REGULAR, "oracle"]
    done = measure([cell], "paper", names, weights, learned, out)[0]
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
    done = measure(cells, "best", list(STRONG), [], "adaptive", out / "conventional")
    mine = measure(ahead, "best", ["oracle-density"], weights, "adaptive", out / "learned")
    by_dose: dict[float, list[Any]] = {}
    bounded: dict[float, int] = {}
    for cell in mine:
        family, dose, positions = cell.settings.specimen.family, cell.settings.scan.dose, cell.settings.scan.positions
        curve = [c for c in done if c.settings.specimen.family == family and c.settings.scan.dose == dose]
        names = [table.best_of(c, CONVENTIONAL) for c in curve]
        known = torch.stack([column(c, "correlation_inside", n) for c, n in zip(curve, names, strict=True) if n])
        at = torch.tensor([c.settings.scan.positions * dose for c in curve], dtype=torch.float64)
        score = ours(cell, "correlation_inside", "adaptive")
        oracle = column(cell, "correlation_inside", "oracle-density")
        base = known[[c.settings.scan.positions for c in curve].index(positions)]
        saved = statistics.dose_saving(positions * dose, score, at, known, generator=seeded())
        bound = statistics.dose_saving(positions * dose, oracle, at, known, generator=seeded())
        policies = [
            round(
                float(statistics.dose_saving(positions * dose, column(cell, "correlation_inside", n), at, known, generator=seeded()).mean),
                3,
            )
            for n in cell.numbers
            if n.startswith("adaptive ")
        ]
        by_dose.setdefault(dose, []).append((positions * dose, score, at, known))
        bounded[dose] = bounded.get(dose, 0) + (saved.bounded is not None)
        print(
            json.dumps(
                {
                    "comparison": "saving",
                    "family": family,
                    "dose": dose,
                    "positions": positions,
                    "saving": listed(saved),
                    "bounded": saved.bounded,
                    "by_policy": policies,
                    "oracle": listed(bound),
                    "score": round(float(score.mean()), 4),
                    "conventional": next(names[i] for i, c in enumerate(curve) if c.settings.scan.positions == positions),
                    "conventional_score": round(float(base.mean()), 4),
                    "gain": listed(statistics.relative(score, base, generator=seeded())),
                    "defocus": [p.defocus for n, p in cell.plans.items() if n.startswith("adaptive")],
                }
            ),
            flush=True,
        )
    # Specimens are drawn alike in all cells of a dose; those beyond the curve's end count with the end.
    means = {dose: listed(statistics.mean_dose_saving(cases, generator=seeded())) for dose, cases in by_dose.items()}
    print(json.dumps({"comparison": "saving", "mean_by_dose": means, "bounded": bounded}))


def harmless(weights: Sequence[Path], out: Path) -> None:
    """Uniform specimens: how far from the best conventional scan, chosen without looking at the specimen."""
    cells = [
        tree.update(
            tree.preset("light"),
            {"specimen": {"family": family}, "scan": {"positions": positions, "dose": dose}, "evaluate": {"specimens": 25}},
            "cell",
        )
        for family in ("crystal", "amorphous")
        for dose in (300.0, 1000.0, 3000.0)
        for positions in (64, 144)
    ]
    done = measure(cells, "best", list(STRONG), weights, "adaptive", out)
    dense = measure(cells, "best", [], weights, "adaptive-dense", out / "dense")
    for cell, other in zip(done, dense, strict=True):
        base = max(STRONG, key=lambda n: float(column(cell, "correlation_inside", n).mean()))
        # Positions or dwell: which of the two is better is told, for each specimen, by all others.
        both = torch.stack([ours(cell, "correlation_inside", "adaptive"), ours(other, "correlation_inside", "adaptive-dense")])
        rest = both.sum(1, keepdim=True) - both
        chosen = both.gather(0, rest.argmax(0, keepdim=True))[0]
        freely = listed(statistics.relative(chosen, column(cell, "correlation_inside", base), generator=seeded()))
        print(
            json.dumps(
                {
                    "comparison": "harmless",
                    "family": cell.settings.specimen.family,
                    "dose": cell.settings.scan.dose,
                    "positions": cell.settings.scan.positions,
                    **gains(cell, "adaptive", STRONG, ["correlation_inside"])["correlation_inside"],
                    "dense": round(float(both[1].mean()), 4),
                    "positions_or_dwell": freely,
                }
            ),
            flush=True,
        )


def gain(before: Sequence[Path], after: Sequence[Path], out: Path) -> None:
    """What reinforcement did: test specimens scanned with the weights before and after it, paired, the same noise in both."""
    network = library.load(before[0])
    card = weights_of(before[0])["settings"]
    settings = tree.update(tree.preset("light"), card, str(before[0]))
    first = settings.evaluate.test[0]
    specimens = prepare(settings, list(range(first, first + 25)), full=True)
    work = share(tree.update(settings, {"practice": {"turn": False}}, "test"), 0, 0, 25, specimens)
    credit, width = settings.train.credit, settings.train.width
    found: dict[str, list[torch.Tensor]] = {"reward": [], "ssim": []}
    for pair in zip(before, after, strict=True):
        scores: dict[str, list[torch.Tensor]] = {"reward": [], "ssim": []}
        for path in pair:
            network = library.load(path)
            *_, last = run(work.microscope, library.scanner(network), work.reconstructor, work.lengths, seed=work.seed)
            scores["reward"].append(rewards(work, last, credit, width, stages.plan(work, network)).mean(1).double())
            scores["ssim"].append(metrics.ssim(last.potential, work.reference))
        for name, values in scores.items():
            found[name].append(torch.stack(values))
    for name, values in found.items():
        both = torch.stack(values).mean(0)
        difference = statistics.paired(both[1], both[0], generator=seeded())
        by_policy = [[round(float(x), 4) for x in v.mean(1)] for v in values]
        line = {"comparison": "gain", "measure": name, "credit": credit, "before": float(both[0].mean()), "after": float(both[1].mean())}
        print(json.dumps({**line, "difference": listed(difference), "by_policy": by_policy}))


def weights_of(path: Path) -> dict[str, Any]:
    """The card of a file of weights."""
    return weights_file.load(path).card


def replayed(weights: Sequence[Path], file: Path, out: Path) -> None:
    """Windows of recorded columns that no policy was trained on: correlation with the other split half inside the structured half."""
    rules = tree.update(
        tree.preset("light"),
        {"reconstruct": tree.BEST, "scan": {"microscope": "recorded", "file": str(file), "subsequences": 5}},
        "recorded",
    )
    whole = build.recording(rules)
    rows, columns = (torch.unique((whole.measurement.positions[0, :, a].double() * 1e6).round()) / 1e6 for a in (0, 1))
    samples = []
    for start in WINDOWS:
        span = {"rows": (float(rows[start]), float(rows[start + TALL - 1])), "columns": (float(columns[TEST]), float(columns[-1]))}
        setup, measured = window(whole.setup, whole.measurement, **span)
        halves = checkerboard(setup, measured)
        for mine, other in (halves, halves[::-1]):
            reference = build.reference(rules, Recorded(setup, other, whole.counts_per_electron))
            energy = local_energy(setup, reference[0], (TALL, len(columns) - TEST))
            replay = Recorded(setup, mine, whole.counts_per_electron)
            samples.append(
                Sample(start, replay, energy > energy.median(), other, lambda known=reference: known, None, None, whole.counts_per_electron)
            )
    for positions in (50, 100, 200):
        scores: dict[str, torch.Tensor] = {}
        plans = [(n, None) for n in (*CONVENTIONAL[:-1], "heuristic", "process", "oracle-density")] + [
            ("adaptive", path) for path in weights
        ]
        for name, path in plans:
            changed = tree.update(rules, {"scan": {"positions": positions, "weights": None if path is None else str(path)}}, "recorded")
            found = [trial.primary(s.setup.crop(trial.scan(trial.Plan(name), changed, s).potential), s) for s in samples]
            label = name if path is None else f"{name} {weights.index(path) + 1}"
            scores[label] = torch.tensor(found, dtype=torch.float64).view(-1, 2).mean(1)  # the halves of a window say nearly the same
        mine = torch.stack([v for n, v in scores.items() if n.startswith("adaptive")]).mean(0)
        best = max(CONVENTIONAL[:-1], key=lambda n: float(scores[n].mean()))
        gain = listed(statistics.relative(mine, scores[best], generator=seeded()))
        means = {n: round(float(v.mean()), 4) for n, v in scores.items()}
        line = {
            "comparison": "recorded",
            "positions": positions,
            "windows": len(WINDOWS),
            "learned": round(float(mine.mean()), 4),
            "best": best,
            "over_best": gain,
        }
        print(json.dumps({**line, **means}), flush=True)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("what", choices=["paper", "recurrent", "saving", "harmless", "recorded", "gain"])
    asked.add_argument("--weights", type=lambda p: Path(p).resolve(), nargs="+", required=True)
    asked.add_argument("--subsequences", type=int, default=5)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--file", type=Path, help="recorded: the whole recording, 127 x 80 positions")
    asked.add_argument("--before", type=lambda p: Path(p).resolve(), nargs="+", help="gain: the weights that reinforcement began from")
    given = asked.parse_args()
    if given.what == "gain":
        gain(given.before, given.weights, given.out)
        return
    if given.what == "recorded":
        replayed(given.weights, given.file.resolve(), given.out)
        return
    if given.what == "recurrent":
        recurrent(given.weights, given.out, given.subsequences)
        return
    work: dict[str, Callable[[Sequence[Path], Path], None]] = {"paper": paper, "saving": saving, "harmless": harmless}
    work[given.what](given.weights, given.out)


if __name__ == "__main__":
    main()
