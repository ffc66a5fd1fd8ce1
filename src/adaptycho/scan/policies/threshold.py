"""A scan by threshold: after each sub-sequence the mask round the structure is drawn anew, and the next goes evenly into it.

Like survey and crop, but it looks again: the mask is told from all positions so far and becomes finer with them. What was measured counts,
so new positions go between those that are there; some may be kept for the mask's rim, where structure ends. Where nothing stands out
positions are spread over the whole field.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from adaptycho.scan import Signal, patterns
from adaptycho.scan.mask import mask
from adaptycho.scan.place import Lattice, place
from adaptycho.types import Action, Memory, Observation


@dataclass(frozen=True)
class Threshold:
    """Scanner that stays where the signal is above a threshold.

    Attributes:
        signal: what the mask is told from: electrons outside the bright-field disc, or the reconstructed phase.
        margin: what the mask is grown by, in radii of the beam.
        rim: how much denser than within it positions are along the rim of the mask, one radius of the beam to either side.
        lattice: of the survey, and that is bent to follow the mask.
        defocus: underfocus in Å; None keeps the nominal one.
        dose: electrons for each position; None keeps the microscope's.
    """

    signal: Signal = "dark-field"
    margin: float = 0.5
    rim: float = 0.0
    lattice: Lattice = "hexagonal"
    defocus: float | None = None
    dose: float | None = None

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """An even survey, then between the positions inside the mask. Nothing is random."""
        if seen.positions.shape[1] == 0:
            even = patterns.pattern(self.lattice, seen.count, seen.field, generator=generator)
            return Action(even.to(seen.potential).expand(len(seen.potential), -1, -1), self.defocus, self.dose), memory
        chosen = [
            place(self._density(seen, b), seen.count, fixed=positions, field=seen.field, lattice=self.lattice)
            for b, positions in enumerate(seen.positions)
        ]
        return Action(torch.stack(chosen).to(seen.potential), self.defocus, self.dose), memory

    def _density(self, seen: Observation, specimen: int) -> Float[Tensor, "h w"]:
        found = mask(seen, specimen, self.signal, self.margin)
        if found is None:
            return torch.ones(seen.potential.shape[1:])
        pixel = np.array(seen.field) / found.shape
        away = ndimage.distance_transform_edt(found, sampling=pixel) + ndimage.distance_transform_edt(~found, sampling=pixel)
        return torch.from_numpy(found + self.rim * (away <= seen.probe))
