"""What a policy learns from: simulated specimens or windows of a recording, those for training apart from those for validation."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import torch

from adaptycho.learn import recordings
from adaptycho.learn.recordings import Part
from adaptycho.samples import sample
from adaptycho.samples.sample import FILLED, Sample, Specimen
from adaptycho.scan.episode import stream
from adaptycho.settings import Settings, microscopes

UNTUNED = 1000  # training specimens that are left to tuning


def pool(settings: Settings, part: Part, count: int) -> list[Sample]:
    """Samples to draw batches from, or to validate with.

    Args:
        settings: of specimens or the recording, and of `practice`.
        part: which they are of.
        count: how many.

    Raises:
        ValueError: there are not so many specimens, or a recording is no raster or too small (`recordings.rasters`).
    """
    if not microscopes.of(settings).capabilities.specimens:
        return [*recordings.drawn(settings, part, count, settings.train.seed if part == "train" else -1)]
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
