"""The journal of a scan: each sub-sequence in a file of its own, complete and flushed before the next decision.

Every array of a run has its checksum beside it, and every sub-sequence says which run it belongs to and which number it has, so that what
was changed, damaged or copied from another run is not gone on with.
"""

import hashlib
import itertools
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from adaptycho import formats
from adaptycho.formats import stored
from adaptycho.instruments import Microscope
from adaptycho.instruments.guard import Guard, Unfinished
from adaptycho.physics.optics import Setup
from adaptycho.runs.checks import check_action, check_answer
from adaptycho.support.atomic import whole
from adaptycho.types import Action, Measurement

FORMAT = "adaptycho run 2"
ROOM = 16 << 20  # bytes that a disk has to have besides
UNITS = {
    "positions": "reported, fractions (y, x) of the scan field",
    "patterns": "counts, zero frequency in the centre",
    "defocus": "Å, underfocus",
}


@dataclass
class Journal:
    """A microscope that keeps what it records: sub-sequences on disk are read, new ones are written before they are handed on.

    Attributes:
        microscope: the one that acquires what is not on disk yet.
        folder: where sub-sequences are kept.
        run: what tells this run from others; sub-sequences of another one are refused. Nothing is refused if it is empty.
        device: where what is recorded is handed on; it is kept as it came.
        taken: sub-sequences handed on so far.
    """

    microscope: Microscope
    folder: Path
    run: str = ""
    device: torch.device | str = "cpu"
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
        """The next sub-sequence, from disk if it was recorded before.

        Raises:
            ValueError: what is on disk is not of this run, positions are asked for that are none, or the microscope's answer is no
                measurement of this scan; that is kept beside, in a file that is never read.
        """
        path = self.folder / f"{self.taken:03d}.h5"
        known = os.path.lexists(path)  # a link that leads nowhere is somebody's
        measurement = self._read(path, action) if known else self._record(path, action, generator)
        self.taken += 1
        return measurement.to(self.device)

    def _record(self, path: Path, action: Action, generator: torch.Generator) -> Measurement:
        check_action(action, self.batch)
        if isinstance(self.microscope, Guard):
            _check_room(path.parent, self.setup, action)
        belongs = {"run": self.run, "number": self.taken}
        try:
            answer = self.microscope.acquire(action, generator=generator)
        except Unfinished as error:
            if error.answer is None:
                raise
            raise ValueError(f"{error}; {_keep(path, action, error.answer, {**belongs, 'refused': str(error)})}") from error
        try:
            check_answer(answer, self.setup, (self.batch, action.positions.shape[1]))
        except ValueError as error:
            raise ValueError(f"{error}; {_keep(path, action, answer, {**belongs, 'refused': str(error)})}") from None
        try:
            _write_subsequence(path, action, answer, self.setup, belongs)
        except OSError as error:  # electrons cannot be given back: there may be room elsewhere
            elsewhere = Path(tempfile.mkdtemp(prefix="adaptycho-")) / path.name
            raise ValueError(f"{path}: expected room for it, found {error}; {_keep(elsewhere, action, answer, belongs)}") from error
        return answer

    def _read(self, path: Path, action: Action) -> Measurement:
        count = action.positions.shape[1]
        requested, measurement = read_subsequence(path, self.setup, (self.batch, count), sealed=bool(self.run))
        check_belongs(path, self.run, self.taken)
        if not torch.allclose(requested, action.positions.float().cpu(), atol=1e-5):
            warnings.warn(f"{path}: other positions were requested when it was recorded; what was recorded is kept", stacklevel=3)
        return measurement


def _write_subsequence(path: Path, action: Action, measurement: Measurement, setup: Setup, belongs: Mapping[str, Any]) -> None:
    arrays = _arrays(action, measurement)
    away = (arrays["requested"] - arrays["positions"]) * torch.tensor(setup.field)
    arrays = {"distance": torch.linalg.vector_norm(away, dim=-1), **arrays}
    write_arrays(path, arrays, {**UNITS, "distance": "Å, from the requested to the reported position", **belongs})


def _check_room(folder: Path, setup: Setup, action: Action) -> None:
    """Refuses to expose what the disk has no room for.

    Raises:
        ValueError: patterns in single precision, packed not at all and twice, would not fit.
    """
    wanted = 2 * 4 * math.prod(action.positions.shape[:2]) * math.prod(setup.detector) + ROOM
    if (free := shutil.disk_usage(folder).free) < wanted:
        raise ValueError(f"{folder}: expected {wanted >> 20} MiB of room for the next sub-sequence, found {free >> 20}; nothing was sent")


def _keep(path: Path, action: Action, answer: object, attributes: Mapping[str, Any]) -> str:
    """Keeps what was refused beside where it would have been, for electrons cannot be given back; says where it is."""
    if not isinstance(answer, Measurement):
        return "nothing was kept"
    names = (path.with_name(f"{path.stem}.refused-{n}.h5") for n in itertools.count(1))
    beside = next(name for name in names if not os.path.lexists(name))
    try:
        write_arrays(beside, _arrays(action, answer), {**UNITS, **attributes})
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # what it says was refused matters more
        return f"nothing was kept ({error})"
    return f"it is kept in {beside}, which no scan reads"


