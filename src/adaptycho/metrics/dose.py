"""Where the electrons went: the dose of every part of the field, how much of it the beam has visited, how far the beam travelled.

Positions are fractions (y, x) of the scan field; its size is (y, x) in Å, doses are electrons. Everything is computed in float64.

A dose per area needs the shape of the beam, of which a judge knows one number, the radius that holds half of its electrons. A Gaussian of
that radius stands for it: its peak, ln 2 / (pi r^2) of the electrons, is within 2 % of an Airy pattern's; a uniform disk's is 28 % lower.
A defocused beam has a disk's outline but Fresnel fringes inside, which a disk misses more than a Gaussian does. Against simulated probes
(60 keV, 33 mrad, 0 to 300 Å defocus, rasters of 8 x 8 to 16 x 16 on 20 Å) the Gaussian's peak dose is 0.5 to 1.0 of the true one (lowest
at 50 Å; 0.75 to 1.0 from 100 Å) and its 95th percentile 0.7 to 1.0; a disk's 0.5 to 1.3 and 0.6 to 1.35. So a peak dose is "at least".
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from scipy.spatial import Voronoi, cKDTree
from torch import Tensor

PIXELS = 128  # along the longer side of the field
MOST_PIXELS = 1024
# A two-dimensional Gaussian holds half of itself within this many sigma.
HALF = math.sqrt(2 * math.log(2))


@dataclass(frozen=True)
class LocalDose:
    """How many electrons were spent, and how unevenly.

    Attributes:
        total: electrons sent.
        mean: those per Å² of the scan field, the beam's skirt beyond its edge included.
        peak: highest dose of the dose map in electrons per Å².
        p95: its 95th percentile over the area of the field.
    """

    total: float
    mean: float
    peak: float
    p95: float


@dataclass(frozen=True)
class Coverage:
    """How much of the field the beam has visited.

    Attributes:
        fraction: of the field's area that lies within the probe radius of a position.
        covering_radius: distance in Å from a position to the point of the field that is furthest from all of them.
    """

    fraction: float
    covering_radius: float


def dose_map(
    positions: Float[Tensor, "P 2"],
    dose: Float[Tensor, " P"],
    field: tuple[float, float],
    probe_radius: float | Float[Tensor, " P"],
    *,
    pixels: int = PIXELS,
) -> Float[np.ndarray, "h w"]:
    """Electrons per Å² over the field, each position's electrons spread over a Gaussian.

    What the beam's skirt sends beyond the edge of the field is not shown. Positions outside the field count at its edge.

    Args:
        positions: fractions (y, x) of the field.
        dose: electrons sent to each.
        field: size (y, x) in Å.
        probe_radius: radius in Å that holds half of the beam's electrons, one for all positions or one for each.
        pixels: along the longer side of the field.

    Raises:
        ValueError: the field or a radius is not positive.
    """
    shape, pixel = _pixels(field, pixels)
    total = np.zeros(shape)
    for radius, chosen in _by_radius(positions, probe_radius):
        y, x = _inside(positions)[chosen].T
        electrons = dose.detach().double().cpu().numpy()[chosen]
        counts = np.histogram2d(y, x, bins=shape, range=((0, 1), (0, 1)), weights=electrons)[0]
        total += gaussian_filter(counts, [radius / HALF / p for p in pixel], mode="constant")
    return total / math.prod(pixel)


def local_dose(
    positions: Float[Tensor, "P 2"],
    dose: Float[Tensor, " P"],
    field: tuple[float, float],
    probe_radius: float | Float[Tensor, " P"],
) -> LocalDose:
    """Total, mean, peak and 95th-percentile dose of a scan; see `dose_map` for the arguments and errors.

    The map has three pixels or more to a probe radius, so that the peak is the beam's and not a pixel's mean, unless that takes more than
    1024 along a side.
    """
    smallest = min((radius for radius, _ in _by_radius(positions, probe_radius)), default=math.inf)
    pixels = min(MOST_PIXELS, max(PIXELS, math.ceil(3 * max(field) / smallest)))
    spread = dose_map(positions, dose, field, probe_radius, pixels=pixels)
    total = float(dose.double().sum())
    return LocalDose(total, total / math.prod(field), float(spread.max()), float(np.quantile(spread, 0.95)))


def coverage(
    positions: Float[Tensor, "P 2"],
    field: tuple[float, float],
    probe_radius: float | Float[Tensor, " P"],
    *,
    pixels: int = 2 * PIXELS,
) -> Coverage:
    """Part of the field that the beam has visited, and its largest gap. Without positions nothing is covered and the gap is infinite.

    The fraction counts the centres of pixels and is good to about one part in `pixels`; the covering radius is exact.

    Args:
        positions: fractions (y, x) of the field; those outside count at its edge.
        field: size (y, x) in Å.
        probe_radius: in Å, one for all positions or one for each.
        pixels: along the longer side of the field.

    Raises:
        ValueError: the field or a radius is not positive.
    """
    shape, pixel = _pixels(field, pixels)
    y, x = ((np.arange(n) + 0.5) * p for n, p in zip(shape, pixel, strict=True))
    centres = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
    visited = np.zeros(len(centres), dtype=bool)
    points = _inside(positions) * field
    for radius, chosen in _by_radius(positions, probe_radius):
        distance, _ = cKDTree(points[chosen]).query(centres, distance_upper_bound=radius * (1 + 1e-12))
        visited |= np.isfinite(distance)
    return Coverage(float(visited.mean()), _covering_radius(points, field))


def path_length(positions: Float[Tensor, "P 2"], field: tuple[float, float]) -> float:
    """Distance in Å that the beam travels in straight lines through the positions, in the order in which they were visited."""
    steps = positions.double().diff(dim=0) * torch.tensor(field, dtype=torch.float64, device=positions.device)
    return float(steps.norm(dim=1).sum())


def discrepancy(positions: Float[Tensor, "P 2"]) -> float:
    """Centred L2 discrepancy (Hickernell 1998): 0 is perfectly even; nan without positions. Those outside the field count at its edge."""
    from scipy.stats import qmc  # here, since it takes half a second to load

    return float(qmc.discrepancy(_inside(positions), method="CD")) if len(positions) else math.nan


def _covering_radius(points: np.ndarray, field: tuple[float, float]) -> float:
    """The furthest point is a vertex of a Voronoi cell clipped to the field; mirror images in the four edges clip the cells."""
    if not len(points):
        return math.inf
    longest = max(field)
    size, points = np.array(field) / longest, points / longest
    mirrored = [points]
    for axis, edge in ((0, 0.0), (0, size[0]), (1, 0.0), (1, size[1])):
        image = points.copy()
        image[:, axis] = 2 * edge - image[:, axis]
        mirrored.append(image)
    # Points that differ in the last digit only, as a position on an edge and its image do, are one.
    vertices = Voronoi(np.unique(np.concatenate(mirrored).round(9), axis=0)).vertices
    inside = vertices[((vertices >= -1e-6) & (vertices <= size + 1e-6)).all(1)]
    return float(cKDTree(points).query(inside.clip(0, size))[0].max()) * longest


def _by_radius(positions: Tensor, probe_radius: float | Tensor) -> Iterator[tuple[float, np.ndarray]]:
    """Each distinct probe radius with the positions (P,) that have it."""
    count = len(positions)
    given = probe_radius.detach().double().cpu().numpy() if isinstance(probe_radius, Tensor) else np.full(count, float(probe_radius))
    if given.shape != (count,) or not (given > 0).all():
        raise ValueError(f"probe_radius: expected a positive radius in Å for each of {count} positions, got {probe_radius}")
    for radius in np.unique(given):
        yield float(radius), given == radius


def _inside(positions: Tensor) -> np.ndarray:
    return positions.detach().double().cpu().numpy().clip(0, 1)


def _pixels(field: tuple[float, float], pixels: int) -> tuple[tuple[int, int], tuple[float, float]]:
    """Number and size in Å of pixels (y, x) that are as square as whole numbers allow."""
    if not (len(field) == 2 and min(field) > 0):
        raise ValueError(f"field: expected a positive size (y, x) in Å, got {field}")
    edge = max(field) / pixels
    height, width = (max(1, round(s / edge)) for s in field)
    return (height, width), (field[0] / height, field[1] / width)
