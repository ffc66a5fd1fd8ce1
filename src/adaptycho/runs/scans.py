"""A run folder: everything a scan was told, everything it recorded, and enough to go on after a power cut.

```
RUN/
  settings.toml       every setting of the scan
  run.json            versions, machine, command, checksums of the settings and of the files that they name
  subsequences/000.h5 one sub-sequence: requested and reported positions, patterns (zero frequency in the centre), dose, defocus
  states/000.h5       phase inside the field after it, loss, scores, seconds
  reference.h5        what scores refer to, if anybody knows
  exposures.jsonl     what was about to be sent, each time before it was; of scans with limits only (`adaptycho.runs.spent`)
  result.h5           the final potential and probe; report.html
  monitor/            orders to the scan, if anybody watches (`adaptycho.runs.orders`)
```

A sub-sequence is on disk, complete and flushed, before the next decision. A run is taken up by running the same loop again: sub-sequences
on disk are read instead of acquired, decisions follow from them, and randomness depends on the seed and the sub-sequence only. A folder
whose settings, input or arrays are not what they were is refused (`adaptycho.runs.checksums`, `adaptycho.runs.journal`). An answer of the
microscope that no scan can go on with is kept beside, as subsequences/000.refused-1.h5, and never read.
"""

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from adaptycho import settings
from adaptycho.instruments import Session
from adaptycho.physics.optics import Setup
from adaptycho.runs import checks, checksums, provenance
from adaptycho.runs.journal import numbered, read_arrays, read_subsequence
from adaptycho.runs.provenance import Provenance
from adaptycho.runs.scores import SCORES
from adaptycho.scan.episode import split_evenly
from adaptycho.settings import Settings, build, microscopes
from adaptycho.settings.microscopes import Kind, Subject
from adaptycho.support import document
from adaptycho.support.atomic import whole, whole_folder


@dataclass(frozen=True)
class Run:
    """A run folder on disk.

    Attributes:
        path: of the folder.
        settings: of the scan.
        provenance: what it began with.
    """

    path: Path
    settings: Settings
    provenance: Provenance

    @classmethod
    def create(cls, path: Path, chosen: Settings) -> "Run":
        """Starts a run in a new or empty folder.

        Raises:
            ValueError: there is something in the folder already, or the settings cannot be scanned; nothing is touched.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path}: expected a new or empty folder for the run, found one with something in it (go on with `resume`)")
        target = path.resolve()  # where a link leads
        if target == Path.cwd():
            raise ValueError(f"{path}: expected the name of a new folder for the run, found the folder that this is started in")
        kind = microscopes.of(chosen)
        if kind.capabilities.specimens:  # before a specimen is made for it
            checks.check_field(build.setup(chosen))
        microscope = kind.open(chosen)
        with ExitStack() as open_only_here:
            open_only_here.callback(microscope.close)
            checks.check_scan(chosen, kind, microscope)
            chosen = checksums.located(chosen)  # not before: what is refused is called as the user calls it
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_folder(target) as part:  # a run is there whole or not at all
                (part / "subsequences").mkdir()
                (part / "states").mkdir()
                _write_text(part / "settings.toml", settings.dump(chosen))
                _write_text(part / "run.json", json.dumps(provenance.facts(part / "settings.toml", chosen), indent=2) + "\n")
            new = cls.open(path)
            if kind in microscopes.BUILT_IN:  # which takes a while to be opened, and holds nothing that others wait for
                open_only_here.pop_all()
                vars(new)["microscope"] = microscope
        return new

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Opens a run to look at it or go on with it.

        Raises:
            ValueError: the folder is not a run, or its settings are not those that it began with.
        """
        if not (path / "settings.toml").is_file():
            found = "none in it" if path.is_dir() else "no such folder"
            raise ValueError(f"{path}: expected a run folder with settings.toml, found {found}")
        began, chosen = document.read(path / "run.json", Provenance), settings.load(path / "settings.toml")
        checksums.check_settings(path, began)
        return cls(path, chosen, began)

    @property
    def lengths(self) -> list[int]:
        """Number of positions of each sub-sequence."""
        return split_evenly(self.settings.scan.positions, self.settings.scan.subsequences)

    @property
    def sealed(self) -> bool:
        """Whether it has checksums; those of older versions have none."""
        return self.provenance.settings is not None

    @property
    def kind(self) -> Kind:
        """The kind of microscope that scans."""
        return microscopes.of(self.settings)

    @cached_property
    def subject(self) -> Subject:
        """What is scanned, told without opening the microscope."""
        return self.kind.look(self.settings)

    @property
    def setup(self) -> Setup:
        """Geometry and beam."""
        return self.subject.setup

    @property
    def batch(self) -> int:
        """Number of specimens."""
        return self.subject.batch

    @cached_property
    def microscope(self) -> Session:
        """The microscope of the run's settings, opened when it is first asked for."""
        return self.kind.open(self.settings)

    def close(self) -> None:
        """Closes the microscope if it is open."""
        microscope: Session | None = vars(self).pop("microscope", None)
        if microscope is not None:
            microscope.close()

    @property
    def referenced(self) -> bool:
        """Whether it has what scores refer to."""
        return os.path.lexists(self.path / "reference.h5")

    @property
    def finished(self) -> bool:
        """Whether all that it is to hold is there."""
        count = len(self.lengths)
        return self.recorded == count == len(numbered(self.path / "states")) and (self.path / "result.h5").is_file()

    @property
    def recorded(self) -> int:
        """Sub-sequences that are on disk, whole."""
        return len(numbered(self.path / "subsequences"))


