"""Patterns out of line: bad ones, columns that do not belong (the beam flew back), series that started late or early."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from adaptycho.formats.recording import Recording
from adaptycho.samples.doctor.findings import Finding
from adaptycho.samples.doctor.virtual import Virtual

STRAIGHT = 0.05  # of a step, that positions may lie off a raster
JUMP = 5.0  # robust standard deviations by which two columns differ more than those around
MUCH = 1.25  # and how many times as much
CLEAREST = 0.75  # of the largest such difference, less one, that others reach to count beside it
COMPONENTS = 12  # principal ones of the virtual images that are compared
AROUND = 3  # columns on each side that are compared
SIDE = 8  # rows and columns that a raster has at least to be judged


@dataclass(frozen=True)
class Raster:
    """A raster in row-major order.

    Attributes:
        shape: rows and columns.
        step: (y, x) in Å.
    """

    shape: tuple[int, int]
    step: tuple[float, float]


@dataclass(frozen=True)
class Lines:
    """Whether neighbours along the lines are alike.

    Attributes:
        flyback: columns at the start of each line that are unlike the rest.
        rolled: patterns by which the series is late against the positions, 0 if it is not.
        jumps: how unlike each column and the next are, over the median; the last is the end of a line and the start of the next.
    """

    flyback: int
    rolled: int
    jumps: tuple[float, ...]


def raster(positions: Tensor, field: tuple[float, float]) -> Raster | None:
    """The raster that positions (N, 2), fractions of the field, make in row-major order, if they make one."""
    where = positions.cpu().double().numpy() * np.array(field)
    if len(where) < 4:
        return None
    back = np.flatnonzero(np.diff(where[:, 1]) < 0)
    columns = int(back[0]) + 1 if len(back) else len(where)
    rows = len(where) // columns
    if rows < 2 or columns < 2 or rows * columns != len(where):
        return None
    grid = where.reshape(rows, columns, 2)
    step = float(grid[-1, 0, 0] - grid[0, 0, 0]) / (rows - 1), float(grid[0, -1, 1] - grid[0, 0, 1]) / (columns - 1)
    if min(step) <= 0:
        return None
    even = grid[0, 0] + np.stack(np.meshgrid(np.arange(rows) * step[0], np.arange(columns) * step[1], indexing="ij"), -1)
    return Raster((rows, columns), step) if np.abs(grid - even).max() < STRAIGHT * min(step) else None


def judge(images: Tensor, scan: Raster) -> Lines:
    """Looks for columns that differ from the next more than columns around do.

    Args:
        images: virtual images (N, K) in row-major order, over their mean, less one.
        scan: the raster.
    """
    rows, columns = scan.shape
    if min(rows, columns) < SIDE:
        return Lines(0, 0, ())
    # Most of the noise is in all directions alike, the specimen in few.
    strongest = torch.linalg.eigh(images.T.double() @ images.double())[1][:, -COMPONENTS:]
    grid = (images.double() @ strongest).reshape(rows, columns, -1)
    inside = (grid[:, 1:] - grid[:, :-1]).square().mean((0, 2))
    end = (grid[1:, 0] - grid[:-1, -1]).square().mean()
    apart = torch.cat([inside, end[None]]).numpy()
    ring = np.stack([np.roll(apart, s) for s in range(-AROUND, AROUND + 1) if s])
    jumps = apart / np.maximum(np.median(ring, 0), 1e-30)
    usual = max(MUCH, 1 + JUMP * 1.4826 * float(np.median(np.abs(jumps - np.median(jumps)))))
    limit = max(usual, 1 + CLEAREST * (float(jumps[:-1].max()) - 1))
    far, told = [c for c in range(columns - 1) if jumps[c] > limit], tuple(jumps.tolist())
    if len(far) == 1 and jumps[-1] < usual:  # one seam, and the ends of lines join: the lines begin somewhere else
        seam = far[0] + 1
        return Lines(0, seam if seam <= columns // 2 else seam - columns, told)
    first = [c + 1 for c in far if c < columns // 4]
    return Lines(max(first) if first and len(far) <= columns // 4 else 0, 0, told)


def judged(kept: Bool[Tensor, " N"], recording: Recording) -> Finding:
    """What is to be said of empty patterns and such with far more or fewer counts than the others."""
    bad = (~kept).nonzero()[:, 0].tolist()
    if not bad:
        return Finding("patterns", "none empty or far out", value=[])
    numbers = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    text = f"{len(bad)} of {len(kept)} empty, or with far more or fewer counts than the others (number {numbers})"
    return Finding("patterns", text, wrong=True, mend="--drop bad", value=bad[:100])


def lines_judged(recording: Recording, images: Virtual | None, kept: Bool[Tensor, " N"]) -> tuple[list[Finding], int]:
    """What is to be said of the lines of a raster, and the places that patterns are to be moved on by."""
    scan = raster(recording.measurement.positions[0], recording.setup.field)
    if scan is None or images is None:
        return [], 0
    latest = torch.cumsum(kept.long(), 0).sub(1).clamp(min=0)  # a bad pattern is taken for the one before
    found = judge(images.images[latest], scan)
    (rows, columns), name, value = scan.shape, "lines", {"rows": scan.shape[0], "columns": scan.shape[1]}
    if found.rolled:
        text = f"the series seems {abs(found.rolled)} patterns {'late' if found.rolled > 0 else 'early'}: a seam runs through the lines"
        value |= {"roll": -found.rolled}
        return [Finding(name, text, "", "likely", True, f"--roll {-found.rolled}", value)], -found.rolled
    if found.flyback:
        n = found.flyback
        text = f"the first {n} columns of {columns} do not fit the next, as if the beam flew back meanwhile"
        value |= {"flyback": n}
        mend = f"--skip {n} --flyback {n} --scan-shape {rows}x{columns - n}"
        return [Finding(name, text, "", "likely", True, mend, value)], 0
    return [Finding(name, f"a raster of {rows} x {columns}, with neighbours alike", value=value)], 0
