"""Where a training stands, on disk: weights, optimiser and step. Everything random follows from the step, so nothing else is needed."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from adaptycho import weights
from adaptycho.train.learner import Learner


def write(path: Path, learner: Learner, facts: dict[str, Any]) -> None:
    """Writes a checkpoint; it is there whole or not at all."""
    state = learner.optimiser.state_dict()["state"]
    tensors = {f"network.{name}": value for name, value in learner.network.state_dict().items()}
    tensors |= {f"optimiser.{i}.{name}": torch.as_tensor(value) for i, entry in state.items() for name, value in entry.items()}
    weights.write(path, tensors, {"step": learner.step, **facts})


def read(path: Path, learner: Learner) -> dict[str, Any]:
    """Puts a learner where the checkpoint was, and returns the facts that were kept with it.

    Raises:
        ValueError: the file is not a checkpoint of this network.
    """
    found = weights.load(path)
    network = {k.removeprefix("network."): v for k, v in found.tensors.items() if k.startswith("network.")}
    weights.restore(learner.network, dataclasses.replace(found, tensors=network))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in found.tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    described = learner.optimiser.state_dict()
    learner.optimiser.load_state_dict({**described, "state": state})
    learner.step = int(found.card["step"])
    return dict(found.card)
