"""What reinforcement did to policies.

`python experiments/reinforced.py --before A/imitate.safetensors ... --weights A/reinforce.safetensors ...` prints one JSON line each for
the reward and for SSIM, of 25 test specimens, with the paired difference; several pairs are trainings from several seeds.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from learned import listed, seeded

from adaptycho import metrics
from adaptycho import settings as tree
from adaptycho.learn import pool, stages
from adaptycho.learn.reinforce import rewards
from adaptycho.learn.share import share
from adaptycho.metrics import statistics
from adaptycho.scan.episode import run
from adaptycho.scan.networks import library, weights


def compare(before: Sequence[Path], after: Sequence[Path]) -> None:
    """What reinforcement did: test specimens scanned with the weights before and after it, paired, the same noise in both."""
    settings = tree.update(tree.preset("light"), weights.load(before[0]).card["settings"], str(before[0]))
    first = settings.evaluate.test[0]
    specimens = pool.simulated(settings, range(first, first + 25))
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


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--before", type=Path, nargs="+", required=True, help="the weights that reinforcement began from")
    asked.add_argument("--weights", type=Path, nargs="+", required=True, help="those that it came to, in the same order")
    given = asked.parse_args()
    compare(given.before, given.weights)


if __name__ == "__main__":
    main()
