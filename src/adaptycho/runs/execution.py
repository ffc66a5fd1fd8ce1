"""Scanning into a run folder: the loop at a microscope with everything that stands between them.

From the inside: the microscope, the limits in front of it (`adaptycho.instruments.guard`), the journal that keeps what it records
(`adaptycho.runs.journal`), the loop (`adaptycho.scan.episode`), and around the scanner the orders that people give
(`adaptycho.runs.steering`).
"""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from adaptycho.instruments import Computed, calibration
from adaptycho.runs import checks, checksums, spent, steering
from adaptycho.runs.journal import Journal, write_arrays
from adaptycho.runs.results import units, write_result
from adaptycho.runs.scans import Run, read_reference
from adaptycho.runs.scores import SCORES, Scores, score
from adaptycho.scan.episode import State, run, stream
from adaptycho.scan.overlap import run_overlapped
from adaptycho.scan.policies.learned import Learned
from adaptycho.settings import build
from adaptycho.support.atomic import alone

_CHECK = 17  # keeps the random numbers of a calibration apart from those of the scan


def execute(target: Run, device: torch.device | str = "cpu") -> Iterator[State]:
    """Runs or goes on with a scan, yielding the state after each sub-sequence; at the end the folder holds the result.

    The microscope is closed at the end, also of a scan that fails or that nobody goes on with. A scan told to stop has no result.

    Args:
        target: the run.
        device: where patterns are simulated and reconstructed, and learned policies decide.

    Raises:
        ValueError: another process is at work on the run, or the recording that is replayed is not the one that the run began with; or a
            limit of the settings is in the way.
    """
    with closing(target), alone(target.path):
        yield from _execute(target, torch.device(device))


def _execute(target: Run, device: torch.device) -> Iterator[State]:
    checksums.check_sources(target.path, target.provenance, target.settings)
    (target.path / "states").mkdir(exist_ok=True)
    checks.check_session(target.settings, target.kind, target.microscope)
    chosen, setup = target.settings, target.microscope.setup
    reference = _reference(target)
    unknown = torch.full((target.microscope.batch,), math.nan)
    microscope = target.microscope.to(device) if isinstance(target.microscope, Computed) else target.microscope
    microscope = spent.guarded(microscope, target)
    part = target.kind.capabilities.calibrate if chosen.safety.calibrate is None else chosen.safety.calibrate
    if part and not target.recorded:
        calibration.check(microscope, part=part, generator=stream(chosen.scan.seed, -_CHECK))
    journal = Journal(microscope, target.path / "subsequences", target.provenance.settings or "", device)
    scanner, descent = build.scanner(chosen), build.reconstructor(chosen, setup, target.subject.counts_per_electron)
    scanner = scanner.to(device) if isinstance(scanner, Learned) else scanner
    steered = steering.Steered(scanner, target.path, chosen.scan.seed)
    try:
        loop = run_overlapped if chosen.scan.overlap else run
        for state in loop(journal, steered, descent, target.lengths, seed=chosen.scan.seed, warm=chosen.scan.warm):
            decided = state.seconds["decide"] - steered.waited.pop(state.number - 1, 0.0)
            state = replace(state, seconds={**state.seconds, "decide": decided})
            scores = Scores(unknown, unknown, unknown) if reference is None else score(state.potential.cpu(), reference)
            _write_state(target.path / "states" / f"{state.number - 1:03d}.h5", state, scores)
            yield state
    except steering.Stopped:
        return
    write_result(target.path / "result.h5", setup, state.reconstruction)


def _reference(target: Run) -> Tensor | None:
    """As it is on disk, else as the microscope knows it; None if nobody does."""
    if not target.referenced:
        if (known := target.microscope.reference()) is None:
            return None
        checks.check_reference(known, target.microscope.setup, target.microscope.batch)
        write_arrays(target.path / "reference.h5", {"phase_in_field": known}, units(target.microscope.setup))
    return read_reference(target)


def _write_state(path: Path, state: State, scores: Scores) -> None:
    arrays = {"phase_in_field": state.potential, "loss": state.reconstruction.loss}
    named = {f"scores/{k}": getattr(scores, k) for k in SCORES}
    seconds = {f"seconds/{k}": torch.tensor(v, dtype=torch.float64) for k, v in state.seconds.items()}
    write_arrays(path, arrays | named | seconds, {})
