"""A scan that does as it is told: it looks for orders before each sub-sequence, and waits for a verdict if it is asked to.

Whoever gives the orders may vanish at any moment. The scan reads files and needs nobody to answer, but for a verdict that it was told to
wait for; those are given from anywhere (`adaptycho monitor RUN --order trust`).
"""

import json
import os
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from adaptycho.runs import orders
from adaptycho.runs.orders import FOLDER, Order
from adaptycho.scan.episode import stream
from adaptycho.support import document
from adaptycho.support.atomic import whole
from adaptycho.types import Action, Memory, Observation, Scanner

SHORTEST = 0.2  # seconds between two looks for orders
AGAIN = 1_000_000  # keeps the random numbers of a second proposal apart from all others of the scan


class Stopped(Exception):
    """Somebody told the scan to stop."""


@checked(frozen=True)
class _Rejected:
    count: Annotated[int, Field(ge=0, lt=10**6)]


@dataclass
class Steered:
    """A scanner that looks for orders before it is asked for the next sub-sequence.

    A proposal that is rejected is made again with other random numbers, or, if they make no difference to the policy, spread at random over
    the field. How many were is kept, so that a run that is taken up proposes what
    was taken. Orders to pause and to stop are for the process that is at work when they are given.

    Attributes:
        scanner: the one that decides.
        run: folder of the run.
        seed: of all randomness in the scan.
        waited: seconds of the call for a sub-sequence, by its number, that nothing was decided in.
        number: of the next sub-sequence, from 0.
    """

    scanner: Scanner
    run: Path
    seed: int
    waited: dict[int, float] = field(default_factory=dict, init=False)
    number: int = field(default=0, init=False)
    _known: dict[int, Order | None] = field(default_factory=dict, init=False, repr=False)
    _past: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._look()
        self._past = max(self._known, default=0)

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """Where to go next.

        Raises:
            Stopped: somebody said so.
        """
        number, self.number = self.number, self.number + 1
        recorded = os.path.lexists(self.run / "subsequences" / f"{number:03d}.h5")
        if not recorded:
            self._wait_while_paused(number)
        action, after = first = self.scanner(seen, memory, generator=generator)
        if recorded:
            attempt = self._rejected(number)
            return first if not attempt else self._another(seen, memory, number, attempt, action)[0]
        attempt, random = 0, False
        while not self._accepted(action, number, attempt, random):
            attempt += 1
            (action, after), random = self._another(seen, memory, number, attempt, first[0])
        if attempt:
            _keep(self.run / FOLDER / "rejected" / f"{number:03d}.json", attempt)
        return action, after

    def _another(self, seen: Observation, memory: Memory, number: int, attempt: int, first: Action) -> tuple[tuple[Action, Memory], bool]:
        """What is proposed after so many rejections; and whether it is random, since the policy had nothing but its first proposal."""
        generator = stream(self.seed, number + AGAIN * attempt)
        action, after = self.scanner(seen, memory, generator=generator)
        if not torch.equal(action.positions, first.positions):
            return (action, after), False
        positions = torch.rand(first.positions.shape, generator=generator).to(first.positions)
        return (replace(action, positions=positions, log_prob=None, mean=None), after), True

    def _wait_while_paused(self, number: int) -> None:
        began, told = time.perf_counter(), False
        while self._obey(number)[0] == "pause":
            if not told:
                self._say("paused", number)
                told = True
            time.sleep(SHORTEST)
        self._wait(number, began)

    def _accepted(self, action: Action, number: int, attempt: int, random: bool) -> bool:
        """Whether a proposal may be taken; waits for the verdict if there has to be one."""
        began, told = time.perf_counter(), ""
        while True:
            paused, asks = self._obey(number)
            verdict = self._verdict(number, attempt)
            doing = "paused" if paused == "pause" else "waits" if asks == "ask" and not verdict else "proposed"
            if doing != told:
                self._say(doing, number, attempt, action, random)
                told = doing
            if doing == "proposed":
                self._wait(number, began)
                return verdict != "reject"
            time.sleep(SHORTEST)

    def _wait(self, number: int, began: float) -> None:
        self.waited[number] = self.waited.get(number, 0.0) + time.perf_counter() - began

    def _obey(self, number: int) -> tuple[str, str]:
        """The last of pause and resume, and the last of ask and trust.

        Raises:
            Stopped: somebody said so.
        """
        self._look()
        paused, asks = "resume", "trust"
        for given, order in sorted(self._known.items()):
            word = order.word if order else ""
            if word in ("ask", "trust"):
                asks = word
            elif given > self._past and word in ("pause", "resume"):
                paused = word
            elif given > self._past and word == "stop":
                self._say("stopped", number)
                raise Stopped
        return paused, asks

    def _verdict(self, number: int, attempt: int) -> str:
        """The first that was given on a proposal."""
        found = (order for _, order in sorted(self._known.items()) if order is not None)
        return next((order.word for order in found if (order.number, order.attempt) == (number, attempt)), "")

    def _look(self) -> None:
        for number in orders.numbers(self.run):
            if number not in self._known:
                self._known[number] = orders.read(self.run, number)

    def _say(self, doing: str, number: int, attempt: int = 0, action: Action | None = None, random: bool = False) -> None:
        """Says what it is at, if anybody ever wanted to know."""
        if not os.path.isdir(self.run / FOLDER):
            return
        positions = [] if action is None else action.positions.detach().cpu().double().tolist()
        try:
            orders.write_status(self.run, {"doing": doing, "number": number, "attempt": attempt, "positions": positions, "random": random})
        except (OSError, ValueError) as error:
            warnings.warn(f"{self.run / FOLDER}: what the scan is at could not be written ({error}); it goes on", stacklevel=2)

    def _rejected(self, number: int) -> int:
        path = self.run / FOLDER / "rejected" / f"{number:03d}.json"
        return document.read(path, _Rejected).count if os.path.lexists(path) else 0


def _keep(path: Path, count: int) -> None:
    with suppress(FileExistsError):
        path.parent.mkdir(parents=True)
    with whole(path) as part:
        part.write_text(json.dumps({"count": count}), encoding="utf-8")
