"""A run folder: everything a scan was told, everything it recorded, and enough to go on after a power cut.

```
RUN/
  settings.toml       every setting of the scan
  run.json            versions, machine, command, input file and its checksum
  subsequences/000.h5 one sub-sequence: requested and reported positions, patterns (zero frequency in the centre), dose, defocus
  states/000.h5       phase inside the field after it, loss, scores, seconds
  reference.h5        what scores refer to
  result.h5           the final potential and probe
  report.html
```

A sub-sequence is on disk, complete and flushed, before the next decision. A run is taken up by running the same loop again: sub-sequences
on disk are read instead of acquired, decisions follow from them, and randomness depends on the seed and the sub-sequence only.
"""

import hashlib
import json
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from adaptycho import build, files, settings
from adaptycho.episode import State, run, split_evenly
from adaptycho.evaluate import Scores, score
from adaptycho.forward import Measurement
from adaptycho.microscope import Microscope
from adaptycho.optics import Setup
from adaptycho.policy import Action
from adaptycho.reconstruct import Reconstruction
from adaptycho.settings import Settings
from adaptycho.store import flush, whole

FORMAT = "adaptycho run 1"


@dataclass(frozen=True)
class Run:
    """A run folder on disk."""

    path: Path
    settings: Settings

    @classmethod
    def create(cls, path: Path, chosen: Settings) -> "Run":
        """Starts a run in a new or empty folder.

        Raises:
            ValueError: there is something in the folder already, or the settings cannot be scanned; nothing is touched.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path}: expected a new or empty folder for the run, found one with something in it (go on with `resume`)")
        new = cls(path, _located(chosen))
        _ = new.lengths, new.microscope  # what cannot be scanned is refused before there is a folder
        (path / "subsequences").mkdir(parents=True, exist_ok=True)
        (path / "states").mkdir(exist_ok=True)
        flush(path.parent)
        _write_text(path / "run.json", json.dumps(_provenance(new.settings), indent=2) + "\n")
        _write_text(path / "settings.toml", settings.dump(new.settings))  # last: a folder with settings is a run that can be resumed
        return new

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Opens a run to look at it or go on with it.

        Raises:
            ValueError: the folder is not a run.
        """
        if not (path / "settings.toml").is_file():
            found = "none in it" if path.is_dir() else "no such folder"
            raise ValueError(f"{path}: expected a run folder with settings.toml, found {found}")
        return cls(path, settings.load(path / "settings.toml"))

    @property
    def lengths(self) -> list[int]:
        """Number of positions of each sub-sequence."""
        return split_evenly(self.settings.scan.positions, self.settings.scan.subsequences)

    @cached_property
    def microscope(self) -> Microscope:
        """The microscope of the run's settings."""
        return build.recorded(self.settings) if self.settings.scan.microscope == "recorded" else build.simulated(self.settings)

    @property
    def recorded(self) -> int:
        """Sub-sequences that are on disk, whole."""
        return len(_numbered(self.path / "subsequences"))


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
            requested, measurement = _read_subsequence(path)
            if requested.shape != action.positions.shape or not torch.allclose(requested, action.positions.float(), atol=1e-5):
                warnings.warn(f"{path}: other positions were requested when it was recorded; what was recorded is kept", stacklevel=2)
        else:
            measurement = self.microscope.acquire(action, generator=generator)
            _write_subsequence(path, action, measurement, self.setup)
        self.taken += 1
        return measurement


def execute(target: Run) -> Iterator[State]:
    """Runs or goes on with a scan, yielding the state after each sub-sequence; at the end the folder holds the result.

    Raises:
        ValueError: the recording that is replayed is not the one that the run began with.
    """
    _check_input(target)
    chosen, setup = target.settings, target.microscope.setup
    reference = _reference(target, target.microscope)
    journal = Journal(target.microscope, target.path / "subsequences")
    scanner, descent = build.scanner(chosen), build.reconstructor(chosen, setup)
    for state in run(journal, scanner, descent, target.lengths, seed=chosen.scan.seed, warm=chosen.scan.warm):
        _write_state(target.path / "states" / f"{state.number - 1:03d}.h5", state, score(state.potential, reference))
        yield state
    write_result(target.path / "result.h5", setup, state.reconstruction)


def write_result(path: Path, setup: Setup, result: Reconstruction) -> None:
    """Writes a reconstruction: potential on the object grid, phase inside the field, loss, and the probe (zero position in the centre)."""
    probe = torch.fft.fftshift(setup.probe(), dim=(-2, -1))
    arrays = {"potential": result.potential, "phase_in_field": setup.crop(result.phase), "loss": result.loss, "probe": probe}
    _write_arrays(path, arrays, _units(setup))


