"""The folder of a training: what was asked for, how far it is, and the card that goes with its weights."""

import json
import math
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from adaptycho import settings as tree
from adaptycho.settings import Settings
from adaptycho.store import alone, whole
from adaptycho.train import gallery, stages, terms
from adaptycho.train.course import Name, read_log
from adaptycho.train.crew import together

RUN, START = "run.json", "start.safetensors"
FORMAT = "adaptycho training 1"


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
    terms.check(settings, wanted)
    if start is not None:
        terms.check_start(start, settings, wanted)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder}: expected a new or empty folder, found files (go on with `adaptycho train resume {folder}`)")
    folder.mkdir(parents=True, exist_ok=True)
    if start is not None:
        shutil.copyfile(start, folder / START)
    (folder / "settings.toml").write_text(tree.dump(settings), encoding="utf-8")
    facts = {
        "format": FORMAT,
        "courses": wanted,
        "adaptycho": version("adaptycho"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    with whole(folder / RUN) as part:
        part.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def execute(folder: Path, progress: stages.Progress) -> dict[str, Any]:
    """Does what is left of a training and returns its last validation and where the weights are.

    Raises:
        ValueError: the folder is not one of a training, or another process is at work in it.
    """
    try:
        facts = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ValueError(f"{folder}: expected the folder of a training (`adaptycho train ... --out FOLDER`), found no {RUN}") from None
    found = facts.get("format") if isinstance(facts, dict) else None
    if found != FORMAT:
        raise ValueError(f"{folder / RUN}: format: expected {FORMAT!r}, found {found!r}")
    settings = tree.load(folder / "settings.toml")
    terms.check(settings, facts["courses"])
    start = folder / START
    with alone(folder):
        together(stages.train, settings.train.processes, folder, facts["courses"], start if start.exists() else None, progress)
        curves(folder)
    last = facts["courses"][-1]
    # The best validation is that of the weights.
    validated = [e for e in read_log(folder) if e["course"] == last and "validation" in e]
    # A scan that diverged has no score.
    found = max(validated, key=lambda e: -math.inf if e["validation"]["score"] is None else e["validation"]["score"])
    return {"weights": str(folder / f"{last}.safetensors"), "step": found["step"], "validation": found["validation"]}


def curves(folder: Path) -> Path:
    """Draws the validation scores of a training against its steps."""
    path = folder / "curve.png"
    gallery.progress(folder).savefig(path, dpi=100)
    return path


def _needed(name: Name, settings: Settings, *, alone: bool) -> bool:
    if name == "autoencoder":
        return alone or settings.network.kind == "recurrent"
    return (settings.train.imitate_steps if name == "imitate" else settings.train.reinforce_steps) > 0
