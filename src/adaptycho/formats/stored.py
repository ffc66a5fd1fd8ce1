"""Arrays as they lie in a file: found, looked at and then read a part at a time, and only what the file itself holds.

HDF5 can point to bytes elsewhere: external links, virtual data sets and external storage. They are refused, since a file that somebody
sent could show any file of the reader's as patterns. Pickles are never opened: a data file must not be able to run code.
"""

import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, NamedTuple

import h5py
import numpy as np

from adaptycho.formats.rehearsal import DEPTH, rehearse
from adaptycho.support.plugins import one_of
from adaptycho.support.reading import check_size, reading, regular

CACHE = 2**28  # bytes of unpacked HDF5 chunks that are kept, so that rows of a scan that share chunks unpack them once
MAGIC = b"\x93NUMPY"
LISTED = 20  # arrays of a file that are named in a sentence
SYMBOLS = {"c": "complex", "iuf": "integer or real", "biuf": "true, false, integer or real", "ciuf": "complex or real"}


class Header(NamedTuple):
    """What an .npy file says before its values."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Stored(NamedTuple):
    """An array in a file.

    Attributes:
        values: what slices are taken of, (N, Q, Q) or whatever it is.
        held: bytes that the file has of it.
        name: file and key, to open sentences with.
    """

    values: Any
    held: int
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.values.shape)

    @classmethod
    def of(cls, values: np.ndarray, name: str) -> "Stored":
        """An array that is in memory already."""
        return cls(values, values.nbytes, name)

    def check_size(self, shape: tuple[int, ...]) -> None:
        """Refuses to read so much of it if that is more than the file can have or memory can take."""
        chunk = getattr(self.values, "chunks", None) or ()  # unpacked whole
        check_size(self.name, (math.prod(shape) + math.prod(chunk)) * native(self.values.dtype).itemsize, self.held)


class Mapped:
    """An array in an .npy file of which slices are read; it is mapped for each of them, so that what was read is let go of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        whole = self._mapped()
        self.shape: tuple[int, ...] = whole.shape
        self.dtype: np.dtype = whole.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        """A part of it, in memory."""
        return np.array(self._mapped()[key])

    def _mapped(self) -> np.ndarray:
        # Headers may be old or odd: said by an error, if at all.
        with warnings.catch_warnings(action="ignore"):
            found = np.load(self.path, allow_pickle=False, mmap_mode="r")
        assert isinstance(found, np.ndarray)
        return found


def native(dtype: np.dtype) -> np.dtype:
    """The number type to compute with: in the machine's own byte order, and no half precision, which little can compute with."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype.newbyteorder("=")


def check_numbers(dtype: np.dtype, name: str, kinds: str = "iuf") -> None:
    """Refuses what are no numbers of some kinds: text, dates, Python objects, records, more than double precision."""
    if dtype.kind not in kinds or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise ValueError(f"{name}: expected {SYMBOLS[kinds]} numbers, found {dtype}")


@contextmanager
def hdf5(path: Path, what: str = "a complete HDF5 file") -> Iterator[h5py.File]:
    """Opens an HDF5 file to read; what is wrong with it is one sentence."""
    regular(path, what)
    rehearse(path)
    with reading(path, what), h5py.File(path, "r", rdcc_nbytes=CACHE) as file:
        yield file


def group(parent: h5py.Group, key: str, path: Path) -> h5py.Group:
    """A group of the file itself.

    Raises:
        ValueError: there is none, or a link.
    """
    found = _own(parent, key, path)
    if not isinstance(found, h5py.Group):
        raise ValueError(f"{path}: {key}: expected a group of that name, found {'none' if found is None else 'an array'}")
    return found


def dataset(parent: h5py.Group, key: str, path: Path, kinds: str = "iuf") -> Stored:
    """An array of the file itself, of integer or real numbers by default.

    Raises:
        ValueError: there is none, it is of another type, or its values are not in this file.
    """
    data = _own(parent, key, path)
    if not isinstance(data, h5py.Dataset):
        raise ValueError(f"{path}: {key}: expected an array of that name, found {'none' if data is None else 'a group'}")
    if data.is_virtual or data.id.get_create_plist().get_external_count():
        kind = "a virtual data set" if data.is_virtual else "external storage"
        raise ValueError(f"{path}: {key}: expected values in the file itself, found {kind}; other files are not read through it")
    if data.shape is None:
        raise ValueError(f"{path}: {key}: expected an array, found an empty data set")
    check_numbers(data.dtype, f"{path}: {key}", kinds)
    return Stored(data, data.id.get_storage_size(), f"{path}: {key}")


def absent(parent: h5py.Group, key: str) -> bool:
    """Whether a group holds nothing of a name, not even a link that leads nowhere."""
    return not parent.id.links.exists(key.encode())


def whole(stored: Stored) -> np.ndarray:
    """All of an array."""
    stored.check_size(stored.shape)
    return np.asarray(stored.values[...], native(stored.values.dtype))


@contextmanager
def array(
    path: Path, key: str | None = None, axes: tuple[int, ...] = (3, 4), what: str = "patterns", kinds: str = "iuf"
) -> Iterator[Stored]:
    """The array in an .npy, .npz or HDF5 file.

    Args:
        path: the file.
        key: its name; without, the only one in the file that has so many axes.
        axes: numbers of axes that it may have.
        what: what it is, to call it by in sentences.
        kinds: of numbers that it may hold, as NumPy has them.

    Raises:
        ValueError: naming file and key; there is no such file or array, or it cannot be read.
    """
    regular(path, "an .npy, .npz or HDF5 file")
    if h5py.is_hdf5(path):
        with hdf5(path) as file:
            shapes = _shapes(file)
            if not shapes:
                raise ValueError(f"{path}: {what}: expected an array in the file itself, found none; links to others are not followed")
            yield dataset(file, _choose(path, key, shapes, axes, what), path, kinds)
        return
    with reading(path, "a complete .npy, .npz or HDF5 file"):
        with path.open("rb") as stream:
            plain = stream.read(len(MAGIC)) == MAGIC
        if not plain and zipfile.is_zipfile(path):
            shapes = {name: header.shape for name, header in members(path).items()}
            yield member(path, _choose(path, key, shapes, axes, what), what, kinds)
        else:
            with path.open("rb") as stream:
                check_numbers(_header(stream, path).dtype, f"{path}: {what}", kinds)
            yield Stored(Mapped(path), path.stat().st_size, f"{path}: {what}")


def _shapes(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays in the file itself, by name: links are not followed, nor groups deeper than any program makes them."""
    found: dict[str, tuple[int, ...]] = {}
    left, seen = [("", file, DEPTH)], {file}
    while left:
        name, parent, depth = left.pop()
        for key in parent:
            if not isinstance(parent.get(key, getlink=True), h5py.HardLink) or (item := parent[key]) in seen:
                continue
            seen.add(item)  # an array of two names has the first of them
            if isinstance(item, h5py.Dataset) and item.shape:
                found[f"{name}{key}"] = item.shape
            elif isinstance(item, h5py.Group) and depth:
                left.append((f"{name}{key}/", item, depth - 1))
    return found


