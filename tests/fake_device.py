"""A second device for machines that have one only: tensors that live in ordinary memory, and say and behave as if they did not.

Their device is `fake`. They may not meet tensors of the CPU (but for single numbers), cannot be seen by numpy, and come back by `.cpu()`.
What runs on it would run on a GPU as far as devices go; what it computes is what the CPU computes, bit for bit.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "fake"
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)


class Elsewhere(Tensor):
    """A tensor of the fake device; `held` is where its numbers really are."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Elsewhere":
        """Wraps a tensor of the CPU."""
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=DEVICE,
            requires_grad=held.requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    def __repr__(self) -> str:
        return f"Elsewhere({self.held})"

    def tolist(self) -> Any:
        """Numbers come to Python from any device."""
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        """Runs an operation of torch on what is held, if nothing of the CPU is mixed into it."""
        return _run(function, arguments, named or {})


# These take numbers from one device to the other.
MOVING = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
# Views that only mark what has to be done later: here it would be forgotten, so it is done at once.
AT_ONCE = {torch.ops.aten._conj.default: torch.ops.aten.conj_physical.default, torch.ops.aten._neg_view.default: torch.ops.aten.neg.default}


def _run(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    flat, _ = tree_flatten((arguments, named))
    tensors = [x for x in flat if isinstance(x, Tensor)]
    here = [x for x in tensors if not isinstance(x, Elsewhere)]
    there = [x for x in tensors if isinstance(x, Elsewhere)]
    wanted = named.get("device")
    away = bool(there) if wanted is None else torch.device(wanted).type == NAME
    if function not in MOVING and there and any(x.ndim for x in here):
        raise RuntimeError(f"{function}: expected all tensors to be on one device, found some on {NAME} and some on the CPU")
    if wanted is not None:
        named = {**named, "device": torch.device("cpu")}
    unwrapped = tree_map(lambda x: x.held if isinstance(x, Elsewhere) else x, (arguments, named))
    found = AT_ONCE.get(function, function)(*unwrapped[0], **unwrapped[1])
    if function is torch.ops.aten.copy_.default:
        return arguments[0]
    if not away:
        return found
    known = {id(x.held): x for x in there}  # what is changed in place stays the same object
    return tree_map(lambda x: known[id(x)] if id(x) in known else Elsewhere(x) if isinstance(x, Tensor) else x, found)


@torch.library.impl("aten::empty.memory_format", NAME)
def _empty(size: list[int], dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None, **_: Any) -> Elsewhere:
    return Elsewhere(torch.empty(size, dtype=dtype))


@torch.library.impl("aten::empty_strided", NAME)
def _empty_strided(size: list[int], stride: list[int], *, dtype: Any = None, **_: Any) -> Elsewhere:
    return Elsewhere(torch.empty_strided(size, stride, dtype=dtype))


@torch.library.impl("aten::_copy_from", NAME)
def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    (target.held if isinstance(target, Elsewhere) else target).copy_(source.held if isinstance(source, Elsewhere) else source)
    return target
