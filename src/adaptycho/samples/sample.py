"""What a scan is tried, learnt and judged on: a simulated specimen or a window of a recording, and what is known about it."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from ase import Atoms
from jaxtyping import Bool, Float
from torch import Tensor

from adaptycho.formats import Recording
from adaptycho.instruments.recorded import Recorded
from adaptycho.instruments.simulated import Simulated
from adaptycho.physics import specimen
from adaptycho.physics.optics import Setup
from adaptycho.samples import windows
from adaptycho.samples.sites import Sites, columns_in_field, sites
from adaptycho.scan.episode import stream
from adaptycho.settings import Scan, Settings, build
from adaptycho.types import Action, Measurement

FILLED = ("island", "edge", "particles")  # families that fill a part of the field
SIDE = 40  # positions along each side of a recorded window
HELD_OUT = 64  # patterns kept back to compare predictions with
HELD_OUT_DOSE = 2e5  # electrons in each of them
RECORDED = 2 * windows.CORNERS  # samples of a recording: two halves of each corner
_HELD_OUT = 17  # keeps the random stream of held-out patterns apart


@dataclass(frozen=True, eq=False)
class Sample(ABC):
    """One specimen or window under a microscope (B = 1). What takes time to find out is found out when it is first asked for.

    Attributes:
        number: which one; the same number is always the same.
        settings: of everything.
        microscope: over it.
    """

    number: int
    settings: Settings
    microscope: Simulated | Recorded

    @property
    def setup(self) -> Setup:
        """Geometry and beam."""
        return self.microscope.setup

    @property
    @abstractmethod
    def counts_per_electron(self) -> float:
        """Detector counts that one electron makes."""

    @property
    @abstractmethod
    def inside(self) -> Bool[Tensor, "h w"]:
        """Pixels of the field where the structure is."""

    @property
    @abstractmethod
    def columns(self) -> Float[Tensor, "_ 2"]:
        """Places of the structure's atom columns, fractions of the field, some outside it; empty where they are not known."""

    @property
    @abstractmethod
    def truth(self) -> Float[Tensor, "1 h w"] | None:
        """True phase in rad inside the field, if there is one."""

    @property
    @abstractmethod
    def full_scan(self) -> Float[Tensor, "1 h w"]:
        """Phase in rad inside the field from the full scan, or from recorded patterns that scores refer to."""

    @property
    @abstractmethod
    def held_out(self) -> Measurement:
        """Patterns that no scan sees."""

    @property
    @abstractmethod
    def sites(self) -> Sites | None:
        """Atom columns to be placed and found in a reconstruction, if there are any."""

    @property
    @abstractmethod
    def energy(self) -> Float[Tensor, "h w"] | None:
        """Local variance of the phase, from which structure is told where there is no truth."""


@dataclass(frozen=True, eq=False)
class Specimen(Sample):
    """A simulated specimen: its atoms, from which everything else follows.

    Attributes:
        settings: of this specimen alone.
        atoms: in Å from the centre of the object grid.
    """

    microscope: Simulated
    atoms: Atoms

    @property
    def counts_per_electron(self) -> float:
        """A simulated detector counts electrons."""
        return 1.0

    @cached_property
    def structure(self) -> Bool[Tensor, "H W"]:
        """Where the structure of interest is, on the object grid."""
        return specimen.structure_mask(self.atoms, self.setup.object)

    @property
    def inside(self) -> Bool[Tensor, "h w"]:
        """Where the structure of interest is, in the field."""
        return self.setup.crop(self.structure.float()) > 0.5

    @cached_property
    def columns(self) -> Float[Tensor, "_ 2"]:
        """Places of the structure's atom columns, fractions of the field."""
        return columns_in_field(self.setup, self.atoms)

    @property
    def truth(self) -> Float[Tensor, "1 h w"]:
        """True phase in rad inside the field."""
        return build.truth_in_field(self.microscope)

    @cached_property
    def full_phase(self) -> Float[Tensor, "1 H W"]:
        """Phase in rad on the object grid from the full scan."""
        descent = build.reference_descent(self.settings, self.setup, self.counts_per_electron)
        return descent(build.full_scan(self.settings, self.microscope)).phase

    @property
    def full_scan(self) -> Float[Tensor, "1 h w"]:
        """Phase in rad inside the field from the full scan."""
        return self.setup.crop(self.full_phase)

    @property
    def held_out(self) -> Measurement:
        """Patterns at random positions; they are as many as a scan's, and not kept."""
        return unseen(self.microscope, self.number)

    @cached_property
    def sites(self) -> Sites | None:
        """Atom columns of the complete structure; an amorphous film has none."""
        return sites(self.settings, self.setup, self.number, self.atoms)

    @property
    def energy(self) -> None:
        """The atoms tell where the structure is."""
        return None


