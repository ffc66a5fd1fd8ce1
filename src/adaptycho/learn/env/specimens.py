"""What a game is played on: specimens by their numbers, the microscope over them, and what the scores refer to."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from adaptycho.instruments.recorded import Recorded
from adaptycho.instruments.simulated import Simulated
from adaptycho.learn.env.windows import Windows
from adaptycho.physics import specimen
from adaptycho.physics.optics import Setup
from adaptycho.settings import Settings, build

Against = Literal["truth", "full"]
KEPT = 512  # reconstructions of full scans that are kept


@dataclass(frozen=True, eq=False)
class Deal:
    """B specimens on the table.

    Attributes:
        numbers: of the specimens.
        seed: of everything random in the scan.
        microscope: over them.
        reference: phase in rad inside the field that rewards and scores refer to.
        inside: pixels of the field where the structure is; None if nobody asked, or nobody knows.
    """

    numbers: tuple[int, ...]
    seed: int
    microscope: Simulated | Recorded
    reference: Float[Tensor, "B h w"]
    inside: Bool[Tensor, "B h w"] | None


@dataclass(frozen=True, eq=False)
class Dealer:
    """Puts specimens on the table.

    Attributes:
        settings: of specimens and microscope.
        against: reference of rewards and scores: the true phase, or the full scan's reconstruction (a recording has no other).
        inside: whether to tell where the structure is.
    """

    settings: Settings
    against: Against = "truth"
    inside: bool = False
    _kept: dict[int, Float[Tensor, "1 h w"]] = field(default_factory=dict, repr=False)

    @cached_property
    def setup(self) -> Setup:
        """Geometry and beam."""
        return build.setup(self.settings) if self._windows is None else self._windows.setup

    def __call__(self, numbers: Sequence[int], seed: int) -> Deal:
        """The specimens with these numbers."""
        drawn = tuple(numbers)
        microscope = self._simulated(drawn) if self._windows is None else self._windows.microscope(drawn)
        inside = torch.stack([self._inside(n) for n in drawn]) if self.inside else None
        return Deal(drawn, seed, microscope, self._reference(drawn, microscope), inside)

    @cached_property
    def _windows(self) -> Windows | None:
        return Windows(self.settings) if self.settings.scan.microscope == "recorded" else None

    def _only(self, number: int) -> Settings:
        wanted = dataclasses.replace(self.settings.specimen, first=number, count=1)
        return dataclasses.replace(self.settings, specimen=wanted)

    def _simulated(self, numbers: tuple[int, ...]) -> Simulated:
        alone = [build.simulated(self._only(n)) for n in numbers]
        return dataclasses.replace(alone[0], potential=torch.cat([m.potential for m in alone]))

    def _inside(self, number: int) -> Bool[Tensor, "h w"]:
        atoms = build.atoms(self._only(number), self.setup, number)
        mask = specimen.structure_mask(atoms, self.setup.object)
        return self.setup.crop(mask.float()) > 0.5

    def _reference(self, numbers: tuple[int, ...], microscope: Simulated | Recorded) -> Float[Tensor, "B h w"]:
        if isinstance(microscope, Simulated) and self.against == "truth":
            truth = build.truth_in_field(microscope)
            # Descent leaves the free constant at a mean of zero; with the truth's own, structural similarity would compare brightness.
            return truth - truth.mean((1, 2), keepdim=True)
        return torch.cat([self._full_scan(n, microscope, b) for b, n in enumerate(numbers)])

    def _full_scan(self, number: int, microscope: Simulated | Recorded, item: int) -> Float[Tensor, "1 h w"]:
        """Of one specimen; made once and kept for a while."""
        number = number if self._windows is None else number % len(self._windows)
        if number not in self._kept:
            if isinstance(microscope, Simulated):
                alone: Simulated | Recorded = microscope.only(item)
            else:
                alone = dataclasses.replace(microscope, measurement=microscope.measurement[item])
            if len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[number] = build.reference(self.settings, alone)
        return self._kept[number]
