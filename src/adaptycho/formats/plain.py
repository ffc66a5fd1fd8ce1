"""Plain arrays: patterns in an .npy, .npz or HDF5 file, whose geometry somebody says; `positions` in an .npz file are read too."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from adaptycho.formats import stored
from adaptycho.formats.raw import Raw, Said

AXES = (3, 4, 5)

name = "arrays"
needs = "NumPy or HDF5 with patterns (scan_y, scan_x, ky, kx) or (N, ky, kx), and their geometry given"


def can_read(path: Path) -> bool:
    """Whether a file holds an array of as many axes as patterns have, or says that it is NumPy's."""
    if not path.is_file():
        return False
    if h5py.is_hdf5(path):
        return stored.holds(path, AXES)
    with path.open("rb") as stream:
        if stream.read(len(stored.MAGIC)) == stored.MAGIC:
            return True
    return zipfile.is_zipfile(path) and bool(stored.members(path))


@contextmanager
def opened(path: Path, key: str | None = None) -> Iterator[Raw]:
    """Opens the one array of patterns, or that of a name.

    Raises:
        ValueError: naming the file; there are none or several, or they cannot be read.
    """
    with stored.array(path, key, AXES) as found:
        yield Raw(patterns=found, said=replace(Said(), positions=_positions(path, key)))


def _positions(path: Path, key: str | None) -> np.ndarray | None:
    """The array `positions` of an .npz file."""
    if not zipfile.is_zipfile(path) or key == "positions":
        return None
    header = stored.members(path).get("positions")
    if header is None or len(header.shape) != 2 or header.shape[1] != 2:
        return None
    return np.asarray(stored.member(path, "positions").values, np.float64)
