"""What a scan strategy is tried on: one specimen, what is known about it, and what scores refer to."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adaptycho.instruments import Microscope
from adaptycho.instruments.recorded import Recorded, checkerboard, lines, local_energy, window
from adaptycho.metrics.atoms import columns_of, occupancy_of
from adaptycho.physics import specimen
from adaptycho.physics.optics import Setup
from adaptycho.scan.episode import stream
from adaptycho.settings import Scan, Settings, build, update
from adaptycho.types import Action, Measurement

HELD_OUT = 64  # patterns kept back to compare predictions with
HELD_OUT_DOSE = 2e5  # electrons in each of them
RECORDED = 8  # samples of a recording: two halves of each of four windows
SIDE = 40  # positions along each side of a recorded window
_HELD_OUT = 17  # keeps the random stream of held-out patterns apart


@dataclass(frozen=True, eq=False)
class Sites:
    """Atom columns of the complete structure inside the field.

    Attributes:
        positions: (y, x) in Å from the field's top-left corner.
        kind: equal for columns of the same atoms.
        occupancy: fraction of a column's atoms that is there.
        fractions: where the beam has to go to hit a column of which anything is there, also beyond the field's edge.
    """

    positions: Float[Tensor, "n 2"]
    kind: Int[Tensor, " n"]
    occupancy: Float[Tensor, " n"]
    fractions: Float[Tensor, "m 2"]

    @property
    def present(self) -> Float[Tensor, "k 2"]:
        """Positions of the columns of which anything is there."""
        return self.positions[self.occupancy > 0]


@dataclass(frozen=True, eq=False)
class Sample:
    """One specimen under a microscope (B = 1).

    Attributes:
        number: which specimen; the same number is always the same.
        microscope: simulated, or a replay of one checkerboard half of a recorded window.
        inside: pixels of the field where the structure is.
        held_out: patterns that no scan sees.
        full: reconstructs the full scan: the phase in rad inside the field, (1, h, w).
        truth: true phase in rad inside the field, if there is one.
        sites: atom columns of the structure, if there are any.
        counts_per_electron: detector counts that one electron makes.
        energy: local variance of the reference, from which a recording's structure is told.
    """

    number: int
    microscope: Microscope
    inside: Bool[Tensor, "h w"]
    held_out: Measurement
    full: Callable[[], Float[Tensor, "1 h w"]]
    truth: Float[Tensor, "1 h w"] | None = None
    sites: Sites | None = None
    counts_per_electron: float = 1.0
    energy: Float[Tensor, "h w"] | None = None

    @property
    def setup(self) -> Setup:
        """Geometry and beam."""
        return self.microscope.setup

    @cached_property
    def full_scan(self) -> Float[Tensor, "1 h w"]:
        """Phase inside the field from the full scan; computed once, and only if it is asked for."""
        return self.full()


def simulated(settings: Settings, number: int) -> Sample:
    """A specimen of the settings' family under a simulated microscope."""
    chosen = update(settings, {"specimen": {"first": number, "count": 1}}, "evaluate")
    microscope = build.simulated(chosen)
    setup = microscope.setup
    atoms = build.atoms(chosen, setup, number)
    inside = setup.crop(specimen.structure_mask(atoms, setup.object).float()) > 0.5
    generator = stream(number, -_HELD_OUT)
    held_out = microscope.acquire(Action(torch.rand(1, HELD_OUT, 2, generator=generator), dose=HELD_OUT_DOSE), generator=generator)
    truth = build.truth_in_field(microscope)
    return Sample(number, microscope, inside, held_out, lambda: build.reference(chosen, microscope), truth, _sites(chosen, setup, number))


def recorded(settings: Settings, number: int) -> Sample:
    """One checkerboard half of a window of a recording; the other half makes the full scan that scores refer to.

    Numbers 2i and 2i + 1 are the two halves of window i; the windows are the four corners of the recording, which overlap if it is small.

    Raises:
        ValueError: there is no such window.
    """
    if not 0 <= number < RECORDED:
        raise ValueError(f"evaluate.test: expected numbers 0 to 7 for a recording (4 windows in halves), found {number}")
    setup, halves, counts = _halves(settings.scan.file, number // 2)
    mine, other = halves[number % 2], halves[1 - number % 2]
    reference = build.reference(settings, Recorded(setup, other, counts))
    energy = local_energy(setup, reference[0], (SIDE, SIDE))
    inside = energy > energy.median()
    return Sample(number, Recorded(setup, mine, counts), inside, other, lambda: reference, None, None, counts, energy)


@lru_cache(maxsize=4)
def _halves(file: str | None, corner: int) -> tuple[Setup, list[Measurement], float]:
    whole = build.recording(Settings(scan=Scan(file=file)))
    spans = []
    for found, last in zip(lines(whole.measurement), (corner // 2, corner % 2), strict=True):
        if len(found) < SIDE:
            raise ValueError(
                f"{whole.path}: expected a raster of at least {SIDE} x {SIDE} positions to cut windows from, found {len(found)}"
            )
        spans.append((found[-SIDE], found[-1]) if last else (found[0], found[SIDE - 1]))
    cut, measurement = window(whole.setup, whole.measurement, rows=spans[0], columns=spans[1])
    return cut, checkerboard(cut, measurement), whole.counts_per_electron


def _sites(settings: Settings, setup: Setup, number: int) -> Sites | None:
    """Columns of the structure of interest, in the pixels that `Setup.crop` keeps; an amorphous film has none."""
    if settings.specimen.family == "amorphous":
        return None
    complete = settings
    if settings.specimen.family == "vacancies":  # the same crystal with nothing missing
        options = {**settings.specimen.options, "fraction": 0.0}
        complete = dataclasses.replace(settings, specimen=dataclasses.replace(settings.specimen, options=options))
    ideal, there = (specimen.of_interest(build.atoms(s, setup, number)) for s in (complete, settings))
    columns = columns_of(ideal.positions[:, 1::-1], ideal.numbers)
    pixel = setup.object.pixel
    corner = setup.crop(torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in setup.object.shape), indexing="ij")))[:, 0, 0]
    positions = columns.positions + (torch.tensor(setup.object.shape) / 2 - corner + 0.5).double() * pixel
    keep = ((positions >= 0) & (positions < torch.tensor(setup.field_shape) * pixel)).all(1)
    occupancy = occupancy_of(columns, there.positions[:, 1::-1])
    fractions = 0.5 + columns.positions[occupancy > 0] / torch.tensor(setup.field)
    return Sites(positions[keep], columns.kind[keep], occupancy[keep], fractions)
