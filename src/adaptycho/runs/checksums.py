"""What a scan or a training began with, as its folder keeps it: checksums of its settings and of every file that it depends on.

A folder is gone on with, and reported on, as it began or not at all. Where files lie may change; what is in them may not.
"""

import hashlib
import json
import os
import tomllib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from adaptycho.settings import Settings, microscopes
from adaptycho.support.reading import reading, regular

SHIPPED = "shipped with adaptycho"
LEARNED = ("adaptive", "recurrent")
FOLDERS = ("structures", "recordings")  # of `practice`


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Source:
    """A file that something depends on.

    Attributes:
        file: its name without the folder.
        sha256: of its bytes.
    """

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="ignore"))
class Beginning:
    """Checksums of what something began with; older folders have none of them but the input's.

    Attributes:
        settings: of the settings, as `settings_digest` gives it.
        input: what the microscope replays or is configured by.
        weights: of a learned policy.
        structure: the file of the specimen's unit cell.
        structures: the folder of those that a policy practises on.
        recordings: likewise.
        start: the weights that a training starts from.
    """

    settings: str | None = None
    input: Source | None = None
    weights: Source | None = None
    structure: Source | None = None
    structures: Source | None = None
    recordings: Source | None = None
    start: Source | None = None


def facts(settings_file: Path, chosen: Settings, start: Path | None = None) -> dict[str, Any]:
    """Checksums to keep, ready for JSON; what does not apply is left out."""
    found: dict[str, Any] = {"settings": settings_digest(settings_file)}
    for name, path in _sources(chosen).items():
        found[name] = {"file": SHIPPED if path is None else path.name, "sha256": _checksum(name, path)}
    return found | ({} if start is None else {"start": {"file": start.name, "sha256": _digest(start)}})


def located(chosen: Settings) -> Settings:
    """The same with whole paths for the files it names: a folder may be gone on with from another one."""
    scan, specimen = chosen.scan, chosen.specimen
    file, weights = (name and os.path.realpath(name) for name in (scan.file, scan.weights))
    structure = os.path.realpath(specimen.structure) if Path(specimen.structure).is_file() else specimen.structure
    structures, recordings = (name and os.path.realpath(name) for name in (chosen.practice.structures, chosen.practice.recordings))
    return replace(
        chosen,
        scan=replace(scan, file=file, weights=weights),
        specimen=replace(specimen, structure=structure),
        practice=replace(chosen.practice, structures=structures, recordings=recordings),
    )


def settings_digest(path: Path) -> str:
    """Checksum of a file of settings: of what they are, however they are written down, but not of where other files lie."""
    tree = tomllib.loads(path.read_text(encoding="utf-8"))
    scan, specimen, practice = (tree.get(name, {}) for name in ("scan", "specimen", "practice"))
    for section, name in ((scan, "file"), (scan, "weights"), (specimen, "structure"), (practice, "structures"), (practice, "recordings")):
        if name != "structure" or Path(section.get(name, "")).is_absolute():
            section.pop(name, None)
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()


def check_settings(folder: Path, began: Beginning) -> None:
    """Refuses settings that are not those of the beginning.

    Raises:
        ValueError: they were edited.
    """
    path = folder / "settings.toml"
    if began.settings is None:
        warnings.warn(f"{folder}: of an older version, without checksums: whether its settings are as they were is not known", stacklevel=3)
    elif settings_digest(path) != began.settings:
        raise ValueError(f"{path}: expected the settings that {folder} began with, found others")


def check_sources(folder: Path, began: Beginning, chosen: Settings, names: Sequence[str] = ("input", "weights", "structure")) -> None:
    """Refuses other files than those of the beginning.

    Raises:
        ValueError: a file that the settings name is gone, or not what it was.
    """
    for name, path in _sources(chosen).items():
        if name not in names:
            continue
        kept: Source | None = getattr(began, name)
        if kept is None and began.settings is None:
            continue
        if kept is None or _checksum(name, path) != kept.sha256:
            what = kept.file if kept else "a checksum of it"
            raise ValueError(f"{folder / 'run.json'}: {name}: expected {what} as it was when the run began, found another file")


def check_start(path: Path, began: Beginning) -> None:
    """Refuses other weights to start from than those of the beginning.

    Raises:
        ValueError: the file is gone, or not what it was.
    """
    if began.start is not None and _digest(path) != began.start.sha256:
        raise ValueError(f"{path}: expected the weights that the training began with, found others")


def _sources(chosen: Settings) -> dict[str, Path | None]:
    """Files by what they are; None is everything that comes with the package."""
    found: dict[str, Path | None] = dict(microscopes.of(chosen).files(chosen).items())
    if chosen.scan.policy in LEARNED:
        found["weights"] = Path(chosen.scan.weights) if chosen.scan.weights else None
    for name in FOLDERS:
        if folder := getattr(chosen.practice, name):
            found[name] = Path(folder)
    return found


def _checksum(name: str, path: Path | None) -> str:
    """Of what a source of a name is: the files of a folder, or one file."""
    if name not in FOLDERS or path is None:
        return _digest(path)
    return _together(sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")))


def _digest(path: Path | None) -> str:
    """Of a file, or of all weights that come with the package."""
    if path is None:
        with resources.as_file(resources.files("adaptycho.scan.networks") / "shipped") as folder:
            return _together(sorted(folder.glob("*.safetensors")))
    regular(path, "a file that can be read")
    with reading(path, "a file that can be read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _together(files: Sequence[Path]) -> str:
    return hashlib.sha256("".join(_digest(file) for file in files).encode()).hexdigest()
