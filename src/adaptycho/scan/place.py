"""Points spread over the field in proportion to a density, as evenly as they can be, round points that are already there.

Weighted Lloyd iterations: each point moves to the centre of mass of its Voronoi cell. Cells of equal inertia hold fewer points per weight
where the weight is high (their number goes with its square root, Gersho 1979), so the weight is the square of the density. Lloyd moves
points over short distances only, so it starts from points that already follow the density at large; each fixed point takes the place of
one of those, and then holds its cell without moving.
"""

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from torch import Tensor

from adaptycho.scan import patterns
from adaptycho.scan.policies.heuristic import warp

Array = NDArray[np.float64]
Lattice = Literal["hexagonal", "raster"]
SAMPLES = 24  # weights per point; fewer and the points feel their lattice
ITERATIONS = 20
STRIDE = 1.6  # over-relaxation: a little further than the centre of mass, which halves the number of iterations


def place(
    density: Float[Tensor, "h w"],
    count: int,
    *,
    fixed: Float[Tensor, "m 2"] | None = None,
    field: tuple[float, float] | None = None,
    lattice: Lattice = "hexagonal",
    generator: torch.Generator | None = None,
) -> Float[Tensor, "K 2"]:
    """Evenly spread points that follow a density, all of them, new and fixed, taken together.

    Args:
        density: how many points per area, in any unit; not negative.
        count: number of new points K.
        fixed: points that are there already, fractions (y, x) of the field.
        field: size (y, x) of the field in Å, which decides what even means; None takes the density's pixels as square.
        lattice: that is bent to follow the density; an even one leaves it nearly as it is.
        generator: shifts the pattern that is started from, so that each call gives other points; None gives the same points each time.

    Returns:
        Fractions (y, x) of the field, in double precision.

    Raises:
        ValueError: the density is negative, infinite or zero everywhere, or the count is negative.
    """
    weights = density.detach().cpu().double().numpy()
    if not (np.isfinite(weights).all() and weights.min(initial=0) >= 0 and weights.sum() > 0):
        raise ValueError(f"density: expected finite values of at least 0 and some above, got {weights.min()} to {weights.max()}")
    if count < 0:
        raise ValueError(f"count: expected at least 0, got {count}")
    held = np.zeros((0, 2)) if fixed is None else fixed.detach().cpu().double().numpy()
    size = np.array(density.shape if field is None else field, dtype=np.float64)
    weights = _resample(weights / weights.max(), size, SAMPLES * (count + len(held)))
    points = _start(weights, count, held, size, lattice, generator)
    return torch.from_numpy(_lloyd(points, held, weights, size))


def coverage(positions: Array, shape: tuple[int, ...], radii: Array) -> Array:
    """How many beams each pixel has seen: Gaussians of height 1 at the positions, mirrored at the edges.

    Args:
        positions: (K, 2) fractions (y, x) of the field.
        shape: pixels (h, w) of the field.
        radii: rms radius (y, x) of a beam in pixels.
    """
    size = np.array(shape)
    hits = np.zeros(shape)
    np.add.at(hits, tuple(np.clip(positions * size, 0, size - 1).astype(int).T), 1.0)
    return np.asarray(ndimage.gaussian_filter(hits, radii, mode="reflect") * 2 * np.pi * np.prod(radii))


def pulled(points: Float[Tensor, "K 2"], columns: Float[Tensor, "N 2"], field: tuple[float, float], pull: float) -> Float[Tensor, "K 2"]:
    """Each point moved a fraction of the way to the column that is nearest in Å; without columns, the points as they are."""
    if not len(columns):
        return points
    size = points.new_tensor(field)
    nearest = torch.cdist(points * size, columns * size).argmin(1)
    return points + pull * (columns[nearest] - points)


def _resample(density: Array, size: Array, samples: int) -> Array:
    """The density on about so many square pixels."""
    pixel = math.sqrt(size.prod() / max(1, samples))
    shape = np.maximum(1, np.round(size / pixel))
    coarser = np.array(density.shape) / shape
    # Where pixels become larger each stands for its surroundings.
    smooth = ndimage.gaussian_filter(density, np.maximum(0, coarser - 1) / 2, mode="nearest")
    resampled = ndimage.zoom(smooth, 1 / coarser, order=1, mode="nearest", grid_mode=True)
    return np.asarray(resampled if resampled.max() > 0 else np.ones_like(resampled))


def _start(weights: Array, count: int, held: Array, size: Array, lattice: Lattice, generator: torch.Generator | None) -> Array:
    """Points that follow the density at large, without those whose place a fixed point has taken."""
    pattern = patterns.hexagonal if lattice == "hexagonal" else patterns.raster
    sequence = pattern(max(1, count + len(held)), (float(size[0]), float(size[1]))).double().numpy()[: count + len(held)]
    if generator is not None:
        sequence = (sequence + torch.rand(2, generator=generator, dtype=torch.float64).numpy()) % 1
    # Warping needs rows that are not empty.
    points = warp(sequence, weights + 1e-6)
    if not len(held):
        return points
    distance = np.linalg.norm((held[:, None] - points[None]) * size, axis=-1)
    _, taken = linear_sum_assignment(distance**2)
    return np.delete(points, taken, axis=0)


def _lloyd(points: Array, held: Array, weights: Array, size: Array) -> Array:
    """Moves the points, not the held ones, to the centres of their cells."""
    shape, count = np.array(weights.shape), len(points)
    pixels = (np.stack(np.meshgrid(*map(np.arange, weights.shape), indexing="ij"), -1).reshape(-1, 2) + 0.5) / shape * size
    mass = weights.ravel() ** 2
    moving, still = points * size, held * size
    for _ in range(ITERATIONS if count else 0):
        owner = cKDTree(np.concatenate([moving, still])).query(pixels)[1]
        total = np.bincount(owner, mass, len(moving) + len(still))[:count, None]
        middle = np.stack([np.bincount(owner, mass * p, len(moving) + len(still))[:count] for p in pixels.T], 1)
        # A point without a cell stays where it is.
        step = np.where(total > 0, middle / np.where(total > 0, total, 1) - moving, 0)
        moving = (moving + STRIDE * step).clip(0, size)
    return moving / size
