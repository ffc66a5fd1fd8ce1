"""The Direct Electron adapter against a fake of deapi's client: a server that takes grid points and gives numbered frames in buffers."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adaptycho.instruments import directelectron
from adaptycho.instruments.contract import Contract
from adaptycho.instruments.description import Frames
from adaptycho.instruments.directelectron import Description, points
from adaptycho.instruments.frames import Streamed
from adaptycho.physics.optics import Setup
from adaptycho.settings import Settings, build, preset, update
from adaptycho.settings.laboratory import DIRECTELECTRON
from adaptycho.types import Action

CURRENT = 10.0  # pA: 62,415 electrons in 1 ms
HEADER, BUFFER = 1024, 4  # bytes before the frames, frames in a buffer


@dataclass
class Server:
    """DE-Server as its client sees it; `numbers` and `frame` say what it gets wrong."""

    takes: bool = True
    late: int = 0
    lost: int = 0
    numbers: Callable[[int], int] = lambda k: k
    frame: Callable[[int, int], np.ndarray] | None = None
    refuses: str = ""
    held: dict[str, Any] = field(default_factory=dict)
    points: list[tuple[int, int]] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    given: int = 0
    stopped: bool = False
    left: bool = False

    def set_property(self, name: str, value: Any) -> bool:
        if name != self.refuses:
            self.held[name] = str(value)
        return True

    def get_property(self, property_name: str) -> Any:
        return self.held.get(property_name, "7")

    def set_xy_array(self, positions: np.ndarray, width: int, height: int) -> bool:
        print("Vals to send:", len(positions))
        assert positions.dtype == np.int32
        assert positions.flags.c_contiguous
        self.points, self.size = [(int(x), int(y)) for x, y in positions], (width, height)
        return self.takes

    def start_acquisition(self, number_of_acquisitions: int, request_movie_buffer: bool) -> None:
        assert (number_of_acquisitions, request_movie_buffer) == (1, True)
        self.given = 0

    def stop_acquisition(self) -> None:
        self.stopped = True

    def get_movie_buffer_info(self) -> Any:
        kind = SimpleNamespace(value=5)
        size = BUFFER * 40 * 36 * 2
        where = {"headerBytes": HEADER, "imageBufferBytes": size, "frameIndexStartPos": 0, "imageStartPos": HEADER}
        return SimpleNamespace(**where, imageW=36, imageH=40, framesInBuffer=BUFFER, imageDataType=kind)

    def get_movie_buffer(self, movieBuffer: Any, movieBufferSize: int, numFrames: int, timeoutMsec: int) -> tuple[Any, int, int, Any]:
        assert movieBufferSize == HEADER + BUFFER * 40 * 36 * 2
        if self.late:
            self.late -= 1
            return SimpleNamespace(value=3), 0, 0, None
        some = self.points[self.given : self.given + BUFFER] if self.given < len(self.points) - self.lost else []
        if not some:
            return SimpleNamespace(value=4), 0, 0, None
        numbers = [self.numbers(self.given + k) for k in range(len(some))]
        frames = np.stack([(self.frame or self.pattern)(x, y) for x, y in some]).astype(np.uint16)
        self.given += len(some)
        held = struct.pack(f"{len(some)}q", *numbers).ljust(HEADER, b"\0") + frames.tobytes()
        return SimpleNamespace(value=5), len(held), len(some), held

    @staticmethod
    def pattern(x: int, y: int) -> np.ndarray:
        """Says where it was taken, in the unscattered beam and the pixel below."""
        frame = np.zeros((40, 36))
        frame[20, 18], frame[21, 18] = y, x
        return frame

    def disconnect(self) -> None:
        self.left = True


@pytest.fixture
def setup() -> Setup:
    return build.setup(chosen())


def chosen(**changes: Any) -> Settings:
    return update(preset("light"), {"geometry": {"field": [8.0, 6.0], "object": "auto"}} | changes, "test")


def described(**keys: Any) -> Description:
    return Description(**{"frames": Frames(exposure=1e-3), "grid": (48, 40), "pitch": 0.25, "corner": (5, 3)} | keys)


def opened(setup: Setup, server: Server, **keys: Any) -> Streamed:
    return directelectron.microscope(setup, described(**keys), CURRENT, server)


def take(microscope: Streamed, wanted: Action) -> Any:
    return microscope.acquire(wanted, generator=torch.Generator())


def ask(count: int) -> Action:
    return Action(torch.rand(1, count, 2, generator=torch.Generator().manual_seed(3)))


class TestContract(Contract):
    """What every microscope keeps."""

    capabilities = DIRECTELECTRON.capabilities
    echoes = False
    reach = 0.25

    def open(self) -> Streamed:
        return opened(build.setup(chosen()), Server())


@pytest.mark.parametrize("late", [0, 3])
def test_patterns_in_order_at_the_grid_points_nearest(setup: Setup, late: int, capsys: pytest.CaptureFixture[str]) -> None:
    server, wanted = Server(late=late), ask(11)
    microscope = opened(setup, server)
    found = take(microscope, wanted)
    rows, columns = found.patterns[0, :, 0, 0], found.patterns[0, :, 1, 0]
    where = torch.stack([(rows - 5) * 0.25 / 8.0, (columns - 3) * 0.25 / 6.0], 1)
    torch.testing.assert_close(found.positions[0], where)
    off = (found.positions - wanted.positions)[0] * torch.tensor(setup.field)
    assert float(off.abs().max()) <= 0.125 + 1e-5  # half a pitch
    assert float(off.abs().max()) > 0.01
    assert server.size == (40, 48)
    driver: Any = microscope.driver
    assert (driver.tally.positions, driver.tally.verified) == (11, 11)
    assert capsys.readouterr().out == ""
    microscope.close()
    assert server.left


def test_a_point_asked_for_twice_is_taken_twice(setup: Setup) -> None:
    positions = torch.tensor([[[0.5, 0.5], [0.5, 0.5], [0.0, 1.0]]])
    found = take(opened(setup, Server()), Action(positions))
    assert torch.equal(found.patterns[0, 0], found.patterns[0, 1])
    assert found.patterns.shape == (1, 3, 32, 32)


def test_positions_stay_in_the_field(setup: Setup) -> None:
    """A field that ends between two grid points: the last one in it is taken, not the nearest outside."""
    found = points(np.array([[1.0, 1.0], [0.0, 0.0]]), setup, described(pitch=0.7))
    assert found.tolist() == [[5 + 11, 3 + 8], [5, 3]]  # 7.7 of 8 Å, 5.6 of 6 Å
    assert float(take(opened(setup, Server(), pitch=0.7), Action(torch.ones(1, 1, 2))).positions.max()) <= 1


def test_what_is_set(setup: Setup) -> None:
    server = Server()
    opened(setup, server)
    assert float(server.held["Frames Per Second"]) == pytest.approx(1000)
    assert server.held["Scan - Enable"] == "On"
    with pytest.raises(ValueError, match=r"DE-Server: expected 'Frames Per Second' to be 1000\.0, found 7"):
        opened(setup, Server(refuses="Frames Per Second"))


def test_a_grid_that_does_not_hold_the_field_is_refused(setup: Setup) -> None:
    with pytest.raises(ValueError, match="grid: expected at least 38 x 28 points for the field, found 37 x 40"):
        opened(setup, Server(), grid=(37, 40))


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (Server(takes=False), "expected it to take 6 points, found that it did not confirm them"),
        (Server(lost=4), r"expected 6 frames, found that it stopped after 4 \(state 4\)"),
        (Server(numbers=lambda k: k + (k > 2)), r"expected frames 0 to 3, found \[0, 1, 2, 4\]"),
        (Server(numbers=lambda k: 3 - k), r"expected frames 0 to 3, found \[3, 2, 1, 0\]"),
        (Server(frame=lambda x, y: np.zeros((40, 36)) - 1), "expected at most 9.362e\\+04 counts in a pattern, from current and exposure"),
    ],
)
def test_what_would_put_patterns_elsewhere_ends_the_scan(setup: Setup, server: Server, said: str) -> None:
    with pytest.raises(ValueError, match=f"DE-Server: {said}"):
        take(opened(setup, server), ask(6))
    assert server.stopped == server.takes


def test_a_server_that_goes_silent_is_given_up(setup: Setup) -> None:
    with pytest.raises(ValueError, match=r"expected 2 frames, found that it stopped after 0 \(state 3\)"):
        take(opened(setup, Server(late=10**9), timeout=0.05), ask(2))


def test_whatever_the_client_raises_is_one_sentence(setup: Setup) -> None:
    server = Server()
    microscope = opened(setup, server)

    def fails(*_: Any) -> Any:
        raise UnboundLocalError("totalBytes")

    server.get_movie_buffer = fails  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="DE-Server: expected frames, found UnboundLocalError: totalBytes"):
        take(microscope, ask(1))


def test_the_kind_and_the_missing_extra(tmp_path: Path) -> None:
    path = tmp_path / "de.toml"
    path.write_text("grid = [64, 64]\npitch = 0.5\n[frames]\nexposure = 1e-3\ncounts_per_electron = 13.0\n", encoding="utf-8")
    settings = chosen(scan={"file": str(path)})
    assert DIRECTELECTRON.look(settings).counts_per_electron == 13
    assert not DIRECTELECTRON.capabilities.anywhere
    with pytest.raises(ValueError, match=r"directelectron: expected deapi \(pip install 'adaptycho\[directelectron\]'\), found none"):
        DIRECTELECTRON.open(settings)
