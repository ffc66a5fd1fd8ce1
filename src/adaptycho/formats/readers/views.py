"""Arrays that are stored in pieces, in another order of axes, or on demand, seen as one: what is sliced is read, and nothing else."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Index = int | slice


class Turned:
    """An array with its axes in another order.

    Args:
        values: what is stored.
        order: the stored axis that becomes each axis.
    """

    def __init__(self, values: Any, order: Sequence[int]) -> None:
        self.values, self.order = values, tuple(order)
        self.shape = tuple(values.shape[axis] for axis in self.order)
        self.dtype: np.dtype = values.dtype
        self.chunks = getattr(values, "chunks", None)

    def __getitem__(self, key: Any) -> np.ndarray:
        """A part of it, by numbers and slices."""
        wanted = complete(key, len(self.shape))
        stored: list[Index] = [slice(None)] * len(self.shape)
        for axis, part in zip(self.order, wanted, strict=True):
            stored[axis] = part
        taken = np.asarray(self.values[tuple(stored)])
        left = [axis for axis, part in enumerate(stored) if isinstance(part, slice)]
        return taken.transpose([left.index(axis) for axis, part in zip(self.order, wanted, strict=True) if isinstance(part, slice)])


class Joined:
    """Arrays of one kind, one after the other along their first axis."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = tuple(parts)
        self.starts = np.cumsum([0, *(part.shape[0] for part in parts)]).tolist()
        self.shape = (self.starts[-1], *parts[0].shape[1:])
        self.dtype: np.dtype = parts[0].dtype
        self.chunks = getattr(parts[0], "chunks", None)

    def __getitem__(self, key: Any) -> np.ndarray:
        """A part of it, by numbers and slices."""
        first, *rest = complete(key, len(self.shape))
        if isinstance(first, int):
            index = first + self.shape[0] if first < 0 else first
            if not 0 <= index < self.shape[0]:
                raise IndexError(f"expected a pattern below {self.shape[0]}, got {first}")
            part = int(np.searchsorted(self.starts, index, "right")) - 1
            return np.asarray(self.parts[part][(index - self.starts[part], *rest)])
        begin, end, stride = first.indices(self.shape[0])
        if stride < 1:
            raise IndexError(f"expected slices that go forward, got {first}")
        taken = []
        for part, start in zip(self.parts, self.starts, strict=False):
            low = begin + max(0, -((begin - start) // stride)) * stride  # the first wanted one that is not before this part
            high = min(end, start + part.shape[0])
            if low < high:
                taken.append(np.asarray(part[(slice(low - start, high - start, stride), *rest)]))
        if not taken:
            return np.asarray(self.parts[0][(slice(0, 0), *rest)])
        return np.concatenate(taken)


class Computed:
    """An array of dask, whose parts are computed in this thread when they are asked for."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.shape: tuple[int, ...] = tuple(map(int, values.shape))
        self.dtype: np.dtype = values.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        """A part of it."""
        return np.asarray(self.values[key].compute(scheduler="synchronous"))


def complete(key: Any, axes: int) -> list[Index]:
    """A number or a slice for each axis, from an index that leaves some out."""
    given = list(key) if isinstance(key, tuple) else [key]
    left_out = sum(part is Ellipsis for part in given)
    if left_out > 1 or len(given) - left_out > axes:
        raise IndexError(f"expected an index for at most {axes} axes, got {len(given)}")
    at = next((i for i, part in enumerate(given) if part is Ellipsis), len(given))
    given[at : at + left_out] = [slice(None)] * (axes - len(given) + left_out)
    if not all(isinstance(part, int | np.integer | slice) for part in given):
        raise IndexError("expected numbers and slices as an index")
    return [part if isinstance(part, slice) else int(part) for part in given]