def members(path: Path) -> dict[str, Header]:
    """Names and headers of the arrays in an .npz file, or in another zip that has arrays besides other things."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                with archive.open(info) as stream:
                    found[info.filename.removesuffix(".npy")] = _header(stream, path)
    return found


def holds(path: Path, axes: tuple[int, ...]) -> bool:
    """Whether an HDF5 file itself holds an array of so many axes."""
    with hdf5(path) as file:
        return any(len(shape) in axes for shape in _shapes(file).values())


def member(path: Path, key: str, what: str | None = None, kinds: str = "ciuf") -> Stored:
    """One array of an .npz file, in memory."""
    name = f"{path}: {what or key}"
    with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
        header, held = _header(stream, path), archive.getinfo(f"{key}.npy").compress_size
        check_numbers(header.dtype, name, kinds)
        check_size(name, 2 * math.prod(header.shape) * native(header.dtype).itemsize, held)  # twice: patterns are copied into their order
    with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream, warnings.catch_warnings(action="ignore"):
        return Stored(np.lib.format.read_array(stream, allow_pickle=False), held, name)


def _header(stream: IO[bytes] | BufferedIOBase, path: Path) -> Header:
    """What an .npy file says that it holds; only that, so that a pickle is not opened."""
    if stream.read(len(MAGIC)) != MAGIC:
        raise ValueError(f"{path}: expected plain numbers, found Python objects (pickle) or no array; these are not opened")
    version = tuple(stream.read(2))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings(action="ignore"):
        shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(f"{path}: expected plain numbers, found Python objects (pickle) or no array; these are not opened")
    return Header(shape, dtype)


def _own(parent: h5py.Group, key: str, path: Path) -> Any:
    """What a group holds under a name, no link on the way being followed; None if there is nothing."""
    here: Any = parent
    for name in key.split("/"):
        if absent(here, name):
            return None
        if here.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{path}: {key}: expected values in the file itself, found a link; these are not followed")
        here = here[name]
    return here


def _choose(path: Path, key: str | None, shapes: dict[str, tuple[int, ...]], axes: tuple[int, ...], what: str) -> str:
    names = [f"{name} {shape}" for name, shape in shapes.items()]
    listing = ", ".join([*names[:LISTED], *([f"and {len(names) - LISTED} more"] if len(names) > LISTED else [])]) or "nothing"
    if key is not None:
        if key not in shapes:
            raise ValueError(f"{path}: key: expected one of the arrays in the file ({listing}), found {key!r}")
        return key
    candidates = [name for name, shape in shapes.items() if len(shape) in axes]
    if len(candidates) != 1:
        wanted = one_of(map(str, axes)) if len(axes) > 1 else str(axes[0])
        raise ValueError(f"{path}: {what}: expected one array with {wanted} axes, or its name as key, found {listing}")
    return candidates[0]
