"""Spreading work: in this process, over processes, over a Dask cluster; the results are the same."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from adaptycho.support.parallel import cores, spread


def describe(task: int) -> tuple[int, int, int]:
    return task**2, os.getpid(), torch.get_num_threads()


def fail(task: int) -> int:
    if task == 2:
        raise ValueError("positions: expected others, got 2")
    return task


def test_every_result_comes_with_the_number_of_its_task_and_from_one_thread() -> None:
    torch.set_num_threads(2)
    for workers in (1, 2):
        found = dict(spread(describe, [3, 1, 2], workers=workers))
        assert {i: value for i, (value, _, _) in found.items()} == {0: 9, 1: 1, 2: 4}
        assert {threads for _, _, threads in found.values()} == {1}
        assert torch.get_num_threads() == 2
        assert ({pid for _, pid, _ in found.values()} == {os.getpid()}) == (workers == 1)


def test_results_come_one_by_one() -> None:
    """A caller that stops early has what was done so far, and the rest is not done."""
    done = []
    for i, _ in spread(lambda task: done.append(task), [0, 1, 2, 3], workers=1):
        if i == 1:
            break
    assert done == [0, 1]


def test_a_mistake_in_a_worker_is_the_callers() -> None:
    for workers in (1, 2):
        with pytest.raises(ValueError, match="positions: expected others, got 2"):
            list(spread(fail, [1, 2, 3], workers=workers))


def test_nothing_to_do() -> None:
    assert list(spread(fail, [], workers=2)) == []


def test_cores_are_those_this_process_may_use() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_no_scheduler_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"scheduler: expected a Dask scheduler at .*, found none"):
        list(spread(fail, [1], scheduler="nonsense://here"))


WAITING = """
import os, sys, time
from pathlib import Path
from adaptycho.support.parallel import spread

def wait(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(100)

if __name__ == "__main__":
    try:
        list(spread(wait, [sys.argv[1]] * 3, workers=2))
    except KeyboardInterrupt:
        sys.exit(130)
"""


def alive(pid: str) -> bool:
    """Whether a process is there and not only waits to be buried."""
    status = Path("/proc") / pid / "status"
    try:
        return "\nState:\tZ" not in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at processes in /proc")
def test_workers_end_with_their_parent_however_it_ends(tmp_path: Path) -> None:
    """Two workers in the middle of 100 s of work, the third task not begun; Ctrl-C goes to the whole group, as on a terminal."""
    (tmp_path / "waiting.py").write_text(WAITING)
    signals, running = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT), {}
    for sent in signals:
        (folder := tmp_path / sent.name).mkdir()
        command = [sys.executable, str(tmp_path / "waiting.py"), str(folder)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # Where the tests run in the background of a shell Ctrl-C is ignored, and so it would be by what they start.
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        running[sent] = subprocess.Popen(command, **pipes, start_new_session=True, preexec_fn=heard)
    for sent, parent in running.items():
        while len(workers := [p.name for p in (tmp_path / sent.name).iterdir()]) < 2:
            assert parent.poll() is None, parent.stderr.read()
            time.sleep(0.01)
        started = time.monotonic()
        os.killpg(parent.pid, sent) if sent is signal.SIGINT else parent.send_signal(sent)
        _, said = parent.communicate(timeout=30)  # the pipes are closed by the last process that has them
        # Of nothing but ending processes; without the pipe they would take 100 s.
        assert time.monotonic() - started < 10
        while any(map(alive, workers)):  # which closes its pipes before it is gone
            assert time.monotonic() - started < 10, sent
            time.sleep(0.01)
        assert parent.returncode == (130 if sent is signal.SIGINT else -sent)
        if sent is signal.SIGINT:
            assert said == b""


def test_a_caller_that_stops_early_waits_for_nobody() -> None:
    results = spread(time.sleep, [0, 60], workers=2)
    started = time.monotonic()
    assert next(results) == (0, None)
    results.close()
    assert time.monotonic() - started < 30  # of starting processes, not of the 60 s that one of them had to go
