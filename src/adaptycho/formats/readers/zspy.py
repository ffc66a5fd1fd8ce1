"""Reads HyperSpy's `.zspy`: a folder in Zarr's format 2, with the same groups and axes as `.hspy` has.

Attributes are JSON in `.zattrs` of each group, an array's shape and packing in `.zarray`, and each chunk is a file, `0.0.0.0` or `0/0/0/0`.
Chunks that are not there hold the fill value. Only numbers packed by Blosc, zlib or gzip, or not at all, are read: Zarr's filters can be
pickles, which run code. Links in the folder are not followed.

Source: "Zarr storage specification version 2"; rosettasciio 0.15, `zspy/_api.py`.
"""

import importlib
import itertools
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adaptycho.formats import stored
from adaptycho.formats.raw import Raw
from adaptycho.formats.readers import facts, hspy
from adaptycho.formats.readers.views import complete
from adaptycho.formats.stored import Stored
from adaptycho.support.reading import check_size, reading, regular

name = "HyperSpy (Zarr)"
needs = "a folder with Experiments, in which a signal has data and axis-0"
MOST = 10**4  # signals in a folder, which are listed
BLOSC_HEADER = 16  # bytes, in which the size of the contents is at 4
CACHE = 2**30  # bytes of unpacked chunks that are kept: HyperSpy makes them large, and a line of the scan needs a few of each
GZIP_OR_ZLIB = 47  # zlib's word for either header


def can_read(path: Path) -> bool:
    """Whether there are signals with patterns."""
    with suppress(Exception):
        return path.is_dir() and bool(_signals(path))
    return False


@contextmanager
def opened(path: Path, key: str | None = None) -> Iterator[Raw]:
    """Patterns and what is known of the axes; `key` is such as Experiments/name/data where there are several.

    Raises:
        ValueError: naming the folder; there are no patterns, or they cannot be read.
    """
    with reading(path, "a folder in HyperSpy's Zarr format"):
        chosen = facts.choose(path, key, _signals(path))
        signal = path / chosen.removesuffix("/data")
        array = Chunked.at(signal / "data", f"{path}: {chosen}")
        held = sum(entry.stat(follow_symlinks=False).st_size for entry in _files(signal / "data"))
        axes = [_json(signal / f"axis-{axis}" / ".zattrs") for axis in range(len(array.shape))]
        about = {"TEM": _json(signal / "metadata" / "Acquisition_instrument" / "TEM" / ".zattrs")}
        general = _json(signal / "metadata" / "General" / ".zattrs")
        yield hspy.described(Stored(array, held, f"{path}: {chosen}"), axes, {"Acquisition_instrument": about, "General": general})


