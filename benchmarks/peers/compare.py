"""adaptycho and other packages on the same patterns, one thread each.

    python benchmarks/peers/compare.py --work peers --only ours ptychi --side 16 >> peers.jsonl
    python benchmarks/peers/compare.py --page peers.jsonl > docs/results/peers.md

The first makes an environment for each package in the folder, tunes each on one specimen with the settings of `trials.py`, and
measures it on others, all packages in turn. It prints one JSON line for each measurement. A page has a section for each such call.
"""

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from exchange import Image, read
from judge import correlation
from problems import save
from table import page
from trials import trials

from adaptycho.app.bench import machine

HERE = Path(__file__).parent
REQUIREMENTS = {
    "ours": [],
    "ptychi": ["ptychi==2.2.0"],
    "quantem": ["quantem==0.1.10"],
    "py4dstem": ["py4DSTEM==0.14.18"],
    "ptyrad": ["ptyrad==1.0.0"],
    "ptylab": ["PtyLab==0.3.7"],
}
TORCH = "torch==2.13.0"
ENOUGH = 0.002  # of correlation: a trial this near to the best is as good, and the faster of two such is taken


def environment(package: str, work: Path) -> Path:
    """The Python of a package's own environment, made where there is none; adaptycho's is the one that runs this."""
    if package == "ours":
        return Path(sys.executable)
    python = work / package / "bin" / "python"
    if not python.exists():
        pinned = work / "torch.txt"
        pinned.write_text(f"{TORCH}\n")
        subprocess.run([sys.executable, "-m", "venv", str(work / package)], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *REQUIREMENTS[package]],
            check=True,
            env=os.environ | {"PIP_CONSTRAINT": str(pinned)},
        )
    return python


def run(package: str, work: Path, path: Path, truth: np.ndarray, settings: dict[str, Any], iterations: int, limit: float) -> dict[str, Any]:
    """Correlation with the truth against iterations and seconds, or the last line of what went wrong."""
    result = work / "result.npz"
    result.unlink(missing_ok=True)
    program = [environment(package, work), HERE / f"run_{package}.py"]
    command = [*program, path, result, json.dumps(settings), iterations, "--limit", limit]
    alone = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=os.environ | alone)
    found: dict[str, Any] = {"package": package, "problem": path.stem, "settings": settings}
    if done.returncode:
        return found | {"error": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    with np.load(result) as told:
        problem = read(path)
        scores = [correlation(Image(image, told["corner"]), truth, problem) for image in told["images"]]
        return found | {
            "program": str(told["program"]),
            "iterations": told["stops"].tolist(),
            "seconds": told["seconds"].round(4).tolist(),
            "correlation": [round(score, 4) for score in scores],
            "peak_mib": round(float(told["peak"])),
        }


def choose(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Settings and number of iterations of the best trial; of those that are as good, the fastest."""
    points = [
        (seconds, score, trial["settings"], stop)
        for trial in trials
        if "error" not in trial
        for seconds, score, stop in zip(trial["seconds"], trial["correlation"], trial["iterations"], strict=True)
        if math.isfinite(score)
    ]
    if not points:
        return {"error": trials[0].get("error", "nothing finite")}
    best = max(point[1] for point in points)
    _, _, settings, stop = min((point for point in points if point[1] >= best - ENOUGH), key=lambda point: point[0])
    return {"settings": settings, "iterations": stop}


def measure(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What was tuned, then what was measured, package after package on each specimen in turn.

    Ours goes on for as long as it was tuned, so that it can be asked when it was as far as another package.
    """
    names = ("side", "electrons", "refine", "iterations", "limit", "specimens", "repeats", "note")
    lists = {package: trials(package, given.electrons)[: given.trials] for package in given.only}
    told = {name: getattr(given, name) for name in names} | {"trials": max(len(settings) for settings in lists.values())}
    yield {"kind": "asked", "options": shlex.join(sys.argv[1:]), **told}
    problems = save(given.work / "problems", given.side, given.electrons, given.refine, 1 + given.specimens, given.first)
    chosen = {}
    for package, settings in lists.items():
        tried = [run(package, given.work, *problems[0], one, given.iterations, given.limit) for one in settings]
        yield from ({"kind": "trial", **trial} for trial in tried)
        chosen[package] = choose(tried)
        yield {"kind": "chosen", "package": package, **chosen[package]}
    for problem in problems[1:]:
        for repeat in range(given.repeats):
            for package, choice in chosen.items():
                if "error" not in choice:
                    iterations = given.iterations if package == "ours" else choice["iterations"]
                    limit = given.limit if package == "ours" else math.inf
                    line = run(package, given.work, *problem, choice["settings"], iterations, limit)
                    yield {"kind": "test", "repeat": repeat, **line}
    yield {"kind": "machine", **machine()["machine"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/peers"), help="folder of environments and problems")
    parser.add_argument("--only", nargs="+", choices=list(REQUIREMENTS), default=list(REQUIREMENTS))
    parser.add_argument("--side", type=int, default=16, help="positions along each side")
    parser.add_argument("--electrons", type=float, default=2e5)
    parser.add_argument("--refine", action="store_true", help="the probe too")
    parser.add_argument("--iterations", type=int, default=1000, help="at most")
    parser.add_argument("--limit", type=float, default=10.0, help="processor seconds, preparation included, after which a run ends")
    parser.add_argument("--trials", type=int, default=3, help="settings that each is tuned with, at most")
    parser.add_argument("--specimens", type=int, default=3, help="to measure on, besides the one to tune on")
    parser.add_argument("--first", type=int, default=0, help="number of the specimen to tune on, which those to measure on follow")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--note", default="", help="what a reader of the page has to know besides")
    parser.add_argument("--page", type=Path, nargs="+", metavar="JSONL", help="print the page of these measurements")
    given = parser.parse_args()
    if given.page:
        print(page([json.loads(line) for path in given.page for line in path.read_text().splitlines()]))
        return
    given.work = given.work.absolute()
    given.work.mkdir(parents=True, exist_ok=True)
    for line in measure(given):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
