"""Unit cells, and the crystals cut from them: turned, strained and shifted at random."""

import math
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.build import graphene, mx2

MOST_ATOMS = 1e7  # a third of a micrometre of MoS2: 1 GB while they are made
# Lattice constants and sheet thicknesses in Å (chalcogen to chalcogen along the beam), and the height one layer takes in its bulk crystal.
SHEETS = {"MoS2": (3.16, 3.17, 6.15), "WSe2": (3.28, 3.34, 6.48), "graphene": (2.46, 0.0, 3.35)}


def structure(name_or_path: str | Path) -> Atoms:
    """A unit cell by name (MoS2, WSe2, graphene: one layer) or from any structure file that ASE reads (CIF, POSCAR, XYZ with a cell, ...).

    The beam will travel along the normal of the cell's first two vectors; the first of them lies along x.

    Args:
        name_or_path: name of a built-in structure, or path of a file.

    Raises:
        ValueError: neither a known name nor a file, or the file cannot be read or is not periodic in two directions.
    """
    name = str(name_or_path)
    if name in SHEETS:
        a, thickness, height = SHEETS[name]
        unit = graphene(a=a) if name == "graphene" else mx2(name, kind="2H", a=a, thickness=thickness)
        return _upright(unit, height)
    if not Path(name_or_path).is_file():
        raise ValueError(f"structure: expected one of {', '.join(SHEETS)} or a structure file, got {name!r}, which is neither")
    try:
        unit = ase.io.read(name_or_path)
    except Exception as error:  # ASE's readers raise whatever their parsers do, from KeyError to UnicodeDecodeError
        raise ValueError(f"structure: expected a structure file that ASE can read, got {name} ({type(error).__name__}: {error})") from error
    if isinstance(unit, list) or len(unit) == 0:
        raise ValueError(f"structure: expected one structure with atoms, got {name} with none")
    area = np.linalg.norm(np.cross(unit.cell[0], unit.cell[1]))
    if area < 1e-3:
        raise ValueError(f"structure: expected a cell that is periodic in at least two directions, got {name} with {unit.cell.tolist()} Å")
    heights = (unit.positions - unit.positions[0]) @ np.cross(unit.cell[0], unit.cell[1]) / area
    return _upright(unit, float(np.ptp(heights)) + 3.0)


def crystal(
    unit: Atoms,
    extent: tuple[float, float],
    *,
    generator: torch.Generator,
    rotation: float | None = None,
    strain: tuple[float, float, float] = (0.0, 0.0, 0.0),
    layers: int = 1,
) -> Atoms:
    """A perfect crystal that covers the extent, shifted at random.

    Args:
        unit: unit cell, its first two vectors across the beam.
        extent: size (y, x) in Å.
        generator: of the shift, and of the rotation if none is given.
        rotation: degrees, counter-clockwise in a picture (y down), of the first cell vector away from x; None draws it from 0 to 360.
        strain: (exx, eyy, exy) in the frame of the picture, applied after the rotation.
        layers: unit cells along the beam.

    Raises:
        ValueError: the unit cell has no area across the beam, or there is not at least one layer.
    """
    if layers < 1:
        raise ValueError(f"layers: expected at least 1, got {layers}")
    cell = np.asarray(unit.cell)
    if abs(np.linalg.det(cell[:2, :2])) < 1e-3 or abs(cell[:2, 2]).max() > 1e-6:
        raise ValueError(f"unit: expected a cell whose first two vectors lie across the beam, got {cell.tolist()} Å")
    angle = math.radians(360 * uniform(generator) if rotation is None else rotation)
    cos, sin = math.cos(angle), math.sin(angle)
    exx, eyy, exy = strain
    # Acts on (x, y); with y pointing down, counter-clockwise takes x to -y.
    deform = np.array([[1 + exx, exy], [exy, 1 + eyy]]) @ np.array([[cos, sin], [-sin, cos]])
    if np.linalg.det(deform) <= 0:
        raise ValueError(f"strain: expected a deformation well below one, got {strain}")
    shift = uniform(generator, 2) @ cell[:2, :2]
    positions, numbers = _tile(unit, shift, layers, 0.5 * math.hypot(*extent) * float(np.linalg.norm(np.linalg.inv(deform), 2)))
    positions[:, :2] = positions[:, :2] @ deform.T
    inside = (abs(positions[:, :2]) <= np.array([extent[1], extent[0]]) / 2).all(1)
    size = (extent[1], extent[0], layers * cell[2, 2])
    return Atoms(numbers[inside], positions[inside], cell=size, pbc=False, tags=np.ones(inside.sum(), dtype=int))


def check_count(atoms: float, extent: float) -> None:
    """Refuses more atoms than a potential is ever made of, before they are made.

    Raises:
        ValueError: naming their number and the extent in Å that they are to fill.
    """
    if not atoms <= MOST_ATOMS:
        found = f"about {atoms:.2g} for {extent:.4g} Å, geometry.pixel times geometry.object"
        raise ValueError(f"extent: expected a specimen of at most {MOST_ATOMS:.0e} atoms, found {found}")


def uniform(generator: torch.Generator, *shape: int) -> np.ndarray:
    """Uniform random numbers from 0 to 1 in double precision, as NumPy wants them."""
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device).cpu().numpy()


def _upright(unit: Atoms, height: float) -> Atoms:
    """The unit cell turned so that its first two vectors lie across the beam, atoms wrapped into it; `height` where it has none."""
    unit = unit.copy()
    unit.info = {}
    a, b, c = np.asarray(unit.cell)
    normal = np.cross(a, b) / np.linalg.norm(np.cross(a, b))
    missing = abs(c @ normal) < 1e-3
    if missing:
        # A sheet: centred in a cell of the wanted height.
        c = height * normal
        unit.positions += (height / 2 - (unit.positions @ normal).mean()) * normal
    elif c @ normal < 0:
        c = -c
    first = a / np.linalg.norm(a)
    frame = np.stack([first, np.cross(normal, first), normal], 1)
    placed = Atoms(unit.numbers, unit.positions @ frame, cell=np.stack([a, b, c]) @ frame, pbc=True)
    placed.wrap()
    return placed


def _tile(unit: Atoms, shift: np.ndarray, layers: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions and numbers of the repeated cell, complete within `radius` of the origin."""
    cell = np.asarray(unit.cell)
    drift = layers * np.linalg.norm(cell[2, :2]) + np.linalg.norm(shift) + np.linalg.norm(cell[:2, :2], axis=1).sum()
    # |i| of any lattice point i a + j b within a radius is at most the radius times the length of the reciprocal vector.
    sides = np.ceil((radius + drift) * np.linalg.norm(np.linalg.inv(cell[:2, :2]), axis=0))
    check_count(math.prod(2 * sides + 1) * layers * len(unit), 2 * radius)
    most = sides.astype(int)
    i, j, k = (m.ravel() for m in np.mgrid[-most[0] : most[0] + 1, -most[1] : most[1] + 1, :layers])
    origins = np.stack([i, j, k], 1) @ cell
    origins[:, :2] += shift
    near = np.hypot(*origins[:, :2].T) <= radius + drift
    positions = (origins[near, None] + unit.positions).reshape(-1, 3)
    return positions, np.tile(unit.numbers, near.sum())
