"""Amorphous films: random atoms that keep a distance. Extents are (y, x) in Å."""

import math

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from scipy.spatial import cKDTree

from adaptycho.physics.specimen.lattice import check_count, uniform

CARBON_BOND = 1.4  # Å, shortest distance between atoms of an amorphous film
CARBON_DENSITY = 0.1  # atoms per Å^3: 2 g/cm^3


def amorphous(
    extent: tuple[float, float],
    *,
    generator: torch.Generator,
    thickness: float = 20.0,
    density: float = CARBON_DENSITY,
    species: str = "C",
    distance: float = CARBON_BOND,
) -> Atoms:
    """An amorphous film: atoms dropped one by one wherever no other is too near (random sequential addition).

    Args:
        extent: size (y, x) in Å.
        generator: of the positions.
        thickness: along the beam in Å.
        density: atoms per Å^3.
        species: chemical symbol.
        distance: shortest distance between two atoms in Å.

    Raises:
        ValueError: the species does not exist, the thickness is not positive, or the film is too dense: random addition jams when spheres
            fill about 38 % of the volume.
    """
    if species not in atomic_numbers:
        raise ValueError(f"species: expected a chemical symbol, got {species!r}")
    if not thickness > 0:
        raise ValueError(f"thickness: expected a positive thickness in Å, got {thickness}")
    packing = density * math.pi / 6 * distance**3
    if not (density >= 0 and packing <= 0.3):
        raise ValueError(f"density: expected atoms that fill at most 30 % of the film, got {density} per Å^3 ({100 * packing:.0f} %)")
    size = np.array([extent[1], extent[0], thickness])
    check_count(density * size.prod(), math.hypot(*extent))
    count = round(density * size.prod())
    placed = np.zeros((0, 3))
    while len(placed) < count:
        dropped = uniform(generator, max(64, count - len(placed)), 3) * size
        dropped = dropped[apart(dropped, placed, distance)]
        pairs = cKDTree(dropped).query_pairs(distance, output_type="ndarray")
        # Of each pair in this round the later one goes, as if they had come in order.
        placed = np.concatenate([placed, np.delete(dropped, pairs.max(1), axis=0)])[:count]
    placed[:, :2] -= size[:2] / 2
    return Atoms([species] * count, placed, cell=size, pbc=False, tags=np.ones(count, dtype=int))


def apart(positions: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    """Which positions are at least a distance away from all the others."""
    if not len(others) or not len(positions):
        return np.ones(len(positions), dtype=bool)
    return cKDTree(others).query(positions, distance_upper_bound=distance)[0] >= distance
