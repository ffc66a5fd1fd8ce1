"""Reading a recording, whatever format it is in: the content of a file or folder, not its name, says who reads it (docs/how-to/format.md).

A package brings a format by an entry point of the group `adaptycho.readers`, which names a `Reader`: a module or any other object.
"""

import dataclasses
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import h5py

from adaptycho.formats import hdf5, plain, rotavirus
from adaptycho.formats.amend import amended
from adaptycho.formats.assemble import assemble
from adaptycho.formats.given import Given
from adaptycho.formats.raw import Raw
from adaptycho.formats.readers.foreign import FOREIGN
from adaptycho.formats.recording import Recording, check_recording
from adaptycho.support import plugins
from adaptycho.support.reading import printable, reading, regular

GROUP = "adaptycho.readers"


@runtime_checkable
class Format(Protocol):
    """Who knows a format.

    Attributes:
        name: what the format is called.
        needs: what has to be there for a file or a folder to be in it, in a few words.
    """

    name: str
    needs: str

    def can_read(self, path: Path) -> bool:
        """Whether what lies there is in this format, as far as a quick look tells.

        Raises:
            ValueError: nobody can read it. Only readers that come along end the search so; after one of a package the next is asked.
        """
        ...


@runtime_checkable
class Reader(Format, Protocol):
    """One format whose files say everything. A module with these four names is one."""

    def read(self, path: Path) -> Recording:
        """Reads and checks a recording.

        Raises:
            ValueError: `{path}: {key}: expected ..., found ...`.
        """
        ...


@runtime_checkable
class Opener(Format, Protocol):
    """One format whose files may lack facts, or have them wrong, so that a person can say them."""

    def opened(self, path: Path, key: str | None = None) -> AbstractContextManager[Raw]:
        """What lies in a file, open, and what it says of it.

        Args:
            path: the file.
            key: name of the array, where there are several.

        Raises:
            ValueError: `{path}: {key}: expected ..., found ...`.
        """
        ...


READERS: tuple[Reader | Opener, ...] = (hdf5, rotavirus, *FOREIGN)
LAST: tuple[Opener, ...] = (plain,)  # takes what nobody else knows


def read(path: str | Path, given: Given | None = None, **options: Any) -> Recording:
    """Reads a recording in any known format and checks everything in it.

    Args:
        path: a file or a folder.
        given: what the file lacks or has wrong, and what is to be done with its patterns.
        options: the same one by one (`adaptycho.formats.given.Given`).

    Raises:
        ValueError: one sentence: there is nothing of that name, its content is unknown, or what is wrong in it or missing. Readers
            of packages that failed on unknown content are named with the reason.
    """
    path, given = Path(path), dataclasses.replace(given or Given(), **options)
    reader, asked, failed = _search(path)
    if reader is None:
        known = "; ".join(f"{each.name}: {each.needs}" for each in asked)
        found = "a folder" if path.is_dir() else "an HDF5 file of another" if h5py.is_hdf5(path) else "a file of another"
        broken = f"; readers that failed: {', '.join(failed)}" if failed else ""
        raise ValueError(f"{path}: expected a recording in a known format ({known}), found {found}{broken}")
    by_hand = any(value is not None for value in (given.energy, given.wavelength, given.semiangle))
    opener = reader if isinstance(reader, Opener) else plain if by_hand and path.is_file() else None
    with reading(path, f"a recording in the format {reader.name}"):
        if opener is not None:
            with opener.opened(path, given.key) as raw:
                return assemble(path, raw, given)
        assert isinstance(reader, Reader)
        recording = reader.read(path)
        if reader not in READERS:
            _check(recording, reader, path)
        return amended(recording, given, path, reader.name)


def find(path: str | Path) -> Reader | Opener | None:
    """The first reader that knows what lies there: one that comes along, else one that an installed package brings, else that of arrays.

    Raises:
        ValueError: there is nothing to read, or nobody can read it.
    """
    return _search(Path(path))[0]


def _search(path: Path) -> tuple[Reader | Opener | None, list[Format], list[str]]:
    """The first reader that knows what lies there, those that were asked, and those of packages that failed, each with the reason."""
    if not path.is_dir():
        regular(path, "a recording")
    asked: list[Format] = []
    failed: list[str] = []
    if (found := _ours(path, READERS, asked)) is not None:
        return found, asked, failed
    for name in plugins.names(GROUP):
        try:
            brought = _brought(name)
            asked.append(brought)
            if brought.can_read(path):
                return brought, asked, failed
        except Exception as error:  # a package of somebody else may fail in any way
            why = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
            failed.append(f"{name} ({printable(why)})")
    return _ours(path, LAST, asked), asked, failed


def _ours(path: Path, readers: tuple[Reader | Opener, ...], asked: list[Format]) -> Reader | Opener | None:
    for reader in readers:
        asked.append(reader)
        with reading(path, f"what the reader {reader.name} can look at"):
            if reader.can_read(path):
                return reader
    return None


def _brought(name: str) -> Reader | Opener:
    point = plugins.find(GROUP, name)
    found = plugins.load(point)
    if not isinstance(found, Reader | Opener):
        raise ValueError(f"{GROUP}: expected {point.value} to have name, needs, can_read and read, found a {type(found).__name__} without")
    return found


def _check(found: object, reader: Reader, path: Path) -> None:
    """Does not believe somebody else's reader either."""
    if not isinstance(found, Recording):
        raise ValueError(f"{path}: expected the reader {reader.name} to make a recording, found a {type(found).__name__}")
    check_recording(found, str(path))