@dataclass(frozen=True, eq=False)
class Chunked:
    """An array in Zarr's format 2, whose chunks are unpacked when a part of them is asked for.

    Attributes:
        folder: with the chunks.
        name: of file and key, to open sentences with.
        shape: of the array.
        chunks: shape of a chunk; those at the end are whole too.
        dtype: of the numbers.
        packed: by what, None if not.
        separator: between the numbers of a chunk in its name.
        order: C or F, within a chunk.
        fill: what chunks hold that are not there.
        kept: chunks that were unpacked last, by number.
    """

    folder: Path
    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    packed: str | None
    separator: str
    order: Any
    fill: float
    kept: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)

    @classmethod
    def at(cls, folder: Path, name: str) -> "Chunked":
        """The array in a folder, of which only the description is read.

        Raises:
            ValueError: it is packed in a way that is not read, or is no array of numbers.
        """
        said = _json(folder / ".zarray")
        shape, chunks = (tuple(said.get(each) or ()) for each in ("shape", "chunks"))
        if not all(type(n) is int and n > 0 for n in (*shape, *chunks)) or len(shape) != len(chunks) or len(shape) not in (3, 4):
            raise ValueError(f"{name}: expected patterns with 3 or 4 axes in chunks, none of them empty, found {shape} in {chunks}")
        packing = said.get("compressor")
        packed = None if packing is None else facts.text(facts.at(packing, "id")) or "something"
        if said.get("filters") or packed not in (None, "blosc", "zlib", "gzip") or said.get("zarr_format") != 2:
            found = f"format {said.get('zarr_format')}, packed by {packed}" + (" with filters" if said.get("filters") else "")
            raise ValueError(f"{name}: expected Zarr's format 2, packed by Blosc, zlib, gzip or not at all, found {found}")
        if not isinstance(said.get("dtype"), str):
            raise ValueError(f"{name}: expected integer or real numbers, found records")
        dtype = np.dtype(said["dtype"])
        stored.check_numbers(dtype, name)
        fill, order, separator = said.get("fill_value", 0), said.get("order", "C"), said.get("dimension_separator", ".")
        if order not in ("C", "F") or separator not in (".", "/"):
            raise ValueError(f"{name}: expected the order C or F and a full stop or a slash between numbers, found another")
        return cls(folder, name, shape, chunks, dtype, packed, separator, order, facts.number(fill) or 0.0)

    def __getitem__(self, key: Any) -> np.ndarray:
        """A part of it, by numbers and slices."""
        wanted = complete(key, len(self.shape))
        parts = [part if isinstance(part, slice) else slice(part, part + 1 or None) for part in wanted]
        spans = [range(size)[part] for size, part in zip(self.shape, parts, strict=True)]
        if any(span.step < 1 or (isinstance(part, int) and not span) for span, part in zip(spans, wanted, strict=True)):
            raise IndexError(f"expected numbers below {self.shape} and slices that go forward")
        low = [span.start if span else 0 for span in spans]
        high = [span[-1] + 1 if span else 0 for span in spans]
        box = np.full([last - first for first, last in zip(low, high, strict=True)], self.fill, self.dtype)
        grid = [range(first // size, -(-last // size)) for first, last, size in zip(low, high, self.chunks, strict=True)]
        for where in itertools.product(*grid) if box.size else ():
            if (chunk := self._chunk(where)) is not None:
                starts = [number * size for number, size in zip(where, self.chunks, strict=True)]
                edges = list(zip(starts, self.chunks, low, high, strict=True))
                taken = tuple(slice(max(first - start, 0), min(last - start, size)) for start, size, first, last in edges)
                put = tuple(slice(max(start - first, 0), min(start + size, last) - first) for start, size, first, last in edges)
                box[put] = chunk[taken]
        return box[tuple(0 if isinstance(part, int) else slice(None, None, span.step) for part, span in zip(wanted, spans, strict=True))]

    def _chunk(self, where: tuple[int, ...]) -> np.ndarray | None:
        if (known := self.kept.pop(where, None)) is None and (known := self._read(where)) is None:
            return None
        self.kept[where] = known  # the last now
        while len(self.kept) > 1 and len(self.kept) * known.nbytes > CACHE:
            del self.kept[next(iter(self.kept))]
        return known

    def _read(self, where: tuple[int, ...]) -> np.ndarray | None:
        path = self.folder / self.separator.join(map(str, where))
        size = math.prod(self.chunks) * self.dtype.itemsize
        if not path.exists() and not path.is_symlink():
            return None
        _own(path, self.folder)
        regular(path, "a chunk of numbers")
        check_size(str(path), size, path.stat().st_size)
        with reading(path, "a complete chunk of numbers"):
            content = _unpacked(path.read_bytes(), self.packed, size)
        if len(content) != size:
            raise ValueError(f"{path}: expected {size} bytes of numbers, found {len(content)}")
        return np.frombuffer(content, self.dtype).reshape(self.chunks, order=self.order)


def _unpacked(content: bytes, packed: str | None, size: int) -> bytes:
    """What a chunk holds, and no more than is expected, whatever it claims."""
    if packed is None:
        return content
    if packed in ("zlib", "gzip"):
        return zlib.decompressobj(GZIP_OR_ZLIB).decompress(content, size + 1)
    if len(content) < BLOSC_HEADER or int.from_bytes(content[4:8], "little") != size:
        return b""
    try:
        blosc = importlib.import_module("numcodecs.blosc")
    except ImportError:
        raise ValueError(
            "numcodecs: expected it to be installed, which unpacks Blosc, found none; pip install 'adaptycho[formats]' brings it"
        ) from None
    unpacked: bytes = blosc.decompress(content)
    return unpacked


def _signals(path: Path) -> list[str]:
    experiments = path / "Experiments"
    if not experiments.is_dir() or experiments.is_symlink():
        return []
    with os.scandir(experiments) as entries:
        names = sorted(entry.name for entry in itertools.islice(entries, MOST) if entry.is_dir(follow_symlinks=False))
    there = [f"Experiments/{each}/data" for each in names if (experiments / each / "data" / ".zarray").is_file()]
    return [each for each in there if (path / each).parent.joinpath("axis-0").is_dir()]


def _json(path: Path) -> Mapping[str, Any]:
    """What a file of JSON holds; nothing if there is none."""
    if not path.exists() and not path.is_symlink():
        return {}
    _own(path, path.parent)
    regular(path, "a file of JSON")
    if path.stat().st_size > facts.LONGEST_JSON:
        raise ValueError(f"{path}: expected at most {facts.LONGEST_JSON} bytes of JSON, found {path.stat().st_size}")
    return facts.document(path.read_bytes(), str(path))


def _own(path: Path, folder: Path) -> None:
    """Refuses a link, and a folder in between that is one."""
    between = [path, *itertools.takewhile(lambda each: each != folder, path.parents)]
    if any(each.is_symlink() for each in [*between, folder]):
        raise ValueError(f"{path}: expected a file in the folder itself, found a link; these are not followed")


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All files below a folder; links are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield entry
