"""Recorded data on disk: the project's own HDF5 layout, readers of other formats, arrays with their geometry, what a file holds."""

from importlib import resources
from pathlib import Path

from adaptycho.formats.arrays import from_arrays
from adaptycho.formats.given import Contradiction, Doubt, Given
from adaptycho.formats.hdf5 import write
from adaptycho.formats.readers import Opener, Reader, find, read
from adaptycho.formats.recording import Recording, check, cut
from adaptycho.formats.rotavirus import from_rotavirus

__all__ = [
    "Contradiction", "Doubt", "Given", "Opener", "Reader", "Recording", "check", "cut", "example", "find", "from_arrays", "from_rotavirus",
    "read", "write",
]  # fmt: skip


def example() -> Path:
    """Path of the recording that comes with the package: 4,096 patterns of rotavirus particles in ice (example/ROTAVIRUS.md)."""
    return Path(str(resources.files("adaptycho.formats") / "example" / "rotavirus.h5"))
