"""What can be scanned: a simulated specimen, recorded data, an instrument. All answer the same calls."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:  # what a microscope can do is asked before torch is loaded
    import torch
    from torch import Tensor

    from adaptycho.physics.exposure import Exposure
    from adaptycho.physics.optics import Setup
    from adaptycho.types import Action, Measurement


class Microscope(Protocol):
    """Sends the beam where it is asked and returns what the detector saw."""

    @property
    def setup(self) -> "Setup":
        """Geometry and beam."""
        ...

    @property
    def batch(self) -> int:
        """Number of specimens scanned at once (an instrument has one)."""
        ...

    def acquire(self, action: "Action", *, generator: "torch.Generator") -> "Measurement":
        """Records one sub-sequence on every specimen; positions come back as reported, not as requested.

        `generator` drives counting noise and jitter; an instrument has its own and ignores it.
        """
        ...


class Session(Microscope, Protocol):
    """A microscope that was opened for one scan."""

    def reference(self) -> "Tensor | None":
        """Phase in rad inside the field that scores refer to, (B, h, w); None where nobody knows, as on an instrument."""
        ...

    def close(self) -> None:
        """Lets go of the microscope, whatever happened; called once, after the last sub-sequence or a failure."""
        ...


@runtime_checkable
class Computed(Protocol):
    """A microscope that only computes, and can do so on another device."""

    def to(self, device: "torch.device | str") -> Session:
        """The same, computing and answering on a device."""
        ...


@runtime_checkable
class Dosed(Protocol):
    """A microscope that tells how many electrons it sends to a position unless it is asked for others."""

    @property
    def dose(self) -> float:
        """Electrons per position, at most."""
        ...


@runtime_checkable
class Parking(Protocol):
    """A microscope that may keep the beam off the specimen while nothing is asked for."""

    def park(self) -> bool:
        """Blanks the beam or sends it outside the field, at once, and ends an `acquire` that runs in another thread.

        Returns:
            Whether the beam is off the field now.
        """
        ...


@runtime_checkable
class Besides(Protocol):
    """A microscope that sends electrons of which it records no pattern, and knows it."""

    def besides(self) -> "Exposure | None":
        """Those of the last sub-sequence; None if there were none. Asked once after each, also after one that failed."""
        ...


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a kind of microscope can do, for whoever asks before it is opened.

    Attributes:
        specimens: makes specimens to order, by number, whose truth is known: those of the settings' section `specimen`.
        windows: replays a recording, of which windows can be cut that stand in for specimens.
        anywhere: the beam goes where it is asked; else to the nearest position that there is.
        defocus: a scan may choose it, and change it between sub-sequences.
        dose: likewise.
        calibrate: part of the field along each side, from its corner (0, 0), that a check before the first sub-sequence may expose
            (`adaptycho.instruments.calibration`); none is made if it is 0.
    """

    specimens: bool = False
    windows: bool = False
    anywhere: bool = True
    defocus: bool = False
    dose: bool = False
    calibrate: float = 0.0
