"""Survey and crop, as a microscopist does it by hand: an even survey, a mask round the structure, and all the rest evenly in the mask.

It looks once. The first sub-sequence is the survey; then everything that is left is laid out in one step and handed out as it comes. The
crop follows the mask, or is the box round it, which any microscope can scan. Where nothing stands out the rest goes between the positions
of the survey, over the whole field.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.scan import Signal, patterns
from adaptycho.scan.mask import mask
from adaptycho.scan.place import Lattice, place
from adaptycho.types import Action, Memory, Observation


@dataclass(frozen=True)
class Crop:
    """Scanner of two steps: a survey, and a lattice over what it found.

    Attributes:
        shape: of the crop: the mask itself, or its bounding box.
        signal: what the mask is told from: electrons outside the bright-field disc, or the reconstructed phase.
        margin: what the mask is grown by, in radii of the beam.
        lattice: of survey and crop.
        defocus: underfocus in Å; None keeps the nominal one.
        survey: electrons for each position of the survey; None keeps the microscope's.
        dose: the same for each position of the crop.
    """

    shape: Literal["mask", "box"] = "mask"
    signal: Signal = "dark-field"
    margin: float = 0.5
    lattice: Lattice = "hexagonal"
    defocus: float | None = None
    survey: float | None = None
    dose: float | None = None

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """The survey, then the next positions of the crop; the memory is what is left of it. Nothing is random."""
        if seen.positions.shape[1] == 0:
            even = patterns.pattern(self.lattice, seen.count, seen.field, generator=generator)
            return Action(even.to(seen.potential).expand(len(seen.potential), -1, -1), self.defocus, self.survey), None
        if memory is None:
            memory = torch.stack([self._crop(seen, b) for b in range(len(seen.potential))])
        return Action(memory[:, : seen.count].to(seen.potential), self.defocus, self.dose), memory[:, seen.count :]

    def _crop(self, seen: Observation, specimen: int) -> Float[Tensor, "K 2"]:
        """All positions that are left."""
        left = seen.total - seen.positions.shape[1]
        found = mask(seen, specimen, self.signal, self.margin)
        if found is None:
            return place(torch.ones(seen.potential.shape[1:]), left, fixed=seen.positions[specimen], field=seen.field, lattice=self.lattice)
        if self.shape == "mask":
            return place(torch.from_numpy(found).double(), left, field=seen.field, lattice=self.lattice)
        low, high = box(found)
        height, width = ((high - low) * np.array(seen.field)).tolist()
        lattice = patterns.hexagonal if self.lattice == "hexagonal" else patterns.raster
        return torch.from_numpy(low) + lattice(left, (height, width)) * torch.from_numpy(high - low)


def box(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box round a mask, (y, x) as fractions of the field."""
    pixels = np.argwhere(found)
    return pixels.min(0) / found.shape, (pixels.max(0) + 1) / found.shape