def read_states(target: Run) -> list[dict[str, Any]]:
    """What was known after each sub-sequence that is on disk: phase in the field, loss, scores, seconds, positions, dose."""
    found = []
    for path in _numbered(target.path / "states"):
        requested, measurement = _read_subsequence(target.path / "subsequences" / path.name)
        with _open(path) as file:
            found.append(
                {
                    "requested": requested,
                    "measurement": measurement,
                    "potential": torch.from_numpy(file["phase_in_field"][:]),
                    "loss": torch.from_numpy(file["loss"][:]),
                    "scores": {k: file["scores"][k][:] for k in file["scores"]},
                    "seconds": {k: float(file["seconds"][k][()]) for k in file["seconds"]},
                }
            )
    return found


def read_reference(target: Run) -> Tensor:
    """What the run's scores refer to, (B, h, w)."""
    with _open(target.path / "reference.h5") as file:
        return torch.from_numpy(file["phase_in_field"][:])


def _reference(target: Run, microscope: Any) -> Tensor:
    path = target.path / "reference.h5"
    if not path.exists():
        _write_arrays(path, {"phase_in_field": build.reference(target.settings, microscope)}, _units(microscope.setup))
    return read_reference(target)


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
    _write_arrays(path, arrays, attributes)


def _read_subsequence(path: Path) -> tuple[Tensor, Measurement]:
    names = ("requested", "positions", "dose", "defocus", "patterns")
    try:
        with _open(path) as file:
            requested, positions, dose, defocus, patterns = (torch.from_numpy(file[name][:]) for name in names)
    except (KeyError, OSError) as error:
        raise ValueError(f"{path}: expected a sub-sequence with positions and patterns, found a damaged one ({error})") from None
    return requested, Measurement(positions, torch.fft.ifftshift(patterns, dim=(-2, -1)), dose, defocus)


def _write_state(path: Path, state: State, scores: Scores) -> None:
    arrays = {"phase_in_field": state.potential, "loss": state.reconstruction.loss}
    named = {f"scores/{k}": getattr(scores, k) for k in ("ssim", "ssim_aligned", "correlation")}
    seconds = {f"seconds/{k}": torch.tensor(v, dtype=torch.float64) for k, v in state.seconds.items()}
    _write_arrays(path, arrays | named | seconds, {})


def _write_arrays(path: Path, arrays: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> None:
    """Writes an HDF5 file of the run."""
    with whole(path) as part, h5py.File(part, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs.update(attributes)
        for name, values in arrays.items():
            packed = {"chunks": True, "compression": "gzip", "shuffle": True} if values.ndim >= 3 else {}
            file.create_dataset(name, data=values.numpy(), **packed)


def _write_text(path: Path, text: str) -> None:
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a file of the run, found none") from None
    except OSError as error:
        raise ValueError(f"{path}: expected a whole HDF5 file, found a damaged one ({error})") from None


def _numbered(folder: Path) -> list[Path]:
    """000.h5, 001.h5, ... in order, also beyond 999."""
    return sorted((p for p in folder.glob("*.h5") if p.stem.isdecimal()), key=lambda p: int(p.stem))


def _located(chosen: Settings) -> Settings:
    """The same with the input file's whole path: a run may be resumed from another folder."""
    file = chosen.scan.file and str(Path(chosen.scan.file).resolve())
    return replace(chosen, scan=replace(chosen.scan, file=file))


def _units(setup: Setup) -> dict[str, Any]:
    return {"pixel": setup.object.pixel, "pixel_unit": "Å", "field": np.array(setup.field), "field_unit": "Å (y, x)", "phase_unit": "rad"}


def _provenance(chosen: Settings) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in ("adaptycho", "torch", "numpy", "scipy", "numba", "h5py", "scikit-image", "ase")},
        "threads": torch.get_num_threads(),
        "seed": chosen.scan.seed,
    }
    return facts | ({"input": _input(chosen)} if chosen.scan.microscope == "recorded" else {})


def _check_input(target: Run) -> None:
    began = json.loads((target.path / "run.json").read_text(encoding="utf-8")).get("input")
    if began and target.settings.scan.microscope == "recorded" and _input(target.settings) != began:
        raise ValueError(f"{target.path / 'run.json'}: input: expected {began['file']} as it was when the run began, found another file")


def _input(chosen: Settings) -> dict[str, str]:
    """Name and checksum of the recording that is replayed."""
    source = Path(chosen.scan.file) if chosen.scan.file else files.example()
    return {"file": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
