"""A microscopist's settings, and where they lie in the units that measurements carry over in.

A ptychographic measurement has a length of its own, the width of the focused probe `lambda / alpha`: with all lengths in it, and defocus in
`lambda / alpha^2`, the patterns of one microscope are those of another. So positions are counted per `(lambda / alpha)^2`. The phase of a
specimen is proportional to the interaction constant `sigma`, and what N electrons tell about a weak phase to `N sigma^2`. So an electron of
another energy is worth `(sigma / sigma_0)^2` electrons of the measured one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from adaptycho.compare.advice.table import ROUNDED, Beam
from adaptycho.physics import Family
from adaptycho.physics.optics import interaction_constant, wavelength
from adaptycho.settings import bounds

UNIFORM = ("crystal", "vacancies", "boundary", "amorphous")  # alike everywhere: structure fills the field
SUBSEQUENCES = 4  # that an adaptive scan takes, and so the fewest positions
MOST_ENERGY = 1e6  # eV; no microscope has more
BOUNDS = {  # as for the settings of a scan, and as wide
    "energy": (*bounds.limits(bounds.Energy), "eV"),
    "semiangle": (*bounds.limits(bounds.Semiangle), "mrad"),
    "field": (*bounds.limits(bounds.Side), "Å"),
    "dose": (*bounds.limits(bounds.Dose), "electrons"),
    "dose_limit": (1e-12, 1e15, "e/Å²"),
    "positions": (*bounds.limits(bounds.Positions), "positions"),
    "frame_time": (1e-12, 1e6, "s"),
    "scan_time": (1e-12, 1e9, "s"),
    "defocus_at": (0.0, bounds.limits(bounds.Defocus)[1], "Å underfocus"),
}
Limits = Literal["mean", "local"]  # what damages a specimen: the electrons over the whole field, or those that hit the structure
FAR = 2.0  # a probe width, field in probe widths or phase further from the measured one than this factor is outside of what was measured


@dataclass(frozen=True)
class Question:
    """What a microscopist has and wants.

    Attributes:
        family: of the specimen (`adaptycho.physics.Family`).
        energy: of the beam in eV.
        semiangle: of convergence in mrad.
        field: (y, x) in Å.
        dose: electrons per position; None if the dose limit decides.
        dose_limit: electrons per Å² of the field; None if there is none.
        positions: number of beam positions; None if the dose limit decides.
        filling: fraction of the field with structure; None if unknown.
        counting: whether the detector counts single electrons without readout noise; None if unknown.
        frame_time: shortest time of one position in s.
        scan_time: longest time of the scan in s.
        defocus: whether the beam can be defocused.
        defocus_at: underfocus in Å that the beam is held at; None if it may be what is best for each scan.
        limits: which dose does the damage.
        material: what the specimen is made of; None if it is what was measured.
    """

    family: str
    energy: float
    semiangle: float
    field: tuple[float, float]
    dose: float | None = None
    dose_limit: float | None = None
    positions: int | None = None
    filling: float | None = None
    counting: bool | None = None
    frame_time: float | None = None
    scan_time: float | None = None
    defocus: bool = True
    defocus_at: float | None = None
    limits: Limits = "mean"
    material: str | None = None

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise ValueError(f"family: expected one of {', '.join(get_args(Family))}, found {self.family!r}")
        for name in ("energy", "semiangle", "dose", "dose_limit", "positions", "frame_time", "scan_time"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}: expected a positive number, found {value}")
        if self.energy > MOST_ENERGY:
            raise ValueError(f"energy: expected at most 1 MeV, found {self.energy / 1e6:g} MeV (--energy is in keV unless it says eV)")
        if self.positions is not None and self.positions < SUBSEQUENCES:
            raise ValueError(
                f"positions: expected at least {SUBSEQUENCES}, one for each sub-sequence of an adaptive scan, found {self.positions}"
            )
        if not all(0 < side < math.inf for side in self.field):
            raise ValueError(f"field: expected two positive lengths in Å, found {self.field}")
        given = [(name, getattr(self, name)) for name in BOUNDS if name != "field"]
        for name, value in (*given, *(("field", side) for side in self.field)):
            low, high, unit = BOUNDS[name]
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name}: expected {low:g} to {high:g} {unit}, found {value!s:.40}")
        if not self.defocus and self.defocus_at:
            raise ValueError(f"defocus_at: expected 0 or none of a beam that cannot be defocused, found {self.defocus_at:g} Å")
        if self.limits not in get_args(Limits):
            raise ValueError(f"limits: expected one of {', '.join(get_args(Limits))}, found {self.limits!r}")
        if self.material is not None and not self.material.strip():
            raise ValueError("material: expected a name such as MoS2, found an empty one")
        if self.filling is not None and not 0 < self.filling <= 1:
            raise ValueError(f"filling: expected a fraction above 0 and at most 1, found {self.filling}")
        if self.family in UNIFORM and self.filling not in (None, 1.0):
            raise ValueError(f"filling: expected 1 or none for {self.family}, which fills the field, found {self.filling}")
        if self.dose_limit is None and (self.dose is None or self.positions is None):
            raise ValueError("dose_limit: expected a limit in e/Å², or electrons per position and a number of positions, found neither")
        if self.dose is not None and self.positions is not None and self.dose_limit is not None:
            sent = self.dose * self.positions / self.area
            if sent > self.dose_limit * ROUNDED:
                scan = f"{self.positions} positions of {self.dose:g} electrons"
                raise ValueError(f"dose_limit: expected at least the {sent:.4g} e/Å² of {scan}, found {self.dose_limit:g}")

    @property
    def focused(self) -> bool:
        """Whether the beam stays in focus."""
        return not self.defocus or self.defocus_at == 0

    @property
    def area(self) -> float:
        """Area of the field in Å²."""
        return self.field[0] * self.field[1]


@dataclass(frozen=True)
class Place:
    """Where a scan lies: in its own units, and in those of the measurements.

    Attributes:
        positions: number of beam positions.
        electrons: per position.
        dose: electrons per Å².
        width: of the focused probe, lambda / alpha, in Å.
        across: field in probe widths (y, x).
        density: positions per square of the probe width.
        per_element: electrons per square of the probe width.
        worth: electrons per position, in electrons of the measured energy that say as much.
        equivalent: positions that the measured field would have at this density.
        defocus_unit: defocus in Å here for 1 Å in the measurements.
        width_ratio: width of the probe over that of the measurements.
        across_ratio: field in probe widths, likewise.
        phase_ratio: phase of a specimen, likewise.
    """

    positions: int
    electrons: float
    dose: float
    width: float
    across: tuple[float, float]
    density: float
    per_element: float
    worth: float
    equivalent: float
    defocus_unit: float
    width_ratio: float
    across_ratio: float
    phase_ratio: float

    @property
    def far(self) -> bool:
        """Whether the microscope itself is too far from the measured one for its numbers to be more than a guess."""
        return any(not 1 / FAR <= ratio <= FAR for ratio in self._ratios)

    @property
    def scaled(self) -> bool:
        """Whether the numbers hold by scaling only."""
        return any(not 1 / ROUNDED <= ratio <= ROUNDED for ratio in self._ratios)

    @property
    def _ratios(self) -> tuple[float, float, float]:
        return self.width_ratio, self.across_ratio, self.phase_ratio


def width(energy: float, semiangle: float) -> float:
    """Width lambda / alpha of the focused probe in Å, from eV and mrad."""
    return wavelength(energy) / (1e-3 * semiangle)


def dense_positions(question: Question, beam: Beam, positions: int) -> int:
    """Positions of the full raster at reduced dwell, as dense as it was measured, and never fewer than the scan has."""
    return max(positions, round(beam.dense * _field_ratio(question, beam)))


def place(question: Question, beam: Beam, positions: int, electrons: float) -> Place:
    """Where a scan of so many positions and electrons lies."""
    here = width(question.energy, question.semiangle)
    cells, larger = question.area / here**2, _field_ratio(question, beam)
    phase = interaction_constant(question.energy) / interaction_constant(beam.energy)
    ratio = here / width(beam.energy, beam.semiangle)
    return Place(
        positions=positions,
        electrons=electrons,
        dose=positions * electrons / question.area,
        width=here,
        across=(question.field[0] / here, question.field[1] / here),
        density=positions / cells,
        per_element=positions * electrons / cells,
        worth=electrons * phase**2,
        equivalent=positions / larger,
        defocus_unit=ratio * beam.semiangle / question.semiangle,
        width_ratio=ratio,
        across_ratio=math.sqrt(larger),
        phase_ratio=phase,
    )


def places(question: Question, beam: Beam, measured: list[int]) -> Iterator[Place]:
    """The scans that the question leaves open: one if dose and positions are given, else one for each density in the measurements.

    Args:
        question: the settings.
        beam: where measurements were made.
        measured: numbers of positions of the measurements.

    Raises:
        ValueError: no scan fits the time or the dose limit.
    """
    most = math.inf
    if question.frame_time is not None and question.scan_time is not None:
        most = math.floor(question.scan_time / question.frame_time * (1 + 1e-9))
    budget = math.inf if question.dose_limit is None else question.dose_limit * question.area
    if question.positions is not None:
        counts = [question.positions]
    elif question.dose is not None:
        counts = [math.floor(budget / question.dose * (1 + 1e-9))]
        if counts[0] < SUBSEQUENCES:
            least = math.ceil(100 * SUBSEQUENCES * question.dose / question.area) / 100  # rounded up: what is said must do
            scan = f"{SUBSEQUENCES} positions of {question.dose:g} electrons"
            raise ValueError(f"dose_limit: expected at least {least:.10g} e/Å² for {scan}, found {question.dose_limit:g}")
    else:
        counts = sorted({max(SUBSEQUENCES, round(n * _field_ratio(question, beam))) for n in measured})
        counts = [n for n in counts if n <= most] or [max(SUBSEQUENCES, min(counts[0], int(most)))]
    if counts[0] > most:
        raise ValueError(
            f"scan_time: expected time for {counts[0]} positions of {question.frame_time:g} s, found {question.scan_time:g} s for {most:g}"
        )
    for count in counts:
        yield place(question, beam, count, question.dose if question.dose is not None else budget / count)


def _field_ratio(question: Question, beam: Beam) -> float:
    """Area of the field in squares of the probe width, over that of the measurements."""
    here, there = width(question.energy, question.semiangle), width(beam.energy, beam.semiangle)
    return question.area / here**2 * there**2 / (beam.field[0] * beam.field[1])
