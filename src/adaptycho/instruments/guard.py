"""The limits of a scan, in front of a microscope: a request that would break one is refused before an electron is sent.

Everything that is sent is counted: what was recorded as it is reported, what was asked for and did not come as if all of it had been sent,
what was sent in frames that are thrown away, and what reaches the specimen while nothing is asked for. Every request is noted before it is
sent, so that what a process sent that was killed is counted too.
"""

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from adaptycho.instruments import Besides, Computed, Dosed, Parking, Session
from adaptycho.physics.exposure import Exposure, highest, local_dose
from adaptycho.physics.optics import Setup
from adaptycho.types import Action, Measurement


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What no request may do; None for no limit.

    Attributes:
        outside: Å that a position may lie outside the field.
        dose: electrons for each specimen in all.
        local: electrons per Å² anywhere.
        jump: Å from one position to the next.
        seconds: for one sub-sequence.
    """

    outside: float | None = None
    dose: float | None = None
    local: float | None = None
    jump: float | None = None
    seconds: float | None = None

    @property
    def counting(self) -> bool:
        """Whether electrons have to be known before they are sent."""
        return self.dose is not None or self.local is not None


@dataclass(frozen=True, eq=False)
class Outlook:
    """What a request would lead to, together with all that was sent before; of several specimens, of the worst.

    Attributes:
        action: the request.
        outside: Å that a position lies outside the field.
        jump: Å of the longest way from one position to the next.
        dose: electrons in all; NaN if nobody tells how many will be sent.
        local: electrons per Å² where there are most, an upper bound; NaN likewise, or if there is no limit to it.
    """

    action: Action
    outside: float
    jump: float
    dose: float
    local: float


class Unfinished(ValueError):
    """A sub-sequence that did not come whole; what came of it is worth keeping, for the electrons were spent.

    Attributes:
        answer: what came; None if nothing did.
    """

    def __init__(self, sentence: str, answer: Measurement | None = None) -> None:
        super().__init__(sentence)
        self.answer = answer


@dataclass(eq=False)
class Guard:
    """A microscope that keeps limits.

    Attributes:
        session: the microscope.
        limits: to keep.
        electrons: sent to each position, where neither the request nor the microscope tells.
        counts_per_electron: to compare reported doses with electrons.
        waiting: electrons per second that reach the specimen while nothing is asked for, unless the microscope parks the beam.
        note: is told what is about to be sent, or, with False, what was sent without being asked for, and returns when that is safe.
        spent: what was sent before.
        clock: seconds.
    """

    session: Session
    limits: Limits
    electrons: float | None = None
    counts_per_electron: float = 1.0
    waiting: float = 0.0
    note: Callable[[Exposure, bool], None] = lambda exposure, asked: None
    spent: Sequence[Exposure] = ()
    clock: Callable[[], float] = time.monotonic
    _dose: Tensor = field(init=False, repr=False)
    _local: Tensor | float = field(default=0.0, init=False, repr=False)
    _last: Tensor | None = field(default=None, init=False, repr=False)  # where the beam was left, (B, 2)
    _since: float = field(default=0.0, init=False, repr=False)
    _parked: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self._dose = torch.zeros(self.batch, dtype=torch.float64)
        if isinstance(self.session, Dosed):
            self.electrons = max(self.electrons or 0.0, float(self.session.dose))
        if self.limits.counting and self.electrons is None:
            raise ValueError(
                "safety.electrons: expected the electrons sent to each position, which this microscope does not tell, found none"
            )
        for exposure in self.spent:
            self._count(exposure)
        self._rest()

    @property
    def setup(self) -> Setup:
        """Geometry and beam."""
        return self.session.setup

    @property
    def batch(self) -> int:
        """Number of specimens."""
        return self.session.batch

    def reference(self) -> Tensor | None:
        """What scores refer to."""
        return self.session.reference()

    def close(self) -> None:
        """Lets go of the microscope."""
        self.session.close()

    def outlook(self, action: Action) -> Outlook:
        """What a request would lead to, without sending anything."""
        asked, size = self._asked(action), torch.tensor(self.setup.field, dtype=torch.float64)
        where = action.positions.detach().double().cpu() * size
        outside = (where - where.clamp(torch.zeros(2, dtype=torch.float64), size)).norm(dim=-1).max()
        path = where if self._last is None else torch.cat([(self._last * size)[:, None], where], 1)
        jump = float(path.diff(dim=1).norm(dim=-1).max()) if path.shape[1] > 1 else 0.0
        if self.electrons is None and action.dose is None:
            return Outlook(action, float(outside), jump, math.nan, math.nan)
        local = float(highest(self.setup, self._local + local_dose(self.setup, asked)).max()) if self.limits.local is not None else math.nan
        return Outlook(action, float(outside), jump, float((self._dose + asked.total).max()), local)

    def consider(self, action: Action) -> Outlook:
        """What a request would lead to, if no limit is in the way; nothing is sent.

        Raises:
            ValueError: `safety....: expected ..., found ...`.
        """
        outlook = self.outlook(action)
        self._refuse(outlook)
        return outlook

    def acquire(self, action: Action, *, generator: torch.Generator) -> Measurement:
        """Asks the microscope, if no limit is in the way.

        Raises:
            ValueError: `safety....: expected ..., found ...`, and nothing was sent; or the microscope failed, and the beam is parked.
        """
        self.consider(action)
        if (waited := self._waited()) is not None:
            self._unasked(waited)
            self._since = self.clock()
            self.consider(action)
        asked = self._asked(action)
        self.note(asked, True)
        try:
            answer = self._within(lambda: self.session.acquire(action, generator=generator))
        except BaseException as error:
            self._count(asked)
            self._rest()
            self._besides(0.0)
            if isinstance(error, Exception) and not isinstance(error, (ValueError, OSError)):
                wanted = f"{action.positions.shape[1]} patterns"
                raise ValueError(f"the microscope: expected {wanted}, found {type(error).__name__}: {error}") from error
            raise
        reported = self._reported(answer, asked, action)
        self._count(reported)
        self._rest()
        self._besides(float(reported.electrons.max()))
        return answer

    def _refuse(self, outlook: Outlook) -> None:
        for name, unit in (("outside", "Å outside the scan field"), ("jump", "Å from one position to the next")):
            limit, found = getattr(self.limits, name), getattr(outlook, name)
            if limit is not None and found > limit * (1 + 1e-6) + 1e-6:
                raise ValueError(f"safety.{name}: expected at most {limit:g} {unit}, found {found:.4g}; nothing was sent")
        for name, unit in (("dose", "electrons in all"), ("local", "electrons per Å² anywhere")):
            limit, found = getattr(self.limits, name), getattr(outlook, name)
            if limit is not None and found > limit:
                raise ValueError(f"safety.{name}: expected at most {limit:g} {unit}, found {found:.5g} with this request; nothing was sent")

    def _asked(self, action: Action) -> Exposure:
        positions = action.positions.detach().double().cpu()
        known = action.dose if action.dose is not None else self.electrons or 0.0
        sent = torch.as_tensor(known, dtype=torch.float64).cpu().expand(positions.shape[:2])
        focus = self.setup.aberrations.defocus if action.defocus is None else action.defocus
        return Exposure(positions.clamp(0, 1), sent, torch.full(positions.shape[:2], focus, dtype=torch.float64))

    def _reported(self, answer: Measurement, asked: Exposure, action: Action) -> Exposure:
        """What the microscope says it sent; what was asked for, where it says nothing that can be counted."""
        if not isinstance(answer, Measurement) or answer.positions.shape != asked.positions.shape:
            return asked
        sent = answer.dose.double().cpu() / self.counts_per_electron
        if action.dose is None and self.electrons is not None:  # it sends more than it tells, and will again
            self.electrons = max(self.electrons, float(sent.max()))
        return replace(asked, positions=answer.positions.double().cpu(), electrons=sent, defocus=answer.defocus.double().cpu())

    def _waited(self) -> Exposure | None:
        """What reached the specimen where the beam was left; nothing if the microscope parks it, or has none."""
        if self._last is None or self.waiting == 0 or self._parked or isinstance(self.session, Computed):
            return None
        sent = torch.full((self.batch, 1), self.waiting * (self.clock() - self._since), dtype=torch.float64)
        return Exposure(self._last[:, None], sent, torch.full_like(sent, self.setup.aberrations.defocus))

    def _count(self, exposure: Exposure) -> None:
        if not exposure.positions.shape[1]:
            return
        self._dose = self._dose + exposure.total.cpu()
        if self.limits.local is not None:
            self._local = self._local + local_dose(self.setup, exposure)
        self._last = exposure.positions[:, -1].double().cpu()

    def _unasked(self, exposure: Exposure) -> None:
        self.note(exposure, False)
        self._count(exposure)

    def _besides(self, each: float) -> None:
        """Counts what was sent in frames that were thrown away; as much is reckoned with from then on, beside `each` that was not."""
        found = self.session.besides() if isinstance(self.session, Besides) else None
        if found is None or not found.positions.shape[1]:
            return
        last = self._last
        self._unasked(found)
        self._last = last
        if self.electrons is not None:
            self.electrons = max(self.electrons, each + float(found.electrons.max()))

    def _rest(self) -> None:
        self._parked = self.session.park() if isinstance(self.session, Parking) else False
        self._since = self.clock()

    def _within(self, call: Callable[[], Measurement]) -> Measurement:
        """The answer, if it comes in time; else the beam is parked, and what comes then is kept as of no use to the scan."""
        seconds = self.limits.seconds
        if seconds is None:
            return call()
        box: queue.SimpleQueue[tuple[Measurement | None, BaseException | None]] = queue.SimpleQueue()
        threading.Thread(target=_put, args=(box, call), daemon=True).start()
        late = False
        while True:
            try:
                answer, error = box.get(timeout=seconds)
                break
            except queue.Empty:
                sentence = f"safety.seconds: expected the microscope to answer within {seconds:g} s, found no answer"
                if late:
                    raise Unfinished(sentence) from None
                late = True
                self._rest()
        if late:
            came = error.answer if isinstance(error, Unfinished) else answer
            raise Unfinished(f"safety.seconds: expected the microscope to answer within {seconds:g} s, found a late answer", came)
        if error is not None:
            raise error
        assert answer is not None  # or there is an error
        return answer


def _put(box: "queue.SimpleQueue[tuple[Measurement | None, BaseException | None]]", call: Callable[[], Measurement]) -> None:
    try:
        box.put((call(), None))
    except BaseException as error:  # whatever it is belongs to the thread that waits
        box.put((None, error))
