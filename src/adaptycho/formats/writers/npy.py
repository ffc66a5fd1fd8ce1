"""Writes patterns (N, ky, kx) as an .npy file, and their positions as a table beside it: OUT.npy and OUT.positions.csv."""

import shlex
from pathlib import Path

from adaptycho.formats.recording import Recording
from adaptycho.formats.writers import parts, positions
from adaptycho.formats.writers.npz import write_patterns
from adaptycho.support import targets
from adaptycho.support.atomic import whole


def write(path: Path, recording: Recording, *, overwrite: bool = False) -> parts.Left:
    """Writes any recording; returns what has to be said of the arrays when they are read.

    Raises:
        ValueError: it cannot be written, or one of the two names is taken.
    """
    parts.check(path, recording, overwrite)
    table = path.with_name(f"{path.stem}.positions.csv")
    targets.new_file(table, overwrite=overwrite)
    with whole(table, new=not overwrite) as beside, whole(path, new=not overwrite) as part:
        positions.put(beside, parts.positions(recording))
        with part.open("wb") as stream:
            write_patterns(stream, recording)
    left = parts.left_out(recording, frozenset())
    return left._replace(options=(f"--positions {shlex.quote(str(table))}", *left.options))
