"""Files that are there whole or not at all, also after a crash or a power cut."""

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


def flush(path: Path) -> None:
    """Waits until a file or folder is on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
