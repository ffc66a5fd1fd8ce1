"""What a policy practises on: random specimens under a simulated microscope, or windows of a recording, a share of a batch at a time.

A batch is divided into shares, and everything in a share follows from the seed, the step and the number of the share. Processes divide
the shares among them, so that the update does not depend on how many there are, and a run that was interrupted goes on as if it had not.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from adaptycho.formats import Recording
from adaptycho.instruments import Microscope
from adaptycho.instruments.recorded import Recorded, checkerboard, lines, local_energy, window
from adaptycho.instruments.simulated import Simulated
from adaptycho.metrics.atoms import columns_of
from adaptycho.physics import specimen
from adaptycho.physics.forward import Imperfections
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.scan.episode import split_evenly, stream
from adaptycho.settings import Settings, build
from adaptycho.types import Measurement

Part = Literal["train", "validation"]  # of specimens or of a recording
PARTS = 64  # most shares that a batch can have, or those of one step would meet those of the next
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
        """All of them turned by quarter turns and mirrored: one of the eight symmetries of a square field.

        The even ones, half turns and mirror images, are symmetries of any rectangle.
        """
        quarter, mirror = symmetry % 4, symmetry >= 4

        def image(x: Tensor) -> Tensor:
            for _ in range(quarter):
                x = _mirrored(x.transpose(-2, -1), -2)
            return _mirrored(x, -1) if mirror else x

        def place(p: Tensor) -> Tensor:
            for _ in range(quarter):  # the right-hand side comes to the top
                p = torch.stack([1 - p[:, 1], p[:, 0]], 1)
            return torch.stack([p[:, 0], 1 - p[:, 1]], 1) if mirror else p

        reference = None if self.reference is None else image(self.reference)
        return Specimens(image(self.potential), image(self.inside), tuple(place(c) for c in self.columns), reference)


@dataclass(frozen=True, eq=False)
class Windows:
    """What is known about B windows of a recording: one checkerboard half of each is scanned, the other is what scores refer to.

    Attributes:
        setup: geometry and beam of every window.
        measured: the halves that are scanned.
        reference: phase inside the field from the other halves.
        inside: the half of the window with more structure.
        counts: detector counts that one electron makes.
    """

    setup: Setup
    measured: Measurement
    reference: Float[Tensor, "B h w"]
    inside: Bool[Tensor, "B h w"]
    counts: float

    def __len__(self) -> int:
        return len(self.reference)

    def take(self, which: list[int]) -> "Windows":
        """Some of them, in the order given."""
        index = torch.tensor(which)
        measured = Measurement.stack([self.measured[i] for i in which])
        return Windows(self.setup, measured, self.reference[index], self.inside[index], self.counts)


@dataclass(frozen=True, eq=False)
class Share:
    """One share of a batch: a microscope over some specimens, and how they are to be scanned.

    Attributes:
        columns: atom columns of each specimen, fractions of the field; empty where they are not known.
        reference: phase inside the field that rewards and scores refer to.
        inside: 1 where there is structure in the field, else 0.
        microscope: over them, with the dose of this share.
        reconstructor: that decisions are made from.
        lengths: of the sub-sequences.
        defocus: underfocus in Å; None keeps the nominal one.
        seed: of everything random in the scan.
    """

    columns: tuple[Float[Tensor, "_ 2"], ...]
    reference: Float[Tensor, "B h w"]
    inside: Float[Tensor, "B h w"]
    microscope: Microscope
    reconstructor: Reconstructor
    lengths: tuple[int, ...]
    defocus: float | None
    seed: int

    def __len__(self) -> int:
        return len(self.reference)


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
        atoms = build.atoms(chosen, setup, number)
        interest = specimen.of_interest(atoms)
        potentials.append(build.potential(chosen, setup, number, atoms))
        masks.append(specimen.structure_mask(atoms, setup.object))
        found = columns_of(interest.positions[:, 1::-1], interest.numbers).positions
        columns.append((0.5 + found / torch.tensor(setup.field)).float())
        if full:
            references.append(_full(chosen, build.simulated(chosen)))
    reference = torch.stack(references) if full else None
    return Specimens(torch.stack(potentials), torch.stack(masks).bool(), tuple(columns), reference)


def raster(settings: Settings, part: Part) -> tuple[Recording, tuple[list[float], list[float]]]:
    """The recording inside the rows and columns of `settings.scan`, and the rows and columns of its raster that windows may lie in.

    The last `practice.held_out` of the columns is for validation and the rest for training, so that they share no pattern. If it is 0, all
    of them are for both, and a validation only says how well what was practised is done.

    Raises:
        ValueError: the recording is too small for a window.
    """
    whole, (rows, columns) = build.recording(settings), settings.practice.window
    down, across = lines(whole.measurement)
    if len(down) < rows:
        raise ValueError(f"practice.window: expected at most the {len(down)} rows of {whole.path}, found {rows}")
    width, held = len(across), int(settings.practice.held_out * len(across))
    if settings.practice.held_out and not held:
        raise ValueError(
            f"practice.held_out: expected 0, or enough of the {width} columns of {whole.path} for one, found {settings.practice.held_out:g}"
        )
    if min(held or width, width - held) < columns:
        wanted = f"at least {columns} columns of {whole.path} to train on and {columns if held else 0} to validate on"
        raise ValueError(f"practice.window: expected {wanted} (practice.held_out), found {width - held} and {held}")
    return whole, (down, across[: width - held] if held == 0 or part == "train" else across[width - held :])


def recorded(settings: Settings, part: Part, count: int, number: int) -> Windows:
    """Random windows of the part of the recording that is for training or for validation (`raster`).

    Args:
        settings: of the recording, and `practice.window`.
        part: whose windows.
        count: how many.
        number: of the draw; the same number gives the same windows.

    Raises:
        ValueError: its positions lie on no raster, or see `raster`.
    """
    whole, places = raster(settings, part)
    generator = stream(number, -31)
    setups, halves, references, masks = [], [], [], []
    for _ in range(count):
        spans = []
        for found, wanted in zip(places, settings.practice.window, strict=True):
            first = int(torch.randint(len(found) - wanted + 1, (1,), generator=generator))
            spans.append((found[first], found[first + wanted - 1]))
        setup, measured = window(whole.setup, whole.measurement, rows=spans[0], columns=spans[1])
        mine, other = checkerboard(setup, measured)[:: 1 if torch.rand(1, generator=generator) < 0.5 else -1]
        reference = build.reference(settings, Recorded(setup, other, whole.counts_per_electron))[0]
        energy = local_energy(setup, reference, settings.practice.window)
        setups.append(setup)
        halves.append(mine)
        references.append(reference)
        masks.append(energy > energy.median())
    return Windows(setups[0], Measurement.stack(halves), torch.stack(references), torch.stack(masks), whole.counts_per_electron)


def share(
    settings: Settings, step: int, part: int, size: int, pool: Specimens | Windows | None = None, *, pairs: bool = False, course: int = 0
) -> Share:
    """The specimens and conditions of one share of one step.

    Args:
        settings: what is practised.
        step: number of the update.
        part: number of the share in it, below `PARTS`.
        size: specimens in it.
        pool: specimens or windows to draw from, specimens each time turned another way; fresh specimens if None.
        pairs: whether the second half of the share is the first half again, to be each other's baseline.
        course: 0 to 3; what each of them draws is its own.
    """
    p = settings.practice
    # A generator takes the last 32 bits of its seed: 6 are the part's, and of the rest the first 2 tell the courses apart.
    seed = ((settings.train.seed * 1_000_003 + (course << 24) + step) * PARTS + part) % (1 << 62)
    generator = torch.Generator().manual_seed(seed)
    different = size // 2 if pairs else size
    specimens: Specimens | Windows
    if pool is None:
        low, high = settings.evaluate.train
        # The first thousand are left to tuning.
        numbers = torch.randint(low + 1000, high, (different,), generator=generator).tolist()
        specimens = prepare(settings, numbers)
    else:
        chosen = torch.randperm(len(pool), generator=generator)[:different].tolist()
        specimens = pool.take(chosen)
        if p.turn and isinstance(specimens, Specimens):
            symmetry = int(torch.randint(8, (1,), generator=generator))
            square = settings.geometry.field[0] == settings.geometry.field[1]
            specimens = specimens.turned(symmetry if square else symmetry // 2 * 2)
    if pairs:
        specimens = specimens.take([*range(different), *range(different)])

    def one(values: tuple[float, ...]) -> float:
        return values[int(torch.randint(len(values), (1,), generator=generator))]

    positions, defocus = int(one(p.positions)), float(one(p.defocus))
    low_dose, high_dose = (math.log(d) for d in p.dose)
    dose = math.exp(low_dose + (high_dose - low_dose) * float(torch.rand(1, generator=generator)))
    lengths = tuple(split_evenly(positions, settings.scan.subsequences))
    if isinstance(specimens, Windows):
        replay = Recorded(specimens.setup, specimens.measured, specimens.counts)
        descent = build.reconstructor(settings, specimens.setup)
        nothing = tuple(torch.zeros(0, 2) for _ in range(len(specimens)))
        return Share(nothing, specimens.reference, specimens.inside.float(), replay, descent, lengths, None, seed)
    setup, i = build.setup(settings), settings.instrument
    microscope = Simulated(setup, specimens.potential, dose, Imperfections(i.noise, i.jitter, i.background, i.source_size))
    known = specimens.potential if specimens.reference is None else specimens.reference
    reference, inside = setup.crop(known), setup.crop(specimens.inside.float())
    if specimens.reference is None:  # the constant phase is free, and a reconstruction leaves it near zero
        reference = reference - reference.mean((1, 2), keepdim=True)
    focus = None if defocus == settings.beam.defocus else defocus
    return Share(specimens.columns, reference, inside, microscope, build.reconstructor(settings, setup), lengths, focus, seed)


def _mirrored(image: Shaped[Tensor, "B H W"], axis: int) -> Shaped[Tensor, "B H W"]:
    """An image mirrored at the centre of the object, which is pixel N/2 of N and not the edge before it; the object is periodic."""
    return image.flip(axis).roll(1, axis)


def _drawn(settings: Settings, number: int) -> Settings:
    """The settings of one specimen, whose family follows from its number."""
    p = settings.practice
    family = p.families[int(torch.randint(len(p.families), (1,), generator=stream(number, -29)))]
    own = dict(settings.specimen.options) if family == settings.specimen.family else {}
    options = {"filling": list(p.filling)} if family in FILLED else own
    wanted = dataclasses.replace(settings.specimen, family=family, options=options, first=number, count=1)
    return dataclasses.replace(settings, specimen=wanted)


def _full(settings: Settings, microscope: Simulated) -> Float[Tensor, "H W"]:
    """The full scan's phase on the whole object."""
    descent = build.reference_descent(settings, microscope.setup)
    return descent(build.full_scan(settings, microscope)).phase[0]
