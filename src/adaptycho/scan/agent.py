"""The loop turned inside out, for software that drives the instrument itself: it asks for points and tells what was measured.

`Agent` has the methods that bluesky-adaptive 1.0 wants of an `Optimizer`, one that fails and one that stops, without importing it: one call
of `suggest` is a sub-sequence. A sub-sequence is decided, acquired and reconstructed just as `adaptycho.scan.episode.run` does it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from adaptycho.instruments.bluesky import Axes
from adaptycho.instruments.frames import Frame, collect
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.scan.episode import State, absorb, decide, observe
from adaptycho.types import Action, Memory, Scanner

ID = "_id"  # bluesky-adaptive's name of what tells points apart


@dataclass(eq=False)
class Agent:
    """Suggests where to measure, and takes in what was.

    Points are mappings. A suggestion has an id and what the axes are to read, under their names. What is taken in has the id, the `pattern`
    (counts, zero frequency in the corner), and under the axes' names what they did read; without those, the beam was where it was sent.

    Attributes:
        setup: geometry and beam.
        scanner: says where to go next.
        reconstructor: turns patterns into a potential.
        lengths: number of positions of each sub-sequence.
        axes: where the field lies on the axes.
        dose: counts that a pattern would hold if nothing missed the detector.
        names: of the axes (y, x).
        seed: of all randomness in the scan.
        warm: go on from the last reconstruction instead of from zero.
        state: where the scan stands; None before the first sub-sequence.
    """

    setup: Setup
    scanner: Scanner
    reconstructor: Reconstructor
    lengths: Sequence[int]
    axes: Axes
    dose: float
    names: tuple[str, str] = ("y", "x")
    seed: int = 0
    warm: bool = False
    state: State | None = None
    batch: int = field(default=1, init=False)
    _asked: tuple[Action, Memory] | None = field(default=None, init=False, repr=False)

    @property
    def taken(self) -> int:
        """Sub-sequences that were taken in."""
        return 0 if self.state is None else self.state.number

    def suggest(self, num_points: int | None = None) -> list[dict[str, Any]]:
        """The points of the next sub-sequence; the same again until they were taken in.

        Args:
            num_points: how many are expected, which must be as many as the sub-sequence has.

        Raises:
            ValueError: another number is expected, or the scan is at its end.
        """
        if self.taken >= len(self.lengths):
            raise ValueError(f"suggest: expected at most {len(self.lengths)} sub-sequences, found that all are taken")
        if num_points is not None and num_points != (wanted := self.lengths[self.taken]):
            raise ValueError(f"num_points: expected {wanted} for sub-sequence {self.taken}, found {num_points}")
        if self._asked is None:
            memory = None if self.state is None else self.state.memory
            seen = observe(self.state, self, self.lengths, self.taken)
            self._asked = decide(seen, memory, self.scanner, seed=self.seed, number=self.taken)
        places = self.axes.place(self._wanted(self._asked[0]), self.setup)
        y, x = self.names
        return [{ID: f"{self.taken}-{k}", y: float(a), x: float(b)} for k, (a, b) in enumerate(places)]

    def ingest(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Takes in what was measured at all points of the last suggestion, in any order, and reconstructs.

        Raises:
            ValueError: nothing was suggested, or they are not those points, each once, with patterns of the detector's shape.
        """
        if self._asked is None:
            raise ValueError("ingest: expected points that were suggested, found that none are open")
        (action, memory), suggested = self._asked, self.suggest()
        found = {point.get(ID): point for point in points}
        if len(found) != len(points) or found.keys() != {point[ID] for point in suggested}:
            raise ValueError(f"ingest: expected each of {len(suggested)} suggested points once, found {len(points)} points, not those")
        ordered = [{**asked, **found[asked[ID]]} for asked in suggested]
        where = self.axes.position(np.array([[float(point[name]) for name in self.names] for point in ordered]), self.setup)
        defocus = self.setup.aberrations.defocus
        frames = [
            Frame(k, (y, x), np.asarray(point.get("pattern", ())), self.dose, defocus)
            for k, (point, (y, x)) in enumerate(zip(ordered, where.clip(0, 1).tolist(), strict=True))
        ]
        latest = collect(frames, action, self.setup, first=0, reach=math.inf)
        self.state = absorb(self.state, action, memory, latest, self.setup, self.reconstructor, warm=self.warm)
        self._asked = None

    def register_failures(self, suggestions: Sequence[Mapping[str, Any]]) -> None:
        """Forgets nothing: the same points are suggested again."""

    def should_stop(self) -> tuple[bool, str | None]:
        """Whether all sub-sequences were taken, and why to stop."""
        done = self.taken >= len(self.lengths)
        return done, f"all {len(self.lengths)} sub-sequences were taken" if done else None

    def get_best_points(self) -> list[tuple[Any, Mapping[str, Any], Mapping[str, Any]]]:
        """None: a scan looks for an image and not for a point."""
        return []

    def _wanted(self, action: Action) -> np.ndarray:
        if action.positions.shape[0] != 1 or not bool(torch.isfinite(action.positions).all()):
            raise ValueError(f"scanner: expected finite positions for one specimen, got shape {tuple(action.positions.shape)}")
        return action.positions[0].detach().cpu().double().clamp(0, 1).numpy()
