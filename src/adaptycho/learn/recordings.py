"""Training sets from dense recordings: hundreds of small scans out of a few large ones, as the paper made 175 of its own.

Each is a random window of a recording, of which a scan may choose among the positions of one colour of a checkerboard; the others are what
it is compared with. Columns for validation share no pattern with those for training.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from adaptycho import formats
from adaptycho.formats import Recording
from adaptycho.formats.recording import Span
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct import held_out
from adaptycho.samples import sample, windows
from adaptycho.samples.sample import Window
from adaptycho.scan.episode import stream
from adaptycho.settings import Settings, build

Part = Literal["train", "validation"]  # of specimens or of a recording
ALIKE = 0.01  # relative difference up to which lengths and angles of recordings count as the same


@dataclass(frozen=True, eq=False)
class Raster:
    """What windows are cut from.

    Attributes:
        whole: the recording inside the rows and columns of `settings.scan`.
        rows: where those of its raster lie that windows may reach over, fractions of the field.
        columns: likewise.
    """

    whole: Recording
    rows: list[float]
    columns: list[float]


def files(settings: Settings) -> list[str | None]:
    """The recordings of the settings: those of the folder `practice.recordings`, in order of their names, or the one to scan.

    Raises:
        ValueError: the folder is none, or holds no recording.
    """
    folder = settings.practice.recordings
    if folder is None:
        return [settings.scan.file]
    path = Path(folder)
    if not path.is_dir():
        found = "a file" if path.exists() else "none"
        raise ValueError(f"practice.recordings: expected a folder of recordings, found {found} ({folder})")
    some = [file for file in sorted(path.iterdir()) if not file.name.startswith(".") and formats.find(file) is not None]
    if not some:
        raise ValueError(f"practice.recordings: expected recordings in {folder}, found none")
    return [*map(str, some)]


def rasters(settings: Settings, part: Part) -> list[Raster]:
    """What windows for training or for validation are cut from.

    Raises:
        ValueError: a recording is no raster or too small for a window, or they were not all taken in the same way.
    """
    found = [raster(dataclasses.replace(settings, scan=dataclasses.replace(settings.scan, file=file)), part) for file in files(settings)]
    for other in found[1:]:
        _check_alike(found[0].whole, other.whole)
    return found


def raster(settings: Settings, part: Part) -> Raster:
    """The recording inside the rows and columns of `settings.scan`, and where on its raster windows may lie.

    The last `practice.held_out` of the columns is for validation and the rest for training, so that they share no pattern. If it is 0, all
    of them are for both, and a validation only says how well what was learnt from is done.

    Raises:
        ValueError: the recording is too small for a window.
    """
    whole, (rows, columns) = build.recording(settings), settings.practice.window
    down, across = windows.lines(whole.measurement)
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
    return Raster(whole, down, across[: width - held] if held == 0 or part == "train" else across[width - held :])


def drawn(settings: Settings, part: Part, count: int, number: int) -> list[Window]:
    """Random windows, one checkerboard half of each, with as many of their electrons as `practice.kept` says.

    Args:
        settings: of the recordings, and `practice`.
        part: whose windows.
        count: how many.
        number: of the draw; the same number gives the same windows.

    Raises:
        ValueError: see `rasters`.
    """
    sources, shape, generator = rasters(settings, part), settings.practice.window, stream(number, -31)
    found = []
    for i in range(count):
        # Of a single recording nothing is drawn here: its windows are those that they have always been.
        source = sources[int(torch.randint(len(sources), (1,), generator=generator)) if len(sources) > 1 else 0]
        where = windows.drawn(source.rows, source.columns, shape, generator=generator)
        window: Callable[[], Recording] = partial(windows.cut, source.whole, where)
        which = 0 if torch.rand(1, generator=generator) < 0.5 else 1
        one = sample.half(settings, i, window, shape, which)
        found.append(_thinned(one, settings.practice.kept, number, i))
    return found


def _thinned(window: Window, kept: Span, number: int, i: int) -> Window:
    """With some of its electrons, as if it had been scanned with less of a dose; what it is compared with keeps them all.

    Counts of a detector that does not count are rounded to whole electrons at random.
    """
    low, high = kept
    if low == 1:
        return window
    generator = stream(number, -(1 << 20) - i)
    share = low + (high - low) * float(torch.rand(1, generator=generator))
    seen, gain = window.microscope.measurement, window.counts_per_electron
    exact = seen.patterns.double() / gain
    whole = exact.floor() + (torch.rand(exact.shape, generator=generator, dtype=exact.dtype) < exact.frac())
    some = gain * held_out.thinned(whole, share, int(torch.randint(1 << 31, (1,), generator=generator)))
    thinned = dataclasses.replace(seen, patterns=some.to(seen.positions), dose=share * seen.dose)
    return dataclasses.replace(window, microscope=dataclasses.replace(window.microscope, measurement=thinned))


def _check_alike(first: Recording, other: Recording) -> None:
    """Refuses recordings whose windows cannot be scanned side by side.

    Raises:
        ValueError: it names the other file, and what differs.
    """
    for name, fact in FACTS.items():
        a, b = fact.of(first), fact.of(other)
        if not fact.alike(a, b):
            said, found = (", ".join(f"{v:.5g}" for v in values) for values in (a, b))
            raise ValueError(f"{other.path}: {name}: expected {said} as in {first.path}, found {found}")
    masks = [torch.ones(r.setup.detector, dtype=torch.bool) if r.mask is None else r.mask.bool() for r in (first, other)]
    if not torch.equal(*masks):
        counts = [int((~mask).sum()) for mask in masks]
        raise ValueError(f"{other.path}: mask: expected the {counts[0]} pixels to leave out of {first.path}, found {counts[1]}, or others")


def _step(recording: Recording) -> Sequence[float]:
    """Of a raster, along rows and columns."""
    return [
        (found[-1] - found[0]) / (len(found) - 1) * size
        for found, size in zip(windows.lines(recording.measurement), recording.setup.field, strict=True)
    ]


def _beam(setup: Setup) -> Sequence[float]:
    return [setup.wavelength, setup.semiangle]


def _aberrations(setup: Setup) -> Sequence[float]:
    """In Å, those with a direction by their two components."""
    a = setup.aberrations
    turned = ((a.C12, 2, a.phi12), (a.C21, 1, a.phi21), (a.C23, 3, a.phi23), (a.C32, 2, a.phi32), (a.C34, 4, a.phi34))
    return [a.C10, a.C30, a.C50, *(c * part(m * phi) for c, m, phi in turned for part in (math.cos, math.sin))]


@dataclass(frozen=True)
class Fact:
    """What has to be the same of all recordings.

    Attributes:
        of: its values of a recording.
        near: how far they may be off where they are small.
        turn: after which a value is the same again.
        together: whether values may be off by a part of the largest of all, instead of each by a part of itself.
    """

    of: Callable[[Recording], Sequence[float]]
    near: float = 0.0
    turn: float = math.inf
    together: bool = False

    def alike(self, a: Sequence[float], b: Sequence[float]) -> bool:
        """Whether the values of two recordings are the same."""
        if len(a) != len(b):
            return False
        each = [max(abs(x), abs(y)) for x, y in zip(a, b, strict=True)]
        if self.together:
            each = [max(each, default=0.0)] * len(each)
        off = [abs(x - y) if self.turn == math.inf else abs(math.remainder(x - y, self.turn)) for x, y in zip(a, b, strict=True)]
        return all(o <= max(self.near, ALIKE * size) for o, size in zip(off, each, strict=True))


FACTS: dict[str, Fact] = {
    "patterns": Fact(lambda r: [*map(float, r.setup.detector)]),
    "object pixel in Å": Fact(lambda r: [r.setup.object.pixel]),
    "wavelength in Å, semi-angle in mrad": Fact(lambda r: _beam(r.setup)),
    "aberrations": Fact(lambda r: _aberrations(r.setup), 1, together=True),  # since a direction mixes two of them
    "measured probes": Fact(lambda r: [float(r.setup.measured_probe is not None)]),
    "rotation in degrees": Fact(lambda r: [r.setup.rotation], 0.5, turn=360),
    "step of the raster in Å": Fact(_step),
    "counts of an electron": Fact(lambda r: [r.counts_per_electron]),
}
