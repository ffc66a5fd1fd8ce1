"""Where a training stands, on disk: weights, optimiser and step. Everything random follows from the step, so nothing else is needed."""

import dataclasses
import json
from pathlib import Path

import pydantic.dataclasses
import torch
from pydantic import ConfigDict, Field

from adaptycho.learn.learner import Learner
from adaptycho.scan.networks import weights
from adaptycho.support import document


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="ignore", allow_inf_nan=False))
class Standing:
    """How far a course is.

    Attributes:
        best: score so far.
        seconds: spent on it.
        run: what tells this training from others; those of older versions did not say.
        course: its name; likewise.
        step: updates made.
    """

    best: float
    seconds: float
    run: str | None = None
    course: str | None = None
    step: int = Field(default=0, ge=0)


def write(path: Path, learner: Learner, standing: Standing) -> None:
    """Writes a checkpoint; it is there whole or not at all."""
    state = learner.optimiser.state_dict()["state"]
    tensors = {f"network.{name}": value for name, value in learner.network.state_dict().items()}
    tensors |= {f"optimiser.{i}.{name}": torch.as_tensor(value) for i, entry in state.items() for name, value in entry.items()}
    weights.write(path, tensors, dataclasses.asdict(dataclasses.replace(standing, step=learner.step)))


def read(path: Path, learner: Learner, run: str, course: str) -> Standing:
    """Puts a learner where the checkpoint was, and returns how far that is.

    Raises:
        ValueError: the file is damaged, or not a checkpoint of this course of this training.
    """
    found = weights.load(path)
    standing = document.parse(json.dumps(found.card), Standing, str(path))
    if standing.run is not None and (standing.run, standing.course) != (run, course):
        raise ValueError(f"{path}: expected a checkpoint of this training's course {course}, found one from elsewhere")
    network = {k.removeprefix("network."): v for k, v in found.tensors.items() if k.startswith("network.")}
    weights.restore(learner.network, dataclasses.replace(found, tensors=network))
    state: dict[int, dict[str, torch.Tensor]] = {}
    learning = [p for group in learner.optimiser.param_groups for p in group["params"]]
    for key, value in found.tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            if not (index.isdecimal() and int(index) < len(learning) and value.shape in ((), learning[int(index)].shape)):
                raise ValueError(f"{path}: {key}: expected the optimiser of this network, found another one's")
            state.setdefault(int(index), {})[name] = value
    described = learner.optimiser.state_dict()
    learner.optimiser.load_state_dict({**described, "state": state})
    learner.step = standing.step
    return standing
