"""Mutations of NumPy arrays and archives: headers that lie, numbers of another type, values that make no sense."""

import ast
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.case import Expect, Mutation, Mutator, Unfit

Change = Callable[[np.ndarray], np.ndarray]


def _at(value: float) -> Change:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float64)
        values.flat[values.size // 3] = value
        return values

    return change


def _compound(values: np.ndarray) -> np.ndarray:
    packed = np.zeros(values.shape, [("a", "f4"), ("b", "i2")])
    packed["a"] = values
    return packed


# What is done to all kinds of numbers, and what a right program does about it.
TYPES: dict[str, tuple[Change, Expect]] = {
    "text": (lambda v: v.astype("S12"), "refused"),
    "unicode": (lambda v: v.astype("U12"), "refused"),
    "complex": (lambda v: v + 1j, "refused"),
    "objects": (lambda v: v.astype(object), "refused"),
    "truths": (lambda v: v > v.mean(), "refused"),
    "dates": (lambda v: v.astype("i8").astype("M8[s]"), "refused"),
    "times": (lambda v: v.astype("i8").astype("m8[s]"), "refused"),
    "compound": (_compound, "refused"),
    "void": (lambda v: np.zeros(v.shape, "V4"), "refused"),
    "float16": (lambda v: v.astype(np.float16), "free"),
    "long double": (lambda v: v.astype(np.longdouble), "either"),
    "double": (lambda v: v.astype(np.float64), "same"),
    "big-endian": (lambda v: v.astype(v.dtype.newbyteorder(">")), "same"),
    "Fortran order": (np.asfortranarray, "same"),
    "nan": (_at(np.nan), "refused"),
    "inf": (_at(np.inf), "refused"),
    "all nan": (lambda v: np.full(v.shape, np.nan), "refused"),
    "fewer": (lambda v: v[:-1], "refused"),
    "more": (lambda v: np.concatenate([v, v[:1]]), "refused"),
    "none": (lambda v: v[:0], "refused"),
    "scalar": (lambda v: v.reshape(-1)[0], "refused"),
    "flat": (lambda v: v.reshape(-1), "refused"),
    "one axis more": (lambda v: v[None], "free"),
    "five axes": (lambda v: v.reshape((1,) * (5 - min(v.ndim, 4)) + v.shape), "refused"),
    "no columns": (lambda v: v[..., :0], "refused"),
    "odd": (lambda v: v[..., 1:], "refused"),
}
PATTERNS: dict[str, tuple[Change, Expect]] = {
    **TYPES,
    "negative": (_at(-5), "refused"),
    "hair below zero": (_at(-1e-300), "refused"),
    "zeros": (np.zeros_like, "refused"),
    "single": (lambda v: v.astype(np.float32), "same"),
    "uint16": (lambda v: v.astype(np.uint16), "same"),
    "uint64": (lambda v: v.astype(np.uint64), "same"),
    "int64": (lambda v: v.astype(np.int64), "same"),
    "int8": (lambda v: v.astype(np.uint8), "free"),
    "huge": (lambda v: v * 1e300, "refused"),
    "bright": (lambda v: v * np.float64(1e30), "free"),
    "tiny": (lambda v: v * np.float64(1e-38), "free"),
}
POSITIONS: dict[str, tuple[Change, Expect]] = {
    **TYPES,
    "far": (_at(1e30), "refused"),
    "farther": (_at(1e308), "refused"),
    "metres": (lambda v: v * 1e-10, "doubted"),
    "pm": (lambda v: v * 100, "free"),
    "all the same": (lambda v: np.zeros_like(v), "doubted"),
    "three columns": (lambda v: np.c_[v, v[:, :1]], "refused"),
    "transposed": (lambda v: v.T, "refused"),
}
HEADERS: dict[str, tuple[dict[str, Any], Expect]] = {
    "half precision": ({"descr": "'<f2'"}, "refused"),
    "objects": ({"descr": "'|O'"}, "refused"),
    "truths": ({"descr": "'|b1'"}, "refused"),
    "sub-arrays": ({"descr": "[('a', '<f4', (2,))]"}, "refused"),
    "unknown type": ({"descr": "'<q9'"}, "refused"),
    "no type": ({"descr": "None"}, "refused"),
    "huge type": ({"descr": "'|V999999999999'"}, "refused"),
    "negative": ({"shape": "(-36, 32, 32)"}, "refused"),
    "huge": ({"shape": "(1000000, 1000000, 32)"}, "refused"),
    "huger": ({"shape": "(99999999999999999999, 32, 32)"}, "refused"),
    "overflowing": ({"shape": "(4294967296, 4294967296, 32)"}, "refused"),
    "nested": ({"shape": "((36, 32), 32)"}, "refused"),
    "real": ({"shape": "(36.0, 32, 32)"}, "refused"),
    "truth": ({"shape": "(True, 32, 32)"}, "refused"),
    "none": ({"shape": "()"}, "refused"),
    "word": ({"shape": "'x'"}, "refused"),
    "one fewer": ({"shape": "(35, 32, 32)"}, "refused"),
    "order": ({"fortran_order": "3"}, "either"),
    "code": ({"shape": "__import__('os').getpid()"}, "refused"),
    "deep": ({"shape": "(" * 3000 + ")" * 3000}, "refused"),
    "unbalanced": ({"shape": "((36, 32, 32)"}, "refused"),
    "open text": ({"descr": "'<f4"}, "refused"),
    "NUL": ({"descr": "'<f4\x00'"}, "refused"),
    "more keys": ({"more": "1"}, "refused"),
}


def values(changes: dict[str, tuple[Change, Expect]]) -> Mutator:
    """A mutator of the numbers in an .npy file."""

    def mutate(rng: random.Random, path: Path) -> Mutation:
        way = rng.choice(list(changes))
        change, expect = changes[way]
        with np.errstate(all="ignore"):
            new = change(np.load(path))
        np.save(path, new, allow_pickle=True)
        return Mutation(f"array {way}", f"{path.name}: {new.dtype} {new.shape}", expect)

    return mutate


def header(rng: random.Random, path: Path) -> Mutation:
    """Changes what an .npy file says of itself."""
    data = path.read_bytes()
    size = struct.unpack("<H", data[8:10])[0]
    fields = {k: repr(v) for k, v in ast.literal_eval(data[10 : 10 + size].decode()).items()}
    way = rng.choice([*HEADERS, "version", "short", "long", "magic"])
    if way in HEADERS:
        changed, expect = HEADERS[way]
        text = "{" + ", ".join(f"'{k}': {v}" for k, v in (fields | changed).items()) + "}\n"
        text = text if len(text) < 65000 else text[:65000]
        data = data[:8] + struct.pack("<H", len(text)) + text.encode("latin1") + data[10 + size :]
    else:
        expect = "refused"
        new = {"version": data[:6] + b"\x09\x00" + data[8:], "magic": b"\x93NUMPX" + data[6:]}
        length = {"short": 10, "long": 65535}
        data = new.get(way) or data[:8] + struct.pack("<H", length[way]) + data[10:]
    path.write_bytes(data)
    return Mutation(f"npy header {way}", path.name, expect)


def archive(rng: random.Random, path: Path) -> Mutation:
    """Changes what is in a zip of arrays: members gone, twice, damaged, of other kinds, or larger than they say."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    arrays = [name for name in members if name.endswith(".npy")]
    name = rng.choice(arrays)
    way = rng.choice(
        ["gone", "beside", "text", "json", "twice", "objects", "huge", "outside", "packed", "nested", "none", "locked", "types"]
    )
    expect: Expect = "refused"
    method = zipfile.ZIP_STORED
    more: list[tuple[str, bytes]] = []
    if way == "gone":
        del members[name]
    elif way == "beside":
        members["more.txt"], expect = b"hello", "either"
    elif way == "json":
        members["metadata.json"], expect = json.dumps({"title": "\x1b[31m"}).encode(), "either"
    elif way == "text":
        members[name] = b"hello"
    elif way == "twice":
        more = [(name, _saved(np.zeros((3, 3))))]
    elif way == "objects":
        members[name] = _saved(np.array([{}, 1], object))
    elif way == "huge":
        members[name] = _declared((3_000_000, 32, 32))
    elif way == "outside":
        members["../outside.npy"], expect = members[name], "either"
    elif way == "packed":
        method, expect = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]), "same"
    elif way == "nested":
        members[name] = _zip(members.items(), zipfile.ZIP_STORED)
    elif way == "none":
        members = {}
    elif way == "types":
        way = rng.choice([w for w, (_, e) in TYPES.items() if e == "refused" and w not in ("fewer", "more", "one axis more", "odd")])
        members[name] = _saved(TYPES[way][0](np.load(io.BytesIO(members[name]))))
    data = bytearray(_zip([*members.items(), *more], method))
    if way == "locked":
        _lock(data)
    path.write_bytes(data)
    if name == "other.npy" and expect == "refused" and way not in ("none", "locked"):
        expect = "either"  # it is not needed
    return Mutation(f"archive {way}", f"{path.name}: {name}", expect)


def _saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _declared(shape: tuple[int, ...]) -> bytes:
    """An array that says it is large, without its numbers."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(4096)


def _zip(members: Any, method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as new:
        for name, data in members:
            new.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def _lock(data: bytearray) -> None:
    """Says that every member is encrypted."""
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(mark)
        while start >= 0:
            data[start + offset] |= 1
            start = data.find(mark, start + 4)
    if b"PK\x01\x02" not in data:
        raise Unfit
