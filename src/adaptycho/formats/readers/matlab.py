"""Reads patterns in MATLAB files, such as the `dp` of fold_slice and PtyRAD: v7.3, which is HDF5, and the older v5 to v7.

Axes: MATLAB counts the first axis fastest, and programs keep patterns as (ky, kx, N) or (ky, kx, scan_x, scan_y): the detector first, the
fast axis of the scan next. HDF5 has the axes the other way round, (N, kx, ky), so that the patterns would be transposed if they were read
as they lie; scipy gives MATLAB's own order. Both become (N, ky, kx) or (scan_y, scan_x, ky, kx) here. Where only the *last* two axes of
MATLAB's order are equal, it was Python that wrote (N, ky, kx) into the file, and they are left so. Positions and geometry are typed: there
is no agreement on their names.

Source: MATLAB, "MAT-File Format", and `matlab.io.MatFile`; PtyRAD 1.0.0, `init/initializer.py`.
"""

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np

from adaptycho.formats import stored
from adaptycho.formats.raw import Raw, Said
from adaptycho.formats.readers import facts
from adaptycho.formats.readers.views import Turned
from adaptycho.formats.stored import Stored
from adaptycho.support.reading import check_size, reading, regular

name = "MATLAB"
needs = "a .mat of v7.3 or of v5 to v7, with an array of 3 or 4 axes"
HEADER = 128  # bytes
COMPRESSED = 15  # type of an element that is packed
PIECE = 2**20  # bytes unpacked at a time to find out how many there are
CLASSES = {"double": 8, "single": 4, "int64": 8, "uint64": 8, "int32": 4, "uint32": 4, "int16": 2, "uint16": 2, "int8": 1, "uint8": 1}


def can_read(path: Path) -> bool:
    """Whether MATLAB's marks are there."""
    with suppress(Exception):
        return path.is_file() and (_old(path) or facts.holds(path, lambda file: bool(_marked(file))))
    return False


@contextmanager
def opened(path: Path, key: str | None = None) -> Iterator[Raw]:
    """Patterns; `key` is the name of the variable where there are several.

    Raises:
        ValueError: naming the file; there are no patterns, or they cannot be read.
    """
    regular(path, "a MATLAB file")
    if _old(path):
        with reading(path, "a complete MATLAB file"), warnings.catch_warnings(action="ignore"):
            chosen, found = _loaded(path, key)
    else:
        with stored.hdf5(path) as file:
            chosen = facts.choose(path, key, _marked(file))
            found = facts.patterns(file, chosen, path)
            # in MATLAB's order of axes
            found = found._replace(values=Turned(found.values, range(len(found.shape))[::-1]))
            yield Raw(patterns=_ordered(found), said=Said(title=path.stem))
        return
    yield Raw(patterns=_ordered(found), said=Said(title=path.stem))


def _old(path: Path) -> bool:
    """Whether it is of v5 to v7: text, a version and the mark of the byte order."""
    with path.open("rb") as stream:
        header = stream.read(HEADER)
    return len(header) == HEADER and header.startswith(b"MATLAB") and header[124:128] in (b"\x00\x01IM", b"\x01\x00MI")


def _marked(file: h5py.File) -> list[str]:
    """Arrays that MATLAB wrote; those of other programs have no class."""
    names = [each for each in facts.arrays(file, (3, 4)) if not each.startswith("#")]
    return [each for each in names if facts.text(facts.attribute(file[each], "MATLAB_class")) in CLASSES]


def _loaded(path: Path, key: str | None) -> tuple[str, Stored]:
    """The variable that is asked for or the only one that can be patterns; cells, structures and objects are not looked into."""
    import scipy.io  # slow to load, and for these files only

    held = path.stat().st_size
    _unpacked(path, held)
    found = {each: shape for each, shape, kind in scipy.io.whosmat(path) if kind in CLASSES and len(shape) in (3, 4) and 0 not in shape}
    sizes = {each: kind for each, _, kind in scipy.io.whosmat(path)}
    chosen = facts.choose(path, key, sorted(found))
    check_size(f"{path}: {chosen}", 2 * int(np.prod(found[chosen])) * CLASSES[sizes[chosen]], held)
    values = scipy.io.loadmat(path, variable_names=[chosen], mat_dtype=False)[chosen]
    stored.check_numbers(values.dtype, f"{path}: {chosen}")
    return chosen, Stored(values, held, f"{path}: {chosen}")


def _unpacked(path: Path, held: int) -> None:
    """Refuses a file whose packed elements hold more than fits into memory, by unpacking them in pieces that are thrown away."""
    with path.open("rb") as stream:
        order = "little" if stream.read(HEADER)[126:128] == b"IM" else "big"
        while len(tag := stream.read(8)) == 8:
            kind = int.from_bytes(tag[:4], order)  # type: ignore[arg-type]
            size = int.from_bytes(tag[4:], order)  # type: ignore[arg-type]
            start, total, unpacker = stream.tell(), 0, zlib.decompressobj()
            while kind == COMPRESSED and (left := start + size - stream.tell()) > 0:
                piece = stream.read(min(left, PIECE))
                if not piece:
                    break
                while piece:
                    total += len(unpacker.decompress(piece, PIECE))
                    check_size(f"{path}: an element", total, held)
                    piece = unpacker.unconsumed_tail
            stream.seek(start + size)


def _ordered(found: Stored) -> Stored:
    """(N, ky, kx) or (scan_y, scan_x, ky, kx), from MATLAB's order of axes."""
    shape = found.shape
    if shape[0] != shape[1] and shape[-2] == shape[-1]:
        return found
    scan = range(2, len(shape))
    return found._replace(values=Turned(found.values, [*reversed(scan), 0, 1]))
