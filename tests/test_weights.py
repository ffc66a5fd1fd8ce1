"""Files of weights: what is read is what was written, the same weights are the same bytes, and nothing damaged or foreign is believed."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from adaptycho.scan.networks.weights import KEY, Loaded, load, restore, save, write

CARD = {"kind": "little", "arguments": {"widths": [3, 4], "rate": 0.5}, "seeds": [0, 1], "note": "Å"}


class Little(nn.Module):
    """Parameters, a buffer, an integer and a number alone."""

    def __init__(self, wide: int = 3) -> None:
        super().__init__()
        self.line = nn.Linear(wide, 4)
        self.image = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("empty", torch.zeros(0, 2))


@pytest.fixture
def module() -> Little:
    torch.manual_seed(0)
    return Little()


def test_what_is_read_is_what_was_written(tmp_path: Path, module: Little) -> None:
    save(tmp_path / "a.safetensors", module, CARD)
    loaded = load(tmp_path / "a.safetensors")
    assert loaded.card == CARD
    other = Little()
    assert not torch.equal(other.line.weight, module.line.weight)
    assert loaded.source == str(tmp_path / "a.safetensors")
    restore(other, loaded)
    for name, tensor in module.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
        assert loaded.tensors[name].dtype == tensor.dtype


def test_the_same_weights_are_the_same_bytes(tmp_path: Path, module: Little) -> None:
    save(tmp_path / "a", module, CARD)
    save(tmp_path / "b", module, dict(reversed(CARD.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    save(tmp_path / "b", module, {**CARD, "note": "other"})
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_tensors_without_a_module(tmp_path: Path) -> None:
    """Numbers alone, slices and several names for the same numbers, as an optimiser may have them."""
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"number": torch.tensor(3.0), "row": base[1], "turned": base.T, "again": base[1], "yes": torch.tensor([True])}
    write(tmp_path / "a", tensors, {})
    loaded = load(tmp_path / "a").tensors
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor), name


def test_half_precision_halves_the_file(tmp_path: Path, module: Little) -> None:
    big = nn.Linear(100, 100)
    save(tmp_path / "whole", big, {})
    save(tmp_path / "half", big, {}, half=True)
    # 10,100 numbers of 4 or 2 bytes; headers of less than 1,000 bytes.
    assert (tmp_path / "whole").stat().st_size - (tmp_path / "half").stat().st_size == pytest.approx(20_200, abs=8)
    assert (tmp_path / "half").stat().st_size < 21_200
    read = load(tmp_path / "half").tensors["weight"]
    assert read.dtype == torch.float32
    # 11 significant bits where numbers are normal, steps of 2^-24 below.
    assert torch.allclose(read, big.weight, rtol=2**-11, atol=2**-25)
    assert torch.equal(read, big.weight.half().float())
    save(tmp_path / "little", module, {}, half=True)
    assert load(tmp_path / "little").tensors["count"].dtype == torch.int64
    with torch.no_grad():
        big.weight[0, 0] = 1e5
    with pytest.raises(ValueError, match=r"half: weight: expected numbers up to 65504 to store in half precision, got 100000"):
        save(tmp_path / "half", big, {}, half=True)
    assert torch.equal(load(tmp_path / "half").tensors["weight"], read)


@pytest.mark.parametrize("card", [{"path": Path("x")}, {"loss": float("nan")}, {"weights": torch.ones(2)}])
def test_a_card_json_cannot_hold_is_refused(tmp_path: Path, module: Little, card: dict) -> None:
    with pytest.raises(ValueError, match=r"a: card: expected what JSON can hold, got something else"):
        save(tmp_path / "a", module, card)
    assert not list(tmp_path.iterdir())


def test_no_file_or_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ValueError, match=f"{path.name}: expected a file of weights, found (none|a folder)"):
            load(path)


@pytest.mark.parametrize("content", [b"", b"text that is no weights", b"\x80\x04.", bytes(100)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a: expected a file of weights in safetensors format, found one that cannot be read"):
        load(path)


def test_a_pickle_is_not_opened(tmp_path: Path, module: Little) -> None:
    torch.save(module.state_dict(), tmp_path / "a")
    with pytest.raises(ValueError, match="a: expected a file of weights in safetensors format, found one that cannot be read"):
        load(tmp_path / "a")


def test_every_truncation_is_noticed(tmp_path: Path, module: Little) -> None:
    save(tmp_path / "a", module, CARD)
    content = (tmp_path / "a").read_bytes()
    for length in range(0, len(content), 37):
        (tmp_path / "b").write_bytes(content[:length])
        with pytest.raises(ValueError, match="b: expected"):
            load(tmp_path / "b")


def test_every_changed_byte_is_noticed(tmp_path: Path, module: Little) -> None:
    """A card changed into another valid card aside, since only tensors have a checksum."""
    save(tmp_path / "a", module, {})
    content = bytearray((tmp_path / "a").read_bytes())
    for i in range(0, len(content), 5):
        changed = content.copy()
        changed[i] ^= 1
        (tmp_path / "b").write_bytes(changed)
        with pytest.raises(ValueError, match="b: "):
            load(tmp_path / "b")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "a: adaptycho: expected a card in the metadata, found none: another program's weights"),
        ({"format": "pt"}, "a: adaptycho: expected a card in the metadata, found none"),
        ({KEY: "{"}, "a: adaptycho: expected a card and a checksum in JSON, found something else"),
        ({KEY: "[]"}, "a: adaptycho: expected a card and a checksum in JSON"),
        ({KEY: '{"card": {}}'}, "a: adaptycho: expected a card and a checksum in JSON"),
        ({KEY: '{"card": [], "sha256": ""}'}, "a: adaptycho: expected a card of names and values, found list"),
        ({KEY: json.dumps({"card": {}, "sha256": "0"})}, "a: expected tensors of checksum 0, found others: the file is damaged"),
    ],
)
def test_foreign_weights_are_refused(tmp_path: Path, metadata: dict[str, str] | None, message: str) -> None:
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "a", metadata)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "a")


def test_weights_of_another_make_are_refused(module: Little) -> None:
    tensors = dict(Little().state_dict())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    shape, missing, more = dict(tensors), dict(tensors), {**tensors, "more": torch.ones(1)}
    shape["line.weight"] = torch.ones(4, 5)
    del missing["line.bias"]
    for wrong, message in (
        (shape, r"FILE: line.weight: expected shape \(4, 3\), found \(4, 5\)"),
        (missing, r"FILE: line.bias: expected a tensor of shape \(4,\), found none"),
        (more, r"FILE: more: expected no such tensor in a Little, found one"),
    ):
        with pytest.raises(ValueError, match=message):
            restore(module, Loaded({}, wrong, "FILE"))
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_module_keeps_its_dtype(tmp_path: Path, module: Little) -> None:
    save(tmp_path / "a", module, {})
    other = Little().double()
    restore(other, load(tmp_path / "a"))
    assert other.line.weight.dtype == torch.float64
    assert torch.equal(other.line.weight, module.line.weight.double())
