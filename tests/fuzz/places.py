"""Mutations of the place that a command writes to: what is there already, and names that are hard to write."""

import contextlib
import os
import random
from pathlib import Path

from fuzz.case import Expect, Mutation, Mutator, Unfit

PARTS = ("{}.part", ".{}.part", "{}.tmp", ".{}.tmp", "{}~", "{}.lock", "{}.0.part", "{}.bak")


def decoy(rng: random.Random, folder: Path, name: str) -> str:
    """Puts something that is not the program's where it may want to write for a while; returns what."""
    part = folder / rng.choice(PARTS).format(name)
    if os.path.lexists(part):
        raise Unfit
    way = rng.choice(["folder", "file", "link", "linked folder", "dangling"])
    if way == "folder":
        (part / "inside").mkdir(parents=True)
        (part / "mine.txt").write_text("mine\n")
        (part / ".hidden").write_text("mine\n")
    elif way == "file":
        part.write_text("mine\n")
    elif way == "link":
        (folder / "victim.txt").write_text("mine\n")
        part.symlink_to("victim.txt")
    elif way == "linked folder":
        (folder / "victims").mkdir(exist_ok=True)
        (folder / "victims" / "mine.txt").write_text("mine\n")
        part.symlink_to("victims")
    else:
        part.symlink_to("nowhere/at/all")
    (folder / ".hidden").write_text("mine\n")
    return f"{part.name}: {way}"


def decoys(name: str) -> Mutator:
    """A mutator that changes nothing but puts two decoys beside what will be written."""

    def mutate(rng: random.Random, path: Path) -> Mutation:
        texts = {}
        for _ in range(2):
            with contextlib.suppress(Unfit):
                texts[decoy(rng, path, name)] = None
        return Mutation("decoy", ", ".join(texts), "same")

    return mutate


def taken(name: str, *, folders: tuple[str, ...] = ()) -> Mutator:
    """A mutator that puts something where a command wants to write: nothing of it may be gone afterwards.

    Args:
        name: that the command writes to.
        folders: what may be there already, if it is a folder to write into.
    """

    def mutate(rng: random.Random, path: Path) -> Mutation:
        target = path / name
        way = rng.choice(
            ["file", "folder", "empty folder", "link to file", "link to folder", "link to empty folder", "dangling", "pipe", "loop"]
        )
        expect: Expect = "refused"
        (path / "victim.txt").write_text("mine\n")
        (path / "victims").mkdir()
        (path / "empty").mkdir()
        (path / "victims" / "mine.txt").write_text("mine\n")
        if way == "file":
            target.write_text("mine\n")
        elif way in ("folder", "empty folder"):
            target.mkdir()
            if way == "folder":
                (target / "mine.txt").write_text("mine\n")
        elif way == "pipe":
            os.mkfifo(target)
        else:
            aims = {"link to file": "victim.txt", "link to folder": "victims", "link to empty folder": "empty", "dangling": "nowhere"}
            target.symlink_to(aims.get(way, name))
        if way in folders:
            expect = "free"
        return Mutation(f"taken {way}", name, expect)

    return mutate


ODD = (
    *(
        "",
        ".",
        "..",
        "/",
        "./",
        "no/such/folder/out.h5",
        "out.h5/",
        "victim.txt/out.h5",
        "../out.h5",
        "sub/../out.h5",
        "-",
        "--",
        "-out.h5",
    ),
    *("a\nb.h5", "a\x1b[31mb.h5", "a\x7fb.h5", "\ttab.h5", "nul\u0085.h5", "\u202e.h5", "é.h5", b"\xff\xfe.h5", b"a\x80b", " ", "~"),
    *("%s%n.h5", "{out}.h5", "*.h5", "out", "out.H5", "out.png", "out.toml", ".h5", "..h5", "x" * 300 + ".h5"),
    *("/dev/null", "/dev/full", "/proc/out.h5"),
)
HARD = {"", ".", "..", "/", "./", "victim.txt/out.h5", "x" * 300 + ".h5", "/dev/null", "/dev/full", "/proc/out.h5"}


def named(rng: random.Random, path: Path) -> Mutation:
    """Leaves the input as it is; the last argument, the name to write to, is an odd one (`kinds` puts it in)."""
    (path / "victim.txt").write_text("mine\n")
    (path / "sub").mkdir()
    name = rng.choice(ODD)
    text = os.fsdecode(name) if isinstance(name, bytes) else name
    return Mutation("name", ascii(text)[:40], "refused" if text in HARD else "free", (text,))
