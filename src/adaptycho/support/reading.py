"""What comes from a file is not believed: whatever it holds ends in numbers that were checked or in one sentence that names it.

A damaged file makes NumPy, HDF5, zip and JSON raise what they happen to meet, so that everything that is raised while one is read means
the same. Text from files is made printable, since a terminal obeys what it is told. Sizes are looked at before memory is taken for them.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OURS = ": expected "  # in every sentence of this package, and in none of the libraries'
LONGEST = 2000  # characters of text that are kept
SMALL = 2**29  # bytes that an array may always take
PACKED = 1000  # times that a file may be smaller than what it holds: gzip reaches 1,032 on zeros
SHARE = 0.75  # of the free memory that an array may take


@contextmanager
def reading(path: Path | str, what: str) -> Iterator[None]:
    """Everything that goes wrong in the block is a `ValueError` of one printable sentence.

    Args:
        path: the file that is read.
        what: what it should be, such as "a complete HDF5 file".

    Raises:
        ValueError: the block's own sentence, or `{path}: expected {what}, found one that cannot be read ({why})`.
    """
    try:
        yield
    except Exception as error:  # no closed list: damaged bytes reach every corner of the libraries
        said = printable(str(error))
        if isinstance(error, ValueError) and OURS in said:
            raise ValueError(said) from error
        why = said if isinstance(error, OSError | ValueError) and said else f"{type(error).__name__}: {said}"
        raise ValueError(f"{path}: expected {what}, found one that cannot be read ({why[:300]})") from error


def regular(path: Path | str, what: str) -> None:
    """Refuses what is not a file, before it is opened: reading a pipe or a device may never end.

    Args:
        path: the file that is to be read, which may be a link to it.
        what: what it should be, such as "a file of weights".

    Raises:
        ValueError: `{path}: expected {what}, found ...`: none, a folder, a link that leads nowhere, a pipe or a device.
    """
    if os.path.isfile(path):
        return
    if os.path.exists(path):
        found = "a folder" if os.path.isdir(path) else "something that is no file"
    else:
        found = "a link that leads nowhere" if os.path.islink(path) else "none"
    raise ValueError(f"{path}: expected {what}, found {found}")


def printable(text: str) -> str:
    """Text on one line without anything that a terminal would act upon: control characters, escapes, changes of direction."""
    kept = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in kept)


def check_size(name: str, wanted: int, held: int) -> None:
    """Refuses an array that is too large before memory is taken for it.

    Args:
        name: file and key, to open the sentence with.
        wanted: bytes that it would take.
        held: bytes that the file has of it.

    Raises:
        ValueError: it would take more than the memory that is free, or it is large and the file next to empty.
    """
    if wanted > SMALL and wanted > PACKED * held:
        raise ValueError(f"{name}: expected at most {PACKED} times the {held} bytes that the file has of it, found {_gib(wanted)}")
    if wanted > (room := int(SHARE * free_memory())):
        hint = "a crop reads less (--crop, --bin)"
        raise ValueError(f"{name}: expected at most {_gib(room)}, what fits into memory now, found {_gib(wanted)}; {hint}")


def free_memory() -> int:
    """Bytes of memory that this process may still take."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        free = int(found[1]) * 1024 if found else _installed()
    except OSError:
        free = _installed()
    try:
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))  # a container's limit
    except (OSError, ValueError):
        return free


def _installed() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
