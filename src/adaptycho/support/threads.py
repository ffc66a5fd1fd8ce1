"""Threads, a data set in each, while torch's own rest."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

Map = Callable[..., Iterable[Any]]


@contextmanager
def workers() -> Iterator[Map]:
    """A `map` over `torch.get_num_threads()` threads. Torch's own rest meanwhile: they would compete, and change the rounding."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map if threads > 1 else map
    finally:
        torch.set_num_threads(threads)
