"""Files and folders that are to be written: what is wrong with them is found out before the work instead of after it."""

import os
from collections.abc import Sequence
from pathlib import Path

LONGEST = 200  # bytes of a name; file systems take 255, and what is being written has a longer name than what was


def new_file(path: Path, *, overwrite: bool = False, inputs: Sequence[Path] = ()) -> None:
    """Refuses a file that cannot be written, or is there already.

    Args:
        path: the file.
        overwrite: whether a file that is there may be replaced.
        inputs: files that are read to make it, and so may not be replaced all the same.

    Raises:
        ValueError: the name is none or too long, it is taken, or its folder does not exist or may not be written to.
    """
    named(path)
    if os.path.isdir(path):
        raise ValueError(f"{path}: expected the name of a file, found a folder")
    if os.path.lexists(path):
        if not overwrite:
            raise ValueError(f"{path}: expected a new file to write, found one that exists")
        if not os.path.isfile(path):
            raise ValueError(f"{path}: expected a file to replace, found something else")
        if any(os.path.exists(other) and os.path.samefile(path, other) for other in inputs):
            raise ValueError(f"{path}: expected another name than that of what is read, found the same file")
    if not os.path.isdir(path.parent):
        raise ValueError(f"{path}: expected an existing folder to write into, found none at {path.parent}")
    _check_writable(path.parent)


def folder(path: Path, *, new: bool = False) -> None:
    """Refuses a folder that cannot be made or written into.

    Args:
        path: the folder, which may exist.
        new: whether it is to be made under its name, so that it has to have one: `.` has none.

    Raises:
        ValueError: there is a file in its place or above it, its name is none or too long, or it may not be written to.
    """
    if new or path.name not in ("", ".."):
        named(path, "folder")
    for place in (path, *path.parents):
        if os.path.lexists(place):
            if not os.path.isdir(place):
                found = "a link that leads nowhere" if os.path.islink(place) and not os.path.exists(place) else "a file"
                raise ValueError(f"{path}: expected a folder to write into, found {found}{'' if place == path else f' at {place}'}")
            _check_writable(place)
            return


def named(path: Path, kind: str = "file") -> None:
    """Refuses a path that names nothing new, such as `.`, or in a way that no file system takes."""
    name = path.name
    if "\0" in str(path):
        raise ValueError(f"{path}: expected the name of a {kind}, found one with a NUL character")
    if name in ("", ".."):
        raise ValueError(f"{path}: expected the name of a new {kind}, found a place without one")
    if len(os.fsencode(name)) > LONGEST:
        raise ValueError(f"{name[:20]}...: expected a name of at most {LONGEST} bytes, found {len(os.fsencode(name))}")


def _check_writable(place: Path) -> None:
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{place}: expected a folder to write into, found one that may not be written to")
