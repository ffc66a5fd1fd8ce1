"""What a scan gains and loses by acquiring while it reconstructs (`scan.overlap`): one JSON line for each comparison.

    python experiments/instruments/overlap.py [--specimens N] [--first N] [--only idle quality]

`idle`: milliseconds for which a microscope that takes 5 ms for a position stands still before each sub-sequence of 50, without and with
overlap, for each geometry and protocol (medians and the longest; the first two sub-sequences, before which
there is nothing to overlap, left out). `quality`: correlation with the truth inside the structure at the end of the scan, without and with,
and their difference with its 95 % interval over the specimens; without a prior, focused.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from learned import listed, seeded

from adaptycho import metrics
from adaptycho import settings as tree
from adaptycho.app.bench import machine
from adaptycho.instruments.simulated import Simulated
from adaptycho.metrics import statistics
from adaptycho.physics.optics import Setup
from adaptycho.samples import sample
from adaptycho.scan.episode import run, split_evenly
from adaptycho.scan.overlap import run_overlapped
from adaptycho.settings import BEST, REGULARISED, Settings, build
from adaptycho.support.parallel import cores, spread
from adaptycho.types import Action, Measurement

PACE = 5e-3  # s for each position
LOOPS = {"plain": run, "overlap": run_overlapped}
POLICIES = ("heuristic", "adaptive", "threshold")
# Family, electrons in a pattern, positions, sub-sequences.
SCANS = (("island", 300.0, 64, 4), ("island", 1000.0, 144, 6), ("island", 300.0, 250, 5), ("crystal", 1000.0, 250, 5))
Task = tuple[str, tuple[str, float, int, int], int]


@dataclass
class Paced:
    """A microscope that takes its time."""

    inner: Simulated

    @property
    def setup(self) -> Setup:
        """Geometry and beam."""
        return self.inner.setup

    @property
    def batch(self) -> int:
        """One."""
        return self.inner.batch

    def acquire(self, action: Action, *, generator: torch.Generator) -> Measurement:
        """As the one inside, at the pace."""
        began = time.perf_counter()
        answer = self.inner.acquire(action, generator=generator)
        time.sleep(max(0.0, PACE * action.positions.shape[1] - (time.perf_counter() - began)))
        return answer


def idle(geometry: str, protocol: dict[str, Any], policy: str) -> dict[str, Any]:
    """How long the microscope waits before each sub-sequence."""
    chosen = tree.update(tree.preset(geometry), {"reconstruct": protocol, "scan": {"policy": policy}}, "idle")
    source = Paced(build.simulated(chosen))
    scanner, descent = build.scanner(chosen), build.reconstructor(chosen, source.setup)
    found: dict[str, Any] = {}
    for name, loop in LOOPS.items():
        waited, done = [], []
        for repeat in range(4):  # the first warms up
            began, pictured = time.perf_counter(), 0.0
            for state in loop(source, scanner, descent, [50] * 5, seed=repeat):
                if repeat and state.number > 2:  # without overlap the microscope waits for the picture before, and the decision
                    waited.append(state.seconds.get("idle", state.seconds["decide"] + pictured))
                pictured = state.seconds["reconstruct"]
            done.append(time.perf_counter() - began)
        found |= {
            f"{name}_idle_ms": [round(1e3 * float(f(waited)), 1) for f in (np.median, max)],
            f"{name}_seconds": round(float(np.median(done[1:])), 3),
        }
    return found


def correlations(task: Task) -> dict[str, float]:
    """At the end of both scans."""
    policy, (family, dose, count, parts), number = task
    filling = {"filling": [0.15, 0.35]} if family == "island" else {}
    changes = {"specimen": {"family": family, "options": filling}, "scan": {"policy": policy, "dose": dose}, "reconstruct": BEST}
    chosen: Settings = tree.update(tree.preset("light"), changes, "quality")
    found = sample.simulated(chosen, number)
    scanner, descent = build.scanner(chosen), build.reconstructor(chosen, found.setup)
    scores = {}
    for name, loop in LOOPS.items():
        *_, state = loop(found.microscope, scanner, descent, split_evenly(count, parts), seed=number)
        scores[name] = float(metrics.correlation(state.potential, found.truth, mask=found.inside)[0])
    return scores


def quality(first: int, specimens: int) -> Iterator[dict[str, Any]]:
    """A line for each policy and scan."""
    tasks = [(policy, scan, first + n) for policy in POLICIES for scan in SCANS for n in range(specimens)]
    rows: dict[tuple[str, Any], list[dict[str, float]]] = {}
    for i, row in sorted(spread(correlations, tasks, workers=cores())):
        rows.setdefault(tasks[i][:2], []).append(row)
    for (policy, (family, dose, count, parts)), found in rows.items():
        plain, overlap = (torch.tensor([row[name] for row in found], dtype=torch.float64) for name in LOOPS)
        yield {
            "comparison": "quality",
            **{
                "policy": policy,
                "family": family,
                "dose": dose,
                "positions": count,
                "subsequences": parts,
                "specimens": [first, specimens],
            },
            "plain": round(float(plain.mean()), 4),
            "overlap": round(float(overlap.mean()), 4),
            "difference": listed(statistics.paired(overlap, plain, generator=seeded())),
        }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specimens", type=int, default=16)
    parser.add_argument("--first", type=int, default=814_000)
    parser.add_argument("--only", nargs="+", choices=("idle", "quality"), default=("idle", "quality"))
    given = parser.parse_args()
    if "idle" in given.only:
        torch.set_num_threads(1)
        for geometry in ("light", "paper"):
            for name, protocol in (("best", BEST), ("regularised", REGULARISED)):
                line = {"comparison": "idle", "geometry": geometry, "protocol": name, "policy": "adaptive"}
                print(json.dumps(line | idle(geometry, protocol, "adaptive") | machine()), flush=True)
    if "quality" in given.only:
        for line in quality(given.first, given.specimens):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
