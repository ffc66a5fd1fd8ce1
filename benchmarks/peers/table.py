"""The page of what `compare.py` has printed."""

import json
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np

TEXT = """# Beside other packages

The same patterns reconstructed by adaptycho and by other packages, one thread each; this package imports none of the others.
{verdict}

| package | chosen | iterations | correlation | seconds | per iteration | ours as far after | times ours | peak / MiB |
|---|---|---|---|---|---|---|---|---|
{rows}

{positions} positions on a regular raster over 20 Å x 20 Å, patterns of 64 x 64, {electrons:g} electrons each, probe {probe}, MoS2;
specimens: {specimens}, runs on each: {repeats}, the packages in turn. Each was tuned on another specimen: {trials} settings, at most
{iterations} iterations, of which the settings and the number with the highest correlation count, the fastest of those within 0.002 of it.

- *Correlation* with the true phase inside the field, after constant, ramp, scale and a shift below a pixel: mean [lowest, highest].
- *Seconds* are the processor's, preparation included; import, compilation and a first run are not.
- *Ours as far after*: seconds until adaptycho has the same correlation on the same specimen; *times ours*: quotients. Median [quartiles].
- The data come from adaptycho's own model without imperfections, which favours adaptycho. {trials} settings and {iterations} iterations
  are few: a package that has not converged would reach more with more.

{cpu}, Python {python}, torch {torch}.
{note}

```console
$ python benchmarks/peers/compare.py {options} > docs/results/peers.jsonl
$ python benchmarks/peers/compare.py --page docs/results/peers.jsonl > docs/results/peers.md
```
"""


def page(lines: list[dict[str, Any]]) -> str:
    """Markdown: what each package reaches, in which time, and when adaptycho is as far on the same specimen."""
    told, machine = (next(line for line in lines if line["kind"] == kind) for kind in ("asked", "machine"))
    tests = [line for line in lines if line["kind"] == "test" and "error" not in line]
    packages = dict.fromkeys(line["package"] for line in lines if line["kind"] == "chosen")
    others = {name: _ratio([line for line in tests if line["package"] == name], tests) for name in packages if name != "ours"}
    facts = {
        "verdict": _verdict({name: ratio for name, ratio in others.items() if not np.isnan(ratio)}),
        "positions": told["side"] ** 2,
        "probe": "refined, its guess out of focus by 20 Å" if told["refine"] else "known",
        "specimens": len({line["problem"] for line in tests}),
        "note": textwrap.fill(told["note"], 138),
        "rows": "\n".join(_row(name, lines, tests) for name in packages),
    }
    return TEXT.format(**(told | facts | {name: machine[name] for name in ("cpu", "python", "torch")}))


def _verdict(others: dict[str, float]) -> str:
    """The next fastest in a sentence; nothing where there is no other package."""
    if not others:
        return ""
    nearest = min(others, key=lambda name: others[name])
    return f"For the same correlation the nearest, {nearest}, takes {others[nearest]:.1f} times adaptycho's processor time."


def _ratio(theirs: list[dict[str, Any]], tests: list[dict[str, Any]]) -> float:
    """Median of how many times longer they take than adaptycho until they are as far."""
    return float(np.median([line["seconds"][-1] / _reached(line, tests) for line in theirs])) if theirs else float("nan")


def _row(package: str, lines: list[dict[str, Any]], tests: list[dict[str, Any]]) -> str:
    choice = next(line for line in lines if line["kind"] == "chosen" and line["package"] == package)
    mine = [line for line in tests if line["package"] == package]
    if not mine:
        return f"| {package} | {choice.get('error', 'no run finished')} | | | | | | | |"
    ends = [line["correlation"][-1] for line in mine]
    seconds = [line["seconds"][-1] for line in mine]
    each = [line["seconds"][-1] / line["iterations"][-1] for line in mine]
    ours = [_reached(line, tests) for line in mine]
    settings = json.dumps(choice["settings"]) if choice["settings"] else "defaults"
    ratios = [a / b for a, b in zip(seconds, ours, strict=True)]
    return (
        f"| {mine[0]['program']} | `{settings}` | {choice['iterations']} | {np.mean(ends):.3f} [{min(ends):.3f}, {max(ends):.3f}] | "
        f"{np.median(seconds):.2f} | {np.median(each):.3f} | {_spread(ours, 2)} | {_spread(ratios, 1)} | "
        f"{max(line['peak_mib'] for line in mine)} |"
    )


def _reached(theirs: dict[str, Any], tests: list[dict[str, Any]]) -> float:
    """Seconds after which adaptycho had the correlation that they ended with, same specimen and repeat; nan if it never had."""
    same = (line for line in tests if (line["package"], line["problem"], line["repeat"]) == ("ours", theirs["problem"], theirs["repeat"]))
    reached = (s for line in same for s, c in zip(line["seconds"], line["correlation"], strict=True) if c >= theirs["correlation"][-1])
    return next(reached, float("nan"))


def _spread(values: Iterable[float], digits: int) -> str:
    low, middle, high = np.quantile(list(values), (0.25, 0.5, 0.75))
    return "not reached" if np.isnan(middle) else f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
