"""Files of trained weights that say what they hold; nothing in them is ever executed.

A file is in safetensors format. Its metadata hold one key, `adaptycho`, whose JSON text has the card (what kind of network, from which
arguments it is made, how it was trained), a checksum of the tensors, and a seal, which is one of both; older files have none. The same
weights with the same card give the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from adaptycho.support import atomic
from adaptycho.support.reading import reading, regular

KEY = "adaptycho"


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a file of weights holds.

    Attributes:
        card: what was written beside the weights; tuples have become lists.
        tensors: by name; those stored in half precision are float32 again.
        source: the file's name, for messages.
    """

    card: dict[str, Any]
    tensors: dict[str, Tensor]
    source: str


def save(path: Path, module: nn.Module, card: Mapping[str, Any], *, half: bool = False) -> None:
    """Writes a module's parameters and buffers, as `write` does."""
    write(path, module.state_dict(), card, half=half)


def write(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any], *, half: bool = False) -> None:
    """Writes tensors, whole or not at all.

    Args:
        path: the file, replaced if it is there.
        tensors: what to save, by name.
        card: what a reader has to know to build the module again and to trust it; anything JSON can hold.
        half: store floating-point numbers in 16 bits, in half the space and with a relative error of at most 1/2048 where they are normal.

    Raises:
        ValueError: a card that JSON cannot hold, or in half precision a number beyond 65504.
    """
    # Cloned, because the format does not take tensors that share memory.
    stored = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    if half:
        stored = {name: _halved(tensor, f"{path}: {name}") if tensor.is_floating_point() else tensor for name, tensor in stored.items()}
    try:
        # One key, because safetensors writes several in no particular order.
        checksum = _checksum(stored)
        text = json.dumps({"card": dict(card), "sha256": checksum, "seal": _seal(card, checksum)}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: card: expected what JSON can hold, got something else ({error})") from None
    with atomic.whole(path) as part:
        part.write_bytes(safetensors.torch.save(stored, {KEY: text}))


def load(path: Path) -> Loaded:
    """Reads a file of weights.

    Raises:
        ValueError: no such file, not in safetensors format, not written by `save`, or damaged.
    """
    regular(path, "a file of weights")
    with reading(path, "a file of weights in safetensors format"):
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Cloned, because they are read from the file only when they are used.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return Loaded(_card(path, metadata, _checksum(tensors)), {name: _single(tensor) for name, tensor in tensors.items()}, str(path))


def restore(module: nn.Module, loaded: Loaded) -> None:
    """Puts weights into a module of the same make.

    Args:
        module: changed in place; it keeps its own dtype and device.
        loaded: what `load` read.

    Raises:
        ValueError: a tensor that is missing, too many or of another shape; the module is then as it was.
    """
    check_fit(module, loaded)
    module.load_state_dict(loaded.tensors)


def check_fit(module: nn.Module, loaded: Loaded) -> None:
    """Refuses weights that `restore` would refuse; the module may be one without memory, on the device "meta"."""
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in loaded.tensors:
            raise ValueError(f"{loaded.source}: {name}: expected a tensor of shape {tuple(tensor.shape)}, found none")
        if loaded.tensors[name].shape != tensor.shape:
            raise ValueError(f"{loaded.source}: {name}: expected shape {tuple(tensor.shape)}, found {tuple(loaded.tensors[name].shape)}")
    for name in loaded.tensors:
        if name not in wanted:
            raise ValueError(f"{loaded.source}: {name}: expected no such tensor in a {type(module).__name__}, found one")


def _card(path: Path, metadata: Mapping[str, str], found: str) -> dict[str, Any]:
    """The card in the metadata, if checksum and seal are those of tensors with the checksum that was found."""
    if KEY not in metadata:
        raise ValueError(f"{path}: {KEY}: expected a card in the metadata, found none: another program's weights")
    try:
        told = json.loads(metadata[KEY])
        card, checksum, seal = told["card"], told["sha256"], told.get("seal")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path}: {KEY}: expected a card and a checksum in JSON, found something else") from None
    if not isinstance(card, dict):
        raise ValueError(f"{path}: {KEY}: expected a card of names and values, found {type(card).__name__}")
    if checksum != found:
        raise ValueError(f"{path}: expected tensors of checksum {checksum}, found others: the file is damaged")
    if (seal is not None and seal != _seal(card, checksum)) or not told.keys() <= {"card", "sha256", "seal"}:
        raise ValueError(f"{path}: {KEY}: expected the card that was written, found another: the file is damaged")
    return card


def _seal(card: Mapping[str, Any], checksum: str) -> str:
    """SHA-256 of the card, as JSON gives it back, and of what it belongs to."""
    read_back = json.loads(json.dumps(dict(card), allow_nan=False))
    return hashlib.sha256(f"{json.dumps(read_back, sort_keys=True)} {checksum}".encode()).hexdigest()


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _halved(tensor: Tensor, name: str) -> Tensor:
    small = tensor.half()
    if not torch.equal(small.isfinite(), tensor.isfinite()):
        raise ValueError(f"{name}: expected numbers up to 65504 to store in half precision, got {float(tensor.abs().max()):g}")
    return small


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
