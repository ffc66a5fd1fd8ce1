"""Whether a command did right by a mutated input."""

import json
import math
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from fuzz import child, tree
from fuzz.case import Command, Expect
from fuzz.child import Outcome

SAME = 1e-4  # of an array's largest number: rounding in single precision through a few iterations, not another result
IGNORED = {"dtype", "warnings"}  # keys of what is printed that say how numbers are stored, or that something is odd


def faults(
    command: Command,
    expect: Expect,
    before: Mapping[str, str],
    after: Mapping[str, str],
    outcome: Outcome,
    usual: Any,
) -> list[str]:
    """What is wrong with how a command ended; nothing if all is well.

    Args:
        command: what was run.
        expect: what a right program does.
        before: the folder before (`tree.snapshot`).
        after: the folder afterwards.
        outcome: how it ended.
        usual: results of the unmutated input.
    """
    found = [*_ended(outcome), *_limits(outcome), *_said(command, outcome), *_touched(command, before, after, outcome.code)]
    if outcome.code == 0:
        found += [*_sound(outcome.results), *_right(expect, outcome, usual)]
    return found


def _ended(outcome: Outcome) -> Iterator[str]:
    last = outcome.err.strip().splitlines()[-1:] or [""]
    if outcome.late:
        return
    if "Traceback (most recent call last)" in outcome.err:
        yield f"traceback: {last[0].partition(':')[0]}"
    elif outcome.code not in (0, 2):
        yield f"exit {outcome.code}: {last[0][:80]}".rstrip(": ")


def _limits(outcome: Outcome) -> Iterator[str]:
    if outcome.late:
        yield f"over {child.SECONDS:g} s"
    if outcome.grown > child.GROWTH:
        yield f"over {child.GROWTH >> 20} MiB"


def _said(command: Command, outcome: Outcome) -> Iterator[str]:
    if outcome.late or "Traceback" in outcome.err:
        return
    lines = [line.rpartition("\r")[2] for line in outcome.err.split("\n") if line.strip()]  # a bar returns to where it began
    if any(not line.startswith("adaptycho: ") for line in lines):
        yield "stderr: a line that is not the program's"
    elif outcome.code == 2 and len(lines) != 1:
        yield "stderr: not one line"
    elif outcome.code == 2 and len(outcome.err) > 2000:
        yield "stderr: over 2,000 characters"
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in "".join(lines)):
        yield "stderr: control characters"
    if any(unicodedata.category(c) in ("Cc", "Cs") and c != "\n" for c in outcome.out):
        yield "stdout: control characters"
    if outcome.code == 2 and outcome.out.strip():
        yield "stdout: something said by a command that failed"
    if outcome.code == 0 and "--json" in command.arguments:
        try:
            json.loads(outcome.out, parse_constant=_refuse)
        except ValueError:
            yield "stdout: not one JSON object"


def _touched(command: Command, before: Mapping[str, str], after: Mapping[str, str], code: int) -> Iterator[str]:
    for name, what in before.items():
        if tree.fits(name, command.changes):
            continue
        if name not in after:
            yield f"gone: {_short(name)}"
        elif after[name] != what:
            yield f"changed: {_short(name)}"
    for name in after.keys() - before.keys():
        if not tree.fits(name, (*command.writes, *command.changes)):
            yield f"left behind: {_short(name)}"


def _sound(results: Any) -> Iterator[str]:
    """Numbers that no right result holds."""
    if results is None:
        yield "results: cannot be read"
        return
    null = "null" in json.dumps(results["stdout"])
    for name, file in results["files"].items():
        if not name.endswith(".h5") or not isinstance(file, dict):
            continue
        for key, array in file.items():
            if not isinstance(array, dict) or "finite" not in array:
                continue
            if key in ("patterns", "dose", "positions", "requested") and not (array["finite"] and array["least"] >= -1e-6):
                yield f"unsound {key}: negative or not finite"
            elif key in ("potential", "phase_in_field", "probe") and not array["finite"] and not null:
                yield f"unsound {key}: not finite, and nothing said"


def _right(expect: Expect, outcome: Outcome, usual: Any) -> Iterator[str]:
    if expect == "refused":
        yield "accepted"
    elif expect == "doubted":
        told = outcome.results["stdout"] if outcome.results else None
        if not outcome.err.strip() and not (isinstance(told, dict) and told.get("warnings")) and "warning" not in outcome.out:
            yield "accepted without a word"
    elif expect in ("same", "either") and (other := difference(usual, outcome.results)) is not None:
        yield f"another result: {other}"


def difference(a: Any, b: Any, where: str = "") -> str | None:
    """Where two results differ, or None."""
    if isinstance(a, dict) and isinstance(b, dict):
        if {"array", "shape"} <= a.keys() & b.keys():
            return None if a["shape"] == b["shape"] and _close(a["array"], b["array"]) else where
        for key in sorted(a.keys() | b.keys()):
            if key in IGNORED:
                continue
            if key not in a or key not in b:
                return f"{where}/{key}"
            if (found := difference(a[key], b[key], f"{where}/{key}")) is not None:
                return found
        return None
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return where
        return next((d for i, (x, y) in enumerate(zip(a, b, strict=True)) if (d := difference(x, y, f"{where}/{i}")) is not None), None)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return None if math.isclose(a, b, rel_tol=SAME, abs_tol=1e-9) else where
    return None if a == b else where


def _close(a: list[Any], b: list[Any]) -> bool:
    largest = max((abs(v) for v in a if not isinstance(v, str)), default=0.0)
    return len(a) == len(b) and all(
        x == y if isinstance(x, str) or isinstance(y, str) else abs(x - y) <= SAME * largest for x, y in zip(a, b, strict=True)
    )


def _short(name: str) -> str:
    return ascii(name)[1:-1][:80]


def _refuse(name: str) -> float:
    raise ValueError(name)
