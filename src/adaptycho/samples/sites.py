"""Atom columns of a simulated specimen, to score how well a reconstruction places them and finds those that lack atoms."""

import dataclasses
from dataclasses import dataclass

import torch
from ase import Atoms
from jaxtyping import Float, Int
from torch import Tensor

from adaptycho.metrics.atoms import columns_of, occupancy_of
from adaptycho.physics import specimen
from adaptycho.physics.optics import Setup
from adaptycho.settings import Settings, build


@dataclass(frozen=True, eq=False)
class Sites:
    """Atom columns of the complete structure inside the field.

    Attributes:
        positions: (y, x) in Å from the field's top-left corner.
        kind: equal for columns of the same atoms.
        occupancy: fraction of a column's atoms that is there.
    """

    positions: Float[Tensor, "n 2"]
    kind: Int[Tensor, " n"]
    occupancy: Float[Tensor, " n"]

    @property
    def present(self) -> Float[Tensor, "k 2"]:
        """Positions of the columns of which anything is there."""
        return self.positions[self.occupancy > 0]


def sites(settings: Settings, setup: Setup, number: int, there: Atoms) -> Sites | None:
    """Columns of the structure of interest, in the pixels that `Setup.crop` keeps; an amorphous film has none.

    Args:
        settings: of the specimen.
        setup: geometry.
        number: of the specimen.
        there: its atoms.
    """
    if settings.specimen.family == "amorphous":
        return None
    complete = there
    if settings.specimen.family == "vacancies":  # the same crystal with nothing missing
        options = {**settings.specimen.options, "fraction": 0.0}
        nothing_missing = dataclasses.replace(settings, specimen=dataclasses.replace(settings.specimen, options=options))
        complete = build.atoms(nothing_missing, setup, number)
    ideal, found = specimen.of_interest(complete), specimen.of_interest(there)
    columns = columns_of(ideal.positions[:, 1::-1], ideal.numbers)
    pixel = setup.object.pixel
    corner = setup.crop(torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in setup.object.shape), indexing="ij")))[:, 0, 0]
    positions = columns.positions + (torch.tensor(setup.object.shape) / 2 - corner + 0.5).double() * pixel
    keep = ((positions >= 0) & (positions < torch.tensor(setup.field_shape) * pixel)).all(1)
    occupancy = occupancy_of(columns, found.positions[:, 1::-1])
    return Sites(positions[keep], columns.kind[keep], occupancy[keep])


def columns_in_field(setup: Setup, there: Atoms) -> Float[Tensor, "n 2"]:
    """Places of the atom columns of the structure of interest, fractions (y, x) of the field; some lie outside it."""
    interest = specimen.of_interest(there)
    found = columns_of(interest.positions[:, 1::-1], interest.numbers).positions
    return (0.5 + found / torch.tensor(setup.field)).float()
