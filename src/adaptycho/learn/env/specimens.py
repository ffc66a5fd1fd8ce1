"""What an environment scans: simulated specimens, or windows of one recording, told apart by number."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.formats import Recording
from adaptycho.instruments.recorded import Recorded
from adaptycho.physics.optics import Setup
from adaptycho.samples import sample, windows
from adaptycho.samples.batch import Batch, together
from adaptycho.samples.sample import Sample, Window
from adaptycho.samples.windows import Rectangle
from adaptycho.settings import Settings, build, microscopes

Against = Literal["truth", "full"]
KEPT = 512  # reconstructions of full scans that are kept


@dataclass(frozen=True, eq=False)
class Specimens:
    """All specimens of some settings, or the windows of a recording inside their rows and columns.

    All windows have one geometry, so a policy trained on some columns can be tested on others. There are `len(places)` of them, and higher
    numbers begin again.

    Attributes:
        settings: of specimens and microscope.
        against: what rewards and scores refer to: the true phase, or the full scan's reconstruction (a recording has no other).

    Raises:
        ValueError: the rows or columns of a recording leave no room for a window.
    """

    settings: Settings
    against: Against = "truth"
    _kept: dict[int, Float[Tensor, "1 h w"]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self._simulated:
            return
        scan, step = self.settings.scan, windows.STEPS
        for name, alone in (("rows", windows.grid(scan.rows, (0.0, 1.0))), ("columns", windows.grid((0.0, 1.0), scan.columns))):
            if not alone:
                expected = f"to hold two multiples of 1/{step} that are {windows.WIDE}/{step} apart"
                raise ValueError(f"scan.{name}: expected {expected}, got {getattr(scan, name)}")

    @cached_property
    def setup(self) -> Setup:
        """Geometry and beam."""
        return build.setup(self.settings) if self._simulated else self._cut(0).setup

    @cached_property
    def places(self) -> list[Rectangle]:
        """Where the windows of a recording lie."""
        return windows.grid(self.settings.scan.rows, self.settings.scan.columns)

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The specimens or windows with these numbers."""
        found = [sample.simulated(self.settings, n) if self._simulated else self._window(n) for n in numbers]
        return together(found, self.setup)

    def reference(self, batch: Batch) -> Float[Tensor, "B h w"]:
        """Phase in rad inside the field that rewards and scores of these specimens refer to."""
        truth = batch.truth if self.against == "truth" else None
        return torch.cat([self._full_scan(s) for s in batch.samples]) if truth is None else truth

    @property
    def _simulated(self) -> bool:
        return microscopes.of(self.settings).capabilities.specimens

    @cached_property
    def _recording(self) -> Recording:
        whole = dataclasses.replace(self.settings.scan, rows=(0.0, 1.0), columns=(0.0, 1.0))
        return build.recording(dataclasses.replace(self.settings, scan=whole))

    def _cut(self, number: int) -> Recording:
        return windows.cut(self._recording, self.places[number % len(self.places)])

    def _window(self, number: int) -> Window:
        """A whole window: an environment compares with everything that was recorded."""
        cut = self._cut(number)
        rows, columns = windows.lines(cut.measurement)
        replay = Recorded(cut.setup, cut.measurement, cut.counts_per_electron)
        return Window(number, self.settings, replay, lambda: cut.measurement, (len(rows), len(columns)))

    def _full_scan(self, found: Sample) -> Float[Tensor, "1 h w"]:
        """Of one specimen; made once and kept for a while."""
        number = found.number if self._simulated else found.number % len(self.places)
        if number not in self._kept:
            if len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[number] = found.full_scan
        return self._kept[number]
