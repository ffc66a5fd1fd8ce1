"""One stage of a training, in a run folder: log, checkpoints, validation, the best weights, and pictures of what is being learnt.

RUN/settings.toml, RUN/log.jsonl (every step and every validation), RUN/NAME.checkpoint.safetensors (to go on from),
RUN/NAME.safetensors (the best weights by validation), RUN/pictures/NAME-00100.png, and RUN/tensorboard/NAME where it is wanted.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pydantic.dataclasses
from pydantic import ConfigDict

from adaptycho import settings as tree
from adaptycho.learn import checkpoint, tensorboard
from adaptycho.learn.learner import Facts, Learner, ShareLoss, learn
from adaptycho.runs import checksums
from adaptycho.scan.networks import library, weights
from adaptycho.settings import Settings
from adaptycho.support import document
from adaptycho.support.atomic import flush, whole
from adaptycho.support.reading import regular

Name = Literal["autoencoder", "imitate", "reinforce"]
LOG = "log.jsonl"
WORST = -1e30  # counts as the score of a scan that diverged; JSON has no infinity


@dataclass(frozen=True, eq=False)
class Stage:
    """What is to be done.

    Attributes:
        name: of the stage, and of its files.
        folder: of the run.
        settings: of the run.
        loss: of one share of one step.
        steps: updates in all.
        rate: of learning at each step.
        validate: scores of the network as it is; the one called `score` decides which weights are best. On rank 0 only.
        draw: draws what is being learnt to a file; None draws nothing.
    """

    name: Name
    folder: Path
    settings: Settings
    loss: ShareLoss
    steps: int
    rate: Callable[[int], float]
    validate: Callable[[], Mapping[str, float]]
    draw: Callable[[Path], None] | None = None

    @cached_property
    def run(self) -> str:
        """What tells this training from others."""
        return checksums.settings_digest(self.folder / "settings.toml")


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class Entry:
    """What every line of a log has; a step has its loss and gradient, a validation its scores. What is not finite is null."""

    course: Name
    step: int
    validation: dict[str, float | None] | None = None
    reward: float | None = None
    ssim: float | None = None

    def __post_init__(self) -> None:
        """Refuses a validation without the score that decides."""
        if self.validation is not None and "score" not in self.validation:
            raise ValueError("a score in every validation")


def follow(stage: Stage, learner: Learner) -> Iterator[Facts]:
    """Goes through a stage from wherever it stands, yielding every step's facts; the network ends with the best weights.

    A run that was killed goes on from its last checkpoint and comes to the same weights, bit for bit, as one that was not, on one processor
    and library path.
    """
    path = stage.folder / f"{stage.name}.checkpoint.safetensors"
    best, spent = 2 * WORST, 0.0
    if os.path.lexists(path):
        kept = checkpoint.read(path, learner, stage.run, stage.name)
        best, spent = kept.best, kept.seconds
    leader = learner.group.rank == 0
    if leader:
        _cut(stage.folder / LOG, stage.name, learner.step)
    shown = leader and stage.settings.train.tensorboard
    with tensorboard.opened(stage.folder / "tensorboard" / stage.name, learner.step) if shown else nullcontext(tensorboard.nowhere) as show:
        yield from _updates(stage, learner, path, best, spent, show)
    learner.group.wait()
    weights.restore(learner.network, weights.load(stage.folder / f"{stage.name}.safetensors"))


def _updates(stage: Stage, learner: Learner, path: Path, best: float, spent: float, show: tensorboard.Show) -> Iterator[Facts]:
    """The steps that are left, with what is written down on the way."""
    leader, started = learner.group.rank == 0, time.monotonic() - spent
    if learner.step == 0:
        best = _validate(stage, learner, best, 0.0, show) if leader else best
        learner.group.wait()
    for facts in learn(learner, stage.loss, stage.steps, stage.rate):
        seconds = time.monotonic() - started
        due = learner.step % stage.settings.train.every == 0 or learner.step == stage.steps
        if leader:
            note(stage.folder, {"course": stage.name, **facts, "seconds": round(seconds, 2)})
            show(learner.step, {name: value for name, value in facts.items() if name != "step"})
        if due and leader:
            best = _validate(stage, learner, best, seconds, show)
            flush(stage.folder / LOG)  # what it says of steps before the checkpoint is not made again
            checkpoint.write(path, learner, checkpoint.Standing(best, time.monotonic() - started, stage.run, stage.name))
        if due:
            learner.group.wait()
        yield facts


def note(folder: Path, entry: Mapping[str, Any]) -> None:
    """Adds a line to the log."""
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps({k: _short(v) for k, v in entry.items()}) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Every line of a run's log, in order; a last line that was cut off by a crash is left out.

    Raises:
        ValueError: a line that is none of a log.
    """
    if not os.path.lexists(folder / LOG):
        return []
    regular(folder / LOG, "the log of a training")
    lines = (folder / LOG).read_bytes().decode("utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines[:-1], 1):
        if line:
            document.parse(line, Entry, f"{folder / LOG}: line {number}")
    return [json.loads(line) for line in lines[:-1] if line]


def _validate(stage: Stage, learner: Learner, best: float, seconds: float, show: tensorboard.Show) -> float:
    """Scores the weights, keeps them if they are the best so far, and returns the best score."""
    scores = dict(stage.validate())
    score = scores["score"] if math.isfinite(scores["score"]) else WORST
    note(stage.folder, {"course": stage.name, "step": learner.step, "validation": scores, "seconds": round(seconds, 2)})
    show(learner.step, {f"validation/{name}": value for name, value in scores.items()})
    if stage.draw is not None:
        folder = stage.folder / "pictures"
        folder.mkdir(exist_ok=True)
        stage.draw(folder / f"{stage.name}-{learner.step:05d}.png")
    if not score > best:
        return best
    told = {name: value if math.isfinite(value) else None for name, value in scores.items()}
    card = {"course": stage.name, "step": learner.step, "validation": told, "settings": tree.changes(stage.settings)}
    weights.save(stage.folder / f"{stage.name}.safetensors", learner.network, library.described(learner.network) | card)
    return score


def _cut(path: Path, name: str, step: int) -> None:
    """Drops what the log says of steps after the checkpoint: they will be made again."""
    if not os.path.lexists(path):
        return
    kept = [e for e in read_log(path.parent) if e["course"] != name or e["step"] <= step]
    if step == 0:
        kept = [e for e in kept if e["course"] != name]
    with whole(path) as part:
        part.write_text("".join(json.dumps(e) + "\n" for e in kept), encoding="utf-8")


def _short(value: Any) -> Any:
    """Numbers with the digits that they are good for."""
    if isinstance(value, Mapping):
        return {k: _short(v) for k, v in value.items()}
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
