"""Imports plain arrays: NumPy, HDF5 and text files that hold patterns and positions, with the geometry given by hand."""

from pathlib import Path
from typing import Any

import numpy as np

from adaptycho.formats import plain, stored
from adaptycho.formats.assemble import assemble
from adaptycho.formats.given import Given
from adaptycho.formats.raw import Raw
from adaptycho.formats.recording import Recording


def from_arrays(path: str | Path, *, patterns: np.ndarray | None = None, **options: Any) -> Recording:
    """Makes a recording of the patterns in an .npy, .npz or HDF5 file, (scan_y, scan_x, ky, kx) or (N, ky, kx).

    Args:
        path: the file with the patterns, zero frequency in the centre pixel Q // 2.
        patterns: the patterns themselves, for a reader that has got them out of the file already; `key` then says nothing.
        options: the geometry and what else is known (`adaptycho.formats.given.Given`), in its units.

    Raises:
        ValueError: naming the file and the option at fault; also for files with Python objects (pickles), which are never opened, for
            values that lie in another file, for more than fits into memory, and for a beam and a geometry that no microscope has.
    """
    path, given = Path(path), Given(**options)
    if patterns is not None:
        return assemble(path, Raw(patterns=stored.Stored.of(patterns, f"{path}: patterns")), given)
    with plain.opened(path, given.key) as raw:
        return assemble(path, raw, given)
