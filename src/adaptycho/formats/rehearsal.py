"""A first look at a file in a process of its own, because a damaged one can make a library run forever or crash.

Neither can be caught where it happens: HDF5 reads a heap whose objects have no size in an endless loop that holds the interpreter. What is
merely wrong raises and is found again by the reader itself, so only an end in time counts here.
"""

import contextlib
import faulthandler
import math
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import h5py

BUSY = 2  # seconds of processor time that a look takes at most: an endless loop is told from a machine that others keep busy
PATIENCE = 60.0  # seconds altogether
READ = 2**25  # bytes of an array that are read in it; larger ones have to be read for longer, and take their chance
DEPTH = 32  # groups inside groups


def rehearse(path: Path, look: Callable[[Path], object] | None = None, kind: str = "HDF5", busy: int = BUSY) -> None:
    """Refuses a file that cannot be read to an end; once in a process for each file as it is.

    Args:
        path: the file.
        look: reads of it what is to be tried, and may raise; by default, everything that is small in an HDF5 file.
        kind: what the file should be.
        busy: seconds of processor time that the look may take.

    Raises:
        ValueError: reading it does not end, or ends the process.
    """
    facts = path.stat()
    if not _ends(path.absolute(), look or _everything, busy, facts.st_ino, facts.st_size, facts.st_mtime_ns):
        raise ValueError(f"{path}: expected a complete {kind} file, found a damaged one: reading it does not end, or crashes")


@lru_cache(maxsize=256)
def _ends(path: Path, look: Callable[[Path], object], busy: int, *_: int) -> bool:
    with warnings.catch_warnings(action="ignore"):  # of threads: the child does not touch them
        child = os.fork()
    if child == 0:
        _play(path, look, busy)
    ended, started, pause = 0, time.monotonic(), 1e-3
    try:
        while not ended and time.monotonic() - started < PATIENCE:
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
            ended, status = os.waitpid(child, os.WNOHANG)
    finally:
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return bool(ended) and not os.WIFSIGNALED(status)


def _play(path: Path, look: Callable[[Path], object], busy: int) -> None:
    """Looks at a file and ends the process."""
    try:
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (busy, busy + 1))
        look(path)
    finally:
        os._exit(0)


def _everything(path: Path) -> None:
    with h5py.File(path, "r") as file:
        _look(file, DEPTH)


def _look(item: h5py.Group | h5py.Dataset, depth: int) -> None:
    with contextlib.suppress(Exception):
        for key in item.attrs:
            with contextlib.suppress(Exception):
                _ = item.attrs[key]
    if isinstance(item, h5py.Dataset):
        with contextlib.suppress(Exception):
            size = (math.prod(item.shape) + math.prod(item.chunks or ())) * item.dtype.itemsize
            if size <= READ and not item.is_virtual and not item.external:
                _ = item[...]
        return
    with contextlib.suppress(Exception):
        for key in item if depth else ():
            with contextlib.suppress(Exception):
                if isinstance(item.get(key, getlink=True), h5py.HardLink):
                    _look(item[key], depth - 1)
