"""Which of two conjugate orientations is right: the one in which the specimen's atoms hold the phase back, not push it on.

Two signs of it, both of which other specimens than vacuum with atoms in it may lack. Where there is more phase there is more matter, and
matter scatters electrons out of the bright-field disc: its total, to first order without contrast of a phase object, falls. And phases of
atoms are peaks on a level, so that their distribution is skew to the right.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.samples.doctor.linear import Orientation, phase
from adaptycho.samples.doctor.virtual import Virtual, transform

CLEAR = 3.0  # standard errors of the correlation that count
SKEW = 0.3  # that counts
NEEDED = 16  # frequencies for a correlation


@dataclass(frozen=True, eq=False)
class Polarity:
    """What the phase looks like in an orientation.

    Attributes:
        matter: correlation of the phase with the electrons missing in the bright-field disc, in standard errors of none.
        skewness: of the phase.
        image: the phase at the positions, to first order, free in scale.
    """

    matter: float
    skewness: float
    image: Float[Tensor, " N"]

    @property
    def right(self) -> bool | None:
        """Whether the orientation is right and not its conjugate; None if nothing says so."""
        if abs(self.matter) >= CLEAR:
            return self.matter > 0
        return self.skewness > 0 if abs(self.skewness) >= SKEW else None

    @property
    def agreed(self) -> bool:
        """Whether both signs say the same, loud enough."""
        return abs(self.matter) >= CLEAR and self.matter * self.skewness > 0


def polarity(images: Virtual, way: Orientation) -> Polarity:
    """What the phase looks like in an orientation."""
    spectrum = phase(images, way)
    change = (images.total / images.total.mean() - 1)[:, None]
    missing = -transform(change, images.positions, images.field, images.frequencies)[:, 0]
    together = float((spectrum * missing.conj()).real.sum())
    power = float((spectrum.abs().square().sum() * missing.abs().square().sum()).sqrt())
    matter = together / power * math.sqrt(len(spectrum)) if power > 0 and len(spectrum) >= NEEDED else 0.0
    parts = []
    for some in images.positions.split(2048):
        angle = 2 * math.pi * (some @ images.frequencies.double().T)
        parts.append((angle.cos().float() @ spectrum.real) - (angle.sin().float() @ spectrum.imag))
    image = torch.cat(parts)
    level = image - image.mean()
    spread = float(level.square().mean().sqrt())
    return Polarity(matter, float(level.pow(3).mean()) / spread**3 if spread > 0 else 0.0, image)
