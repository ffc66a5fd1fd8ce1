"""What every microscope keeps, as tests for whoever brings one.

Nothing here needs pytest, which collects them all the same:

```
class TestBench(Contract):
    capabilities = KIND.capabilities

    def open(self):
        return KIND.open(settings)
```

`broken` runs them without it. Electrons are sent: on an instrument, put its limits or its simulator in front.
"""

import _thread
import signal
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from adaptycho.instruments import Capabilities, Session
from adaptycho.types import Action, Measurement

COUNTS = (1, 7, 65)  # none of them a multiple of what drivers take at once
NEAR = 1e-5  # of the brightest pixel: transforms of other batches differ by rounding in single precision
INTERRUPTED = 0.02  # s


class Contract:
    """The tests; a class of yours says how the microscope is opened.

    Attributes:
        capabilities: what the kind says that it can do.
        echoes: whether positions come back just as they were asked for; an instrument that measures them says False and keeps `reach`.
        reach: Å that a reported position may be from the requested one, if it does not echo; None for any.
        seeded: whether the same generator gives the same patterns; an instrument has its own randomness.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    echoes: ClassVar[bool] = True
    reach: ClassVar[float | None] = None
    seeded: ClassVar[bool] = False

    def open(self) -> Session:
        """Opens the microscope."""
        raise NotImplementedError("open: expected a microscope to test, found none")

    def quiet(self) -> Session | None:
        """Opens it without counting noise, to compare patterns; None if it always has some."""
        return None

    def test_shapes_and_types(self) -> None:
        """K requests are K answers, in single precision, of the detector's shape, also where K fills no batch of the driver's."""
        for count in COUNTS:
            with _opened(self.open) as session:
                found = _take(session, _asked(session.batch, count))
                _equal("positions", tuple(found.positions.shape), (session.batch, count, 2))
                _equal("patterns", tuple(found.patterns.shape), (session.batch, count, *session.setup.detector))
                _equal("lengths", found.lengths.tolist(), [count] * session.batch)
                for name in ("positions", "dose", "defocus"):
                    _equal(f"{name}: type", getattr(found, name).dtype, torch.float32)

    def test_numbers(self) -> None:
        """Counts are finite and from 0 on, doses positive."""
        with _opened(self.open) as session:
            found = _take(session, _asked(session.batch, 9))
            counts = found.patterns.double()
            _holds("patterns: expected finite counts from 0 on, found others", bool((torch.isfinite(counts) & (counts >= 0)).all()))
            _holds("dose: expected more than 0 for each position, found others", bool((found.dose > 0).all()))

    def test_positions_come_back(self) -> None:
        """In the order in which they were asked for, each where the beam was."""
        with _opened(self.open) as session:
            asked = _asked(session.batch, 9)
            found = _take(session, asked).positions
            if self.capabilities.anywhere and self.echoes:
                _holds("positions: expected those that were asked for, in their order, found others", torch.equal(found, asked))
            size = torch.tensor(session.setup.field)
            away = float(((found - asked) * size).norm(dim=-1).max())
            _holds(
                f"positions: expected within {self.reach} Å of the request, found {away:.3g} Å", self.reach is None or away <= self.reach
            )

    def test_duplicates(self) -> None:
        """A position that is asked for twice is there twice."""
        with _opened(self.open) as session:
            asked = _asked(session.batch, 3)[:, torch.tensor([0, 1, 1, 2, 0])]
            found = _take(session, asked)
            if self.echoes:
                _holds("positions: expected a duplicate twice, found others", torch.equal(found.positions[:, 1], found.positions[:, 2]))
            _equal("patterns", found.patterns.shape[1], 5)

    def test_order_of_patterns(self) -> None:
        """Patterns belong to the positions beside which they stand. Asked of a quiet microscope only: noise may look like another order."""
        if (quiet := self.quiet()) is None:
            return
        with _opened(lambda: quiet) as session:
            asked, order = _asked(session.batch, 5), torch.tensor([3, 0, 0, 4])
            whole, some = _take(session, asked), _take(session, asked[:, order])
            near = NEAR * float(whole.patterns.max())
            alike = torch.allclose(some.patterns.double(), whole.patterns[:, order].double(), atol=near)
            _holds("patterns: expected them in the order of the requests, found another", alike)
            differ = not torch.allclose(whole.patterns[:, 0].double(), whole.patterns[:, 3].double(), atol=near)
            _holds("patterns: expected different ones at different positions, found the same", differ)

    def test_bounds(self) -> None:
        """A request outside the field stays at its edge, and is reported there."""
        with _opened(self.open) as session:
            outside = torch.tensor([[-0.2, 0.5], [1.3, 1.1], [0.5, -4.0]]).expand(session.batch, -1, -1)
            found = _take(session, outside).positions
            _holds("positions: expected them inside the field, 0 to 1, found others", bool(((found >= 0) & (found <= 1)).all()))

    def test_a_wrong_batch_or_nan_is_refused(self) -> None:
        """In one sentence, as a ValueError."""
        with _opened(self.open) as session:
            _refused(session, "NaN", torch.full((session.batch, 2, 2), float("nan")))
            _refused(session, "requests for another number of specimens", _asked(session.batch + 1, 2))

    def test_seed(self) -> None:
        """The generator alone decides, where it decides at all."""
        if self.seeded:
            with _opened(self.open) as session:
                asked = _asked(session.batch, 6)
                one, same = (_take(session, asked).patterns for _ in range(2))
                _holds("patterns: expected the same from the same generator, found others", torch.equal(one, same))

    def test_defocus_and_dose(self) -> None:
        """What a scan may choose is as it was chosen."""
        for name in ("defocus", "dose"):
            if getattr(self.capabilities, name):
                with _opened(self.open) as session:
                    found = getattr(_take(session, _asked(session.batch, 2), **{name: 321.0}), name)
                    _holds(f"{name}: expected the 321 that was asked for, found others", bool((found == 321.0).all()))

    def test_cancelled(self) -> None:
        """Interrupted in the middle of a sub-sequence it can be closed, and answers whole when it is opened again."""
        session = self.open()
        try:
            _interrupt(session, _asked(session.batch, 65))
        finally:
            session.close()
        self.test_shapes_and_types()


def broken(contract: Contract) -> list[str]:
    """What a microscope does not keep: a line for each test that fails."""
    found = []
    for name in (name for name in dir(contract) if name.startswith("test_")):
        try:
            getattr(contract, name)()
        except Exception as error:  # also what a driver raises
            found.append(f"{name.removeprefix('test_')}: {error}")
    return found


class _opened:
    """A microscope, closed at the end."""

    def __init__(self, open: Callable[[], Session]) -> None:
        self.session = open()

    def __enter__(self) -> Session:
        return self.session

    def __exit__(self, *error: object) -> None:
        self.session.close()


def _asked(batch: int, count: int) -> Tensor:
    """The same positions for every specimen, all over the field."""
    return torch.rand(1, count, 2, generator=torch.Generator().manual_seed(5)).expand(batch, -1, -1).contiguous()


def _take(session: Session, positions: Tensor, **action: Any) -> Measurement:
    found = session.acquire(Action(positions, **action), generator=torch.Generator().manual_seed(1))
    _holds(f"acquire: expected a Measurement, found {type(found).__name__}", isinstance(found, Measurement))
    return found


def _equal(name: str, found: object, wanted: object) -> None:
    _holds(f"{name}: expected {wanted}, found {found}", found == wanted)


def _holds(sentence: str, kept: bool) -> None:
    if not kept:
        raise AssertionError(sentence)


def _refused(session: Session, what: str, positions: Tensor) -> None:
    try:
        session.acquire(Action(positions), generator=torch.Generator())
    except ValueError:
        return
    raise AssertionError(f"acquire: expected a ValueError for {what}, found an answer")


def _interrupt(session: Session, positions: Tensor) -> None:
    """Acquires until an interruption, as by Ctrl-C, comes in its way; a process in the background may have been started to ignore it."""
    timer = threading.Timer(INTERRUPTED, _thread.interrupt_main)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer.start()
        while True:
            session.acquire(Action(positions), generator=torch.Generator().manual_seed(1))
    except KeyboardInterrupt:
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
