"""Recordings in the formats that other programs read, and pictures and positions for everybody; docs/formats.md says what each keeps.

Each writer of recordings is a module with `write(path, recording, overwrite=...)`, which returns what its format has no place for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from adaptycho.formats.recording import Recording
from adaptycho.formats.writers import cxi, emd, npy, npz
from adaptycho.formats.writers.parts import Left


class Writer(Protocol):
    """One format of recordings."""

    def __call__(self, path: Path, recording: Recording, *, overwrite: bool = False) -> Left:
        """Writes a recording; the file appears complete or not at all.

        Raises:
            ValueError: it cannot be written, the name is taken, or the format does not take such a recording.
        """
        ...


WRITERS: Mapping[str, Writer] = {"emd": emd.write, "cxi": cxi.write, "npz": npz.write, "npy": npy.write}

__all__ = ["WRITERS", "Left", "Writer"]
