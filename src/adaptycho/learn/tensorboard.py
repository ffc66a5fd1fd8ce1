"""The curves of a training in TensorBoard, an extra: the same numbers as in the log."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

Show = Callable[[int, Mapping[str, float]], None]


def check() -> None:
    """Finds out whether TensorBoard is there.

    Raises:
        ValueError: it is not installed.
    """
    if find_spec("tensorboard") is None:
        raise ValueError("train.tensorboard: expected TensorBoard to be installed (`pip install 'adaptycho[train]'`), found none")


@contextmanager
def opened(folder: Path, step: int) -> Iterator[Show]:
    """Shows numbers by step in a folder of their own, while it is open.

    Args:
        folder: of one course; TensorBoard shows each as a run.
        step: that the course goes on from; what is there of later ones is no longer shown.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    check()
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder), purge_step=step + 1 if step else 0)

    def show(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    try:
        yield show
    finally:
        writer.close()


def nowhere(step: int, values: Mapping[str, float]) -> None:
    """Shows nothing."""
