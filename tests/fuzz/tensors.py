"""Mutations of safetensors files: the header's JSON, its offsets, the card in it, and the tensors."""

import json
import random
import struct
from pathlib import Path
from typing import Any

from fuzz.case import Mutation, Unfit
from fuzz.text import STRANGE, shaken

CARD = "adaptycho"


def tensors(rng: random.Random, path: Path) -> Mutation:
    """Changes weights: never may they be taken for others."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    head, body = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
    names = [name for name in head if name != "__metadata__"]
    way = rng.choice(["numbers"] * 3 + ["card"] * 4 + ["header"] * 3 + ["length", "no card", "metadata", "checksum"])
    text, name = "", ""
    if way == "numbers":
        bit = rng.randrange(8 * len(body))
        body[bit // 8] ^= 1 << bit % 8
    elif way == "card":
        told = json.loads(head["__metadata__"][CARD])
        head["__metadata__"][CARD], how, name = shaken(rng, told)
        way = f"card {how}"
    elif way == "header":
        name = rng.choice(names)
        how = rng.choice(["dtype", "shape", "offsets", "dropped", "renamed", "value"])
        way = f"header {how}"
        entry = head[name]
        if how == "dtype":
            entry["dtype"] = rng.choice(["F16", "BF16", "F64", "I64", "BOOL", "U8", "F8_E4M3", "X9", 3])
        elif how == "shape":
            entry["shape"] = rng.choice([[], [0], [-1], [10**12], entry["shape"][::-1], [1, *entry["shape"]], ["x"], [2**63]])
        elif how == "offsets":
            entry["data_offsets"] = rng.choice([[0, 0], [-4, 0], [0, 10**15], entry["data_offsets"][::-1], [0], ["a", "b"]])
        elif how == "dropped":
            del head[name]
        elif how == "renamed":
            head[f"{name}x"] = head.pop(name)
        else:
            text = json.dumps({**head, name: "@@here@@"}).replace('"@@here@@"', rng.choice(STRANGE))
    elif way == "no card":
        head["__metadata__"] = rng.choice([{}, {"format": "pt"}])
    elif way == "metadata":
        value: Any = rng.choice([None, [], "x", {CARD: 1}, {CARD: "1"}, {CARD: "[]"}, {CARD: "null"}, {CARD: "{"}, {CARD: "[" * 20_000}])
        head["__metadata__"] = value
    elif way == "checksum":
        told = json.loads(head["__metadata__"][CARD])
        told["sha256"] = rng.choice([None, 1, "", "0" * 64, told["sha256"].upper(), []])
        head["__metadata__"][CARD] = json.dumps(told)
    packed = (text or json.dumps(head)).encode("utf-8", errors="surrogatepass")
    length = rng.choice([0, 2**40, 2**64 - 1, len(packed) - 1, len(packed) + 1]) if way == "length" else len(packed)
    new = struct.pack("<Q", length) + packed + bytes(body)
    if new == data:
        raise Unfit
    path.write_bytes(new)
    return Mutation(f"weights {way}", f"{path.name}: {name}", "either")
