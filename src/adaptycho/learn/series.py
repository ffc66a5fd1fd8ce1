"""What the logs of trainings say, step by step, and how it goes over several runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from adaptycho.draw.learning import Point
from adaptycho.learn.loop import Name, read_log
from adaptycho.metrics.statistics import interval

Quantity = Literal["reward", "ssim", "validation"]
WINDOW = 11  # steps of the running mean of what every step says: one batch is a small sample
POINTS = 200  # of a curve that are drawn


def series(folder: Path, quantity: Quantity, stage: Name) -> dict[int, float]:
    """A quantity of a run at the steps of a stage whose entry in the log has one, in order."""
    log = [e for e in read_log(folder) if e["course"] == stage and quantity in e]
    return {e["step"]: _number(e["validation"]["score"] if quantity == "validation" else e[quantity]) for e in log}


def _number(value: float | None) -> float:
    """The log has null for what is not finite."""
    return float("nan") if value is None else value


def over_runs(runs: Sequence[Mapping[int, float]], *, smooth: bool) -> list[Point]:
    """Mean and 95 % bootstrap interval over runs at the steps that all of them have, thinned; smoothed by a running mean first if asked."""
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    values = np.array([[run[step] for step in steps] for run in runs], dtype=float).reshape(len(runs), -1)
    if smooth:
        values = _running_mean(values)
    points = []
    for i in np.unique(np.linspace(0, len(steps) - 1, min(len(steps), POINTS)).round().astype(int)):
        e = interval(torch.from_numpy(values[:, i]), generator=torch.Generator().manual_seed(0))
        points.append((float(steps[i]), e.mean, e.low, e.high))
    return points


def _running_mean(values: Float[np.ndarray, "R S"]) -> Float[np.ndarray, "R S"]:
    """Over `WINDOW` steps round each, of those there are and are finite."""
    half, ones = WINDOW // 2, np.ones(WINDOW)

    def total(x: np.ndarray) -> np.ndarray:
        return np.stack([np.convolve(row, ones)[half : half + len(row)] for row in x])

    finite = np.isfinite(values)
    count = total(finite.astype(float))
    return np.where(count > 0.5, total(np.where(finite, values, 0.0)) / count.clip(1), np.nan)
