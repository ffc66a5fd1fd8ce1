"""Networks in files: what is described can be built again, and what is foreign is refused in one sentence."""

from pathlib import Path

import pytest
import torch
from torch import nn

from adaptycho.scan.networks import library, weights
from adaptycho.scan.networks.autoencoder import Autoencoder, Encoder
from adaptycho.scan.networks.field import Field
from adaptycho.scan.networks.recurrent import Recurrent

NETWORKS = {
    "field": lambda: Field((8, 16, 8), floor=0.3, survey="hexagonal"),
    "recurrent": lambda: Recurrent([5, 4, 3], Encoder((4, 8), 32), hidden=16, location=6, structure=5),
    "scratch": lambda: Recurrent([5, 4, 3], Encoder((4, 8), 32), hidden=16, location=6, structure=5, start="scratch"),
    "autoencoder": lambda: Autoencoder((4, 8), 32),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_saved_is_what_is_loaded(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = NETWORKS[kind]()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    card = library.described(network)
    weights.save(tmp_path / "a.safetensors", network, card | {"step": 3})
    found = library.load(tmp_path / "a.safetensors")
    assert type(found) is type(network)
    assert library.described(found) == card
    assert not found.training
    for name, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_a_loaded_field_policy_is_made_as_the_saved_one(tmp_path: Path) -> None:
    weights.save(tmp_path / "a", network := NETWORKS["field"](), library.described(network))
    found = library.load(tmp_path / "a")
    assert (found.widths, found.floor, found.survey, found.flat) == ((8, 16, 8), 0.3, "hexagonal", network.flat)


def test_a_scanner_surveys_as_its_network_was_trained_to() -> None:
    scanner = library.scanner(NETWORKS["field"](), sigma=0.1, defocus=40.0)
    assert (scanner.survey, scanner.sigma, scanner.defocus) == ("hexagonal", 0.1, 40.0)
    assert library.scanner(NETWORKS["recurrent"]()).survey == "halton"


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({}, "found None"),
        ({"kind": "transformer"}, "expected field, recurrent or autoencoder, found 'transformer'"),
        ({"kind": "field", "floor": 0.1, "survey": "halton"}, "'widths'"),
        ({"kind": "field", "widths": 3, "floor": 0.1, "survey": "halton"}, "int"),
        ({"kind": "field", "widths": [7], "floor": 0.1, "survey": "halton"}, "divisible"),
        ({"kind": "recurrent", "lengths": [4, 4], "encoder": {"channels": [4], "size": 7}, "hidden": 4}, "size: expected a multiple"),
        ({"kind": "recurrent", "lengths": [4], "encoder": {"channels": [4], "size": 8}}, "'hidden'"),
        ({"kind": "autoencoder", "channels": [], "size": 32}, "channels: expected at least one layer"),
    ],
)
def test_a_card_that_describes_no_network_is_refused(card: dict, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights.save(path, nn.Linear(2, 2), card)
    with pytest.raises(ValueError, match="expected the card of a network, found one that describes none") as caught:
        library.load(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights.save(path, Field((8, 8)), library.described(Field((16, 16))))
    with pytest.raises(ValueError, match=r"expected shape .* found"):
        library.load(path)
    with pytest.raises(ValueError, match="expected a file of weights, found none"):
        library.load(tmp_path / "nothing")


def test_only_networks_of_the_package_are_described() -> None:
    with pytest.raises(ValueError, match="network: expected a field, recurrent or autoencoder network, got Linear"):
        library.described(nn.Linear(2, 2))


def test_only_shipped_policies_have_names() -> None:
    with pytest.raises(ValueError, match="policy: expected one of lattice, structure, recorded, recurrent, got 'clever'"):
        library.shipped("clever")


@pytest.mark.parametrize("name", library.SHIPPED)
def test_every_policy_with_a_name_comes_along(name: str) -> None:
    """With a card of its training, and fixed."""
    network = library.shipped(name)
    assert isinstance(network, Recurrent if name == "recurrent" else Field)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert (Path(__file__).parents[1] / "docs" / "models" / f"{name}.md").exists()
