"""Learned scans of a recording: `python experiments/replayed.py --weights A/imitate.safetensors ... --file RECORDING.h5`.

For a recording of 127 x 80 positions whose columns from 60 on no policy was trained on: correlation with the other checkerboard
half, inside the half of each window that has more structure, at 50, 100 and 200 positions, and how many times the positions the best
conventional scan needs for as much; one JSON line each.
"""

import argparse
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from learned import listed, seeded

from adaptycho import settings as tree
from adaptycho.compare import trial
from adaptycho.compare.strategies import CONVENTIONAL, SIMULATED
from adaptycho.metrics import statistics
from adaptycho.samples import windows
from adaptycho.samples.sample import Sample, half
from adaptycho.scan.networks.weights import load
from adaptycho.settings import build

TEST = 60  # first column of the recording that no policy was trained on
BLIND = tuple(name for name in CONVENTIONAL if name not in SIMULATED)
AHEAD, CURVE = (50, 100, 200), (35, 50, 70, 100, 140, 200, 280, 400)  # positions of learned and of conventional scans
TALL, WINDOWS = 63, (0, 16, 32, 48, 64)  # rows of a test window, and where they begin: they overlap, so an interval over them is too short


def compare(weights: Sequence[Path], file: Path) -> None:
    """Windows of recorded columns that no policy was trained on: correlation with the other split half inside the structured half."""
    rules = tree.update(
        tree.preset("light"),
        {"reconstruct": tree.BEST, "scan": {"microscope": "recorded", "file": str(file), "subsequences": 5}},
        "recorded",
    )
    whole = build.recording(rules)
    rows, columns = windows.lines(whole.measurement)
    for path in weights:
        check(path, len(columns))
    samples: list[Sample] = []
    for start in WINDOWS:
        where = windows.Rectangle((rows[start], rows[start + TALL - 1]), (columns[TEST], columns[-1]))
        samples += [half(rules, start, partial(windows.cut, whole, where), (TALL, len(columns) - TEST), which) for which in (0, 1)]
    tables = {positions: measure(rules, samples, positions, weights) for positions in CURVE}
    best = {positions: max(BLIND, key=lambda n: float(scores[n].mean())) for positions, scores in tables.items()}
    at, curve = torch.tensor(CURVE, dtype=torch.float64), torch.stack([scores[best[n]] for n, scores in tables.items()])
    for positions in AHEAD:
        scores = tables[positions]
        mine = torch.stack([v for n, v in scores.items() if n.startswith("adaptive")]).mean(0)
        saved = statistics.dose_saving(positions, mine, at, curve, generator=seeded())
        line = {
            "comparison": "recorded",
            "positions": positions,
            "windows": len(WINDOWS),
            "learned": round(float(mine.mean()), 4),
            "best": best[positions],
            "over_best": listed(statistics.relative(mine, scores[best[positions]], generator=seeded())),
            "saving": listed(saved),
            "bounded": saved.bounded,
        }
        print(json.dumps({**line, **{n: round(float(v.mean()), 4) for n, v in scores.items()}}), flush=True)


def measure(rules: tree.Settings, samples: Sequence[Sample], positions: int, weights: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Scores of every window by conventional scans, and where learned scans are compared by those and others too."""
    names = (*BLIND, "heuristic", "process", "oracle-density") if positions in AHEAD else BLIND
    files = list(weights) if positions in AHEAD else []
    scores: dict[str, torch.Tensor] = {}
    for name, path in [*((n, None) for n in names), *(("adaptive", path) for path in files)]:
        changed = tree.update(rules, {"scan": {"positions": positions, "weights": None if path is None else str(path)}}, "recorded")
        found = [trial.primary(s.setup.crop(trial.scan(trial.Plan(name), changed, s).potential), s) for s in samples]
        label = name if path is None else f"{name} {files.index(path) + 1}"
        scores[label] = torch.tensor(found, dtype=torch.float64).view(-1, 2).mean(1)  # the halves of a window say nearly the same
    return scores


def check(path: Path, columns: int) -> None:
    """Refuses a policy that has practised on columns of the test.

    Raises:
        ValueError: it has, if its recording was this one.
    """
    seen = tree.update(tree.preset("light"), load(path).card["settings"], str(path)).scan.columns[1] * (columns - 1)
    if seen >= TEST:
        raise ValueError(f"{path}: expected a policy trained on columns below {TEST} of {columns}, found one that saw up to {seen:.1f}")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--weights", type=lambda p: Path(p).resolve(), nargs="+", required=True)
    asked.add_argument("--file", type=lambda p: Path(p).resolve(), required=True)
    given = asked.parse_args()
    compare(given.weights, given.file)


if __name__ == "__main__":
    main()