@dataclass(frozen=True, eq=False)
class Window(Sample):
    """A window of a recording, compared with patterns that a scan of it may not see.

    Attributes:
        compared: cuts out the patterns that scores refer to, the other half of the window; they may be many, and are not kept.
        steps: recorded rows and columns of the window.
    """

    microscope: Recorded
    compared: Callable[[], Measurement]
    steps: tuple[int, int]

    @property
    def counts_per_electron(self) -> float:
        """As the recording says."""
        return self.microscope.counts_per_electron

    @property
    def inside(self) -> Bool[Tensor, "h w"]:
        """The half of the window with more structure."""
        return self.energy > self.energy.median()

    @property
    def columns(self) -> Float[Tensor, "_ 2"]:
        """Nobody knows any."""
        return torch.zeros(0, 2)

    @property
    def truth(self) -> None:
        """Nobody knows it."""
        return None

    @cached_property
    def full_scan(self) -> Float[Tensor, "1 h w"]:
        """Phase in rad inside the field from the patterns that scores refer to."""
        return build.reference(self.settings, dataclasses.replace(self.microscope, measurement=self.compared()))

    @property
    def held_out(self) -> Measurement:
        """The patterns that scores refer to."""
        return self.compared()

    @property
    def sites(self) -> None:
        """Nobody knows any."""
        return None

    @cached_property
    def energy(self) -> Float[Tensor, "h w"]:
        """Local variance of the phase that scores refer to."""
        return windows.local_energy(self.setup, self.full_scan[0], self.steps)


def simulated(settings: Settings, number: int) -> Specimen:
    """The specimen with a number, of the settings' family, under a simulated microscope."""
    alone = dataclasses.replace(settings, specimen=dataclasses.replace(settings.specimen, first=number, count=1))
    atoms = build.atoms(alone, build.setup(alone), number)
    return Specimen(number, alone, build.simulated(alone, [atoms]), atoms)


def unseen(microscope: Simulated, number: int) -> Measurement:
    """Patterns of a specimen at random positions, to compare predictions with."""
    generator = stream(number, -_HELD_OUT)
    action = Action(torch.rand(1, HELD_OUT, 2, generator=generator), dose=HELD_OUT_DOSE)
    return microscope.acquire(action, generator=generator)


def recorded(settings: Settings, number: int) -> Window:
    """One checkerboard half of a corner window of a recording; scores refer to the other half.

    Numbers 2i and 2i + 1 are the two halves of window i; the windows overlap if the recording is small.

    Raises:
        ValueError: there is no such window.
    """
    if not 0 <= number < RECORDED:
        raise ValueError(
            f"evaluate.test: expected numbers 0 to {RECORDED - 1} for a recording ({windows.CORNERS} windows in halves), found {number}"
        )
    return half(settings, number, lambda: _corner(settings.scan.file, number // 2), (SIDE, SIDE), number % 2)


def half(settings: Settings, number: int, window: Callable[[], Recording], steps: tuple[int, int], which: int) -> Window:
    """One of the two checkerboard halves of a window; scores refer to the other one.

    Args:
        settings: of reconstruction.
        number: of the sample.
        window: cuts it out of its recording.
        steps: recorded rows and columns of it.
        which: of the halves, 0 or 1.
    """
    found = window()
    scanned = windows.checkerboard(found.setup, found.measurement)[which]

    def other() -> Measurement:
        again = window()
        return windows.checkerboard(again.setup, again.measurement)[1 - which]

    return Window(number, settings, Recorded(found.setup, scanned, found.counts_per_electron), other, steps)


@lru_cache(maxsize=windows.CORNERS)
def _corner(file: str | None, number: int) -> Recording:
    whole = build.recording(Settings(scan=Scan(file=file)))
    return windows.cut(whole, windows.corner(whole, number, SIDE))
