"""What learning costs on this machine: seconds of an update and where they go, what a second process brings, the wait for a decision.

`python benchmarks/learning.py [step] [paper] [ranks] [latency] [--repeats 5]`: one JSON line for each section, all of them if none is
named. One thread for each process; weights are untrained, which takes as long as trained ones.

- `step`: an update of the recipes `lattice` and `recurrent` (light preset), each course.
- `paper`: an update at the paper's size (hidden state 2048, autoencoder at 512 pixels, objects of 200 x 200, 24 episodes in two shares)
  by part, the most memory that it takes, and hours for the paper's number of steps.
- `ranks`: updates per second of one process and of two on the same batch, start-up left out.
- `latency`: 50 patterns in hand to 50 positions out, 200 taken before, reconstruction included, by each learned policy.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from adaptycho import settings
from adaptycho.app import bench
from adaptycho.learn import reinforce, stages
from adaptycho.learn.distributed import Group, together
from adaptycho.learn.learner import Learner, adam, constant, learn
from adaptycho.learn.loop import Name
from adaptycho.learn.pool import simulated
from adaptycho.scan.episode import run
from adaptycho.scan.networks import autoencoder, library
from adaptycho.scan.networks.autoencoder import Autoencoder
from adaptycho.scan.networks.field import Field
from adaptycho.scan.networks.recurrent import Recurrent
from adaptycho.settings import Settings

LENGTHS = (50,) * 6  # the wait is timed after the fifth
PAPER = {
    "scan": {"subsequences": 5},
    "network": {"kind": "recurrent"},
    "practice": {"pool": 24, "reference": "truth"},
    "specimen": {"options": {"rotation": 0.0}},
}
COURSES: tuple[Name, ...] = ("imitate", "reinforce")
STEPS = 20_000  # of reinforcement, Table II


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles in seconds."""
    low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    return {"median": round(float(middle), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def recipe(name: str, **sections: Any) -> Settings:
    # What rewards refer to is there already: a full scan would be made in the update that asks for it.
    chosen = settings.update(settings.recipe(name, settings.preset("light")), {"practice": {"reference": "truth"}}, "benchmark")
    return settings.update(chosen, sections, "benchmark")


def updates(chosen: Settings, course: Name, repeats: int) -> list[float]:
    """Seconds of each update, after a first one that is not counted."""
    pool = simulated(chosen, range(1000, 1000 + chosen.practice.pool))
    network = stages.network(chosen)
    loss = stages.policy_loss(course, chosen, network, pool)
    return _timed(Learner(network, adam(network, 1e-4), parts=chosen.train.shares), loss, repeats)


def encoding(chosen: Settings, repeats: int) -> list[float]:
    """The same of the autoencoder."""
    pool = simulated(chosen, range(1000, 1000 + chosen.practice.pool))
    network = Autoencoder(size=chosen.network.image)
    size = chosen.train.encode_batch // chosen.train.shares

    def loss(step: int, part: int) -> tuple[torch.Tensor, dict[str, float]]:
        return autoencoder.loss(network, stages.partial(chosen, pool, step, part, size)), {}

    return _timed(Learner(network, adam(network, 1e-4), parts=chosen.train.shares), loss, repeats)


def step(repeats: int) -> dict[str, Any]:
    lattice = recipe("lattice", practice={"pool": 24})
    recurrent = recipe("recurrent", practice={"pool": 32}, train={"imitate_bank": 1})  # whose scans are made in the first update
    found = {f"lattice.{course}": spread(updates(lattice, course, repeats)) for course in COURSES}
    found |= {f"recurrent.{course}": spread(updates(recurrent, course, repeats)) for course in COURSES}
    found["recurrent.autoencoder"] = spread(encoding(recurrent, repeats))
    batches = {name: (c.train.imitate_batch, c.train.reinforce_batch) for name, c in (("lattice", lattice), ("recurrent", recurrent))}
    return {"seconds": found, "batches": batches}


def paper(repeats: int) -> dict[str, Any]:
    found = {}
    for part in (paper_update, paper_encoding):
        # Processes of their own, for the peak of this one is over.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            found[part.__name__] = fresh.submit(part, max(1, repeats // 3)).result()
    return found


def paper_update(repeats: int) -> dict[str, Any]:
    """An update of reinforcement by part."""
    torch.set_num_threads(1)
    chosen = settings.update(settings.preset("paper"), PAPER, "benchmark")
    pool, network = simulated(chosen, range(1000, 1000 + chosen.practice.pool)), stages.network(chosen)
    assert isinstance(network, Recurrent)
    clock: dict[str, float] = {}

    def add(name: str, seconds: float) -> None:
        clock[name] = clock.get(name, 0.0) + seconds

    def listened(*arguments: Any, **named: Any) -> Any:
        for state in run(*arguments, **named):
            for name, seconds in state.seconds.items():
                add(name, seconds)
            yield state

    real, inner = stages.policy_loss("reinforce", chosen, network, pool), network.encoder.forward

    def loss(number: int, part: int) -> Any:
        began = time.perf_counter()
        value = real(number, part)
        add("loss", time.perf_counter() - began)
        return value

    def encode(images: torch.Tensor) -> torch.Tensor:
        began = time.perf_counter()
        latent = inner(images)
        add("encode", time.perf_counter() - began)
        return latent

    learner = Learner(network, adam(network, 1e-5), parts=chosen.train.shares)
    with mock.patch.object(reinforce, "run", listened), mock.patch.object(network.encoder, "forward", encode):
        _timed(learner, loss, 0)
        clock.clear()
        seconds = _timed(learner, loss, repeats, warm=0)
    mean = {name: value / repeats for name, value in clock.items()}
    parts = {
        "simulate": mean["acquire"],
        "reconstruct": mean["reconstruct"],
        "autoencoder": mean["encode"],
        "policy": mean["decide"] - mean["encode"],
        "reward and specimens": mean["loss"] - mean["acquire"] - mean["reconstruct"] - mean["decide"],
        "update": float(np.mean(seconds)) - mean["loss"],
    }
    return {
        "seconds": spread(seconds),
        "parts": {name: round(value, 3) for name, value in parts.items()},
        "weights": sum(p.numel() for p in network.parameters()),
        "peak_mib": round(bench.peak_memory()),
        f"hours_{STEPS}_steps": round(float(np.median(seconds)) * STEPS / 3600, 1),
    }


def paper_encoding(repeats: int) -> dict[str, Any]:
    """An update of the autoencoder."""
    torch.set_num_threads(1)
    chosen = settings.update(settings.preset("paper"), PAPER, "benchmark")
    seconds = encoding(chosen, repeats)
    steps = chosen.train.encode_steps
    hours = round(float(np.median(seconds)) * steps / 3600, 1)
    return {"seconds": spread(seconds), "peak_mib": round(bench.peak_memory()), f"hours_{steps}_steps": hours}


def ranks(repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for course in COURSES:
        alone, both = (spread(together(_rank, processes, course, repeats)) for processes in (1, 2))
        found[course] = {"one": alone, "two": both, "throughput": round(alone["median"] / both["median"], 2)}
    return {"seconds": found, "problem": "recipe lattice, light preset"}


def latency(repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in settings.PRESETS:
        changes = {"practice": {"positions": [sum(LENGTHS)]}, "scan": {"subsequences": len(LENGTHS)}, "network": {"kind": "recurrent"}}
        chosen = settings.update(settings.preset(name), changes, "benchmark")
        for policy, network in (("field", Field()), ("field, density", _uneven()), ("recurrent", stages.network(chosen))):
            with torch.no_grad():
                parts = bench.wait(chosen, library.scanner(network.eval()), repeats)
            total = 1e3 * np.sum(list(parts.values()), 0)
            found[f"{policy} ({name})"] = {
                "median_ms": round(float(np.median(total)), 1),
                "quartiles_ms": [round(float(q), 1) for q in np.quantile(total, (0.25, 0.75))],
                "parts_ms": {part: round(1e3 * float(np.median(seconds)), 1) for part, seconds in parts.items()},
            }
    return found


def _timed(learner: Learner, loss: Any, repeats: int, warm: int = 1) -> list[float]:
    seconds, began = [], time.perf_counter()
    for _ in learn(learner, loss, learner.step + warm + repeats, constant(1e-5)):
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return seconds[warm:]


def _rank(group: Group, course: Name, repeats: int) -> list[float]:
    """One of the processes: the same specimens, network and batch in each."""
    chosen = recipe("lattice", practice={"pool": 16})
    pool, network = simulated(chosen, range(1000, 1016)), stages.network(chosen)
    loss = stages.policy_loss(course, chosen, network, pool)
    return _timed(Learner(network, adam(network, 1e-4), group, chosen.train.shares), loss, repeats)


def _uneven() -> Field:
    """A field policy that places positions by a density, which takes longest."""
    torch.manual_seed(0)
    network = Field()
    nn.init.normal_(network.out.weight, 0.0, 3.0)
    return network


def main() -> None:
    sections = {"step": step, "paper": paper, "ranks": ranks, "latency": latency}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(sections))
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in chosen.sections or sections:
        if name not in sections:
            parser.error(f"expected one of {', '.join(sections)}, found {name}")
        found = sections[name](chosen.repeats)
        print(json.dumps({"section": name, "repeats": chosen.repeats, "threads": 1, **found} | bench.machine()), flush=True)


if __name__ == "__main__":
    main()
