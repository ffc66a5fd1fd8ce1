"""Families of specimens: random atoms that cover the object grid, for training and for comparing scan strategies.

Every family is a crystal, or several, cut along an outline (see `adaptycho.physics.specimen.outline`), or an amorphous film. Extents and
fields are (y, x) in Å; positions are Å from the centre, x along columns and y down rows.
"""

import inspect
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from ase import Atoms
from pydantic import TypeAdapter, ValidationError

from adaptycho.physics import Family
from adaptycho.physics.specimen.film import amorphous, apart
from adaptycho.physics.specimen.lattice import crystal, uniform
from adaptycho.physics.specimen.outline import at_least_zero, blob, direction, half_plane, spread_out, within


def sample(
    family: str,
    unit: Atoms,
    field: tuple[float, float],
    extent: tuple[float, float],
    *,
    generator: torch.Generator,
    **options: Any,
) -> Atoms:
    """One random specimen of a family chosen by name.

    Args:
        family: one of `Family`.
        unit: the crystal's unit cell (see `structure`); an amorphous film takes none of it.
        field: size (y, x) of the scan field in Å.
        extent: size (y, x) of the object grid in Å.
        generator: of everything random.
        **options: of the family's own function; a filling may be a range (from, to), in which each specimen has its own.

    Raises:
        ValueError: the family or one of its options does not exist, or an option has a value out of range.
    """
    function: Callable[..., Atoms]
    where: tuple[Any, ...] = (unit, field, extent)
    match family:
        case "crystal":
            function, where = crystal, (unit, extent)
        case "vacancies":
            function, where = vacancies, (unit, extent)
        case "amorphous":
            function, where = amorphous, (extent,)
        case "island":
            function = island
        case "edge":
            function = edge
        case "particles":
            function = particles
        case "boundary":
            function = boundary
        case _:
            raise ValueError(f"family: expected one of {', '.join(get_args(Family))}, got {family!r}")
    parameters = inspect.signature(function).parameters.values()
    known = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "generator"}
    for name in options:
        if name not in known:
            raise ValueError(f"{family}: expected options among {', '.join(known)}, got {name!r}")
    filling = options.get("filling")
    if isinstance(filling, list | tuple):
        low, high = _typed("filling", filling, tuple[float, float])
        if not low <= high:
            raise ValueError(f"filling: expected a number, or two from lower to higher, got {filling}")
        options = {**options, "filling": low + (high - low) * float(uniform(generator))}
    return function(*where, generator=generator, **{name: _typed(name, value, known[name]) for name, value in options.items()})


def _typed(name: str, value: object, expected: Any) -> Any:
    """An option as its family wants it: a list becomes a tuple, a whole number a float."""
    try:
        return TypeAdapter(expected).validate_python(value)
    except ValidationError:
        said = expected.__name__ if isinstance(expected, type) else expected
        raise ValueError(f"{name}: expected {said}, got {value!r}") from None


