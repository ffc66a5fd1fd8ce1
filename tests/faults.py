"""Scans with a faulty instrument: `python tests/faults.py --count 500 --seed 0`.

The instrument keeps a log of its own of what it exposed and what the scan was given, which outlives every process. After each episode it is
compared with what is on disk: no pattern that the scan was given is lost, none is at another position than the beam was, no limit is
exceeded, and every start of the run ended as it should: finished, killed, or in one sentence, from which the next one went on.
"""

import argparse
import errno
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Before torch is loaded: a process with a pool of threads cannot be forked.
os.environ |= {"OMP_NUM_THREADS": "1"}

import h5py
import numpy as np
import torch
from scipy.special import j1

from adaptycho.physics.optics import Setup
from adaptycho.runs import journal, orders, spool
from adaptycho.runs.execution import execute
from adaptycho.runs.monitor.pictures import picture
from adaptycho.runs.monitor.watch import Watch
from adaptycho.runs.scans import Run
from adaptycho.settings import preset, update
from adaptycho.settings.microscopes import GROUP
from adaptycho.support import plugins
from faulty import ELECTRONS, FAULTS, OPENED, SATURATED, Fault, number_of

torch.set_num_threads(1)

STARTS = 7  # of a run; the last ones have no faults
SENTENCE = re.compile(r"^(the microscope|safety\.\w+|/[^:]*): [^\n]{10,500}$")
TINY = {
    "geometry": {"field": [8.0, 6.0], "object": "auto", "window": 16, "detector": 8, "pixel": 0.3},
    "scan": {"microscope": "faulty", "policy": "random", "positions": 15, "subsequences": 3, "dose": ELECTRONS},
    "reconstruct": {"iterations": 1},
}


def episode(folder: Path, seed: int) -> dict[str, Any]:
    """A run, started until it is finished or a limit is in the way; what happened, and what of it is bad."""
    random = np.random.default_rng(seed)
    limits: dict[str, Any] = {"dose": ELECTRONS * int(random.integers(15, 45)), "seconds": 0.2}
    limits |= {"local": float(random.uniform(2, 8)) * ELECTRONS} if random.random() < 0.5 else {}
    chosen = update(update(preset("light"), TINY, "tiny"), {"safety": limits, "scan": {"seed": seed}}, "episode")
    OPENED.update(log=folder / "log", fault=Fault(), random=random)
    target, ended, bad, met = Run.create(folder / "run", chosen), [], [], []
    (folder / "tmp").mkdir()
    for start in range(STARTS):
        faulty = start < STARTS - 2 and random.random() < 0.8
        fault = Fault(str(random.choice(FAULTS)), int(random.integers(3)), int(random.integers(5))) if faulty else Fault()
        met += [fault.name] if faulty else []
        said = _start(folder, fault, seed * STARTS + start)
        ended.append(said)
        if said not in ("finished", "killed") and not SENTENCE.match(said):
            bad.append(f"start {start}, {fault.name}: no clear sentence: {said}")
        if said == "finished" or (said.startswith(("safety.dose", "safety.local")) and "nothing was sent" in said):
            break
    else:
        bad.append(f"not finished: {ended[-1]}")
    counts, wrong = _judge(folder, target.path, target.setup, limits)
    if ended[-1] == "finished" and counts["whole"] != 15:
        bad.append(f"finished with {counts['whole']} patterns")
    return {
        "folder": str(folder),
        "faults": met,
        "starts": len(ended),
        "killed": ended.count("killed"),
        "last": ended[-1],
        "bad": bad + wrong,
        **counts,
    }


def _start(folder: Path, fault: Fault, seed: int) -> str:
    """Starts or goes on with the run in a process of its own; how it ended."""
    answer = folder / "answer"
    answer.unlink(missing_ok=True)
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            answer.write_text(_ended(folder, fault, seed))
        finally:
            os._exit(0)
    if fault.name.startswith("SIGKILL") and fault.name != "SIGKILL in a frame":
        doomed = child if fault.name == "SIGKILL at some time" else _watcher(folder)
        time.sleep(float(np.random.default_rng(seed).uniform(0.005, 0.3)))
        os.kill(doomed, signal.SIGKILL)
        if doomed != child:
            _, status = os.waitpid(doomed, 0)
            assert os.WIFSIGNALED(status), "the monitor ended by itself"
    _, status = os.waitpid(child, 0)
    return "killed" if os.WIFSIGNALED(status) else answer.read_text()


def _watcher(folder: Path) -> int:
    """A process that watches the run as the monitor does, and gives orders that change nothing; its number."""
    child = os.fork()
    if not child:
        try:
            watch = Watch(Run.open(folder / "run"), limit=1.0)
            while True:
                orders.give(folder / "run", orders.Order(word="trust"))
                if watch.look():
                    watch.facts()
                    watch.specimen(0)
                    picture(watch, "dose", 0, 0)
        finally:
            os._exit(0)
    return child


def _ended(folder: Path, fault: Fault, seed: int) -> str:
    OPENED.update(log=folder / "log", fault=fault, random=np.random.default_rng(seed))
    tempfile.tempdir = str(folder / "tmp")
    if fault.name == "no room":
        journal.shutil = SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=1000))
    elif fault.name == "disk full":
        write, calls = journal._write_subsequence, iter([*[False] * fault.subsequence, True])
        journal._write_subsequence = lambda *given: _full() if next(calls, False) else write(*given)
    try:
        for _ in execute(Run.open(folder / "run")):
            pass
    except (ValueError, OSError) as error:
        return str(error)
    except BaseException as error:
        return f"{type(error).__name__}\n{error}"
    return "finished"


