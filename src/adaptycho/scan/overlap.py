"""The loop with a microscope that never waits: the next sub-sequence is taken while the last one is reconstructed.

What is decided meanwhile rests on a picture without the sub-sequence that is under way; where its positions go is known. The second
sub-sequence waits for the picture of the first, since nothing at all would be known before.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from adaptycho.instruments import Microscope
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.scan.episode import BEAM, State, absorb, decide, observe, stream
from adaptycho.types import Action, Measurement, Memory, Observation, Scanner


def run_overlapped(
    microscope: Microscope,
    scanner: Scanner,
    reconstructor: Reconstructor,
    lengths: Sequence[int],
    *,
    seed: int,
    warm: bool = False,
) -> Iterator[State]:
    """One scan on every specimen of the microscope, yielding the state after each sub-sequence, as `adaptycho.scan.episode.run`.

    The microscope is asked from another thread, one call after the other. It finishes the sub-sequence under way before an error of the
    scanner or the end of the iteration is handed on.

    Args:
        microscope: gives patterns for positions.
        scanner: says where to go next.
        reconstructor: turns patterns into a potential, whose geometry the microscope shares.
        lengths: number of positions of each sub-sequence.
        seed: of all randomness in the scan.
        warm: go on from the last reconstruction instead of from zero.

    Yields:
        States whose `seconds` have `idle` besides: how long the microscope stood still before the sub-sequence.
    """

    def choose(state: State | None, under_way: _Asked | None, number: int) -> _Asked:
        began, seen = time.perf_counter(), observe(state, microscope, lengths, number)
        memory = None if state is None else state.memory
        if under_way is not None:
            seen, memory = foresee(seen, under_way.action), under_way.memory
        return _Asked(*decide(seen, memory, scanner, seed=seed, number=number), time.perf_counter() - began)

    def acquire(action: Action, number: int) -> tuple[Measurement, float, float]:
        began = time.perf_counter()
        return microscope.acquire(action, generator=stream(seed, number + BEAM)), began, time.perf_counter()

    state, free = None, time.perf_counter()
    with ThreadPoolExecutor(1, "microscope") as beam:
        asked = choose(None, None, 0)
        under_way = beam.submit(acquire, asked.action, 0)
        for number in range(len(lengths)):
            more = number + 1 < len(lengths)
            following = choose(state, asked, number + 1) if more and number else None
            latest, began, ended = under_way.result()
            if following is not None:
                under_way = beam.submit(acquire, following.action, number + 1)
            state = absorb(state, asked.action, asked.memory, latest, microscope.setup, reconstructor, warm=warm)
            seconds = {"decide": asked.seconds, "acquire": ended - began, "idle": began - free, **state.seconds}
            yield replace(state, seconds=seconds)
            if more and following is None:
                following = choose(state, None, number + 1)
                under_way = beam.submit(acquire, following.action, number + 1)
            asked, free = following or asked, ended


def foresee(seen: Observation, action: Action) -> Observation:
    """What may be known while a sub-sequence is under way: where it goes and with which dose, as if each scattered as its neighbour did.

    Args:
        seen: without it.
        action: what was asked for in it.
    """
    new = action.positions.detach().clamp(0, 1).to(seen.positions)
    same = seen.dose[:, -1:].expand(new.shape[:2])
    dose = same if action.dose is None else torch.as_tensor(action.dose, dtype=same.dtype, device=same.device).expand(new.shape[:2])
    scattered = seen.scattered
    if scattered is not None:
        size = torch.tensor(seen.field, dtype=new.dtype, device=new.device)
        near = torch.cdist(new * size, seen.positions * size).argmin(-1)
        scattered = torch.cat([scattered, scattered.gather(1, near)], 1)
    return replace(seen, positions=torch.cat([seen.positions, new], 1), dose=torch.cat([seen.dose, dose], 1), scattered=scattered)


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a sub-sequence was asked for."""

    action: Action
    memory: Memory
    seconds: float
