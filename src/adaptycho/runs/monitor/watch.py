"""A run as it stands: what the page is told, from what is in the folder and nothing else."""

import math
import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from adaptycho.metrics.dose import coverage
from adaptycho.metrics.spots import spots
from adaptycho.physics.exposure import Exposure, highest, local_dose
from adaptycho.runs import orders
from adaptycho.runs.monitor.frames import TASKS, Frame, count, exposure_of, read_frame
from adaptycho.runs.orders import Order, Status
from adaptycho.runs.scans import Run

LINES = 300  # of the log, the last ones
QUIET = 60.0  # seconds without news after which a scan that nobody ever watched may have ended
COARSE = 64  # pixels that tell how much was visited: good to 2 %, and a tenth of the time


@dataclass
class Watch:
    """What has been read of a run so far. It is used by one thread at a time.

    Attributes:
        run: the run.
        limit: electrons per Å² that no part of the field should get more of; None if nobody says.
        frames: one for each sub-sequence.
        problem: why nothing more is read; empty if all is well.
    """

    run: Run
    limit: float | None = None
    frames: list[Frame] = field(default_factory=list, init=False)
    problem: str = field(default="", init=False)
    _phase: Tensor | None = field(default=None, init=False, repr=False)
    _orders: dict[int, Order | None] = field(default_factory=dict, init=False, repr=False)
    _seen: Hashable = field(default=None, init=False, repr=False)
    _probes: dict[float, float] = field(default_factory=dict, init=False, repr=False)

    def look(self) -> bool:
        """Reads what is new; says whether anything is."""
        status = orders.read_status(self.run.path)
        there = (count(self.run, "subsequences"), count(self.run, "states"), len(orders.numbers(self.run.path)), self._finished())
        seen = (*there, self._silent(status), status and (status.at, status.doing, status.number, status.attempt, status.alive))
        if seen == self._seen:
            return False
        for number in orders.numbers(self.run.path):
            if number not in self._orders:
                self._orders[number] = orders.read(self.run.path, number)
        try:
            while not self.problem and len(self.frames) < min(there[1], len(self.run.lengths)):
                frame, self._phase = read_frame(self.run, len(self.frames), self._phase)
                self.frames.append(frame)
        except (OSError, ValueError) as error:
            self.problem = str(error)
        self._seen = seen
        return True

    @property
    def content(self) -> Hashable:
        """What tells one answer of `specimen` from another."""
        status = orders.read_status(self.run.path)
        return len(self.frames), status and (status.number, status.attempt)

    def facts(self) -> dict[str, Any]:
        """Where the scan stands, ready for JSON."""
        status, taken, setup = orders.read_status(self.run.path), count(self.run, "subsequences"), self.run.setup
        total, last = len(self.run.lengths), self.frames[-1] if self.frames else None
        return {
            "name": self.run.path.resolve().name,
            "title": f"{self.run.kind.verb}: {self.run.subject.title}",
            "policy": self.run.settings.scan.policy,
            "field": list(setup.field),
            "specimens": self.run.batch,
            "limit": self.limit,
            "doing": self._doing(status, taken),
            "asks": self._asks(),
            "controlled": self.controlled(),
            "proposal": None if status is None else {"number": status.number, "attempt": status.attempt, "random": status.random},
            "done": len(self.frames),
            "subsequences": total,
            "positions": sum(self.run.lengths[: len(self.frames)]),
            "positions_total": sum(self.run.lengths),
            "seconds": [[frame.seconds[task] for task in TASKS] for frame in self.frames],
            "seconds_left": None if last is None or not self.controlled() else sum(last.seconds.values()) * (total - len(self.frames)),
            "problem": self.problem,
            "log": self._log(),
        }

    def controlled(self) -> bool:
        """Whether anybody may be there to take orders; of a scan that has not said anything yet that is believed."""
        status = orders.read_status(self.run.path)
        return not self._finished() and (status is None or (status.alive and status.doing != "stopped"))

    def asked(self) -> tuple[int, int] | None:
        """Sub-sequence and proposal that the scan waits for a verdict on."""
        status = orders.read_status(self.run.path)
        return (status.number, status.attempt) if status is not None and status.doing == "waits" else None

    def specimen(self, b: int) -> dict[str, Any]:
        """One specimen: positions, dose, quality. Nan is None."""
        frames, setup = self.frames, self.run.setup
        sent, probe = exposure_of(frames, b), self.probe(frames, b)
        positions, dose = sent.positions[0], sent.electrons[0]
        spread, total = local_dose(setup, sent), float(sent.total)
        peak = float(highest(setup, spread))
        each = float(dose.mean()) if len(dose) else self._nominal()
        left = sum(self.run.lengths) - len(positions)
        proposed = self._proposed(b)
        found = {
            "taken": [[round(v, 5) for v in row] for row in positions.tolist()],
            "counts": [frame.positions.shape[1] for frame in frames],
            "proposed": [[round(v, 5) for v in row] for row in proposed.tolist()],
            "electrons": total,
            "electrons_left": None if each is None else left * each,
            "mean_dose": total / math.prod(setup.field),
            "peak_dose": peak,
            "peak_proposed": self._after(spread, proposed, each, frames[-1].defocus[b, -1] if frames else None),
            "above": None if self.limit is None else peak > self.limit,
            "coverage": coverage(positions, setup.field, probe, pixels=COARSE).fraction if len(positions) else 0.0,
            "probe": probe,
            "loss": [frame.loss[b] for frame in frames],
            "agreement": [frame.agreement[b] for frame in frames],
            "resolution": None if self._phase is None else spots(self._phase[b], setup.object.pixel).resolution,
            "scores": {name: [frame.scores[name][b] for frame in frames] for name in (frames[-1].scores if frames else ())},
        }
        return {name: _json(value) for name, value in found.items()}

    def probe(self, frames: list[Frame], b: int) -> float:
        """Radius in Å that holds half of the beam's electrons, at the defocus of most positions."""
        defocus = float(torch.cat([f.defocus[b] for f in frames]).median()) if frames else self.run.setup.aberrations.defocus
        if defocus not in self._probes:
            self._probes[defocus] = self.run.setup.probe_radius(defocus=defocus)
        return self._probes[defocus]

    def _after(self, spread: Tensor, proposed: Tensor, each: float | None, defocus: Tensor | None) -> float | None:
        """Peak dose if what is proposed is taken, as the last was."""
        if each is None or not len(proposed):
            return None
        sent, setup = torch.full((1, len(proposed)), each), self.run.setup
        focus = torch.full_like(sent, setup.aberrations.defocus if defocus is None else float(defocus))
        return float(highest(setup, spread + local_dose(setup, Exposure(proposed[None], sent, focus))))

    def _nominal(self) -> float | None:
        """Electrons of a position before any was taken, where the settings decide."""
        return self.run.settings.scan.dose if self.run.kind.capabilities.dose else None

    def _proposed(self, b: int) -> Tensor:
        """Positions that are proposed and not taken yet."""
        status = orders.read_status(self.run.path)
        new = status is not None and status.number >= len(self.frames) and len(status.positions) > b
        return torch.tensor(status.positions[b] if new and status else [], dtype=torch.float64).reshape(-1, 2)

    def _doing(self, status: Status | None, taken: int) -> str:
        """In one word of the page."""
        done = len(self.frames)
        if self.problem:
            return "problem"
        if self._finished():
            return "finished"
        if status is not None and (status.doing == "stopped" or not status.alive):
            return "stopped" if status.doing == "stopped" else "ended"
        if status is not None and status.doing in ("paused", "waits") and status.number >= done:
            return status.doing
        if self._silent(status):
            return "silent"
        if taken > done:
            return "reconstructs"
        return "acquires" if status is not None and status.number == done else "decides"

    def _silent(self, status: Status | None) -> bool:
        """Whether a scan that says nothing of itself has written nothing for long: its process may have ended."""
        if status is not None or self._finished():
            return False
        folders = [self.run.path, *(self.run.path / name for name in ("subsequences", "states"))]
        newest = max((folder.stat().st_mtime for folder in folders if folder.is_dir()), default=0.0)
        usual = max((sum(frame.seconds.values()) for frame in self.frames), default=0.0)
        return time.time() - newest > max(QUIET, 5 * usual)

    def _finished(self) -> bool:
        return (self.run.path / "result.h5").is_file()

    def _asks(self) -> bool:
        words = [order.word for _, order in sorted(self._orders.items()) if order and order.word in ("ask", "trust")]
        return bool(words) and words[-1] == "ask"

    def _log(self) -> list[dict[str, str]]:
        total = len(self.run.lengths)
        lines = [(self.run.provenance.created, "the scan began")]
        for number, frame in enumerate(self.frames, 1):
            times = ", ".join(f"{task} {frame.seconds[task]:.3g} s" for task in TASKS)
            lines.append((frame.at, f"sub-sequence {number} of {total}: {frame.positions.shape[1]} positions; {times}"))
        for order in self._orders.values():
            of = "" if order is None or order.number is None else f" sub-sequence {order.number + 1}, proposal {(order.attempt or 0) + 1}"
            lines.append(("", "an order that is none was passed over") if order is None else (order.at, f"order: {order.word}{of}"))
        if self.problem:
            lines.append(("", self.problem))
        return [{"at": at, "text": text} for at, text in sorted(lines, key=lambda line: line[0] or "9")][-LINES:]


def _json(value: Any) -> Any:
    """Without nan and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_json(each) for each in value]
    return {name: _json(each) for name, each in value.items()} if isinstance(value, dict) else value
