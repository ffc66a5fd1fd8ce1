"""The folder of a training: what was asked for, how far it is, and the card that goes with its weights."""

import json
import math
import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic.dataclasses
import torch
from pydantic import ConfigDict, Field

from adaptycho import settings as tree
from adaptycho.learn import checks, plots, stages
from adaptycho.learn.distributed import together
from adaptycho.learn.loop import LOG, Name, read_log
from adaptycho.runs import checksums
from adaptycho.settings import Settings
from adaptycho.support import document
from adaptycho.support.atomic import alone, flush, whole, whole_folder

RUN, START = "run.json", "start.safetensors"
FORMAT: Literal["adaptycho training 1"] = "adaptycho training 1"


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="ignore"))
class Facts(checksums.Beginning):
    """What `run.json` says; trainings of older versions have no checksums.

    Attributes:
        format: of the folder.
        courses: what is done, in this order.
    """

    format: Literal["adaptycho training 1"]
    courses: Annotated[list[Name], Field(min_length=1)]


def create(folder: Path, settings: Settings, courses: Sequence[Name], start: Path | None) -> None:
    """Makes the folder of a training.

    Args:
        folder: must not exist, or be empty.
        settings: of everything.
        courses: what to do, in this order; what the network does not need is left out.
        start: weights to start from, which are copied: a policy's, or an autoencoder's for a new recurrent policy; None starts from new
            ones.

    Raises:
        ValueError: the folder is not empty, there is nothing to do, or the settings or weights cannot be trained with.
    """
    wanted = [name for name in courses if _needed(name, settings, alone=len(courses) == 1)]
    if not wanted:
        raise ValueError("train: expected steps of some course, found 0 in train.imitate_steps and train.reinforce_steps")
    checks.check(settings, wanted)
    if start is not None:
        checks.check_start(start, settings, wanted)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: expected a new or empty folder, found files (go on with `adaptycho train resume {folder}`)")
    settings, target = checksums.located(settings), folder.resolve()
    if target == Path.cwd():
        raise ValueError(f"{folder}: expected the name of a new folder for the training, found the folder that this is started in")
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(target) as part:  # a training is there whole or not at all
        if start is not None:
            shutil.copyfile(start, part / START)
            flush(part / START)
        with whole(part / "settings.toml") as file:
            file.write_text(tree.dump(settings), encoding="utf-8")
        facts = {
            "format": FORMAT,
            "courses": wanted,
            "adaptycho": version("adaptycho"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            **checksums.facts(part / "settings.toml", settings, part / START if start is not None else None),
        }
        with whole(part / RUN) as file:
            file.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def execute(folder: Path, progress: stages.Progress, device: str = "cpu") -> dict[str, Any]:
    """Does what is left of a training and returns its last validation and where the weights are.

    Args:
        folder: of the training.
        progress: shows how far a stage is.
        device: where to scan, reconstruct and learn; only the CPU is shared by several processes.

    Raises:
        ValueError: the folder is not one of a training, is not as it began, or another process is at work in it.
    """
    if not (folder / RUN).is_file():
        raise ValueError(f"{folder}: expected the folder of a training (`adaptycho train ... --out FOLDER`), found no {RUN}")
    facts, settings = document.read(folder / RUN, Facts), tree.load(folder / "settings.toml")
    start = folder / START if facts.start or os.path.lexists(folder / START) else None
    checksums.check_settings(folder, facts)
    checksums.check_sources(folder, facts, settings, ["input", "structure", *checksums.FOLDERS])
    if start is not None:
        checksums.check_start(start, facts)
    checks.check(settings, facts.courses)
    checks.check_device(settings, device)
    with alone(folder):
        together(stages.train, settings.train.processes, folder, facts.courses, start, progress, device)
        curves(folder)
    last = facts.courses[-1]
    # The best validation is that of the weights.
    validated = [e for e in read_log(folder) if e["course"] == last and "validation" in e]
    if not validated:
        raise ValueError(f"{folder / LOG}: expected a validation of the course {last}, found none")
    # A scan that diverged has no score.
    found = max(validated, key=lambda e: -math.inf if e["validation"]["score"] is None else e["validation"]["score"])
    return {"weights": str(folder / f"{last}.safetensors"), "step": found["step"], "validation": found["validation"]}


def curves(folder: Path) -> Path:
    """Draws the validation scores of a training against its steps."""
    path = folder / "curve.png"
    with whole(path) as part:
        plots.progress(folder).savefig(part, dpi=100, format="png")
    return path


def _needed(name: Name, settings: Settings, *, alone: bool) -> bool:
    if name == "autoencoder":
        return alone or settings.network.kind == "recurrent"
    return (settings.train.imitate_steps if name == "imitate" else settings.train.reinforce_steps) > 0
