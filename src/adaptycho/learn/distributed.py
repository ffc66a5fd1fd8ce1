"""Who takes part in a training: one process, or several on this machine that share each batch (Lightning Fabric)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """The processes that share a batch.

    Attributes:
        fabric: Lightning Fabric in this process, or None if it is alone.
    """

    fabric: Any = None

    @property
    def rank(self) -> int:
        """Number of this process; 0 writes and reports."""
        return 0 if self.fabric is None else int(self.fabric.global_rank)

    @property
    def size(self) -> int:
        """Number of processes."""
        return 1 if self.fabric is None else int(self.fabric.world_size)

    def mine(self, parts: int) -> range:
        """The shares of a batch that are this process's work."""
        return range(self.rank, parts, self.size)

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor, in place, by its sum over all processes; one message for all of them."""
        found = list(tensors)
        if self.fabric is None or not found:
            return
        flat = torch.cat([t.flatten() for t in found])
        total = self.fabric.all_reduce(flat, reduce_op="sum")
        for tensor, part in zip(found, total.split([t.numel() for t in found]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Waits until every process is here."""
        if self.fabric is not None:
            self.fabric.barrier()


def together(work: Callable[..., Any], processes: int, *arguments: Any) -> Any:
    """Runs `work(group, *arguments)` in so many processes, one thread each, and returns what the first of them returns.

    Args:
        work: what to do; importable by name, since other processes have to find it.
        processes: how many; 1 stays in this process, with its threads.
        arguments: for the work; anything that can be pickled.

    Raises:
        ValueError: Lightning Fabric is needed and not installed.
    """
    if processes == 1:
        return work(Group(), *arguments)
    check_fabric()
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=processes, strategy="ddp_spawn")
    return fabric.launch(_work, work, *arguments)  # type: ignore[arg-type]  # Fabric hands on more arguments than its types say


def check_fabric() -> None:
    """Finds out whether Lightning Fabric is there.

    Raises:
        ValueError: it is not installed.
    """
    if find_spec("lightning_fabric") is None:
        raise ValueError("train.processes: expected Lightning Fabric to be installed (`pip install 'adaptycho[train]'`), found none")


def _work(fabric: Any, work: Callable[..., Any], *arguments: Any) -> Any:
    torch.set_num_threads(1)
    return work(Group(fabric), *arguments)
