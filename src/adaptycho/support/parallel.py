"""Many independent tasks on the cores of this machine, or on a Dask cluster (extra `dask`).

Processes of this machine end with the one that started them, however it ends: each watches a pipe whose other end only that one holds. They
leave Ctrl-C to it. A Dask cluster is somebody else's: nothing here listens for connections, but what comes back from a scheduler is
unpickled, which can execute anything, so its address has to be one that is trusted as much as the program itself (Dask's own TLS settings
in `DASK_DISTRIBUTED__COMM__...` hold).
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
WAIT = 30  # seconds for the first Dask worker


def spread(
    function: Callable[[T], R], tasks: Sequence[T], *, workers: int | None = None, scheduler: str | None = None
) -> Iterator[tuple[int, R]]:
    """Yields the number of a task and its result as soon as it is there, in any order; every task runs on one thread.

    Args:
        function: what to do; importable by name, so that other processes can find it.
        tasks: what to do it with; anything that can be pickled.
        workers: processes on this machine, one for each core if None; 1 stays in this process.
        scheduler: address of a Dask scheduler (`tcp://host:8786`, or a scheduler file) to send the tasks to instead.

    Raises:
        ValueError: Dask is not installed, or there is no scheduler at the address.
    """
    if scheduler is not None:
        yield from _on_dask(function, tasks, scheduler)
        return
    count = min(workers or cores(), len(tasks))
    if count <= 1:
        for i, task in enumerate(tasks):
            yield i, _on_one_thread(function, task)
        return
    yield from _in_processes(function, tasks, count)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(function: Callable[[T], R], tasks: Sequence[T], count: int) -> Iterator[tuple[int, R]]:
    # Forking would copy the locks of threads that are at work.
    context = get_context("spawn")
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_end_with, initargs=(watched,))
    try:
        with _deaf_children():  # they are started as tasks are handed in
            futures = {pool.submit(_on_one_thread, function, task): i for i, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise ValueError("workers: expected every process to live, found one that died, perhaps for want of memory") from None
    except BaseException:
        held.close()  # nobody waits for what is still being done
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        held.close()
        watched.close()


def _end_with(watched: Connection) -> None:
    """Ends this process as soon as the other end of a pipe is closed, also by a kill of the process that held it."""

    def watch() -> None:
        watched.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that are started in the block do not hear Ctrl-C, not even while they load modules; this one hears it at its end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_dask(function: Callable[[T], R], tasks: Sequence[T], scheduler: str) -> Iterator[tuple[int, R]]:
    try:
        import distributed
    except ImportError:
        raise ValueError("scheduler: expected Dask to be installed (`pip install 'adaptycho[dask]'`), found none") from None
    where: dict[str, Any] = {"scheduler_file": scheduler} if os.path.exists(scheduler) else {"address": scheduler}
    try:
        client = distributed.Client(**where)
    except (OSError, ValueError) as error:
        raise ValueError(f"scheduler: expected a Dask scheduler at {scheduler}, found none ({error})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT)
        except TimeoutError:
            raise ValueError(f"scheduler: expected workers at {scheduler}, found none in {WAIT} s") from None
        futures = {client.submit(_on_one_thread, function, task, pure=False): i for i, task in enumerate(tasks)}
        for future in distributed.as_completed(list(futures)):
            try:
                yield futures[future], future.result()
            except distributed.KilledWorker as error:
                raise ValueError(f"scheduler: expected workers that live, found one that died ({error})") from None


def _on_one_thread(function: Callable[[T], R], task: T) -> R:
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):  # of the linear algebra under NumPy and SciPy
            return function(task)
    finally:
        torch.set_num_threads(before)
