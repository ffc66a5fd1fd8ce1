"""Specimens for replay: windows of one recording, told apart by number."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import torch

from adaptycho import formats
from adaptycho.instruments.recorded import Recorded, window
from adaptycho.physics.optics import Setup
from adaptycho.settings import Settings, build
from adaptycho.types import Measurement

STEPS = 16  # places where a window may start along each side of the recording
WIDE = 6  # of those steps that a window is wide


@dataclass(frozen=True, eq=False)
class Windows:
    """Squares of 6/16 of a recording along each side, all inside the rows and columns of `settings.scan`.

    All of them have one geometry, so a policy trained on some columns can be tested on others. A number stands for a window; there are
    `len(windows)` different ones, and higher numbers begin again.

    Raises:
        ValueError: the rows or columns leave no room for a window.
    """

    settings: Settings

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            if not self._starts(name):
                found = getattr(self.settings.scan, name)
                raise ValueError(f"scan.{name}: expected to hold two multiples of 1/{STEPS} that are {WIDE}/{STEPS} apart, got {found}")

    def __len__(self) -> int:
        return len(self._starts("rows")) * len(self._starts("columns"))

    @cached_property
    def setup(self) -> Setup:
        """Geometry and beam of every window."""
        return self._cut(0)[0]

    def microscope(self, numbers: tuple[int, ...]) -> Recorded:
        """A microscope that replays the windows with these numbers."""
        return Recorded(self.setup, Measurement.stack([self._cut(n)[1] for n in numbers]), self._recording.counts_per_electron)

    @cached_property
    def _recording(self) -> formats.Recording:
        whole = dataclasses.replace(self.settings.scan, rows=(0.0, 1.0), columns=(0.0, 1.0))
        return build.recording(dataclasses.replace(self.settings, scan=whole))

    def _starts(self, name: str) -> list[int]:
        low, high = getattr(self.settings.scan, name)
        return [i for i in range(STEPS - WIDE + 1) if low <= i / STEPS and (i + WIDE) / STEPS <= high]

    def _cut(self, number: int) -> tuple[Setup, Measurement]:
        rows, columns = self._starts("rows"), self._starts("columns")
        # In random order, so that any range of numbers is spread over the recording.
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        place = int(order[number % len(self)])
        row, column = rows[place // len(columns)], columns[place % len(columns)]
        whole = self._recording
        spans = {"rows": (row / STEPS, (row + WIDE) / STEPS), "columns": (column / STEPS, (column + WIDE) / STEPS)}
        return window(whole.setup, whole.measurement, **spans)
