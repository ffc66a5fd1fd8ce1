"""What an HDF5 file itself holds besides its patterns: numbers and words in attributes and small data sets. Links are not followed."""

import importlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from adaptycho.formats import stored
from adaptycho.formats.rehearsal import DEPTH
from adaptycho.formats.stored import Stored
from adaptycho.support.reading import printable

LONGEST_JSON = 2**24  # characters
NESTED = 64  # levels of a JSON document
LISTED = 20  # arrays that a sentence names
PLUG_INS = 256  # filters of HDF5 itself have smaller numbers


def holds(path: Path, test: Callable[[h5py.File], bool]) -> bool:
    """Whether a path is an HDF5 file that can be read and a test is true of; never raises."""
    with suppress(Exception):
        if path.is_file() and h5py.is_hdf5(path):
            with stored.hdf5(path) as file:
                return bool(test(file))
    return False


def together(path: Path, beside: Path) -> bool:
    """Whether two files lie in one folder, links followed: what a file names elsewhere could be any file of the reader's."""
    return os.path.dirname(os.path.realpath(path)) == os.path.dirname(os.path.realpath(beside))


def here(parent: h5py.Group, key: str) -> h5py.Group | h5py.Dataset | None:
    """What the file itself holds under a name; None where there is nothing, or only a link or values in another file."""
    item: Any = parent
    for name in key.strip("/").split("/"):
        # By the list and not by name: the first look, in a process of its own, reads all that can be listed. What cannot may never end.
        if not isinstance(item, h5py.Group) or name not in list(item):
            return None
        item = _own(item, name)
    return item if isinstance(item, h5py.Group | h5py.Dataset) else None


def _own(parent: h5py.Group, name: str) -> Any:
    """A member of a group whose values lie in this file, else None."""
    if parent.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        return None
    item = parent[name]
    elsewhere = isinstance(item, h5py.Dataset) and (item.is_virtual or item.id.get_create_plist().get_external_count())
    return None if elsewhere else item


def array_here(parent: h5py.Group, key: str, axes: tuple[int, ...]) -> bool:
    """Whether the file itself holds an array with so many axes under a name."""
    item = here(parent, key)
    return isinstance(item, h5py.Dataset) and item.shape is not None and len(item.shape) in axes


def number(value: object) -> float | None:
    """A finite number, from a number, an array of one, or a data set of one; None for anything else."""
    if isinstance(value, h5py.Dataset):
        value = value[()] if value.size == 1 and value.dtype.kind in "iuf" else None
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number | np.ndarray):
        return None
    values = np.asarray(value)
    if values.size != 1 or values.dtype.kind not in "iuf":
        return None
    found = float(values.reshape(()))
    return found if np.isfinite(found) else None


def text(value: object) -> str:
    """Printable words, from text, bytes, an array of one, or a data set of one; empty for anything else."""
    if isinstance(value, h5py.Dataset):
        value = value[()] if value.size == 1 and (value.dtype.kind == "S" or h5py.check_string_dtype(value.dtype)) else None
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return printable(value).strip() if isinstance(value, str) else ""


def text_whole(value: object) -> str:
    """Words as they are, for a parser: text or bytes; empty for anything else."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def attribute(item: h5py.Group | h5py.Dataset | None, key: str) -> Any:
    """An attribute; None where there is none among those that can be listed."""
    return None if item is None or key not in list(item.attrs) else item.attrs[key]


def document(words: str | bytes, name: str) -> dict[str, Any]:
    """A JSON object of limited size and depth.

    Raises:
        ValueError: `{name}: expected ..., found ...`.
    """
    if len(words) > LONGEST_JSON:
        raise ValueError(f"{name}: expected at most {LONGEST_JSON} characters of JSON, found {len(words)}")
    try:
        found = json.loads(words)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected JSON, found something else ({printable(str(error))[:100]})") from None
    if not isinstance(found, dict) or _deep(found):
        raise ValueError(f"{name}: expected a JSON object of at most {NESTED} levels, found another")
    return found


def at(tree: object, *keys: str) -> Any:
    """A value deep in dictionaries; None where one of them is missing."""
    for key in keys:
        if not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return tree


def arrays(file: h5py.File, axes: tuple[int, ...]) -> list[str]:
    """Names of the arrays with so many axes in the file itself, sorted, each array once."""
    found: list[str] = []
    left: list[tuple[str, h5py.Group, int]] = [("", file, DEPTH)]
    seen: set[Any] = {file}
    while left:
        name, parent, depth = left.pop()
        for key in parent:
            item = _own(parent, key)
            if item is None or item in seen:
                continue
            seen.add(item)
            if isinstance(item, h5py.Group) and depth:
                left.append((f"{name}{key}/", item, depth - 1))
            elif isinstance(item, h5py.Dataset) and item.shape is not None and len(item.shape) in axes:
                found.append(f"{name}{key}")
    return sorted(found)


def choose(path: Path, key: str | None, names: list[str]) -> str:
    """The array that is asked for, or the only one.

    Raises:
        ValueError: it is not among the names, or there is none or several to choose from.
    """
    listing = ", ".join([*names[:LISTED], *([f"and {len(names) - LISTED} more"] if len(names) > LISTED else [])]) or "none"
    if key is not None:
        if key.strip("/") not in names:
            raise ValueError(f"{path}: key: expected one of the arrays of patterns in the file ({printable(listing)}), found {key!r}")
        return key.strip("/")
    if len(names) != 1:
        raise ValueError(f"{path}: patterns: expected one array of patterns, or its name as key, found {printable(listing)}")
    return names[0]


def patterns(file: h5py.File, key: str, path: Path, axes: tuple[int, ...] = (3, 4)) -> Stored:
    """The patterns under a name, unpacked by a plug-in where they have to be.

    Raises:
        ValueError: they are not in the file itself, no numbers, have other axes, or the plug-in is missing.
    """
    here(file, key)  # which raises where the file cannot be listed
    found = stored.dataset(file, key, path)
    if len(found.shape) not in axes or 0 in found.shape:
        wanted = " or ".join(map(str, axes))
        raise ValueError(f"{path}: {key}: expected patterns with {wanted} axes, none of them empty, found shape {found.shape}")
    _unpack(found)
    return found


def _unpack(found: Stored) -> None:
    plist = found.values.id.get_create_plist()
    for index in range(plist.get_nfilters()):
        code, _, _, title = plist.get_filter(index)
        if code < PLUG_INS or h5py.h5z.filter_avail(code):
            continue
        with suppress(ImportError):
            importlib.import_module("hdf5plugin")  # registers its filters with the library
        if not h5py.h5z.filter_avail(code):
            called = printable(title.decode("utf-8", "replace")).split(";")[0] or "unnamed"
            raise ValueError(
                f"{found.name}: expected a filter that is installed, found number {code} ({called}); "
                "pip install 'adaptycho[formats]' brings hdf5plugin, which has bitshuffle, LZ4, Blosc and others"
            )


def _deep(tree: object) -> bool:
    left = [(tree, 0)]
    while left:
        item, depth = left.pop()
        if depth > NESTED:
            return True
        parts = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        left += [(part, depth + 1) for part in parts if isinstance(part, dict | list)]
    return False