def read_states(target: Run) -> list[dict[str, Any]]:
    """What was known after each sub-sequence that is on disk: phase in the field, loss, scores, seconds, positions, dose.

    Raises:
        ValueError: a file is missing, damaged or not of this run.
    """
    checksums.check_sources(target.path, target.provenance, target.settings, ["input"])
    states, batch = numbered(target.path / "states"), target.batch
    if len(states) > len(target.lengths):
        raise ValueError(
            f"{target.path / 'states'}: expected at most {len(target.lengths)} files, as the settings say, found {len(states)}"
        )
    tasks = ("decide", "acquire", "reconstruct")
    # What is chosen may take more iterations or fewer, and a warm start counts those before it.
    how, warm = target.settings.reconstruct, target.settings.scan.warm
    wanted: dict[str, tuple[int | None, ...]] = {
        "phase_in_field": (batch, *target.setup.field_shape),
        "loss": (batch, None if warm or how.prior == "auto" or how.refine == "auto" or how.stop == "held-out" else how.iterations),
        **{f"scores/{name}": (batch,) for name in SCORES},
        **{f"seconds/{name}": () for name in tasks},
    }
    found = []
    for path, count in zip(states, target.lengths, strict=False):
        subsequence = target.path / "subsequences" / path.name
        requested, measurement = read_subsequence(subsequence, target.setup, (batch, count), sealed=target.sealed)
        read = read_arrays(path, wanted, sealed=target.sealed)
        found.append(
            {
                "requested": requested,
                "measurement": measurement,
                "potential": read["phase_in_field"],
                "loss": read["loss"],
                "scores": {name: read[f"scores/{name}"].numpy() for name in SCORES},
                "seconds": {name: float(read[f"seconds/{name}"]) for name in tasks},
            }
        )
    return found


def read_reference(target: Run) -> Tensor:
    """What the run's scores refer to, (B, h, w).

    Raises:
        ValueError: it is missing, damaged or not of this run.
    """
    wanted = {"phase_in_field": (target.batch, *target.setup.field_shape)}
    return read_arrays(target.path / "reference.h5", wanted, sealed=target.sealed)["phase_in_field"]


def _write_text(path: Path, text: str) -> None:
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
