"""What a policy learns from: simulated specimens or windows of a recording, those for training apart from those for validation."""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from adaptycho.formats import Recording
from adaptycho.samples import sample, windows
from adaptycho.samples.sample import FILLED, Sample, Specimen
from adaptycho.scan.episode import stream
from adaptycho.settings import Settings, build, microscopes

Part = Literal["train", "validation"]  # of specimens or of a recording
UNTUNED = 1000  # training specimens that are left to tuning


def pool(settings: Settings, part: Part, count: int) -> list[Sample]:
    """Samples to draw batches from, or to validate with.

    Args:
        settings: of specimens or the recording, and of `practice`.
        part: which they are of.
        count: how many.

    Raises:
        ValueError: there are not so many specimens, or the recording is no raster or too small (`raster`).
    """
    if not microscopes.of(settings).capabilities.specimens:
        return [*recorded(settings, part, count, settings.train.seed if part == "train" else -1)]
    first, last = getattr(settings.evaluate, part)
    first += UNTUNED if part == "train" else 0
    if first + count > last:
        raise ValueError(f"evaluate.{part}: expected room for {count} specimens from {first} on, found {first} to {last}")
    offset = settings.train.seed * count % (last - first - count + 1) if part == "train" else 0
    return [*simulated(settings, range(first + offset, first + offset + count))]


def simulated(settings: Settings, numbers: Iterable[int]) -> list[Specimen]:
    """Specimens by their numbers, each of a structure, family and filling drawn by its number from `settings.practice`."""
    return [sample.simulated(_drawn(settings, number), number) for number in numbers]


def structures(folder: str) -> list[Path]:
    """The files of a folder, in order of their names.

    Raises:
        ValueError: it is none, or has no files.
    """
    path = Path(folder)
    if not path.is_dir():
        found = "a file" if path.exists() else "none"
        raise ValueError(f"practice.structures: expected a folder of structure files, found {found} ({folder})")
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise ValueError(f"practice.structures: expected structure files in {folder}, found none")
    return files


def recorded(settings: Settings, part: Part, count: int, number: int) -> list[Sample]:
    """Random windows of the part of the recording that is for training or for validation, one checkerboard half of each.

    Args:
        settings: of the recording, and `practice.window`.
        part: whose windows.
        count: how many.
        number: of the draw; the same number gives the same windows.

    Raises:
        ValueError: its positions lie on no raster, or see `raster`.
    """
    whole, (rows, columns) = raster(settings, part)
    shape, generator = settings.practice.window, stream(number, -31)
    found: list[Sample] = []
    for i in range(count):
        window: Callable[[], Recording] = partial(windows.cut, whole, windows.drawn(rows, columns, shape, generator=generator))
        which = 0 if torch.rand(1, generator=generator) < 0.5 else 1
        found.append(sample.half(settings, i, window, shape, which))
    return found


def raster(settings: Settings, part: Part) -> tuple[Recording, tuple[list[float], list[float]]]:
    """The recording inside the rows and columns of `settings.scan`, and the rows and columns of its raster that windows may lie in.

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
    return whole, (down, across[: width - held] if held == 0 or part == "train" else across[width - held :])


def _drawn(settings: Settings, number: int) -> Settings:
    """The settings of one specimen, whose structure and family follow from its number."""
    p, structure = settings.practice, settings.specimen.structure
    if p.structures:
        files = structures(p.structures)
        structure = str(files[int(torch.randint(len(files), (1,), generator=stream(number, -37)))])
    family = p.families[int(torch.randint(len(p.families), (1,), generator=stream(number, -29)))]
    own = dict(settings.specimen.options) if family == settings.specimen.family else {}
    options = {"filling": list(p.filling)} if family in FILLED else own
    specimen = dataclasses.replace(settings.specimen, structure=structure, family=family, options=options)
    return dataclasses.replace(settings, specimen=specimen)
