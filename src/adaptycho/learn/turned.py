"""Simulated specimens turned by quarter turns and mirrored: eight for one."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from adaptycho.instruments.simulated import Simulated
from adaptycho.samples.sample import Sample, Specimen, unseen
from adaptycho.settings import build
from adaptycho.types import Measurement


@dataclass(frozen=True, eq=False)
class Turned(Sample):
    """A specimen after one of the eight symmetries of a square field.

    The even ones, half turns and mirror images, are symmetries of any rectangle.

    Attributes:
        microscope: over the turned potential.
        specimen: as it was.
        symmetry: number of quarter turns, from 0 to 3; 4 more to mirror it afterwards.
    """

    microscope: Simulated
    specimen: Specimen
    symmetry: int

    @property
    def counts_per_electron(self) -> float:
        """As of the specimen."""
        return self.specimen.counts_per_electron

    @property
    def inside(self) -> Bool[Tensor, "h w"]:
        """Where the turned structure is."""
        return self.setup.crop(image(self.specimen.structure, self.symmetry).float()) > 0.5

    @cached_property
    def columns(self) -> Float[Tensor, "_ 2"]:
        """Where the turned columns are."""
        return places(self.specimen.columns, self.symmetry)

    @property
    def truth(self) -> Float[Tensor, "1 h w"]:
        """True phase of the turned specimen."""
        return build.truth_in_field(self.microscope)

    @property
    def full_scan(self) -> Float[Tensor, "1 h w"]:
        """The specimen's full scan, turned."""
        return self.setup.crop(image(self.specimen.full_phase, self.symmetry))

    @property
    def held_out(self) -> Measurement:
        """Patterns of the turned specimen."""
        return unseen(self.microscope, self.number)

    @property
    def sites(self) -> None:
        """Not worked out, since nothing that is turned is scored by them."""
        return None

    @property
    def energy(self) -> None:
        """The atoms tell where the structure is."""
        return None


def turned(specimen: Specimen, symmetry: int) -> Turned:
    """The specimen after one of the eight symmetries."""
    microscope = dataclasses.replace(specimen.microscope, potential=image(specimen.microscope.potential, symmetry))
    return Turned(specimen.number, specimen.settings, microscope, specimen, symmetry)


def image(values: Shaped[Tensor, "*B H W"], symmetry: int) -> Shaped[Tensor, "*B H2 W2"]:
    """An image on the object grid after one of the eight symmetries."""
    for _ in range(symmetry % 4):
        values = _mirrored(values.transpose(-2, -1), -2)
    return _mirrored(values, -1) if symmetry >= 4 else values


def places(where: Float[Tensor, "n 2"], symmetry: int) -> Float[Tensor, "n 2"]:
    """Places, fractions (y, x) of the field, after one of the eight symmetries."""
    for _ in range(symmetry % 4):  # the right-hand side comes to the top
        where = torch.stack([1 - where[:, 1], where[:, 0]], 1)
    return torch.stack([where[:, 0], 1 - where[:, 1]], 1) if symmetry >= 4 else where


def _mirrored(image: Shaped[Tensor, "*B H W"], axis: int) -> Shaped[Tensor, "*B H W"]:
    """An image mirrored at the centre of the object, which is pixel N/2 of N and not the edge before it; the object is periodic."""
    return image.flip(axis).roll(1, axis)