def _full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _judge(folder: Path, run: Path, setup: Setup, limits: dict[str, Any]) -> tuple[dict[str, int], list[str]]:
    """Compares the instrument's log with what is on disk."""
    lines = [line.split() for line in (folder / "log").read_text().splitlines()] if (folder / "log").exists() else []
    beam = {int(n): (float(y), float(x)) for kind, n, *rest in lines if kind == "E" for y, x, _ in [rest]}
    given = {int(line[1]) for line in lines if line[0] == "D"}
    bad, whole, beside = [], {}, set()
    for path in [*run.glob("subsequences/*.h5"), *folder.glob("tmp/*/*.h5")]:
        with h5py.File(path) as file:
            positions, patterns = file["positions"][0], np.fft.ifftshift(file["patterns"][0], axes=(-2, -1))
        for position, pattern in zip(positions, patterns, strict=True):
            number = number_of(pattern)
            if not np.allclose(position, beam[number], atol=1e-5):
                bad.append(f"{path.name}: pattern {number} at {position}, where the beam was at {beam[number]}")
            if path.stem.isdecimal() and path.parent == run / "subsequences":
                bad += [f"{path.name}: pattern {number} twice"] if number in whole else []
                bad += [] if np.isfinite(pattern).all() and pattern.max() < SATURATED else [f"{path.name}: pattern {number} is damaged"]
                whole[number] = path.name
            else:
                beside.add(number)
    for path in run.glob("subsequences/*.npy"):
        for frame in spool.read(path):
            beside.add(number := number_of(frame.counts))
            if frame.position != beam[number]:
                bad.append(f"{path.name}: pattern {number} elsewhere")
    if lost := given - whole.keys() - beside:
        bad.append(f"lost: {sorted(lost)}")
    if len(beam) * ELECTRONS > limits["dose"]:
        bad.append(f"{len(beam) * ELECTRONS:g} electrons, of {limits['dose']:g} allowed")
    if "local" in limits and beam and (peak := _peak(np.array(list(beam.values())), setup)) > limits["local"]:
        bad.append(f"{peak:g} electrons per Å², of {limits['local']:g} allowed")
    return {"exposed": len(beam), "given": len(given), "whole": len(whole), "beside": len(beside - whole.keys())}, bad


def _peak(positions: np.ndarray, setup: Setup) -> float:
    """Highest dose of Airy patterns at the positions, on places 0.1 Å apart."""
    y, x = (np.arange(0, side, 0.1) for side in setup.field)
    radius = np.hypot(y[:, None, None] - positions[:, 0] * setup.field[0], x[None, :, None] - positions[:, 1] * setup.field[1])
    k = setup.semiangle * 1e-3 / setup.wavelength
    v = 2 * np.pi * k * radius + 1e-9
    return float((ELECTRONS * np.pi * k**2 * (2 * j1(v) / v) ** 2).sum(-1).max())


def episodes(count: int, first: int) -> Iterator[dict[str, Any]]:
    """Episodes with seeds from a first one on, each in a folder that is removed if nothing was bad."""
    plugins.entry_points = lambda group: [EntryPoint("faulty", "faulty:FAULTY", GROUP)] if group == GROUP else []
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as warm:  # what is loaded and compiled here is there in every process that is forked
        OPENED.update(log=Path(warm, "log"), fault=Fault(), random=np.random.default_rng(0))
        for _ in execute(Run.create(Path(warm, "run"), update(update(preset("light"), TINY, "tiny"), {"safety": {"local": 1e9}}, "warm"))):
            pass
    for number in range(first, first + count):
        folder = Path(tempfile.mkdtemp(prefix=f"faults-{number}-"))
        found = episode(folder, number)
        if not found["bad"]:
            shutil.rmtree(folder)
        yield found


def summary(done: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts of all episodes."""
    ends = ("finished" if found["last"] == "finished" else found["last"].split(":")[0] for found in done)
    names = ("starts", "killed", "exposed", "given", "whole", "beside")
    return {
        "episodes": len(done),
        "bad": sum(bool(found["bad"]) for found in done),
        **{name: sum(found[name] for found in done) for name in names},
        "ended": dict(Counter(ends)),
        "faults": dict(Counter(name for found in done for name in found["faults"])),
    }


def main() -> int:
    """The command line; returns 1 if an episode is bad."""
    parser = argparse.ArgumentParser(description="Scans with a faulty instrument.")
    parser.add_argument("--count", type=int, default=500, help="episodes")
    parser.add_argument("--seed", type=int, default=0, help="of the episodes")
    asked = parser.parse_args()
    done, started = [], time.monotonic()
    for found in episodes(asked.count, asked.seed * 100_000):
        done.append(found)
        if found["bad"]:
            print(f"{found['folder']}: {'; '.join(found['bad'])}", file=sys.stderr, flush=True)
    print(json.dumps(summary(done) | {"seconds": round(time.monotonic() - started, 1)}, indent=1))
    return 1 if any(found["bad"] for found in done) else 0


if __name__ == "__main__":
    sys.exit(main())
