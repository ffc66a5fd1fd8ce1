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
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptycho import build, files, settings
from adaptycho.episode import State, run, split_evenly
from adaptycho.journal import FORMAT, Journal, open_file, read_subsequence, write_arrays
from adaptycho.microscope import Microscope
from adaptycho.optics import Setup
from adaptycho.reconstruct import Reconstruction
from adaptycho.scores import Scores, score
from adaptycho.settings import Settings
from adaptycho.store import alone, flush, whole

SMALLEST = 11  # pixels of the field that a structural similarity needs
SCORES = ("ssim", "ssim_aligned", "correlation")


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
        _check_scan(new)
        # Everything goes into a folder beside it, which then takes the name: a run is there whole or not at all.
        part = path.with_name(f"{path.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        (part / "subsequences").mkdir(parents=True)
        (part / "states").mkdir()
        _write_text(part / "run.json", json.dumps(_provenance(new.settings), indent=2) + "\n")
        _write_text(part / "settings.toml", settings.dump(new.settings))
        part.replace(path)
        flush(path.parent)
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


def execute(target: Run) -> Iterator[State]:
    """Runs or goes on with a scan, yielding the state after each sub-sequence; at the end the folder holds the result.

    Raises:
        ValueError: another process is at work on the run, or the recording that is replayed is not the one that the run began with.
    """
    with alone(target.path):
        yield from _execute(target)


def _execute(target: Run) -> Iterator[State]:
    _check_input(target)
    (target.path / "states").mkdir(exist_ok=True)
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
    write_arrays(path, arrays, _units(setup))


def read_states(target: Run) -> list[dict[str, Any]]:
    """What was known after each sub-sequence that is on disk: phase in the field, loss, scores, seconds, positions, dose."""
    found = []
    for path in _numbered(target.path / "states"):
        requested, measurement = read_subsequence(target.path / "subsequences" / path.name)
        with open_file(path) as file:
            found.append(
                {
                    "requested": requested,
                    "measurement": measurement,
                    "potential": torch.from_numpy(file["phase_in_field"][:]),
                    "loss": torch.from_numpy(file["loss"][:]),
                    "scores": {k: file["scores"][k][:] for k in SCORES},
                    "seconds": {k: float(file["seconds"][k][()]) for k in ("decide", "acquire", "reconstruct")},
                }
            )
    return found


def read_reference(target: Run) -> Tensor:
    """What the run's scores refer to, (B, h, w)."""
    with open_file(target.path / "reference.h5") as file:
        return torch.from_numpy(file["phase_in_field"][:])


def _reference(target: Run, microscope: Any) -> Tensor:
    path = target.path / "reference.h5"
    if not path.exists():
        write_arrays(path, {"phase_in_field": build.reference(target.settings, microscope)}, _units(microscope.setup))
    return read_reference(target)


def _write_state(path: Path, state: State, scores: Scores) -> None:
    arrays = {"phase_in_field": state.potential, "loss": state.reconstruction.loss}
    named = {f"scores/{k}": getattr(scores, k) for k in SCORES}
    seconds = {f"seconds/{k}": torch.tensor(v, dtype=torch.float64) for k, v in state.seconds.items()}
    write_arrays(path, arrays | named | seconds, {})


def _write_text(path: Path, text: str) -> None:
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


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


def _check_scan(target: Run) -> None:
    """Refuses what cannot be scanned before there is a folder."""
    wanted, setup = target.settings.scan, target.microscope.setup
    _ = target.lengths
    if min(setup.field_shape) < SMALLEST:
        found = f"{setup.field_shape} of {setup.object.pixel:g} Å"
        raise ValueError(f"geometry.field: expected at least {SMALLEST} pixels along each axis, found {found}")
    if wanted.microscope == "recorded" and wanted.defocus is not None:
        raise ValueError(f"scan.defocus: expected none for a recording, which cannot be taken again, found {wanted.defocus:g} Å")


def read_provenance(target: Run) -> dict[str, Any]:
    """What `run.json` says: versions, machine, command, input.

    Raises:
        ValueError: the file is missing or not JSON.
    """
    path = target.path / "run.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected the provenance of the run in JSON, found none ({error})") from None
    return found


def _check_input(target: Run) -> None:
    began = read_provenance(target).get("input")
    if began and target.settings.scan.microscope == "recorded" and _input(target.settings) != began:
        raise ValueError(f"{target.path / 'run.json'}: input: expected {began['file']} as it was when the run began, found another file")


def _input(chosen: Settings) -> dict[str, str]:
    """Name and checksum of the recording that is replayed."""
    source = Path(chosen.scan.file) if chosen.scan.file else files.example()
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": source.name, "sha256": digest}
