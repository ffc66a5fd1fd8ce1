"""What a policy practises on: random specimens under a simulated microscope, or windows of a recording, a share of a batch at a time.

A batch is divided into shares, and everything in a share follows from the seed, the step and the number of the share. Processes divide
the shares among them, so that the update does not depend on how many there are, and a run that was interrupted goes on as if it had not.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from adaptycho import build, specimen
from adaptycho.episode import split_evenly, stream
from adaptycho.forward import Imperfections
from adaptycho.metrics.atoms import columns_of
from adaptycho.microscope.simulated import Simulated
from adaptycho.reconstruct import Reconstructor
from adaptycho.settings import Settings

RADIUS = 2.0  # Å round an atom that count as structure
FILLED = ("island", "edge", "particles")  # families that fill a part of the field


@dataclass(frozen=True, eq=False)
class Specimens:
    """What is known about B simulated specimens.

    Attributes:
        potential: sigma V in rad on the object grid.
        inside: where the structure of interest is, on the object grid.
        columns: places of its atom columns, fractions of the field; some lie outside it.
        reference: phase from the full scan on the object grid, if it was made.
    """

    potential: Float[Tensor, "B H W"]
    inside: Bool[Tensor, "B H W"]
    columns: tuple[Float[Tensor, "_ 2"], ...]
    reference: Float[Tensor, "B H W"] | None = None

    def __len__(self) -> int:
        return len(self.potential)

    def take(self, which: list[int]) -> "Specimens":
        """Some of them, in the order given."""
        index = torch.tensor(which)
        reference = None if self.reference is None else self.reference[index]
        return Specimens(self.potential[index], self.inside[index], tuple(self.columns[i] for i in which), reference)

    def turned(self, symmetry: int) -> "Specimens":
        """All of them turned by quarter turns and mirrored: one of the eight symmetries of a square field."""
        quarter, mirror = symmetry % 4, symmetry >= 4

        def image(x: Tensor) -> Tensor:
            x = torch.rot90(x, quarter, (-2, -1))
            return x.flip(-1) if mirror else x

        def place(p: Tensor) -> Tensor:
            for _ in range(quarter):  # as rot90: the right-hand side comes to the top
                p = torch.stack([1 - p[:, 1], p[:, 0]], 1)
            return torch.stack([p[:, 0], 1 - p[:, 1]], 1) if mirror else p

        reference = None if self.reference is None else image(self.reference)
        return Specimens(image(self.potential), image(self.inside), tuple(place(c) for c in self.columns), reference)


@dataclass(frozen=True, eq=False)
class Share:
    """One share of a batch: a microscope over some specimens, and how they are to be scanned.

    Attributes:
        specimens: what is known about them.
        microscope: over them, with the dose of this share.
        reconstructor: that decisions are made from.
        lengths: of the sub-sequences.
        defocus: underfocus in Å; None keeps the nominal one.
        seed: of everything random in the scan.
    """

    specimens: Specimens
    microscope: Simulated
    reconstructor: Reconstructor
    lengths: tuple[int, ...]
    defocus: float | None
    seed: int

    @property
    def reference(self) -> Float[Tensor, "B h w"]:
        """The full scan's phase inside the field, or the true one if that was not made."""
        known = self.specimens.potential if self.specimens.reference is None else self.specimens.reference
        return self.microscope.setup.crop(known)

    @property
    def inside(self) -> Float[Tensor, "B h w"]:
        """1 where there is structure in the field, else 0."""
        return self.microscope.setup.crop(self.specimens.inside.float())


def prepare(settings: Settings, numbers: list[int], *, full: bool = False) -> Specimens:
    """Specimens by their numbers, each of a family and filling drawn by its number from `settings.practice`.

    Args:
        settings: of specimens and practice.
        numbers: of the specimens.
        full: whether to make the full-scan reference that the paper's protocol scores by (about half a second each, light).
    """
    setup = build.setup(settings)
    potentials, masks, columns, references = [], [], [], []
    for number in numbers:
        chosen = _drawn(settings, number)
        microscope = build.simulated(chosen)
        atoms = build.atoms(chosen, setup, number)
        tagged = atoms.get_tags() > 0
        interest = atoms[tagged] if tagged.any() else atoms
        potentials.append(microscope.potential[0])
        masks.append(specimen.structure_mask(atoms, setup.object, RADIUS))
        found = columns_of(interest.positions[:, 1::-1], interest.numbers).positions
        columns.append((0.5 + found / torch.tensor(setup.field)).float())
        if full:
            references.append(_full(chosen, microscope))
    reference = torch.stack(references) if full else None
    return Specimens(torch.stack(potentials), torch.stack(masks).bool(), tuple(columns), reference)


def share(settings: Settings, step: int, part: int, size: int, pool: Specimens | None = None, *, pairs: bool = False) -> Share:
    """The specimens and conditions of one share of one step.

    Args:
        settings: what is practised.
        step: number of the update.
        part: number of the share in it.
        size: specimens in it.
        pool: specimens to draw from, each time turned another way; fresh ones if None.
        pairs: whether the second half of the share is the first half again, to be each other's baseline.
    """
    p = settings.practice
    seed = ((settings.train.seed * 1_000_003 + step) * 64 + part) % (1 << 62)
    generator = torch.Generator().manual_seed(seed)
    different = size // 2 if pairs else size
    if pool is None:
        low, high = settings.evaluate.train
        # The first thousand are left to tuning.
        numbers = torch.randint(low + 1000, high, (different,), generator=generator).tolist()
        specimens = prepare(settings, numbers)
    else:
        chosen = torch.randperm(len(pool), generator=generator)[:different].tolist()
        specimens = pool.take(chosen)
        if p.turn:
            specimens = specimens.turned(int(torch.randint(8, (1,), generator=generator)))
    if pairs:
        specimens = specimens.take([*range(different), *range(different)])
    setup = build.setup(settings)

    def one(values: tuple[float, ...]) -> float:
        return values[int(torch.randint(len(values), (1,), generator=generator))]

    positions, defocus = int(one(p.positions)), float(one(p.defocus))
    low_dose, high_dose = (math.log(d) for d in p.dose)
    dose = math.exp(low_dose + (high_dose - low_dose) * float(torch.rand(1, generator=generator)))
    i = settings.instrument
    microscope = Simulated(setup, specimens.potential, dose, Imperfections(i.noise, i.jitter, i.background, i.source_size))
    lengths = tuple(split_evenly(positions, settings.scan.subsequences))
    return Share(specimens, microscope, build.reconstructor(settings, setup), lengths, defocus or None, seed)


def _drawn(settings: Settings, number: int) -> Settings:
    """The settings of one specimen: its family and filling follow from its number."""
    p = settings.practice
    generator = stream(number, -29)
    family = p.families[int(torch.randint(len(p.families), (1,), generator=generator))]
    low, high = p.filling
    filling = low + (high - low) * float(torch.rand(1, generator=generator))
    options = {"filling": filling} if family in FILLED else dict(settings.specimen.options) if family == settings.specimen.family else {}
    wanted = dataclasses.replace(settings.specimen, family=family, options=options, first=number, count=1)
    return dataclasses.replace(settings, specimen=wanted)


def _full(settings: Settings, microscope: Simulated) -> Float[Tensor, "H W"]:
    """The full scan's phase on the whole object."""
    descent = dataclasses.replace(build.reconstructor(settings, microscope.setup), step=settings.reconstruct.reference_step)
    return descent(build.full_scan(settings, microscope)).phase[0]
