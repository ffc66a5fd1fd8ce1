"""Tries the commands on damaged input: `python tests/fuzzing.py --count 2000 --seed 0`; what is looked for is told in `tests/fuzz`."""

import argparse
import contextlib
import json
import os
import shlex
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

# Before torch is loaded: a process with a pool of threads cannot be forked.
os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}

from adaptycho.app import cli
from fuzz.bench import Bench, Tried, opened, tried
from fuzz.kinds import KINDS, QUICK_KINDS


def main() -> int:
    """The command line; returns 1 if a case is bad."""
    parser = argparse.ArgumentParser(description="Tries the commands of adaptycho on damaged input.")
    parser.add_argument("--count", type=int, default=2000, help="cases to try")
    parser.add_argument("--seed", type=int, default=0, help="of the cases")
    parser.add_argument("--only", choices=[kind.name for kind in KINDS], help="one kind of input")
    parser.add_argument("--quick", action="store_true", help="leave out the commands that draw, and folders of runs")
    parser.add_argument("--case", type=int, help="try this one, tell all about it and keep its folder")
    parser.add_argument("--json", action="store_true", help="print a summary as one JSON object at the end")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # of what is made for damage: the program's own are seen in the children
    kinds = QUICK_KINDS if asked.quick else KINDS
    with opened(kinds, asked.seed, cli.main, keep=asked.case is not None) as bench:
        if asked.case is not None:
            return _tell(bench, asked.case)
        started = time.monotonic()
        again = f"python tests/fuzzing.py --seed {asked.seed}{' --quick' if asked.quick else ''} --case"
        done: list[Tried] = []
        with contextlib.suppress(KeyboardInterrupt):  # what was done by then is told
            for case in _followed(tried(bench, asked.count, asked.only), asked.count, again):
                done.append(case)
    found = summary(done) | {"seed": asked.seed, "seconds": round(time.monotonic() - started, 1)}
    if asked.json:
        print(json.dumps(found))
    else:
        limits = f"the slowest {found['slowest_s']} s, the largest growth {found['largest_MiB']} MiB"
        print(f"{found['cases']} cases in {found['seconds']:.0f} s, {found['bad']} bad; {limits}")
    return 1 if found["bad"] else 0


def summary(done: list[Tried]) -> dict[str, Any]:
    """How many cases ended how, and the bad ones by group."""
    bad = [case for case in done if case.faults]
    groups = Counter(case.group for case in bad)
    first = {case.group: case.number for case in reversed(bad)}
    return {
        "cases": len(done),
        "bad": len(bad),
        "ended": dict(Counter("killed" if c.outcome.late else f"exit {c.outcome.code}" for c in done)),
        "expected": dict(Counter(c.mutation.expect for c in done)),
        "compared": sum(c.outcome.code == 0 and c.mutation.expect in ("same", "either") for c in done),
        "kinds": dict(Counter(c.kind for c in done)),
        "slowest_s": round(max(c.outcome.seconds for c in done), 2),
        "largest_MiB": max(c.outcome.grown for c in done) >> 20,
        "groups": [
            {"kind": k, "mutation": m, "command": c, "outcome": o, "cases": n, "case": first[k, m, c, o]}
            for (k, m, c, o), n in groups.most_common()
        ],
    }


def _followed(cases: Iterable[Tried], count: int, again: str) -> Iterator[Tried]:
    """Prints a line for each bad case, and on a terminal how far it is."""
    for number, case in enumerate(cases, 1):
        if case.faults:
            print(f"{line(case)}; {again} {case.number}", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print(f"\r{number} of {count}", end="\r", file=sys.stderr, flush=True)
        yield case


def line(case: Tried) -> str:
    """A case in one line."""
    what = f"{case.kind}, {case.mutation.label} ({case.mutation.text}), {case.command.name}"
    return ascii(f"{what}: {'; '.join(case.faults) or 'good'}")[1:-1][:400]


def _tell(bench: Bench, number: int) -> int:
    case = bench.try_(number)
    print(f"{line(case)}\nexpected: {case.mutation.expect}\ncd {bench.work} && adaptycho {shlex.join(case.arguments)[:2000]!a}")
    print(f"exit {case.outcome.code}, {case.outcome.seconds:.2f} s, {case.outcome.grown >> 20} MiB more")
    print(f"--- stdout\n{case.outcome.out[:4000]!a}\n--- stderr\n{case.outcome.err[-6000:]!a}".replace("\\n", "\n"))
    return 1 if case.faults else 0


if __name__ == "__main__":
    sys.exit(main())
