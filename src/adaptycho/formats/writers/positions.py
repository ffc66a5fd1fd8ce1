"""Writes positions in Å: a table with the header `y_A,x_A`, or an .npy file."""

from pathlib import Path

import numpy as np

from adaptycho.support import targets
from adaptycho.support.atomic import whole


def write(path: Path, where: np.ndarray, *, overwrite: bool = False) -> None:
    """Writes a table, or an array where the name ends in .npy.

    Args:
        path: the file to write.
        where: (N, 2) as (y, x) in Å.
        overwrite: whether an existing file may be replaced.

    Raises:
        ValueError: it cannot be written, or the name is taken.
    """
    targets.new_file(path, overwrite=overwrite)
    with whole(path, new=not overwrite) as part:
        if path.suffix == ".npy":
            with part.open("wb") as stream:
                np.lib.format.write_array(stream, np.asarray(where, np.float64), allow_pickle=False)
        else:
            put(part, where)


def put(part: Path, where: np.ndarray) -> None:
    """Fills a file with a table of positions (N, 2) as (y, x) in Å."""
    with part.open("wb") as stream:
        np.savetxt(stream, where, fmt="%.10g", delimiter=",", header="y_A,x_A", comments="")
