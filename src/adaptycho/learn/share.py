"""A share of a batch: some samples, and how they are to be scanned.

A batch is divided into shares, and everything in a share follows from the seed, the step and the number of the share. Processes divide
the shares among them, so that the update does not depend on how many there are, and a run that was interrupted goes on as if it had not.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.instruments.recorded import Recorded
from adaptycho.instruments.simulated import Simulated
from adaptycho.learn.turned import turned
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.samples.batch import Batch, together
from adaptycho.samples.sample import Sample, Specimen
from adaptycho.scan.episode import split_evenly
from adaptycho.settings import Settings, build

PARTS = 64  # most shares that a batch can have, or those of one step would meet those of the next


@dataclass(frozen=True, eq=False)
class Share:
    """One share of a batch.

    Attributes:
        batch: what is scanned, with the dose of this share.
        against: what rewards and scores refer to; a recording has the full scan only.
        reconstructor: that decisions are made from.
        lengths: of the sub-sequences.
        defocus: underfocus in Å; None keeps the nominal one.
        seed: of everything random in the scan.
    """

    batch: Batch
    against: Literal["full", "truth"]
    reconstructor: Reconstructor
    lengths: tuple[int, ...]
    defocus: float | None
    seed: int

    def __len__(self) -> int:
        return len(self.batch)

    def to(self, device: torch.device | str) -> "Share":
        """The same share, scanned on a device; a policy that scans it has to be there."""
        return dataclasses.replace(self, batch=self.batch.to(device))

    @property
    def microscope(self) -> Simulated | Recorded:
        """Over all samples."""
        return self.batch.microscope

    @property
    def columns(self) -> tuple[Float[Tensor, "_ 2"], ...]:
        """Atom columns of each sample, fractions of the field; empty where they are not known."""
        return self.batch.columns

    @cached_property
    def inside(self) -> Float[Tensor, "B h w"]:
        """1 where there is structure in the field, else 0."""
        return self.batch.inside.float()

    @cached_property
    def reference(self) -> Float[Tensor, "B h w"]:
        """Phase inside the field that rewards and scores refer to."""
        truth = self.batch.truth if self.against == "truth" else None
        return self.batch.full_scan if truth is None else truth


def share(settings: Settings, step: int, part: int, size: int, pool: Sequence[Sample], *, pairs: bool = False, stage: int = 0) -> Share:
    """The samples and conditions of one share of one step.

    Args:
        settings: of the training.
        step: number of the update.
        part: number of the share in it, below `PARTS`.
        size: samples in it.
        pool: to draw from; specimens are each time turned another way.
        pairs: whether the second half of the share is the first half again, to be each other's baseline.
        stage: 0 to 3; what each of them draws is its own.
    """
    p = settings.practice
    # A generator takes the last 32 bits of its seed: 6 are the part's, and of the rest the first 2 tell the stages apart.
    seed = ((settings.train.seed * 1_000_003 + (stage << 24) + step) * PARTS + part) % (1 << 62)
    generator = torch.Generator().manual_seed(seed)
    different = size // 2 if pairs else size
    drawn: list[Sample] = [pool[i] for i in torch.randperm(len(pool), generator=generator)[:different].tolist()]
    specimens = [s for s in drawn if isinstance(s, Specimen)]
    if p.turn and specimens:
        symmetry = int(torch.randint(8, (1,), generator=generator))
        square = settings.geometry.field[0] == settings.geometry.field[1]
        drawn = [turned(s, symmetry if square else symmetry // 2 * 2) for s in specimens]
    if pairs:
        drawn = drawn * 2

    def one(values: tuple[float, ...]) -> float:
        return values[int(torch.randint(len(values), (1,), generator=generator))]

    positions, defocus = int(one(p.positions)), float(one(p.defocus))
    low_dose, high_dose = (math.log(d) for d in p.dose)
    dose = math.exp(low_dose + (high_dose - low_dose) * float(torch.rand(1, generator=generator)))
    lengths = tuple(split_evenly(positions, settings.scan.subsequences))
    batch, focus = together(drawn, pool[0].setup), None
    if isinstance(batch.microscope, Simulated):
        batch = dataclasses.replace(batch, microscope=dataclasses.replace(batch.microscope, dose=dose))
        focus = None if defocus == settings.beam.defocus else defocus
    return Share(batch, p.reference, build.reconstructor(settings, batch.setup, batch.samples[0].counts_per_electron), lengths, focus, seed)
