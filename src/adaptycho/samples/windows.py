"""Windows of a recording: where its rows and columns lie, which rectangles are cut out of it, and what is told from them.

A recording has no truth. What stands in for it is cut out of the recording itself: the positions of a window are black and white like the
squares of a chessboard, a scan may choose among those of one colour, and the reconstruction of the other is what it is compared with.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor

from adaptycho import formats
from adaptycho.formats.recording import Recording, Span
from adaptycho.physics.optics import Setup
from adaptycho.types import Measurement

CORNERS = 4
STEPS = 16  # places where a window of the grid may start along each side of the recording
WIDE = 6  # of those steps that it is wide
NEIGHBOURHOOD = 3.0  # recorded steps, rms


@dataclass(frozen=True)
class Rectangle:
    """Where a window lies in its recording, both ends kept."""

    rows: Span
    columns: Span


def cut(recording: Recording, where: Rectangle) -> Recording:
    """The window as a recording of its own; those of one size have the same geometry."""
    return formats.cut(recording, rows=where.rows, columns=where.columns)


def lines(measurement: Measurement) -> tuple[list[float], list[float]]:
    """Where the rows and the columns of a recorded raster lie, fractions of the field, in order."""
    where = measurement.positions[0].double().cpu().numpy().round(6)
    rows, columns = (np.unique(where[:, axis]).tolist() for axis in (0, 1))
    return rows, columns


def corner(recording: Recording, number: int, side: int) -> Rectangle:
    """The square of `side` recorded rows and columns in one of the four corners.

    Raises:
        ValueError: the raster is smaller.
    """
    spans = []
    for found, last in zip(lines(recording.measurement), (number // 2, number % 2), strict=True):
        if len(found) < side:
            raise ValueError(
                f"{recording.path}: expected a raster of at least {side} x {side} positions to cut windows from, found {len(found)}"
            )
        spans.append((found[-side], found[-1]) if last else (found[0], found[side - 1]))
    return Rectangle(*spans)


def drawn(rows: list[float], columns: list[float], shape: tuple[int, int], *, generator: torch.Generator) -> Rectangle:
    """A random window.

    Args:
        rows: where those of a raster lie that it may reach over.
        columns: likewise.
        shape: its own rows and columns, no more than these.
        generator: of the draw.
    """
    spans = []
    for found, wanted in zip((rows, columns), shape, strict=True):
        first = int(torch.randint(len(found) - wanted + 1, (1,), generator=generator))
        spans.append((found[first], found[first + wanted - 1]))
    return Rectangle(*spans)


def grid(rows: Span, columns: Span) -> list[Rectangle]:
    """All windows of 6/16 of a recording along each side that start at multiples of 1/16 and lie inside some rows and columns.

    They come in an order that is random and always the same, so that any of them that follow each other are spread over the recording.
    """
    starts = [[i for i in range(STEPS - WIDE + 1) if low <= i / STEPS and (i + WIDE) / STEPS <= high] for low, high in (rows, columns)]
    found = [Rectangle(*((i / STEPS, (i + WIDE) / STEPS) for i in pair)) for pair in itertools.product(*starts)]
    return [found[i] for i in torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()]


def checkerboard(setup: Setup, measurement: Measurement) -> list[Measurement]:
    """The black and the white half of a recorded raster: two data sets of the same specimen that share no pattern.

    Raises:
        ValueError: the positions do not lie on a raster.
    """
    where = measurement.positions[0].cpu().double().numpy() * np.array(setup.field)  # Å
    parity = np.zeros(len(where), dtype=np.int64)
    for axis in (0, 1):
        lines = np.unique(where[:, axis].round(3))
        steps = np.diff(lines)
        if len(lines) < 2 or not np.allclose(steps, steps.mean(), rtol=0.05):
            raise ValueError("positions: expected a regular raster to split into a checkerboard, got another scan")
        parity += ((where[:, axis] - lines[0]) / steps.mean()).round().astype(np.int64)
    return [measurement.take(torch.from_numpy(np.flatnonzero(parity % 2 == half))) for half in (0, 1)]


def local_energy(setup: Setup, phase: Float[Tensor, "h w"], steps: tuple[int, int]) -> Float[Tensor, "h w"]:
    """Variance of a phase in Gaussian neighbourhoods of three recorded steps, rms, from which a recording's structure is told.

    Args:
        setup: geometry of the recording.
        phase: in rad inside the field.
        steps: recorded rows and columns.
    """
    values = phase.double().numpy()
    pixels = NEIGHBOURHOOD * np.array(setup.field) / (np.array(steps) - 1) / setup.object.pixel
    return torch.from_numpy(gaussian_filter((values - gaussian_filter(values, pixels)) ** 2, pixels))
