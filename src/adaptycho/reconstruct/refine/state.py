"""What was found out beside the object."""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Refined:
    """Probe and positions of B data sets as a reconstruction left them.

    Attributes:
        probe: modes at the nominal defocus, orthogonal and the strongest first, zero position in the corner; their squares sum to the
            fraction of a pattern's dose that there is light for.
        positions: fractions (y, x) of the scan field.
        reported: where the patterns were said to be, likewise.
        intensities: electrons in each pattern against its dose; 1 unless refined.
        affine: matrix that takes a distance (y, x) from the middle of the field, as reported, to what it was found to be.
        defocus: underfocus in Å that was found beyond what the patterns are said to be taken with.
        thickness: Å from one slice to the next; 0 of a single one.
        velocity: last update of the probe, which momentum carries on.
    """

    probe: Complex[Tensor, "B M N N2"]
    positions: Float[Tensor, "B K 2"]
    reported: Float[Tensor, "B K 2"]
    intensities: Float[Tensor, "B K"]
    affine: Float[Tensor, "B 2 2"]
    defocus: Float[Tensor, " B"]
    thickness: Float[Tensor, " B"]
    velocity: Complex[Tensor, "B M N N2"]

    @property
    def rotation(self) -> Float[Tensor, " B"]:
        """Degrees, counter-clockwise, to be added to the `rotation` of the setup."""
        return torch.rad2deg(torch.atan2(self.affine[:, 0, 1] - self.affine[:, 1, 0], self.affine[:, 0, 0] + self.affine[:, 1, 1]))

    @property
    def powers(self) -> Float[Tensor, "B M"]:
        """Fraction of the probe's intensity that each mode holds."""
        power = self.probe.abs().square().sum((-2, -1))
        return power / power.sum(-1, keepdim=True)
