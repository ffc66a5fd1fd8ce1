"""Recorded data on disk: the project's own HDF5 layout, importers for other layouts, and a description of what a file holds."""

from importlib import resources
from pathlib import Path

from adaptycho.files.arrays import from_arrays
from adaptycho.files.hdf5 import read, write
from adaptycho.files.recording import Recording, check
from adaptycho.files.rotavirus import from_rotavirus

__all__ = ["Recording", "check", "example", "from_arrays", "from_rotavirus", "read", "write"]


def example() -> Path:
    """Path of the recording that comes with the package: 4,096 patterns of rotavirus particles in ice (data/ROTAVIRUS.md)."""
    return Path(str(resources.files("adaptycho") / "data" / "rotavirus.h5"))