def _arrays(action: Action, measurement: Measurement) -> dict[str, Tensor]:
    measurement = measurement.to("cpu")
    told = {name: getattr(measurement, name) for name in ("positions", "dose", "defocus")}
    return {
        "requested": action.positions.float().cpu(),
        **{name: values.to(torch.promote_types(values.dtype, torch.float32)) for name, values in told.items()},  # HDF5 has no bfloat16
        "patterns": torch.fft.fftshift(measurement.patterns, dim=(-2, -1)),
    }


def check_belongs(path: Path, run: str, number: int) -> None:
    """Refuses a sub-sequence of another run, or with another number than its name says.

    Args:
        path: of its file.
        run: what the run is known by; empty for those of older versions, which are not known.
        number: of the sub-sequence.

    Raises:
        ValueError: it is another one.
    """
    with stored.hdf5(path) as file:
        for name, wanted in (("run", run), ("number", number)):
            if run and (found := file.attrs.get(name)) != wanted:
                raise ValueError(f"{path}: {name}: expected {wanted}, found {found}: a sub-sequence from elsewhere")


def read_subsequence(path: Path, setup: Setup, shape: tuple[int, int], *, sealed: bool) -> tuple[Tensor, Measurement]:
    """Requested positions and what was recorded there.

    Args:
        path: the file.
        setup: geometry of the scan.
        shape: numbers of specimens and of positions.
        sealed: whether every array has to have a checksum.

    Raises:
        ValueError: the file is damaged, not a sub-sequence, or one of another scan.
    """
    wanted: dict[str, tuple[int, ...]] = {"requested": (*shape, 2), "positions": (*shape, 2), "dose": shape, "defocus": shape}
    found = read_arrays(path, wanted, sealed=sealed) | read_arrays(path, {"patterns": (*shape, *setup.detector)}, "iuf", sealed=sealed)
    if not bool(torch.isfinite(found["requested"]).all()):
        raise ValueError(f"{path}: requested: expected finite positions, found others")
    patterns = torch.fft.ifftshift(found["patterns"], dim=(-2, -1))
    measurement = Measurement(found["positions"], patterns, found["dose"], found["defocus"])
    for part in measurement.split():
        formats.check(part, setup, str(path))
    return found["requested"], measurement


def numbered(folder: Path) -> list[Path]:
    """000.h5, 001.h5, ... in order, also beyond 999."""
    return sorted((p for p in folder.glob("*.h5") if p.stem.isdecimal()), key=lambda p: int(p.stem))


def write_arrays(path: Path, arrays: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> None:
    """Writes an HDF5 file of the run, each array with its checksum."""
    with whole(path) as part, h5py.File(part, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs.update(attributes)
        for name, tensor in arrays.items():
            packed = {"chunks": True, "compression": "gzip", "shuffle": True} if tensor.ndim >= 3 else {}
            values = tensor.detach().cpu().numpy()
            file.create_dataset(name, data=values, **packed).attrs["sha256"] = _checksum(
                name, np.asarray(values, stored.native(values.dtype))
            )


def read_arrays(path: Path, wanted: Mapping[str, tuple[int | None, ...]], kinds: str = "f", *, sealed: bool) -> dict[str, Tensor]:
    """Arrays of a file of the run.

    Args:
        path: the file.
        wanted: their shapes by name; None for any length.
        kinds: of numbers that they may have, as NumPy abbreviates them.
        sealed: whether every array has to have a checksum; one that is there has to be right anyhow.

    Raises:
        ValueError: the file or an array is missing, damaged, of another shape or type, or not what was written.
    """
    with stored.hdf5(path, "a whole HDF5 file") as file:
        return {name: torch.from_numpy(_read(file, name, shape, path, kinds, sealed)) for name, shape in wanted.items()}


def _read(file: h5py.File, name: str, shape: tuple[int | None, ...], path: Path, kinds: str, sealed: bool) -> np.ndarray:
    held = stored.dataset(file, name, path, "ciuf")
    alike = len(held.shape) == len(shape) and all(wanted in (None, n) for wanted, n in zip(shape, held.shape, strict=True))
    if not alike or held.values.dtype.kind not in kinds:
        wanted = f"{stored.SYMBOLS.get(kinds, 'real')} numbers of shape {shape}"
        raise ValueError(f"{path}: {name}: expected {wanted} as the settings say, found {held.values.dtype} of shape {held.shape}")
    values = stored.whole(held)
    kept = held.values.attrs.get("sha256")
    if kept is None and sealed:
        raise ValueError(f"{path}: {name}: expected a checksum with it, found none: it was written by another program")
    if kept is not None and kept != _checksum(name, values):
        raise ValueError(f"{path}: {name}: expected what the run wrote, found other values: the file was changed or is damaged")
    return values


def _checksum(name: str, values: np.ndarray) -> str:
    """SHA-256 of name, type, shape and bytes, in whatever byte order this machine has."""
    digest = hashlib.sha256(f"{name} {values.dtype.kind}{values.dtype.itemsize} {values.shape}\n".encode())
    digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()
