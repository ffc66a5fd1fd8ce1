"""Frames on disk as they come, so that those of a sub-sequence in work outlive the process.

`subsequences/001.frames-1.npy` has the frames of the first try at sub-sequence 1, one NumPy array after the other; `001.strays-1.npy` those
that came meanwhile and answer no request of it. Frames of a sub-sequence that is there whole are removed before the next request.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adaptycho.instruments.frames import Frame
from adaptycho.runs.journal import numbered


@dataclass
class Spool:
    """The frames of a run.

    Attributes:
        folder: of its sub-sequences.
    """

    folder: Path
    _path: Path | None = field(default=None, init=False)

    def begin(self) -> None:
        """Begins a new file for the next request, and removes that of the one before if its sub-sequence is there whole."""
        number = len(numbered(self.folder))
        before = sorted(self.folder.glob(f"{number - 1:03d}.frames-*.npy"), key=_try)
        tries = [_try(path) for path in self.folder.glob(f"{number:03d}.*-*.npy")]
        self._path = self.folder / f"{number:03d}.frames-{max(tries, default=0) + 1}.npy"
        self._path.touch()  # first, or a process that is killed here would have one more removed when it begins again
        if before and not tries:
            before[-1].unlink()

    def write(self, frame: Frame, asked: bool) -> None:
        """Adds a frame; it outlives the process from then on."""
        if self._path is None:
            self.begin()
        assert self._path is not None
        path = self._path if asked else self._path.with_name(self._path.name.replace("frames", "strays"))
        counts = np.asarray(frame.counts)
        kinds = [("index", "<i8"), ("position", "<f8", (2,)), ("dose", "<f8"), ("defocus", "<f8"), ("counts", counts.dtype, counts.shape)]
        with path.open("ab") as file:
            np.save(file, np.array((frame.index, frame.position, frame.dose, frame.defocus, counts), dtype=kinds), allow_pickle=False)


def read(path: Path) -> Iterator[Frame]:
    """The frames of a file, up to one that was not written whole."""
    with path.open("rb") as file:
        while file.peek(1):
            try:
                row = np.load(file, allow_pickle=False)
            except (EOFError, ValueError):
                return
            yield Frame(int(row["index"]), tuple(row["position"].tolist()), row["counts"], float(row["dose"]), float(row["defocus"]))


def _try(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
