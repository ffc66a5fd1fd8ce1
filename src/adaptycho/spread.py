"""Many independent tasks on the cores of this machine, or on a Dask cluster (extra `dask`)."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
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
    # Forking would copy the locks of threads that are at work.
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"))
    try:
        futures = {pool.submit(_on_one_thread, function, task): i for i, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise ValueError("workers: expected every process to live, found one that died, perhaps for want of memory") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
