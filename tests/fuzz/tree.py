"""What is in a folder, and what a command left there."""

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors.numpy

TIMES = ("seconds", "time", "decide", "acquire", "created")  # keys of what differs between two runs of the same
CHECKSUM = "sha256"  # of numbers that are compared themselves, or of times
MANY = 4096  # numbers of an array that are kept; of a longer one, so many sums


def names(folder: Path) -> list[str]:
    """Every name below a folder, links not followed."""
    found = []
    for place, folders, files in os.walk(folder):
        found += [os.path.relpath(os.path.join(place, name), folder) for name in (*folders, *files)]
    return sorted(found)


def snapshot(folder: Path) -> dict[str, str]:
    """Every name below a folder with its type, and its contents' checksum or what it links to."""
    return {name: _fingerprint(os.path.join(folder, name)) for name in names(folder)}


def _fingerprint(path: str) -> str:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return f"link to {os.readlink(path)!r}"
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode):
        return "special"
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of those that patterns allow; a pattern ending in / allows everything below a folder."""
    return any(fnmatch(name, p.rstrip("/")) or (p.endswith("/") and fnmatch(name, f"{p}*")) for p in patterns)


def results(out: str, folder: Path, written: Iterable[str]) -> dict[str, Any]:
    """What a command said and wrote, in numbers and text that can be compared."""
    return {"stdout": _said(out), "files": {name: contents(folder / name) for name in written if (folder / name).is_file()}}


def contents(path: Path) -> Any:
    """What is in a file, without times."""
    if path.suffix in (".h5", ".hdf5"):
        return _hdf5(path)
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".safetensors":
        return {name: _array(values) for name, values in safetensors.numpy.load_file(path).items()}
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _said(out: str) -> Any:
    try:
        return _timeless(json.loads(out, parse_constant=_refuse))
    except ValueError:
        return out


def _refuse(name: str) -> float:
    raise ValueError(f"JSON: expected numbers, found {name}")


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k != CHECKSUM and not any(word in k for word in TIMES)}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def _hdf5(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("seconds"):
            found[name] = _array(np.asarray(item[()]))
        found.update({f"{name}@{key}": _array(np.asarray(value)) for key, value in item.attrs.items() if key != CHECKSUM})

    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems(visit)
    return found


def _array(values: np.ndarray) -> Any:
    """Shape and numbers; of a large array, sums over parts and whether all are finite and none negative."""
    if values.dtype.kind not in "biufc":
        return {"text": str(values.tolist())}
    if values.dtype.kind == "c":
        values = np.stack([values.real, values.imag], -1)
    flat = values.astype(np.float64).ravel()
    facts = {"shape": list(values.shape), "finite": bool(np.isfinite(flat).all()), "least": float(flat.min()) if flat.size else 0.0}
    if flat.size > MANY:
        flat = np.array([part.sum() for part in np.array_split(flat, MANY)])
    return facts | {"array": [v if math.isfinite(v) else str(v) for v in flat.tolist()]}
