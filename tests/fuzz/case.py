"""What a case is made of."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Expect = Literal["refused", "same", "either", "doubted", "free"]


@dataclass(frozen=True)
class Mutation:
    """What was done to the input.

    Attributes:
        label: its kind, to group by.
        text: all of it, to read.
        expect: what a right program does about it.
        arguments: put after those of the command.
    """

    label: str
    text: str
    expect: Expect
    arguments: tuple[str, ...] = ()


class Unfit(Exception):
    """A mutation cannot be made of this input; another is drawn."""


Mutator = Callable[[random.Random, Path], Mutation]


@dataclass(frozen=True)
class Command:
    """A command and what it may do in the folder.

    Attributes:
        arguments: of the program, with names relative to the folder.
        writes: patterns of names that it may make.
        changes: patterns of names that it owns and may change.
        volatile: patterns of written names that hold times and are not compared, and "stdout" where it is text.
    """

    arguments: tuple[str, ...]
    writes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The words before the first option or file."""
        return " ".join(self.arguments[: 2 if self.arguments[0] == "train" else 1])


@dataclass(frozen=True)
class Target:
    """A file of the input, how it may be damaged, and how often it is chosen."""

    file: str
    mutators: tuple[Mutator, ...]
    weight: int = 1


@dataclass(frozen=True)
class Kind:
    """Inputs of one kind: a function that makes a valid one in an empty folder, what may be damaged, and the commands that read it."""

    name: str
    make: Callable[[Path], None]
    targets: tuple[Target, ...]
    commands: tuple[Command, ...]
