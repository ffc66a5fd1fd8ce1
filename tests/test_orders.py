"""Orders to a running scan: obeyed between sub-sequences, kept for a run that is taken up, and never a reason to fail."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from adaptycho.app.cli import program
from adaptycho.runs import orders, steering
from adaptycho.runs.execution import execute
from adaptycho.runs.orders import Order
from adaptycho.runs.scans import Run
from adaptycho.settings import Settings, preset, update

COUNT = 4
TINY = {
    "geometry": {"field": [8.0, 6.0], "object": "auto"},
    "scan": {"positions": 16, "subsequences": COUNT, "seed": 3, "policy": "random"},
    "reconstruct": {"iterations": 1, "reference_side": 3},
}


def tiny(policy: str = "random") -> Settings:
    return update(update(preset("light"), TINY, "tiny"), {"scan": {"policy": policy}}, "test")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "SHORTEST", 0.01)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", tiny())


def give(run: Run, word: str, number: int | None = None, attempt: int | None = None) -> None:
    orders.give(run.path, Order(word=word, number=number, attempt=attempt))  # type: ignore[arg-type]


def finish(run: Run) -> int:
    return len(list(execute(run)))


def requested(folder: Path) -> np.ndarray:
    parts = []
    for path in sorted((folder / "subsequences").glob("???.h5")):
        with h5py.File(path) as file:
            parts.append(file["requested"][0])
    return np.concatenate(parts)


def result(folder: Path) -> bytes:
    with h5py.File(folder / "result.h5") as file:
        return file["potential"][()].tobytes() + requested(folder).tobytes()


def until(condition: object) -> None:
    end = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


def doing(run: Run) -> tuple[str, int, int]:
    status = orders.read_status(run.path)
    return ("", 0, 0) if status is None else (status.doing, status.number, status.attempt)


@pytest.fixture
def background(run: Run) -> Iterator[threading.Thread]:
    """The scan in a thread of its own, which ends with the test at the latest."""
    thread = threading.Thread(target=finish, args=(run,))
    yield thread
    if thread.is_alive():
        give(run, "stop")
        thread.join(20)


def test_a_scan_that_nobody_watches_writes_nothing_of_it_and_one_that_is_watched_is_the_same(run: Run, tmp_path: Path) -> None:
    other = Run.create(tmp_path / "watched", tiny())
    give(other, "trust")
    assert finish(run) == finish(other) == COUNT
    assert not (run.path / "monitor").exists()
    assert doing(other) == ("proposed", COUNT - 1, 0)
    assert result(run.path) == result(other.path)


def test_pause_and_resume(run: Run, background: threading.Thread) -> None:
    scan = execute(run)
    next(scan)
    give(run, "pause")
    thread = threading.Thread(target=lambda: [None for _ in scan])
    thread.start()
    until(lambda: doing(run) == ("paused", 1, 0))
    time.sleep(0.1)
    assert run.recorded == 1
    give(run, "resume")
    thread.join(20)
    assert run.finished
    with h5py.File(run.path / "states" / "001.h5") as file:
        assert file["seconds/decide"][()] < 0.1  # waiting is no decision


def test_a_scan_that_is_stopped_goes_on_as_if_nothing_had_been(run: Run, tmp_path: Path) -> None:
    scan = execute(run)
    next(scan)
    give(run, "stop")
    assert list(scan) == []
    assert doing(run)[0] == "stopped"
    assert not run.finished
    assert run.recorded == 1
    assert finish(Run.open(run.path)) == COUNT  # the order was for the process before
    other = Run.create(tmp_path / "other", tiny())
    finish(other)
    assert result(run.path) == result(other.path)


def test_what_is_rejected_is_proposed_anew_and_a_run_that_is_taken_up_knows(run: Run, background: threading.Thread, tmp_path: Path) -> None:
    give(run, "ask")
    background.start()
    until(lambda: doing(run) == ("waits", 0, 0))
    first = orders.read_status(run.path)
    give(run, "reject", 0, 0)
    give(run, "reject", 0, 0)  # two browsers
    give(run, "approve", 0, 0)  # too late
    until(lambda: doing(run) == ("waits", 0, 1))
    second = orders.read_status(run.path)
    assert first and second and first.positions != second.positions
    assert run.recorded == 0
    give(run, "approve", 0, 1)
    until(lambda: doing(run) == ("waits", 1, 0))
    shutil.copytree(run.path, tmp_path / "copy")  # as a power cut leaves it
    give(run, "trust")
    background.join(20)
    np.testing.assert_allclose(requested(run.path)[:4], np.asarray(second.positions[0]), atol=1e-6)
    copy = Run.open(tmp_path / "copy")
    give(copy, "trust")
    assert finish(copy) == COUNT  # warns, which is an error here, if it would have gone elsewhere
    assert result(copy.path) == result(run.path)


def test_in_place_of_a_policy_without_another_proposal_it_is_random_and_known_again(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "raster", tiny("raster"))
    give(run, "ask")
    give(run, "reject", 0, 0)
    thread = threading.Thread(target=finish, args=(run,))
    thread.start()
    until(lambda: doing(run) == ("waits", 0, 1))
    status = orders.read_status(run.path)
    assert status and status.random
    give(run, "trust")
    thread.join(20)
    assert run.finished
    plain = Run.create(tmp_path / "plain", tiny("raster"))
    finish(plain)
    assert not np.allclose(requested(run.path)[:4], requested(plain.path)[:4])
    assert np.allclose(requested(run.path)[4:], requested(plain.path)[4:])
    before = result(run.path)
    for name in ("states/003.h5", "subsequences/003.h5", "result.h5"):
        (run.path / name).unlink()
    finish(Run.open(run.path))  # warns, which is an error here, if it would have gone elsewhere
    assert result(run.path) == before


def test_what_is_no_order_is_passed_over(run: Run, tmp_path: Path) -> None:
    folder = run.path / "monitor" / "orders"
    give(run, "trust")
    secret = tmp_path / "elsewhere.json"
    secret.write_text('{"word": "stop"}')
    scan = execute(run)
    next(scan)
    wrong = ["", "{", "[]", "null", '{"word": "explode"}', '{"word": 1}', '{"word": "approve"}', '{"word": "pause", "more": 1}', "\0" * 9]
    for number, text in enumerate([*wrong, '{"word": "stop"}' + " " * 5000, '{"word": "approve", "number": -1, "attempt": 0}'], 2):
        (folder / f"{number:06d}.json").write_text(text)
    os.mkfifo(folder / "000050.json")
    (folder / "000051.json").symlink_to(secret)
    (folder / "000052.json").mkdir()
    (folder / "x.json").write_text('{"word": "stop"}')
    (folder / "000053.json.0123456789abcdef.part").write_text('{"word": "stop"}')
    assert len(list(scan)) == COUNT - 1
    assert run.finished


def test_a_status_that_cannot_be_written_is_a_warning(run: Run) -> None:
    (run.path / "monitor" / "status.json").mkdir(parents=True)
    with pytest.warns(UserWarning, match="could not be written"):
        assert finish(run) == COUNT


def test_orders_are_numbered_and_not_without_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = [threading.Thread(target=give, args=(run, "trust")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(orders.numbers(run.path)) == list(range(1, 9))
    assert all(orders.read(run.path, number) == Order(word="trust", at=orders.read(run.path, number).at) for number in range(1, 9))
    monkeypatch.setattr(orders, "MOST", 8)
    with pytest.raises(ValueError, match="expected at most 8 orders"):
        give(run, "trust")


def test_orders_from_the_terminal(run: Run) -> None:
    def told(*words: str) -> object:
        return CliRunner().invoke(program.commands, ["monitor", str(run.path), "--order", *words])

    assert told("pause").output == "order 1: pause\n"
    assert orders.read(run.path, 1).word == "pause"
    assert "expected a scan that waits for a verdict" in str(told("approve").exception)
    (run.path / "monitor" / "status.json").write_text(
        json.dumps({"doing": "waits", "number": 2, "attempt": 1, "positions": [], "random": False, "at": "", "pid": 1, "host": "x"})
    )
    told("reject")
    found = orders.read(run.path, 2)
    assert (found.word, found.number, found.attempt) == ("reject", 2, 1)


def test_a_process_that_is_gone_is_known(run: Run) -> None:
    (run.path / "monitor").mkdir()
    orders.write_status(run.path, {"doing": "proposed", "number": 0, "attempt": 0, "positions": [], "random": False})
    status = orders.read_status(run.path)
    assert status.alive
    gone = subprocess.Popen(["true"])
    gone.wait()
    text = json.loads((run.path / "monitor" / "status.json").read_text())
    (run.path / "monitor" / "status.json").write_text(json.dumps({**text, "pid": gone.pid}))
    assert not orders.read_status(run.path).alive


def test_the_generator_of_a_first_proposal_is_that_of_the_scan(run: Run) -> None:
    generators = []

    def scanner(seen: object, memory: object, *, generator: torch.Generator) -> tuple[object, None]:
        generators.append(generator)
        return orders, None

    steered = steering.Steered(scanner, run.path, 3)  # type: ignore[arg-type]
    mine = torch.Generator()
    (run.path / "subsequences" / "000.h5").touch()
    steered(None, None, generator=mine)  # type: ignore[arg-type]
    assert generators == [mine]
