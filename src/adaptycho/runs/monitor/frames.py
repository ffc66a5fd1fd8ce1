"""What is read of a run while it grows: one frame for each sub-sequence, without its patterns."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.metrics import correlation
from adaptycho.physics.exposure import Exposure
from adaptycho.runs.journal import read_arrays
from adaptycho.runs.scans import Run
from adaptycho.runs.scores import SCORES

TASKS = ("decide", "acquire", "reconstruct")


@dataclass(frozen=True, eq=False)
class Frame:
    """What was known after one sub-sequence.

    Attributes:
        positions: of this sub-sequence as they were reported, fractions (y, x) of the field.
        dose: electrons sent to each.
        defocus: underfocus in Å.
        loss: of the reconstruction, for each specimen.
        scores: against the reference, for each specimen; empty without one.
        seconds: by task.
        agreement: correlation of the phase with the one before it; nan for the first.
        at: when it was written, ISO 8601.
    """

    positions: Float[Tensor, "B K 2"]
    dose: Float[Tensor, "B K"]
    defocus: Float[Tensor, "B K"]
    loss: list[float]
    scores: dict[str, list[float]]
    seconds: dict[str, float]
    agreement: list[float]
    at: str


def count(run: Run, folder: str) -> int:
    """Sub-sequences that are in a folder of the run without a gap from the first."""
    try:
        names = set(os.listdir(run.path / folder))
    except OSError:
        return 0
    found = 0
    while f"{found:03d}.h5" in names:
        found += 1
    return found


def read_frame(run: Run, number: int, before: Tensor | None) -> tuple[Frame, Tensor]:
    """One frame and its phase inside the field, (B, h, w).

    Args:
        run: the run.
        number: of the sub-sequence, from 0.
        before: phase after the one before.

    Raises:
        ValueError: a file is damaged or not of this run.
    """
    batch, length = run.batch, run.lengths[number]
    shape = (batch, length)
    taken = read_arrays(
        run.path / "subsequences" / f"{number:03d}.h5", {"positions": (*shape, 2), "dose": shape, "defocus": shape}, sealed=run.sealed
    )
    path = run.path / "states" / f"{number:03d}.h5"
    wanted: dict[str, tuple[int | None, ...]] = {"loss": (batch, None), **{f"scores/{name}": (batch,) for name in SCORES}}
    state = read_arrays(path, wanted | {f"seconds/{name}": () for name in TASKS}, sealed=run.sealed)
    phase = read_phase(run, number)
    alike = [float("nan")] * batch if before is None else correlation(phase, before).tolist()
    scores = {name: state[f"scores/{name}"].tolist() for name in SCORES} if run.referenced else {}
    frame = Frame(
        taken["positions"],
        taken["dose"] / run.subject.counts_per_electron,
        taken["defocus"],
        state["loss"][:, -1].tolist(),
        scores,
        {name: float(state[f"seconds/{name}"]) for name in TASKS},
        alike,
        _written(path),
    )
    return frame, phase


def read_phase(run: Run, number: int) -> Tensor:
    """Phase in rad inside the field after a sub-sequence, (B, h, w)."""
    shape = (run.batch, *run.setup.field_shape)
    path = run.path / "states" / f"{number:03d}.h5"
    return read_arrays(path, {"phase_in_field": shape}, sealed=run.sealed)["phase_in_field"]


def exposure_of(frames: list[Frame], specimen: int) -> Exposure:
    """What was sent to one specimen, (1, P)."""
    nothing = {"positions": torch.zeros(0, 2), "dose": torch.zeros(0), "defocus": torch.zeros(0)}
    parts = [[empty, *(getattr(frame, name)[specimen] for frame in frames)] for name, empty in nothing.items()]
    return Exposure(*(torch.cat(part)[None] for part in parts))


def _written(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
