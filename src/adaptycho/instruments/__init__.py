"""What can be scanned: a simulated specimen, recorded data, an instrument. All answer the same call."""

from typing import Protocol

import torch

from adaptycho.physics.optics import Setup
from adaptycho.types import Action, Measurement


class Microscope(Protocol):
    """Sends the beam where it is asked and returns what the detector saw."""

    @property
    def setup(self) -> Setup:
        """Geometry and beam."""
        ...

    @property
    def batch(self) -> int:
        """Number of specimens scanned at once (an instrument has one)."""
        ...

    def acquire(self, action: Action, *, generator: torch.Generator) -> Measurement:
        """Records one sub-sequence on every specimen; positions come back as reported, not as requested.

        `generator` drives counting noise and jitter; an instrument has its own and ignores it.
        """
        ...
