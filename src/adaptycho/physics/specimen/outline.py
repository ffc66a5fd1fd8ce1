"""Outlines of specimens as level functions: a number for each point of the plane that is smaller further inside.

The level at which the wanted fraction of the scan field lies inside is a quantile of the function's values over the field, so that every
random outline covers the filling that was asked for, whatever its shape and place. Points are (x, y) in Å from the centre of the field.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import cKDTree

from adaptycho.physics.specimen.lattice import uniform

Level = Callable[[np.ndarray], np.ndarray]  # points (n, 2) -> levels (n,)

LATTICE = 128  # points along each side of the field at which its area is counted: good to about 1 %


def within(level: Level, field: tuple[float, float], filling: float) -> Callable[[np.ndarray], np.ndarray]:
    """A test of whether points lie inside the outline that covers the fraction `filling` of the field.

    Raises:
        ValueError: the filling is not above 0 and at most 1.
    """
    if not 0 < filling <= 1:
        raise ValueError(f"filling: expected a fraction above 0 and at most 1, got {filling}")
    y, x = (((np.arange(LATTICE) + 0.5) / LATTICE - 0.5) * size for size in field)
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    threshold = np.quantile(level(points), filling) if filling < 1 else np.inf
    return lambda where: level(where) <= threshold


def blob(centre: np.ndarray, roughness: float, generator: torch.Generator) -> Level:
    """Star-shaped: the distance from the centre over a radius that varies smoothly with the direction.

    `roughness` is the rms of the logarithm of that radius.
    """
    at_least_zero("roughness", roughness)
    order = np.arange(2, 7)
    normal = torch.randn(2, len(order), generator=generator, dtype=torch.float64, device=generator.device).cpu().numpy()
    # Harmonics fall off as 1 / m; cosine and sine of one order together have the variance of its amplitude.
    cosine, sine = roughness * normal / order / math.sqrt((1 / order**2).sum())

    def level(points: np.ndarray) -> np.ndarray:
        x, y = (points - centre).T
        angle = np.arctan2(y, x)[:, None] * order
        return np.hypot(x, y) * np.exp(-(np.cos(angle) @ cosine + np.sin(angle) @ sine))

    return level


def half_plane(roughness: float, generator: torch.Generator) -> Level:
    """One side of a straight line of random direction that undulates by `roughness` Å rms, at wavelengths of 5 to 30 Å."""
    at_least_zero("roughness", roughness)
    normal = direction(generator)
    wavelengths = 5 * 6 ** uniform(generator, 4)
    phases = 2 * math.pi * uniform(generator, 4)

    def level(points: np.ndarray) -> np.ndarray:
        along = points @ [-normal[1], normal[0]]
        # Four sines of unit amplitude have the rms sqrt(2).
        waves = np.sin(2 * math.pi * along[:, None] / wavelengths + phases).sum(1)
        return points @ normal + roughness / math.sqrt(2) * waves

    return level


def spread_out(count: int, field: tuple[float, float], generator: torch.Generator) -> np.ndarray:
    """Points of the field, each the farthest from the earlier ones among 16 random candidates."""
    points = [(uniform(generator, 2) - 0.5) * [field[1], field[0]]]
    while len(points) < count:
        candidates = (uniform(generator, 16, 2) - 0.5) * [field[1], field[0]]
        points.append(candidates[cKDTree(points).query(candidates)[0].argmax()])
    return np.array(points)


def direction(generator: torch.Generator) -> np.ndarray:
    """A random unit vector."""
    angle = 2 * math.pi * float(uniform(generator))
    return np.array([math.cos(angle), math.sin(angle)])


def at_least_zero(name: str, value: float) -> None:
    """Refuses a negative option.

    Raises:
        ValueError: the value is negative or not a number.
    """
    if not value >= 0:
        raise ValueError(f"{name}: expected a value of at least 0, got {value}")
