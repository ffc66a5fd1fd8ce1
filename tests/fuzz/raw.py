"""Mutations of bytes: what a bad disk, a broken transfer or an editor does."""

import os
import random
from collections.abc import Callable
from pathlib import Path

from fuzz.case import Expect, Mutation, Mutator, Unfit

Way = Callable[[random.Random, bytearray], str]


def flips(rng: random.Random, data: bytearray) -> str:
    """One to eight bits turned over."""
    count = rng.choice([1, 1, 1, 2, 8])
    where = [rng.randrange(8 * len(data)) for _ in range(count)]
    for bit in where:
        data[bit // 8] ^= 1 << bit % 8
    return f"bits {where}"


def truncated(rng: random.Random, data: bytearray) -> str:
    """The end cut off."""
    keep = rng.choice([0, 1, len(data) // 2, len(data) - 1, rng.randrange(len(data))])
    del data[keep:]
    return f"{keep} bytes kept"


def overwritten(rng: random.Random, data: bytearray) -> str:
    """A run of bytes replaced by zeros, ones or noise."""
    start, count = rng.randrange(len(data)), rng.choice([1, 4, 16, 64, 512])
    fill = rng.choice(["00", "ff", "noise"])
    run = rng.randbytes(count) if fill == "noise" else bytes([int(fill, 16)]) * count
    data[start : start + count] = run[: len(data) - start]
    return f"{count} bytes of {fill} at {start}"


def spliced(rng: random.Random, data: bytearray) -> str:
    """A block written over another place."""
    count = rng.choice([8, 64, 512])
    source, target = rng.randrange(len(data)), rng.randrange(len(data))
    block = data[source : source + count]
    data[target : target + len(block)] = block
    return f"{len(block)} bytes from {source} over {target}"


def inserted(rng: random.Random, data: bytearray) -> str:
    """Bytes put between others."""
    start, more = rng.randrange(len(data) + 1), rng.randbytes(rng.choice([1, 8, 100]))
    data[start:start] = more
    return f"{len(more)} bytes put in at {start}"


def removed(rng: random.Random, data: bytearray) -> str:
    """Bytes taken out."""
    start, count = rng.randrange(len(data)), rng.choice([1, 8, 100])
    del data[start : start + count]
    return f"{count} bytes taken out at {start}"


WAYS: tuple[Way, ...] = (flips, flips, flips, truncated, overwritten, overwritten, spliced, inserted, removed)


def damaged(expect: Expect) -> Mutator:
    """A mutator of bytes, of a file whose contents mean as much as `expect` says."""

    def mutate(rng: random.Random, path: Path) -> Mutation:
        data = bytearray(path.read_bytes())
        if not data:
            raise Unfit
        before, way = bytes(data), rng.choice(WAYS)
        text = way(rng, data)
        if bytes(data) == before:
            raise Unfit
        path.write_bytes(data)
        return Mutation(f"bytes {way.__name__}", f"{path.name}: {text}", expect)

    return mutate


def replaced(expect: Expect, missing: Expect = "refused", empty: Expect = "refused", other: Expect = "refused") -> Mutator:
    """A mutator that puts something else in place of a file: nothing, a folder, a pipe, a device, a link.

    Args:
        expect: if it is a link to the same contents.
        missing: if it is not there.
        empty: if there is nothing in it.
        other: if it is something that cannot be read.
    """

    def mutate(rng: random.Random, path: Path) -> Mutation:
        way = rng.choice(["missing", "folder", "empty", "pipe", "device", "loop", "dangling", "link", "text", "zeros"])
        data = path.read_bytes()
        path.unlink()
        if way == "folder":
            path.mkdir()
        elif way == "empty":
            path.touch()
        elif way == "pipe":
            os.mkfifo(path)
        elif way == "device":
            path.symlink_to("/dev/zero")
        elif way == "loop":
            path.symlink_to(path.name)
        elif way == "dangling":
            path.symlink_to("nowhere")
        elif way == "link":
            path.with_name(f"moved-{path.name}").write_bytes(data)
            path.symlink_to(f"moved-{path.name}")
        elif way == "text":
            path.write_text("hello\n")
        elif way == "zeros":
            path.write_bytes(bytes(len(data)))
        gone = {"missing": missing, "dangling": missing, "empty": empty}
        return Mutation(f"file {way}", path.name, expect if way == "link" else gone.get(way, other))

    return mutate
