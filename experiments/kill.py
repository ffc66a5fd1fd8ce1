"""What `kill -9` costs a scan: killed at random moments, taken up, sometimes killed again, and compared with a scan that was left alone.

`python experiments/kill.py [--runs 100] [--workers 2] [--seed 0]`: every run is `adaptycho scan` with 80 positions in 5 sub-sequences (by
turns simulated heuristic, simulated random, recorded heuristic), sent SIGKILL at a moment drawn uniformly from shortly before the first to
the last sub-sequence of an uninterrupted run, for every fourth run from its very start. Whatever the scan was handed must then be on disk,
whole and the same as in the uninterrupted run; three runs in ten are killed once more while they are resumed; in the end every array must
be the same bit for bit.

Each scan is a fork of one process that has imported the package: SIGKILL ends a fork as it ends any process, and it starts at once. The
operating system survives, so this is a test of what is written in which order, not of the flushing that a power cut needs. POSIX only.

Prints one JSON line. `lost_subsequences` were handed to the scan but are not on disk; `identical` are runs that ended bit for bit the same.
"""

import argparse
import json
import multiprocessing
import os
import random
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from tqdm import tqdm

from adaptycho.app import cli
from adaptycho.runs.journal import Journal
from adaptycho.types import Action, Measurement

COMMON = ["--positions", "80", "--subsequences", "5", "--reconstruct.reference_side", "20", "--threads", "1"]
RECORDED = ["--microscope", "recorded", "--scan.rows", "[0.2, 0.7]", "--scan.columns", "[0.2, 0.7]", "--reconstruct.iterations", "10"]
CASES = ([*COMMON], [*COMMON, "--policy", "random"], [*COMMON, *RECORDED])
AGAIN = 0.3  # part of the runs that are killed a second time


@dataclass(frozen=True)
class Alone:
    """A scan that was left alone: its folder, and when its first and last sub-sequence were handed over, in seconds from its start."""

    folder: Path
    first: float
    last: float


@dataclass(frozen=True)
class Ended:
    """A process that ended: whether it was killed, and when it was handed each sub-sequence."""

    killed: bool
    handed: tuple[float, ...]


def process(arguments: list[str], kill_at: float | None = None, first: float = 0.0) -> Ended:
    """Runs a command in a fork and kills it, if it is still there, at a time of a run whose first sub-sequence comes at `first`, in s."""
    reading, writing = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            _announce(writing)
            code = cli.main(arguments)
        finally:
            os._exit(code)
    os.close(writing)
    if kill_at is not None:
        if kill_at >= first:  # on a busy machine the beginning takes longer than it did before
            select.select([reading], [], [])
            kill_at -= first
        time.sleep(kill_at)
        os.kill(pid, signal.SIGKILL)  # of a child that has ended but was not waited for, this does nothing
    _, status = os.waitpid(pid, 0)
    with open(reading, "rb") as pipe:
        handed = tuple(t - started for (t,) in struct.iter_unpack("d", pipe.read()))
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"adaptycho {' '.join(arguments)}: exit code {os.WEXITSTATUS(status)}")
    return Ended(os.WIFSIGNALED(status), handed)


def _announce(pipe: int) -> None:
    """Reports every sub-sequence at the moment the scan is handed it."""
    acquire = Journal.acquire

    def announced(self: Journal, action: Action, *, generator: torch.Generator) -> Measurement:
        measurement = acquire(self, action, generator=generator)
        os.write(pipe, struct.pack("d", time.monotonic()))
        return measurement

    Journal.acquire = announced  # type: ignore[method-assign]


def alone(job: tuple[list[str], Path]) -> Alone:
    arguments, folder = job
    ended = process(["scan", str(folder), *arguments])
    return Alone(folder, ended.handed[0], ended.handed[-1])


def kill_and_resume(job: tuple[int, int, list[str], Alone, Path]) -> Counter[str]:
    """One run: what happened to it, as counts."""
    number, seed, arguments, wanted, folder = job
    draw = random.Random(seed * 1_000_003 + number)
    counts: Counter[str] = Counter(runs=1)
    ended = process(
        ["scan", str(folder), *arguments], draw.uniform(0 if number % 4 == 0 else 0.9 * wanted.first, wanted.last), wanted.first
    )
    kind = "finished_before_kill" if not ended.killed else "killed_mid_scan" if ended.handed else "killed_at_startup"
    counts[kind] += 1
    counts["lost_subsequences"] += lost(folder, wanted, len(ended.handed))
    if ended.killed and draw.random() < AGAIN:
        ended = process(_onward(folder, arguments), draw.uniform(0, wanted.last), wanted.first)
        counts["killed_again"] += ended.killed
        counts["lost_subsequences"] += lost(folder, wanted, len(ended.handed))
    if ended.killed:
        process(_onward(folder, arguments))
    counts["identical"] += same(folder, wanted.folder)
    shutil.rmtree(folder)
    return counts


def _onward(folder: Path, arguments: list[str]) -> list[str]:
    """A run that was killed before it had settings is begun again, any other resumed."""
    if (folder / "settings.toml").exists():
        return ["resume", str(folder), "--threads", "1"]
    shutil.rmtree(folder, ignore_errors=True)
    return ["scan", str(folder), *arguments]


def lost(folder: Path, wanted: Alone, handed: int) -> int:
    """How many of the sub-sequences that the scan was handed are not on disk, or not as in the uninterrupted run."""
    names = {f"{n:03d}.h5" for n in range(handed)} | {p.name for p in (folder / "subsequences").glob("*.h5")}
    return sum(not _equal(folder / "subsequences" / name, wanted.folder / "subsequences" / name) for name in names)


def same(folder: Path, wanted: Path) -> bool:
    """Whether every array in two folders is the same bit for bit."""
    names = sorted(str(p.relative_to(wanted)) for p in wanted.rglob("*.h5"))
    return names == sorted(str(p.relative_to(folder)) for p in folder.rglob("*.h5")) and all(_equal(folder / n, wanted / n) for n in names)


def _equal(path: Path, other: Path) -> bool:
    try:
        return _arrays(path) == _arrays(other)
    except OSError:  # not there, or not whole
        return False


def _arrays(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of every array in a file, but for the time that things took."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: np.asarray(item[()])}) if isinstance(item, h5py.Dataset) else None)
    return {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in found.items() if not name.startswith("seconds/")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    torch.set_num_threads(1)  # also so that there are no threads to lose in a fork
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        sys.stdout, stdout = open(os.devnull, "w"), sys.stdout  # noqa: SIM115
        for case, arguments in enumerate(CASES):  # loads and compiles whatever a scan needs, once for all forks
            cli.main(["scan", str(root / f"first{case}"), *arguments])
        sys.stdout = stdout
        with multiprocessing.get_context("fork").Pool(options.workers) as pool:
            wanted = pool.map(alone, [(arguments, root / f"alone{case}") for case, arguments in enumerate(CASES)], chunksize=1)
            jobs = [(n, options.seed, CASES[n % 3], wanted[n % 3], root / f"run{n:04d}") for n in range(options.runs)]
            total: Counter[str] = Counter()
            for counts in tqdm(pool.imap_unordered(kill_and_resume, jobs), total=options.runs, desc="runs", disable=None):
                total += counts
    keys = ("runs", "killed_mid_scan", "killed_at_startup", "finished_before_kill", "killed_again", "lost_subsequences", "identical")
    phase = [[round(a.first, 2), round(a.last, 2)] for a in wanted]
    print(json.dumps({key: total[key] for key in keys} | {"first_to_last_s": phase, "seconds": round(time.monotonic() - started)}))


if __name__ == "__main__":
    main()
