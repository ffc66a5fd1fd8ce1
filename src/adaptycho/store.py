"""Files that are there whole or not at all, also after a crash or a power cut."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a name to write to; what was written becomes `path` when the block ends well, and nothing is left when it does not.

    The file is flushed to the disk before it gets its name, and the folder after it.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        flush(part)
        part.replace(path)
        flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder while the block runs.

    Raises:
        ValueError: another process is in it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ValueError(f"{folder}: expected no other process at work on it, found one") from None
    finally:
        os.close(handle)


def flush(path: Path) -> None:
    """Waits until a file or folder is on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
