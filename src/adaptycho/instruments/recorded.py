"""Replays a recorded scan: every request is answered with the nearest position that was really measured.

What the replay cannot know it does not invent: a repeated request returns the same counts again (and they cost dose again), and a defocus
or dose that was not recorded is refused.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from torch import Tensor

from adaptycho.physics.optics import EDGE, Setup, object_grid
from adaptycho.types import Action, Measurement

NEIGHBOURHOOD = 3.0  # recorded steps, rms
TOLERANCE = 1e-3  # relative, between a requested defocus or dose and the recorded one


@dataclass(frozen=True, eq=False)
class Recorded:
    """A microscope whose specimens are recorded data sets.

    Attributes:
        setup: beam and geometry, the same for all data sets.
        measurement: B data sets, each with its own number of positions.
        counts_per_electron: detector counts that one electron makes, to compare a requested dose in electrons with the recorded counts.
    """

    setup: Setup
    measurement: Measurement
    counts_per_electron: float = 1.0

    def __post_init__(self) -> None:
        if bool((self.measurement.lengths < 1).any()):
            raise ValueError("measurement: expected at least one recorded position in each data set, got none")

    @property
    def batch(self) -> int:
        """Number of data sets scanned at once."""
        return len(self.measurement)

    def acquire(self, action: Action, *, generator: torch.Generator | None = None) -> Measurement:
        """The recorded patterns nearest (in Å) to the requested positions, at the positions where they were recorded.

        Requests outside the field are answered with the nearest recorded position too. The generator is not used.

        Raises:
            ValueError: the request is for another number of data sets, holds NaN, or asks for a defocus or dose that was not recorded.
        """
        if len(action.positions) != self.batch:
            raise ValueError(f"action.positions: expected requests for {self.batch} data sets, got {len(action.positions)}")
        if not bool(torch.isfinite(action.positions).all()):
            raise ValueError("action.positions: expected finite positions, got NaN or infinity")
        parts = []
        for tree, data, wanted in zip(self._trees, self.measurement.split(), action.positions, strict=True):
            _, nearest = tree.query(_length(self.setup, wanted))
            parts.append(data.take(torch.from_numpy(nearest).to(data.positions.device)))
        found = Measurement(*(torch.cat([getattr(p, n) for p in parts]) for n in ("positions", "patterns", "dose", "defocus")))
        self._check(action, found)
        return found

    @cached_property
    def _trees(self) -> list[cKDTree]:
        return [cKDTree(_length(self.setup, data.positions[0])) for data in self.measurement.split()]

    def _check(self, action: Action, found: Measurement) -> None:
        asked = ("defocus", action.defocus, 1.0, "Å"), ("dose", action.dose, self.counts_per_electron, "electrons")
        for name, value, counts, unit in asked:
            recorded = getattr(found, name) / counts
            if value is not None and bool(((recorded - value).abs() > TOLERANCE * recorded.abs()).any()):
                first, last = float(recorded.min()), float(recorded.max())
                span = f"{first:g}" if math.isclose(first, last, rel_tol=1e-6) else f"{first:g} to {last:g}"
                raise ValueError(f"action.{name}: expected the recorded {span} {unit} (a recording cannot be taken again), got {value:g}")


def distance(setup: Setup, requested: Float[Tensor, "*#batch 2"], reported: Float[Tensor, "*#batch 2"]) -> Float[Tensor, "..."]:
    """How far in Å the beam was from where it was asked to go."""
    return torch.linalg.vector_norm((reported - requested) * requested.new_tensor(setup.field), dim=-1)


def lines(measurement: Measurement) -> tuple[list[float], list[float]]:
    """Where the rows and the columns of a recorded raster lie, fractions of the field, in order."""
    where = measurement.positions[0].double().cpu().numpy().round(6)
    rows, columns = (np.unique(where[:, axis]).tolist() for axis in (0, 1))
    return rows, columns


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


def checkerboard(setup: Setup, measurement: Measurement) -> list[Measurement]:
    """The black and the white half of a recorded raster: two data sets of the same specimen that share no pattern.

    Raises:
        ValueError: the positions do not lie on a raster.
    """
    where = _length(setup, measurement.positions[0])
    parity = np.zeros(len(where), dtype=np.int64)
    for axis in (0, 1):
        lines = np.unique(where[:, axis].round(3))
        steps = np.diff(lines)
        if len(lines) < 2 or not np.allclose(steps, steps.mean(), rtol=0.05):
            raise ValueError("positions: expected a regular raster to split into a checkerboard, got another scan")
        parity += ((where[:, axis] - lines[0]) / steps.mean()).round().astype(np.int64)
    return [measurement.take(torch.from_numpy(np.flatnonzero(parity % 2 == half))) for half in (0, 1)]


def window(setup: Setup, measurement: Measurement, *, rows: tuple[float, float], columns: tuple[float, float]) -> tuple[Setup, Measurement]:
    """Cuts a rectangle out of a recording and makes it a scan field of its own, with a smaller object grid.

    Rectangles of one size have the same setup, so their data sets can be stacked: `Recorded(setup, Measurement.stack([...]))`.

    Args:
        setup: geometry of the whole recording.
        measurement: the recording (B = 1).
        rows: where the rectangle starts and ends along y, fractions of the field, both ends kept.
        columns: likewise along x.

    Raises:
        ValueError: the rectangle is empty, leaves the field, or holds no recorded position.
    """
    for name, (low, high) in (("rows", rows), ("columns", columns)):
        if not -EDGE <= low < high <= 1 + EDGE:
            raise ValueError(f"{name}: expected two fractions of the field, the smaller first, got {low:g}, {high:g}")
    if len(measurement) != 1:
        raise ValueError(f"measurement: expected one data set, got {len(measurement)}")
    start = torch.tensor([rows[0], columns[0]], dtype=torch.float64)
    size = torch.tensor([rows[1], columns[1]], dtype=torch.float64) - start
    inside = (measurement.positions[0].double().cpu() - start) / size
    keep = ((inside >= -EDGE / size) & (inside <= 1 + EDGE / size)).all(-1).nonzero()[:, 0]
    if len(keep) == 0:
        raise ValueError(f"rows, columns: expected a rectangle with recorded positions, got none in {rows}, {columns}")
    part = measurement.take(keep.to(measurement.positions.device))
    positions = inside[keep].clamp(0, 1).to(part.positions)[None]
    field = float(size[0]) * setup.field[0], float(size[1]) * setup.field[1]
    cut = replace(setup, field=field, object=object_grid(field, setup.window, setup.rotation))
    return cut, Measurement(positions, part.patterns, part.dose, part.defocus)


def _length(setup: Setup, positions: Tensor) -> np.ndarray:
    """Positions in Å."""
    return positions.detach().cpu().double().numpy() * np.array(setup.field)
