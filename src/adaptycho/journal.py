"""The journal of a scan: each sub-sequence in a file of its own, complete and flushed before the next decision."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from adaptycho import files
from adaptycho.forward import Measurement
from adaptycho.microscope import Microscope
from adaptycho.optics import Setup
from adaptycho.policy import Action
from adaptycho.store import whole

FORMAT = "adaptycho run 1"


@dataclass
class Journal:
    """A microscope that keeps what it records: sub-sequences on disk are read, new ones are written before they are handed on.

    Attributes:
        microscope: the one that acquires what is not on disk yet.
        folder: where sub-sequences are kept.
        taken: sub-sequences handed on so far.
    """

    microscope: Microscope
    folder: Path
    taken: int = field(default=0, init=False)

    @property
    def setup(self) -> Setup:
        """Geometry and beam."""
        return self.microscope.setup

    @property
    def batch(self) -> int:
        """Number of specimens."""
        return self.microscope.batch

    def acquire(self, action: Action, *, generator: torch.Generator) -> Measurement:
        """The next sub-sequence, from disk if it was recorded before."""
        path = self.folder / f"{self.taken:03d}.h5"
        if path.exists():
            requested, measurement = read_subsequence(path)
            if requested.shape != action.positions.shape:
                wanted, found = tuple(action.positions.shape[:2]), tuple(requested.shape[:2])
                raise ValueError(f"{path}: requested: expected {wanted} (specimens, positions) as the settings say, found {found}")
            for part in measurement.split():
                files.check(part, self.setup, str(path))
            if not torch.allclose(requested, action.positions.float(), atol=1e-5):
                warnings.warn(f"{path}: other positions were requested when it was recorded; what was recorded is kept", stacklevel=2)
        else:
            measurement = self.microscope.acquire(action, generator=generator)
            _write_subsequence(path, action, measurement, self.setup)
        self.taken += 1
        return measurement


def _write_subsequence(path: Path, action: Action, measurement: Measurement, setup: Setup) -> None:
    away = (action.positions.float() - measurement.positions) * torch.tensor(setup.field)
    arrays = {
        "distance": torch.linalg.vector_norm(away, dim=-1),
        "requested": action.positions.float(),
        "positions": measurement.positions,
        "dose": measurement.dose,
        "defocus": measurement.defocus,
        "patterns": torch.fft.fftshift(measurement.patterns, dim=(-2, -1)),
    }
    attributes = {
        "positions": "reported, fractions (y, x) of the scan field",
        "distance": "Å, from the requested to the reported position",
        "patterns": "counts, zero frequency in the centre",
        "defocus": "Å, underfocus",
    }
    write_arrays(path, arrays, attributes)


def read_subsequence(path: Path) -> tuple[Tensor, Measurement]:
    """Requested positions and what was recorded there.

    Raises:
        ValueError: the file is damaged or not a sub-sequence.
    """
    names = ("requested", "positions", "dose", "defocus", "patterns")
    try:
        with open_file(path) as file:
            requested, positions, dose, defocus, patterns = (torch.from_numpy(file[name][:]) for name in names)
    except (KeyError, OSError) as error:
        raise ValueError(f"{path}: expected a sub-sequence with positions and patterns, found a damaged one ({error})") from None
    return requested, Measurement(positions, torch.fft.ifftshift(patterns, dim=(-2, -1)), dose, defocus)


def write_arrays(path: Path, arrays: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> None:
    """Writes an HDF5 file of the run."""
    with whole(path) as part, h5py.File(part, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs.update(attributes)
        for name, values in arrays.items():
            packed = {"chunks": True, "compression": "gzip", "shuffle": True} if values.ndim >= 3 else {}
            file.create_dataset(name, data=values.numpy(), **packed)


def open_file(path: Path) -> h5py.File:
    """Opens a file of a run to read.

    Raises:
        ValueError: it is missing or damaged.
    """
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a file of the run, found none") from None
    except OSError as error:
        raise ValueError(f"{path}: expected a whole HDF5 file, found a damaged one ({error})") from None
