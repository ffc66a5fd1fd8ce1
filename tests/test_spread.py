"""Spreading work: in this process, over processes, over a Dask cluster; the results are the same."""

import os

import pytest
import torch

from adaptycho.spread import cores, spread


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
