"""Runs one command in a child of this process, which has everything loaded, under limits of time and memory."""

import contextlib
import gc
import json
import math
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

SECONDS = 10.0  # of processor time: other work on the machine does not count
PATIENCE = 6  # times that: what waits for ever takes no processor time
GROWTH = 2 << 30  # bytes
GUARD = 4 << 30  # bytes of address space beyond what the process has: the machine survives what is judged to be too much
Main = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: exit code; the negative number of the signal that ended it.
        out: stdout.
        err: stderr.
        seconds: of processor time that it took.
        grown: bytes that it became larger by.
        late: whether it was stopped because its time was over.
        results: what it left, as `gather` found it, if it exited with 0.
    """

    code: int
    out: str
    err: str
    seconds: float
    grown: int
    late: bool
    results: Any = None


def run(
    main: Main,
    arguments: Sequence[str],
    folder: Path,
    private: Path,
    gather: Callable[[str], Any] | None = None,
    *,
    seconds: float = SECONDS,
    prepare: Callable[[], None] = lambda: None,
) -> Outcome:
    """Runs `main(arguments)` in the folder.

    Args:
        main: returns the exit code.
        arguments: of the program.
        folder: to work in.
        private: a folder for what the child says.
        gather: looks at stdout and the folder, in the child, if the command exits with 0; gives JSON.
        seconds: of processor time after which it is killed.
        prepare: called in the child first.
    """
    said = [private / name for name in ("out", "err", "results", "resident")]
    for path in said:
        path.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of threads, which all wait
        pid = os.fork()
    if pid == 0:
        _live(main, arguments, folder, said, gather, prepare, math.ceil(seconds))
    late = False
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() - started > PATIENCE * seconds and not late:
            late = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # whom it left behind
    out, err = (path.read_bytes().decode(errors="backslashreplace") if path.exists() else "" for path in said[:2])
    results = json.loads(said[2].read_text()) if said[2].exists() else None
    began = int(said[3].read_text()) if said[3].exists() else 0
    grown = max(usage.ru_maxrss * 1024 - began, 0)
    code, spent = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
    return Outcome(code, out, err, spent, grown, late or code == -signal.SIGXCPU, results)


def _live(
    main: Main, arguments: Sequence[str], folder: Path, said: Sequence[Path], gather: Any, prepare: Callable[[], None], seconds: int
) -> None:
    """The child's life; it does not return."""
    code = 1
    try:
        gc.freeze()  # collecting would copy every page
        os.setsid()
        said[3].write_text(str(_resident()))  # less than the parent's: pages of libraries are mapped when they are needed
        for number, path in enumerate(said[:2], 1):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = _stream(1, "strict"), _stream(2, "backslashreplace")
        limit = _mapped() + GUARD
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(folder)
        prepare()
        code = _ended(main, arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        if code == 0 and gather is not None:
            said[2].write_text(json.dumps(gather(said[0].read_text(encoding="utf-8", errors="backslashreplace"))))
    except BaseException:
        code = 1
        with contextlib.suppress(BaseException):
            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(code)


def _stream(number: int, errors: str) -> TextIO:
    """What the interpreter makes of a file descriptor."""
    return open(number, "w", encoding="utf-8", errors=errors, closefd=False)


def _ended(main: Main, arguments: Sequence[str]) -> int:
    """The exit code, as the interpreter would have it."""
    try:
        return int(main(list(arguments)) or 0)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        return 1


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
