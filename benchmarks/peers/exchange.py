"""What a problem file and a result file hold, and how a descent is timed. Needs numpy alone, so that every environment can import it."""

import argparse
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

STOPS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)


@dataclass(frozen=True, eq=False)
class Problem:
    """One scan, as every package is given it.

    Attributes:
        patterns: electrons, (K, N, N), zero frequency in the corner.
        positions: of the beam, (y, x) in Å from the field's corner, (K, 2), row by row.
        raster: rows and columns of the scan.
        step: between neighbours, (y, x) in Å.
        probe: guess, unit sum of intensities, (N, N), zero position in the corner.
        shape: pixels of an object grid that holds every window.
        corner: pixel (y, x) of the field's corner on that grid.
        pixel: Å.
        energy: eV.
        semiangle: mrad.
        refine: whether the probe is a guess that has to be refined.
    """

    patterns: np.ndarray
    positions: np.ndarray
    raster: np.ndarray
    step: np.ndarray
    probe: np.ndarray
    shape: np.ndarray
    corner: np.ndarray
    pixel: float
    energy: float
    semiangle: float
    refine: bool

    @property
    def centres(self) -> np.ndarray:
        """Positions in pixels of the object grid."""
        return self.positions / self.pixel + self.corner

    @property
    def electrons(self) -> float:
        """Mean sum of a pattern."""
        return float(self.patterns.sum((1, 2), dtype=np.float64).mean())


@dataclass(frozen=True, eq=False)
class Image:
    """A phase in rad and the pixel (y, x) of it where the scan field's corner lies."""

    phase: np.ndarray
    corner: np.ndarray


Descent = Callable[[Problem, dict[str, Any]], Iterator[Image]]


def write(path: Path, problem: Problem) -> None:
    np.savez(path, **asdict(problem))


def read(path: Path) -> Problem:
    """The problem in a file.

    Raises:
        ValueError: something is missing.
    """
    with np.load(path, allow_pickle=False) as found:
        missing = [f.name for f in fields(Problem) if f.name not in found.files]
        if missing:
            raise ValueError(f"{path}: expected a problem, found no {missing[0]}")
        values = {f.name: found[f.name] for f in fields(Problem)}
    scalars: dict[str, Any] = {name: values[name].item() for name in ("pixel", "energy", "semiangle", "refine")}
    return Problem(**(values | scalars))


def time_descent(descent: Descent, problem: Problem, settings: dict[str, Any], iterations: int, limit: float = math.inf) -> dict[str, Any]:
    """Images after some of the iterations, and the processor seconds until then, preparation included and looking at them not.

    The iteration that passes the limit in seconds is the last.
    """
    run, stops, images, seconds, spent = descent(problem, settings), [], [], [], 0.0
    for number in range(1, iterations + 1):
        started = time.process_time()
        image = next(run)
        spent += time.process_time() - started
        last = number == iterations or spent > limit
        if number in STOPS or last:
            stops.append(number)
            seconds.append(spent)
            images.append(np.array(image.phase, np.float32))
        if last:
            break
    return {"stops": np.array(stops), "seconds": np.array(seconds), "images": np.stack(images), "corner": np.array(image.corner, float)}


def peak_memory() -> float:
    """Most MiB this process has held; nan where the system does not tell."""
    status = Path("/proc/self/status")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024 if status.exists() else float("nan")


def first_rows(problem: Problem, rows: int) -> Problem:
    """The first rows of the raster, to warm up with."""
    rows = min(rows, int(problem.raster[0]))
    count = rows * int(problem.raster[1])
    raster = np.array([rows, problem.raster[1]])
    return replace(problem, patterns=problem.patterns[:count], positions=problem.positions[:count], raster=raster)


def main(program: str, descent: Descent) -> None:
    """`python run_x.py problem.npz result.npz '{"step": 1}' iterations`: a little to warm up, then with the clock running."""
    parser = argparse.ArgumentParser()
    parser.add_argument("problem", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("settings", type=json.loads)
    parser.add_argument("iterations", type=int)
    parser.add_argument("--limit", type=float, default=math.inf, help="processor seconds after which no other iteration is begun")
    given = parser.parse_args()
    problem = read(given.problem)
    time_descent(descent, first_rows(problem, 4), given.settings, 2)
    found = time_descent(descent, problem, given.settings, given.iterations, given.limit)
    np.savez(given.result, **found, peak=peak_memory(), program=program, python=platform.python_version())
