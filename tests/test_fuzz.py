"""The fuzzer in a hurry, and whether it would notice: every verdict on a program that is wrong in one way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from fuzz import child, tree, verdict
from fuzz.bench import Bench, opened, tried
from fuzz.case import Command, Expect, Kind, Mutation, Target
from fuzz.child import Outcome
from fuzz.kinds import KINDS, QUICK_KINDS

ROOT = Path(__file__).parents[1]
CASES = 12
LARGE = 32 << 20  # bytes that a planted fault may take, instead of two thousand million


def test_nothing_is_found_in_some_cases() -> None:
    done = subprocess.run(
        [sys.executable, "tests/fuzzing.py", "--quick", "--count", str(CASES), "--seed", "2", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["cases"] == CASES and found["bad"] == 0
    # It does not find nothing because it looks at nothing: some are refused, some accepted, and of these some compared.
    assert min(found["ended"]["exit 2"], found["ended"]["exit 0"], found["compared"]) > CASES // 10


@pytest.mark.parametrize(
    "make", sorted({kind.make for kind in KINDS} - {kind.make for kind in QUICK_KINDS}, key=lambda make: make.__name__)
)
def test_what_is_left_out_in_a_hurry_can_be_made(make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files to damage, so that a change in what writes them is noticed before somebody has the time for all cases."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    assert any(tmp_path.rglob("*"))


# --- a program that is wrong on purpose: `double IN OUT` writes twice the number in IN

USUAL: dict = {}  # what the right program makes of the right input, worked out once
DOUBLE = Command(("double", "in.npy", "out.json", "--json"), ("out.json",), ("log.txt",), ("log.txt",))


def make(folder: Path) -> None:
    np.save(folder / "in.npy", np.array(21.0))
    (folder / "out.json.part").mkdir()
    (folder / "out.json.part" / "mine.txt").write_text("mine")
    (folder / "log.txt").write_text("begun\n")


def right(arguments: Sequence[str]) -> int:
    value = 2 * float(np.load("in.npy"))
    Path("out.json").write_text(json.dumps({"value": value}))
    print(json.dumps({"value": value}))
    return 0


def refusing(arguments: Sequence[str]) -> int:
    print("adaptycho: in.npy: expected a number, found another", file=sys.stderr)
    return 2


def doing(what: Callable[[], object], then: Callable[[Sequence[str]], int] = right) -> child.Main:
    """The right program, that does something else before."""

    def main(arguments: Sequence[str]) -> int:
        what()
        return then(arguments)

    return main


def found(main: child.Main, expect: Expect = "same", value: float = 21.0, seconds: float = 5.0) -> list[str]:
    """Faults of a program, given an input that holds another value; the unmutated one is right."""
    calls = []

    def program(arguments: Sequence[str]) -> int:
        return (main if calls else right)(arguments)

    def mutate(rng: object, path: Path) -> Mutation:
        calls.append(path)
        np.save(path, np.array(value))
        return Mutation("value", str(value), expect)

    kind = Kind("number", make, (Target("in.npy", (mutate,)),), (DOUBLE,))
    with opened([kind], 0, program, seconds=seconds, usual=USUAL) as bench:
        return list(bench.try_(0).faults)


def test_what_is_right_has_no_fault() -> None:
    assert found(right) == []
    assert found(right, "either") == []
    assert found(right, "free", 5.0) == []
    assert found(refusing, "refused") == []
    assert found(refusing, "either") == []
    assert found(doing(lambda: print("adaptycho: odd", file=sys.stderr)), "doubted") == []
    assert found(doing(lambda: Path("log.txt").write_text("begun\ndone\n"))) == []


def crash() -> None:
    raise KeyError("ssim")


def grow() -> None:
    np.ones(2 * LARGE // 8)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


PLANTED: dict[str, tuple[child.Main, Expect, float, str]] = {
    "traceback": (doing(crash), "free", 21.0, "traceback: KeyError"),
    "signal": (doing(kill), "free", 21.0, "exit -9"),
    "exit 1": (lambda _: 1, "refused", 21.0, "exit 1"),
    "hang": (doing(lambda: time.sleep(60)), "free", 21.0, "over 10 s"),
    "memory": (doing(grow), "same", 21.0, "over 32 MiB"),
    "allocation": (doing(lambda: bytearray(2 * child.GUARD)), "free", 21.0, "traceback: MemoryError"),
    "two lines": (doing(lambda: print("adaptycho: a", file=sys.stderr), refusing), "refused", 21.0, "stderr: not one line"),
    "no line": (lambda _: 2, "refused", 21.0, "stderr: not one line"),
    "another's line": (doing(lambda: print("libpng warning", file=sys.stderr)), "same", 21.0, "stderr: a line that is not the program's"),
    "escape": (doing(lambda: print("adaptycho: \x1b[31m", file=sys.stderr)), "same", 21.0, "stderr: control characters"),
    "escape in text": (doing(lambda: print("\x1b[31m")), "free", 21.0, "stdout: control characters"),
    "not JSON": (doing(lambda: print("hello")), "free", 21.0, "stdout: not one JSON object"),
    "NaN": (lambda _: print('{"value": NaN}') or 0, "free", 21.0, "stdout: not one JSON object"),
    "said and refused": (doing(lambda: print("done"), refusing), "refused", 21.0, "stdout: something said by a command that failed"),
    "removed": (doing(lambda: Path("out.json.part/mine.txt").unlink()), "same", 21.0, "gone: out.json.part/mine.txt"),
    "changed": (doing(lambda: Path("in.npy").write_text("x"), refusing), "refused", 21.0, "changed: in.npy"),
    "hidden": (doing(lambda: Path(".hidden").unlink()), "same", 21.0, "gone: .hidden"),
    "left behind": (doing(lambda: Path("out.json.tmp").touch(), refusing), "refused", 21.0, "left behind: out.json.tmp"),
    "accepted": (right, "refused", 21.0, "accepted"),
    "not doubted": (right, "doubted", 21.0, "accepted without a word"),
    "wrong": (right, "either", 20.0, "another result: /files/out.json/value"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "GROWTH", LARGE)
    main, expect, value, said = PLANTED[name]
    assert said in found(main, expect, value, 0.3 if name == "hang" else 5.0)


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("patterns", [-9.22e18, 1.0], "unsound patterns: negative or not finite"),
        ("dose", [float("nan")], "unsound dose: negative or not finite"),
        ("potential", [float("inf")], "unsound potential: not finite, and nothing said"),
        ("patterns", [0.0, 7.0], None),
    ],
)
def test_unsound_numbers_in_files_are_found(tmp_path: Path, key: str, values: list[float], said: str | None) -> None:
    with h5py.File(tmp_path / "out.h5", "w") as file:
        file[key] = values
    outcome = Outcome(0, "{}", "", 0.1, 0, False, tree.results("{}", tmp_path, ["out.h5"]))
    assert verdict.faults(DOUBLE, "free", {}, {"out.json": ""}, outcome, None) == ([said] if said else [])


def test_a_case_depends_on_its_number_only(tmp_path: Path) -> None:
    def mutate(rng, path: Path) -> Mutation:
        value = rng.random()
        np.save(path, np.array(value))
        return Mutation("value", str(value), "free")

    kind = Kind("number", make, (Target("in.npy", (mutate,)),), (DOUBLE,))
    bench = Bench(tmp_path, [kind], 3, right)
    texts = [case.mutation.text for case in tried(bench, 4)]
    assert len(set(texts)) == 4 and bench.try_(2).mutation.text == texts[2]
