"""Seconds until the program has answered a question about itself: median of five, each in a process of its own, modules on disk warm.

`python benchmarks/startup.py [--repeats 5]`. Prints one JSON line. `python` is the interpreter alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from adaptycho.app import bench

QUESTIONS = ("--version", "--help", "settings", "scan --help")


def seconds(command: list[str], repeats: int) -> float:
    """Median wall time of a command, after one run that fills the disk's cache."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return round(statistics.median(times[1:]), 3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    found = {"python": seconds([sys.executable, "-c", "pass"], repeats)}
    found |= {question: seconds([sys.executable, "-m", "adaptycho.app.cli", *question.split()], repeats) for question in QUESTIONS}
    print(json.dumps({"seconds": found, "repeats": repeats} | bench.machine()))
