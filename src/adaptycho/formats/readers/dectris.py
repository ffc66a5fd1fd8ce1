"""Reads DECTRIS files: a master of the SIMPLON interface with the files of frames beside it, or one file of frames.

Axes: each `entry/data/data_000001` is (frames, ky, kx), in the order in which they were taken; the frames follow each other by the
number in the name. The shape of the scan is not in the master, and distance, wavelength and energy there are settings for X-rays: all
are typed. A detector for scanning (ARINA) writes a side file beside `name_master.h5`, `name.h5`, whose group `STEM Metadata` has the
scan's pixel in nm, the numbers of its columns and rows, and the high tension in kV or V. `pixel_mask` is 0 for good pixels.

Only files in the master's own folder are opened through its links, and only by plain names: a file that somebody sent could else show any
file of the reader's as patterns.

Source: DECTRIS SIMPLON API 1.8, "Filewriter"; the side file as py4DSTEM 0.14.18 and rosettasciio 0.15 read it.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np

from adaptycho.formats import stored
from adaptycho.formats.raw import Raw, Said
from adaptycho.formats.readers import calibration, facts
from adaptycho.formats.readers.views import Joined
from adaptycho.formats.stored import Stored

name = "DECTRIS"
needs = "an HDF5 file with entry/data/data_000001 and further, or with entry/data/data and image_nr_low"
NUMBERED = re.compile(r"data_\d{1,9}")
MASTER = "_master"
MOST_FILES = 10000  # linked from one master
SIDE = ("Pixel Size", "High Tension", "NumPixelsX", "NumPixelsY")
DETECTOR = "entry/instrument/detector"


def can_read(path: Path) -> bool:
    """Whether it is a master or a file of frames."""
    return facts.holds(path, lambda file: bool(_numbered(file)) or _frames(file))


@contextmanager
def opened(path: Path, key: str | None = None) -> Iterator[Raw]:
    """All frames as one array (N, ky, kx); `key` reads one of the numbered arrays alone, such as entry/data/data_000001.

    Raises:
        ValueError: naming the file; frames are missing, lie elsewhere, need a filter that is not installed, or do not fit each other.
    """
    with stored.hdf5(path) as file, ExitStack() as files:
        if _frames(file) and not _numbered(file):
            facts.choose(path, key, ["entry/data/data"])
            yield Raw(patterns=facts.patterns(file, "entry/data/data", path, (3,)))
            return
        names = [f"entry/data/{each}" for each in _numbered(file)]
        if len(names) > MOST_FILES:
            raise ValueError(f"{path}: entry/data: expected at most {MOST_FILES} files of frames, found {len(names)}")
        chosen = names if key is None else [facts.choose(path, key, names)]
        parts = [_part(file, each, path, files) for each in chosen]
        for part in parts[1:]:
            if part.shape[1:] != parts[0].shape[1:] or part.values.dtype != parts[0].values.dtype:
                expected = f"frames {parts[0].shape[1:]} of {parts[0].values.dtype} as in the first"
                raise ValueError(f"{part.name}: expected {expected}, found {part.shape[1:]} of {part.values.dtype}")
        whole = Joined([part.values for part in parts])
        found = Stored(whole, sum(part.held for part in parts), f"{path}: entry/data")
        yield Raw(patterns=found, said=_said(file, path, whole.shape))


def _numbered(file: h5py.File) -> list[str]:
    """Names of the numbered arrays and links, in the order of their numbers."""
    data = facts.here(file, "entry/data")
    names = [key for key in data if NUMBERED.fullmatch(key)] if isinstance(data, h5py.Group) else []
    return sorted(names, key=lambda each: int(each.split("_")[1]))


def _frames(file: h5py.File) -> bool:
    return facts.array_here(file, "entry/data/data", (3,)) and facts.attribute(file["entry/data/data"], "image_nr_low") is not None


def _part(file: h5py.File, key: str, path: Path, files: ExitStack) -> Stored:
    """One array of frames, of the master itself or of a file beside it."""
    link = file.get(key, getlink=True)
    if not isinstance(link, h5py.ExternalLink):
        return facts.patterns(file, key, path, (3,))
    beside = path.parent / link.filename
    if Path(link.filename).name != link.filename or "\\" in link.filename or link.filename in ("", ".", ".."):
        raise ValueError(f"{path}: {key}: expected a link to a file in the same folder, found {link.filename!r}")
    if not facts.together(path, beside):
        raise ValueError(f"{path}: {key}: expected a link to a file in the same folder, found one that leads out of it")
    other = files.enter_context(stored.hdf5(beside, "a file of frames beside the master"))
    return facts.patterns(other, link.path.strip("/"), beside, (3,))


def _said(file: h5py.File, path: Path, shape: tuple[int, ...]) -> Said:
    mask = None
    for place in (f"{DETECTOR}/detectorSpecific/pixel_mask", f"{DETECTOR}/pixel_mask"):
        item = facts.here(file, place)
        if isinstance(item, h5py.Dataset) and item.shape == shape[1:]:
            good: np.ndarray = stored.whole(facts.patterns(file, place, path, (2,))) == 0
            mask = good
            break
    energy, step, scan = _side(path, shape[0])
    return Said(energy=energy, scan_step=step, scan_shape=scan, mask=mask, title=path.stem.removesuffix(MASTER))


def _side(path: Path, frames: int) -> tuple[float | None, calibration.Pair | None, tuple[int, int] | None]:
    """Energy, step and shape of the scan from the side file, if there is one; a scan that was stopped has another number of frames."""
    beside = path.with_name(f"{path.stem.removesuffix(MASTER)}.h5")
    if not path.stem.endswith(MASTER) or not beside.is_file() or not facts.together(path, beside):
        return None, None, None
    with stored.hdf5(beside) as side:
        held = facts.here(side, "STEM Metadata")
        pixel, tension, columns, rows = (
            calibration.positive(facts.number(facts.attribute(held, each)))
            for each in ("Pixel Size", "High Tension", "NumPixelsX", "NumPixelsY")
        )
    step = calibration.step((pixel, pixel), ("nm", "nm"))
    energy = tension * 1e3 if tension is not None and tension < 3e3 else tension  # 30 kV to 300 kV, or 30000 V to 300000 V
    if columns is None or rows is None or columns % 1 or rows % 1 or columns * rows != frames:
        return energy, step, None
    return energy, step, (int(rows), int(columns))
