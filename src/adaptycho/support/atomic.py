"""Files and folders that are there whole or not at all, also after a crash or a power cut.

What is being written has a name of its own beside the one it is to get, `NAME.0123456789abcdef.part`, which is created exclusively: nothing
that was there is written through, replaced or removed, and two programs at once do not meet. A program that is killed may leave such a
part behind; no later one minds it.
"""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 50  # characters of the name that a part keeps: file systems allow 255 bytes, up to 4 for each


@contextmanager
def whole(path: Path, *, new: bool = False) -> Iterator[Path]:
    """Gives an empty file to write to; it becomes `path` when the block ends well, and nothing is left when it does not.

    The file is flushed to the disk before it gets its name, and the folder after it.

    Args:
        path: the name it is to get. A file of that name is replaced; of a link, the link and not what it points to.
        new: refuse a name that is taken instead, also one that was taken while the block ran.

    Raises:
        ValueError: the name is taken and should not be.
    """
    part = _beside(path)
    # Exclusively, so that not even a link of this name is followed; open to the readers that the user's umask allows.
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666))
    try:
        yield part
        flush(part)
        if new:
            _name(part, path)
        else:
            part.replace(path)
        flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder to fill; it becomes `path` when the block ends well, and nothing is left when it does not.

    Args:
        path: the name it is to get. An empty folder of that name is replaced.

    Raises:
        ValueError: there is something of that name when the block ends, other than an empty folder.
    """
    part = _beside(path)
    part.mkdir()
    try:
        yield part
        flush(part)
        try:
            part.rename(path)  # refuses by itself what is not an empty folder
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise ValueError(f"{path}: expected a new or empty folder, found something that came there meanwhile") from None
        flush(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


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


def _beside(path: Path) -> Path:
    """A name that nobody else uses, in the same folder."""
    return path.with_name(f"{path.name[:LONGEST]}.{secrets.token_hex(8)}.part")


def _name(part: Path, path: Path) -> None:
    """Gives a file its name if nobody has it."""
    try:
        os.link(part, path)
    except OSError:
        if os.path.lexists(path):
            raise ValueError(f"{path}: expected a name that is not taken, found something that came there meanwhile") from None
        part.replace(path)  # a file system without links