def vacancies(
    unit: Atoms,
    extent: tuple[float, float],
    *,
    generator: torch.Generator,
    fraction: float = 0.05,
    species: str | None = None,
    rotation: float | None = None,
    strain: tuple[float, float, float] = (0.0, 0.0, 0.0),
    layers: int = 1,
) -> Atoms:
    """A crystal with randomly missing atoms.

    Args:
        unit, extent, generator, rotation, strain, layers: see `crystal`.
        fraction: of the atoms of the species that is missing, rounded to whole atoms.
        species: chemical symbol; None takes any atom.

    Raises:
        ValueError: the fraction is outside 0 to 1 or the species not in the crystal.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: expected a fraction from 0 to 1, got {fraction}")
    atoms = crystal(unit, extent, generator=generator, rotation=rotation, strain=strain, layers=layers)
    symbols = np.array(atoms.get_chemical_symbols())
    if species is not None and species not in unit.get_chemical_symbols():
        raise ValueError(f"species: expected one of {', '.join(sorted(set(unit.get_chemical_symbols())))}, got {species!r}")
    candidates = np.flatnonzero(symbols == species) if species else np.arange(len(atoms))
    missing = candidates[np.argsort(uniform(generator, len(candidates)))[: round(fraction * len(candidates))]]
    return atoms[np.setdiff1d(np.arange(len(atoms)), missing)]


def island(
    unit: Atoms,
    field: tuple[float, float],
    extent: tuple[float, float],
    *,
    generator: torch.Generator,
    filling: float = 0.25,
    roughness: float = 0.12,
    rotation: float | None = None,
    strain: tuple[float, float, float] = (0.0, 0.0, 0.0),
    layers: int = 1,
) -> Atoms:
    """A compact flake of irregular outline, its centre anywhere in the field, in vacuum.

    Args:
        unit, extent, generator, rotation, strain, layers: see `crystal`.
        field: size (y, x) of the scan field in Å.
        filling: fraction of the field's area inside the outline.
        roughness: rms relative deviation of the outline from a circle (of the logarithm of its radius).

    Raises:
        ValueError: the filling is not above 0 and at most 1, or the roughness is negative.
    """
    atoms = crystal(unit, extent, generator=generator, rotation=rotation, strain=strain, layers=layers)
    centre = (uniform(generator, 2) - 0.5) * [field[1], field[0]]
    return atoms[within(blob(centre, roughness, generator), field, filling)(atoms.positions[:, :2])]


def edge(
    unit: Atoms,
    field: tuple[float, float],
    extent: tuple[float, float],
    *,
    generator: torch.Generator,
    filling: float = 0.5,
    roughness: float = 0.7,
    rotation: float | None = None,
    strain: tuple[float, float, float] = (0.0, 0.0, 0.0),
    layers: int = 1,
) -> Atoms:
    """A crystal that ends at a wavy edge of random direction; beyond it is vacuum.

    Args:
        unit, extent, generator, rotation, strain, layers: see `crystal`.
        field: size (y, x) of the scan field in Å.
        filling: fraction of the field's area on the crystal's side.
        roughness: rms deviation of the edge from a straight line in Å.

    Raises:
        ValueError: the filling is not above 0 and at most 1, or the roughness is negative.
    """
    atoms = crystal(unit, extent, generator=generator, rotation=rotation, strain=strain, layers=layers)
    side = half_plane(roughness, generator)
    return atoms[within(side, field, filling)(atoms.positions[:, :2])]


def particles(
    unit: Atoms,
    field: tuple[float, float],
    extent: tuple[float, float],
    *,
    generator: torch.Generator,
    filling: float = 0.25,
    count: int = 3,
    layers: int = 1,
    support: float = 15.0,
) -> Atoms:
    """Crystalline particles of random orientation on an amorphous carbon film.

    The film lies upstream and has tag 0, the particles have tag 1. Where particles meet, each atom belongs to the nearer one.

    Args:
        unit, extent, generator, layers: see `crystal`.
        field: size (y, x) of the scan field in Å.
        filling: fraction of the field's area that the particles cover.
        count: number of particles with their centres in the field.
        support: thickness of the film in Å; 0 leaves it out.

    Raises:
        ValueError: the filling is not above 0 and at most 1, there is no particle, or the thickness is negative.
    """
    if count < 1:
        raise ValueError(f"count: expected at least one particle, got {count}")
    at_least_zero("support", support)
    film = amorphous(extent, generator=generator, thickness=support) if support else Atoms(cell=(extent[1], extent[0], 0))
    film.set_tags(0)
    outlines = [blob(c, 0.05, generator) for c in spread_out(count, field, generator)]

    def levels(points: np.ndarray) -> np.ndarray:
        return np.stack([outline(points) for outline in outlines])

    inside = within(lambda points: levels(points).min(0), field, filling)
    together = Atoms(cell=film.cell)
    for i in range(count):
        grain = crystal(unit, extent, generator=generator, layers=layers)
        place = grain.positions[:, :2]
        grain = grain[inside(place) & (levels(place).argmin(0) == i)]
        together.set_cell(grain.cell)
        together += grain[apart(grain.positions, together.positions, 1.0)]
    together.positions[:, 2] += support
    joined = film + together
    joined.set_cell([extent[1], extent[0], support + together.cell[2, 2]])
    return joined


def boundary(
    unit: Atoms,
    field: tuple[float, float],
    extent: tuple[float, float],
    *,
    generator: torch.Generator,
    rotation: float | None = None,
    misorientation: float | None = None,
    separation: float = 1.0,
    layers: int = 1,
) -> Atoms:
    """Two grains of different orientation that meet on a random straight line through the middle half of the field.

    The grains have tags 1 and 2.

    Args:
        unit, extent, generator, rotation, layers: see `crystal`.
        field: size (y, x) of the scan field in Å.
        misorientation: degrees, counter-clockwise, of the second grain against the first; None draws both orientations.
        separation: shortest distance in Å between atoms of the two grains; nearer ones of the second are left out.

    Raises:
        ValueError: the separation is negative.
    """
    at_least_zero("separation", separation)
    first_angle = 360 * float(uniform(generator)) if rotation is None else rotation
    second_angle = 360 * float(uniform(generator)) if misorientation is None else first_angle + misorientation
    normal, through = direction(generator), (uniform(generator, 2) - 0.5) * [field[1] / 2, field[0] / 2]
    first, second = (crystal(unit, extent, generator=generator, rotation=a, layers=layers) for a in (first_angle, second_angle))
    first = first[(first.positions[:, :2] - through) @ normal < 0]
    second = second[(second.positions[:, :2] - through) @ normal >= 0]
    second = second[apart(second.positions, first.positions, separation)]
    second.set_tags(2)
    return first + second
