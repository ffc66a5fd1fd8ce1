"""Makes cases from numbers and tries them."""

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fuzz import child, pictures, tree, verdict
from fuzz.case import Command, Kind, Mutation, Unfit

TRIES = 50  # mutations drawn until one can be made
DRAWN = 16  # of so many cases one draws its figures


@dataclass(frozen=True)
class Tried:
    """A case and what came of it.

    Attributes:
        number: of the case.
        kind: of its input.
        mutation: of the input.
        command: what was run.
        arguments: with those of the mutation.
        outcome: how it ended.
        faults: what is wrong with that.
    """

    number: int
    kind: str
    mutation: Mutation
    command: Command
    arguments: tuple[str, ...]
    outcome: child.Outcome
    faults: tuple[str, ...]

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Cases of one group probably have one cause."""
        return self.kind, self.mutation.label, self.command.name, "; ".join(f.partition(": /")[0] for f in self.faults)


@dataclass
class Bench:
    """A place to try cases in.

    Attributes:
        root: folder for everything; all cases are tried in root/work, since some files hold whole paths.
        kinds: of input.
        seed: of the cases.
        main: the program.
        seconds: after which a command is stopped.
    """

    root: Path
    kinds: Sequence[Kind]
    seed: int
    main: child.Main
    seconds: float = child.SECONDS
    usual: dict[tuple[str, Command, bool], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.set_num_threads(1)
        for name in ("templates", "private"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    @property
    def work(self) -> Path:
        """The folder that a command works in."""
        return self.root / "work"

    def draw(self, number: int) -> tuple[random.Random, Kind]:
        """The kind of a case, and the numbers that decide the rest."""
        rng = random.Random(f"{self.seed} {number}")
        return rng, rng.choice(self.kinds)

    def try_(self, number: int) -> Tried:
        """Makes a case and tries it; the folder is left as it is then."""
        rng, kind = self.draw(number)
        command, drawn = rng.choice(kind.commands), rng.randrange(DRAWN) == 0
        usual = self._usual(kind, command, drawn)
        mutation = self._mutated(rng, kind)
        arguments = tuple(mutation.arguments[0] if a == "@out" else a for a in command.arguments)
        if arguments == command.arguments:
            arguments += mutation.arguments
        before = tree.snapshot(self.work)
        outcome = self._run(command, arguments, drawn, before)
        found = verdict.faults(command, mutation.expect, before, tree.snapshot(self.work), outcome, usual)
        return Tried(number, kind.name, mutation, command, arguments, outcome, tuple(found))

    def _run(self, command: Command, arguments: Sequence[str], drawn: bool, before: Mapping[str, str]) -> child.Outcome:
        def gather(out: str) -> Any:
            found = [name for name in tree.names(self.work) if name not in before or tree.fits(name, command.changes)]
            written = [name for name in found if not tree.fits(name, command.volatile)]
            return tree.results("" if "stdout" in command.volatile else out, self.work, written)

        prepare: Callable[[], None] = (lambda: None) if drawn else pictures.undrawn
        return child.run(self.main, arguments, self.work, self.root / "private", gather, seconds=self.seconds, prepare=prepare)

    def _mutated(self, rng: random.Random, kind: Kind) -> Mutation:
        for _ in range(TRIES):
            target = rng.choices(kind.targets, [t.weight for t in kind.targets])[0]
            self._fresh(kind)
            with contextlib.suppress(Unfit):
                return rng.choice(target.mutators)(rng, self.work / target.file)
        raise RuntimeError(f"{kind.name}: expected a mutation that fits, found none in {TRIES}")

    def _usual(self, kind: Kind, command: Command, drawn: bool) -> Any:
        """What the command makes of the unmutated input."""
        key = kind.make.__name__, command, drawn
        if key not in self.usual:
            self._fresh(kind)
            arguments = ["out.h5" if a == "@out" else a for a in command.arguments]
            before = tree.snapshot(self.work)
            outcome = self._run(command, arguments, drawn, before)
            found = verdict.faults(command, "free", before, tree.snapshot(self.work), outcome, None)
            if outcome.code or found:
                raise RuntimeError(
                    f"{kind.name}, {' '.join(arguments)}: expected no fault with a valid input, found {found}: {outcome.err}"
                )
            self.usual[key] = outcome.results
        return self.usual[key]

    def _fresh(self, kind: Kind) -> None:
        """Puts the unmutated input into the folder to work in."""
        template = self.root / "templates" / kind.make.__name__
        if not template.exists():
            self._clear()
            self.work.mkdir()
            with _inside(self.work):
                kind.make(self.work)
            (self.work / ".hidden").write_text("mine\n")
            self.work.rename(template)
        self._clear()
        shutil.copytree(template, self.work, symlinks=True)

    def _clear(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)


@contextlib.contextmanager
def opened(kinds: Sequence[Kind], seed: int, main: child.Main, *, keep: bool = False, **options: Any) -> Iterator[Bench]:
    """A bench in a temporary folder."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        yield Bench(root, kinds, seed, main, **options)
    finally:
        if not keep:
            shutil.rmtree(root, ignore_errors=True)


def tried(bench: Bench, count: int, only: str | None = None) -> Iterator[Tried]:
    """Tries so many cases, of one kind only if it is named."""
    number = done = 0
    while done < count:
        if only is None or bench.draw(number)[1].name == only:
            yield bench.try_(number)
            done += 1
        number += 1


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
