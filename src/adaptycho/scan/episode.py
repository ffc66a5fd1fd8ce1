"""The one adaptive-scan loop: look, decide, acquire, reconstruct, again (Fig. 2).

A simulated microscope, recorded data and an instrument run through it alike, and so does every scan strategy. Randomness is derived from
the seed and the number of the sub-sequence, so any sub-sequence can be repeated without repeating those before it.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.instruments import Microscope
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.reconstruction import Reconstruction
from adaptycho.support.notebook import card
from adaptycho.types import Action, Measurement, Memory, Observation, Scanner

BEAM = 500_000  # keeps the noise of a sub-sequence apart from its scanner's random numbers, however many of those it takes


@runtime_checkable
class Look(Protocol):
    """What an observation needs to know of a microscope."""

    @property
    def setup(self) -> Setup:
        """Geometry and beam."""
        ...

    @property
    def batch(self) -> int:
        """Number of specimens."""
        ...


@dataclass(frozen=True, eq=False)
class State:
    """Where a scan stands after a sub-sequence.

    Attributes:
        number: sub-sequences taken so far.
        seen: everything measured so far.
        latest: the last sub-sequence alone.
        action: what was asked for in it.
        reconstruction: from everything seen.
        potential: its phase in rad inside the scan field.
        memory: what the scanner wants handed back.
        scattered: fraction of its dose that each pattern seen has outside the bright-field disc: a dark-field signal.
        seconds: time spent to decide, acquire and reconstruct in this sub-sequence.
    """

    number: int
    seen: Measurement
    latest: Measurement
    action: Action
    reconstruction: Reconstruction
    potential: Float[Tensor, "B h w"]
    memory: Memory
    scattered: Float[Tensor, "B K"]
    seconds: dict[str, float] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """As a notebook shows it: the first specimen's phase inside the scan field."""
        facts = {
            "sub-sequences": f"{self.number}",
            "positions": f"{self.seen.positions.shape[1]}, of which {self.latest.positions.shape[1]} are new",
            "counts so far": f"{float(self.seen.dose[0].sum()):.4g}",
            "loss": f"{float(self.reconstruction.loss[0, -1]):.4g} per position",
            "seconds": ", ".join(f"{name} {spent:.2g}" for name, spent in self.seconds.items()),
        }
        return card("Scan", facts, self.potential[0].detach().cpu().numpy())


def run(
    microscope: Microscope,
    scanner: Scanner,
    reconstructor: Reconstructor,
    lengths: Sequence[int],
    *,
    seed: int,
    warm: bool = False,
) -> Iterator[State]:
    """One scan on every specimen of the microscope, yielding the state after each sub-sequence.

    Args:
        microscope: gives patterns for positions.
        scanner: says where to go next.
        reconstructor: turns patterns into a potential, whose geometry the microscope shares.
        lengths: number of positions of each sub-sequence.
        seed: of all randomness in the scan.
        warm: go on from the last reconstruction instead of from zero.
    """
    state: State | None = None
    for number in range(len(lengths)):
        state = advance(state, microscope, scanner, reconstructor, lengths, seed=seed, number=number, warm=warm)
        yield state


def advance(
    state: State | None,
    microscope: Microscope,
    scanner: Scanner,
    reconstructor: Reconstructor,
    lengths: Sequence[int],
    *,
    seed: int,
    number: int,
    warm: bool = False,
) -> State:
    """Takes one sub-sequence: decide, acquire, reconstruct."""
    started = time.perf_counter()
    memory = None if state is None else state.memory
    action, memory = decide(observe(state, microscope, lengths, number), memory, scanner, seed=seed, number=number)
    decided = time.perf_counter()
    latest = microscope.acquire(action, generator=stream(seed, number + BEAM))
    acquired = time.perf_counter()
    after = absorb(state, action, memory, latest, microscope.setup, reconstructor, warm=warm)
    return replace(after, seconds={"decide": decided - started, "acquire": acquired - decided, **after.seconds})


def decide(seen: Observation, memory: Memory, scanner: Scanner, *, seed: int, number: int) -> tuple[Action, Memory]:
    """Where sub-sequence `number` goes, and the memory to hand back to the scanner."""
    action, memory = scanner(seen, memory, generator=stream(seed, number))
    if action.positions.shape[1] != seen.count:
        raise ValueError(f"scanner: expected {seen.count} positions for sub-sequence {number}, got {action.positions.shape[1]}")
    return action, memory


def absorb(
    state: State | None,
    action: Action,
    memory: Memory,
    latest: Measurement,
    setup: Setup,
    reconstructor: Reconstructor,
    *,
    warm: bool = False,
) -> State:
    """The state after a sub-sequence was measured: everything seen is reconstructed."""
    started = time.perf_counter()
    seen = latest if state is None else state.seen + latest
    reconstruction = reconstructor(seen, state.reconstruction if state is not None and warm else None)
    potential = setup.crop(reconstruction.phase)
    seconds = {"reconstruct": time.perf_counter() - started}
    dark = scattered(latest, setup) if state is None else torch.cat([state.scattered, scattered(latest, setup)], 1)
    number = 1 if state is None else state.number + 1
    return State(number, seen, latest, action, reconstruction, potential, memory, dark, seconds)


def observe(state: State | None, microscope: Look, lengths: Sequence[int], number: int) -> Observation:
    """What the scanner may know before sub-sequence `number`."""
    setup, batch = microscope.setup, microscope.batch
    if state is None:
        potential, positions, dose = torch.zeros(batch, *setup.field_shape), torch.zeros(batch, 0, 2), torch.zeros(batch, 0)
        probe, dark = setup.probe_radius(), dose
    else:
        potential, positions, dose = state.potential, state.seen.positions, state.seen.dose
        probe, dark = setup.probe_radius(defocus=float(state.latest.defocus[0, -1])), state.scattered
    return Observation(potential, positions, dose, setup.field, probe, setup.resolution, lengths[number], sum(lengths), dark)


def scattered(seen: Measurement, setup: Setup) -> Float[Tensor, "B K"]:
    """Fraction of the dose that each pattern has outside the bright-field disc: a dark-field signal."""
    outside = setup.dark_field(device=seen.patterns.device)
    return (seen.patterns.to(seen.dose.dtype) * outside).sum((-2, -1)) / seen.dose.clamp(min=1e-30)


def stream(seed: int, number: int) -> torch.Generator:
    """The generator of one sub-sequence, the same whenever it is asked for."""
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % (1 << 63))


def split_evenly(total: int, parts: int) -> list[int]:
    """Lengths of `parts` sub-sequences that add up to `total`, the longer ones first."""
    if not 1 <= parts <= total:
        raise ValueError(f"subsequences: expected 1 to {total} for {total} positions, got {parts}")
    return [total // parts + (i < total % parts) for i in range(parts)]
