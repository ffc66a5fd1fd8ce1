"""Specimens: atoms, their projected potential, and families of specimens to simulate scans of.

Atoms are ASE objects. Their x runs along the columns and y down the rows, in Å from the centre of the object grid, which is also the centre
of the scan field; the beam travels along +z. The cell of a specimen only says how large it is: its height `cell[2, 2]` bounds z.
"""

from adaptycho.physics import Family
from adaptycho.physics.specimen.families import boundary, edge, island, particles, sample, vacancies
from adaptycho.physics.specimen.film import amorphous
from adaptycho.physics.specimen.lattice import crystal, structure
from adaptycho.physics.specimen.potential import contaminate, of_interest, potential, scattering_factor, structure_mask

__all__ = [
    "Family",
    "amorphous",
    "boundary",
    "contaminate",
    "crystal",
    "edge",
    "island",
    "of_interest",
    "particles",
    "potential",
    "sample",
    "scattering_factor",
    "structure",
    "structure_mask",
    "vacancies",
]
