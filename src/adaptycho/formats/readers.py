"""Reading a recording, whatever format it is in: the content of a file or folder, not its name, says who reads it (docs/how-to/format.md).

A package brings a format by an entry point of the group `adaptycho.readers`, which names a `Reader`: a module or any other object.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

import h5py

from adaptycho.formats import hdf5, rotavirus
from adaptycho.formats.recording import Recording, check_recording
from adaptycho.support import plugins
from adaptycho.support.reading import printable, reading, regular

GROUP = "adaptycho.readers"


@runtime_checkable
class Reader(Protocol):
    """One format. A module with these four names is one.

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

    def read(self, path: Path) -> Recording:
        """Reads and checks a recording.

        Raises:
            ValueError: `{path}: {key}: expected ..., found ...`.
        """
        ...


READERS: tuple[Reader, ...] = (hdf5, rotavirus)


def read(path: str | Path) -> Recording:
    """Reads a recording in any known format and checks everything in it.

    Raises:
        ValueError: one sentence: there is nothing of that name, its content is unknown, or what is wrong in it (`Reader.read`). Readers
            of packages that failed on unknown content are named with the reason.
    """
    path = Path(path)
    reader, asked, failed = _search(path)
    if reader is None:
        known = [*(f"{each.name}: {each.needs}" for each in asked), "arrays: through `adaptycho import`"]
        found = "a folder" if path.is_dir() else "an HDF5 file of another" if h5py.is_hdf5(path) else "a file of another"
        broken = f"; readers that failed: {', '.join(failed)}" if failed else ""
        raise ValueError(f"{path}: expected a recording in a known format ({'; '.join(known)}), found {found}{broken}")
    with reading(path, f"a recording in the format {reader.name}"):
        recording = reader.read(path)
        if reader not in READERS:
            _check(recording, reader, path)
        return recording


def find(path: str | Path) -> Reader | None:
    """The first reader that knows what lies there: one of those that come along, else one that an installed package brings.

    Raises:
        ValueError: there is nothing to read, or nobody can read it.
    """
    return _search(Path(path))[0]


def _search(path: Path) -> tuple[Reader | None, list[Reader], list[str]]:
    """The first reader that knows what lies there, those that were asked, and those of packages that failed, each with the reason."""
    if not path.is_dir():
        regular(path, "a recording")
    asked: list[Reader] = []
    failed: list[str] = []
    for reader in READERS:
        asked.append(reader)
        with reading(path, f"what the reader {reader.name} can look at"):
            if reader.can_read(path):
                return reader, asked, failed
    for name in plugins.names(GROUP):
        try:
            asked.append(_brought(name))
            if asked[-1].can_read(path):
                return asked[-1], asked, failed
        except Exception as error:  # a package of somebody else may fail in any way
            why = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
            failed.append(f"{name} ({printable(why)})")
    return None, asked, failed


def _brought(name: str) -> Reader:
    point = plugins.find(GROUP, name)
    found = plugins.load(point)
    if not isinstance(found, Reader):
        raise ValueError(f"{GROUP}: expected {point.value} to have name, needs, can_read and read, found a {type(found).__name__} without")
    return found


def _check(found: object, reader: Reader, path: Path) -> None:
    """Does not believe somebody else's reader either."""
    if not isinstance(found, Recording):
        raise ValueError(f"{path}: expected the reader {reader.name} to make a recording, found a {type(found).__name__}")
    check_recording(found, str(path))
