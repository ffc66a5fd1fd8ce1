"""Learned policies by name or file: those that come with the package, and those that somebody trained."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adaptycho.scan.networks import weights
from adaptycho.scan.networks.autoencoder import Autoencoder, Encoder
from adaptycho.scan.networks.field import FLAT, Field
from adaptycho.scan.networks.recurrent import Recurrent
from adaptycho.scan.policies.learned import Learned
from adaptycho.support.reading import reading

SHIPPED = ("lattice", "structure", "recorded", "recurrent")


def described(network: nn.Module) -> dict[str, Any]:
    """What has to be known to build a network again."""
    match network:
        case Field():
            shape = {"kind": "field", "widths": list(network.widths), "survey": network.survey, "lattice": network.lattice}
            return shape | {"floor": network.floor, "flat": network.flat, "power": network.power}
        case Recurrent():
            encoder = {"channels": list(network.encoder.channels), "size": network.encoder.size}
            return {"kind": "recurrent", "lengths": list(network.lengths), "survey": "halton", "encoder": encoder} | network.widths
        case Autoencoder():
            return {"kind": "autoencoder", "channels": list(network.encoder.channels), "size": network.encoder.size}
        case _:
            raise ValueError(f"network: expected a field, recurrent or autoencoder network, got {type(network).__name__}")


def build(card: Mapping[str, Any], source: str) -> nn.Module:
    """A network as a card describes it, without its weights.

    Raises:
        ValueError: the card describes no network of this package.
    """
    try:
        match card.get("kind"):
            case "field":
                density = {"floor": card["floor"], "flat": card.get("flat", FLAT), "power": card.get("power", 1.0)}
                return Field(tuple(card["widths"]), survey=card["survey"], lattice=card.get("lattice", "hexagonal"), **density)
            case "recurrent":
                encoder = Encoder(tuple(card["encoder"]["channels"]), card["encoder"]["size"])
                widths = {name: card[name] for name in ("hidden", "location", "structure")}
                return Recurrent(card["lengths"], encoder, **widths)
            case "autoencoder":
                return Autoencoder(tuple(card["channels"]), card["size"])
            case other:
                raise ValueError(f"kind: expected field, recurrent or autoencoder, found {other!r}")
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # whatever a value leads to
        raise ValueError(f"{source}: expected the card of a network, found one that describes none ({error})") from None


def load(path: Path, *, train: bool = False) -> nn.Module:
    """A network with its weights from a file.

    Args:
        path: the file.
        train: whether it is to learn; otherwise its weights are fixed, which saves time and memory.

    Raises:
        ValueError: the file is missing or damaged, or holds no network of this package.
    """
    found = weights.load(path)
    with reading(path, "the weights of a network"):
        with torch.device("meta"):  # takes no memory, whatever sizes the card has
            weights.check_fit(build(found.card, str(path)), found)
        network = build(found.card, str(path))
        weights.restore(network, found)
    return network.train() if train else network.eval().requires_grad_(False)


@cache
def shipped(name: str) -> nn.Module:
    """A network that comes with the package."""
    if name not in SHIPPED:
        raise ValueError(f"policy: expected one of {', '.join(SHIPPED)}, got {name!r}")
    with resources.as_file(resources.files("adaptycho.scan.networks") / "shipped" / f"{name}.safetensors") as path:
        return load(path)


def scanner(network: nn.Module, *, sigma: float = 0.0, defocus: float | None = None, dose: float | None = None) -> Learned:
    """A policy's network as a scanner, with the survey that it was trained after."""
    survey = network.survey if isinstance(network, Field) else "halton"
    return Learned(network, sigma, survey, defocus, dose)
