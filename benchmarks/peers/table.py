"""The page of what `compare.py` has printed: a summary of all conditions, then a table for each."""

import json
import shlex
import textwrap
from collections.abc import Iterable
from functools import cached_property
from statistics import fmean, median
from typing import Any

import numpy as np

Line = dict[str, Any]

CLEAR = 3.0  # times as long: then adaptycho is said to be first by far

TEXT = """# Beside other packages

The same patterns reconstructed by adaptycho and by other packages, one thread each; this package imports none of the others.

{verdict}

{fits}

| positions | electrons | probe |{names}
|---|---|---|{rules}
{summary}

Bold, the correlation with the truth that each reached at its best. *12 x*: it took 12 times the processor time that adaptycho took to come
as near to the truth. *Not reached*: adaptycho never came so near; the quotient after it is for as near as adaptycho came at its best.

MoS2 in a field of 20 Å x 20 Å, a regular raster, patterns of 64 x 64. Each package is tuned on one specimen, with as many settings and
processor seconds as the others, and measured on further ones, the packages in turn. Of the settings and the number of iterations those with
the highest correlation count, the fastest of those within 0.002 of it.

- *Correlation* with the true phase inside the field, after constant, ramp, scale and a shift below a pixel: mean [lowest, highest].
- *Seconds* are the processor's, preparation included; import, compilation and a first run on four rows of the raster are not.
- *Ours as far after*: seconds until adaptycho has the same correlation on the same specimen, looked at after 1, 2, 3, 5, 7, 10, 15, 20, 30,
  50 and so on iterations; *times ours*: quotients. Median [quartiles].
- The data come from adaptycho's own model without imperfections, which favours adaptycho. The settings are few, and a package that has not
  converged at the limit would reach more with more.
- What is particular to each package is in [benchmarks/peers](../../benchmarks/peers/README.md): PtyLab puts patterns at whole pixels only.

{sections}

{machine}

```console
{commands}
$ python benchmarks/peers/compare.py --page docs/results/peers.jsonl > docs/results/peers.md
```
"""

SECTION = """## {positions} positions, {electrons:g} electrons, probe {probe}

| package | chosen | iterations | correlation | seconds | per iteration | ours as far after | times ours | peak / MiB |
|---|---|---|---|---|---|---|---|---|
{rows}

Specimens measured: {specimens}, runs on each: {repeats}. Settings tried: {trials}, at most {limit:g} s and {iterations} iterations each.
{note}"""


class Condition:
    """The lines between two that tell what was asked."""

    def __init__(self, lines: list[Line]) -> None:
        self.told = lines[0]
        self.lines = lines
        self.tests = [line for line in lines if line["kind"] == "test" and "error" not in line]
        self.chosen: dict[str, Line] = {line["package"]: line for line in lines if line["kind"] == "chosen"}

    @property
    def probe(self) -> str:
        """Whether it was known or had to be refined."""
        return "refined" if self.told["refine"] else "known"

    @cached_property
    def ends(self) -> dict[str, list[Line]]:
        """The tests of each package, cut where it was tuned to end."""
        found: dict[str, list[Line]] = {package: [] for package in self.chosen}
        for line in self.tests:
            stop = sum(number <= self.chosen[line["package"]]["iterations"] for number in line["iterations"])
            cut = {name: line[name][:stop] for name in ("iterations", "seconds", "correlation")}
            found[line["package"]].append(line | cut)
        return found

    def correlation(self, package: str) -> float:
        """Mean of its tests at their ends; nan without any."""
        return fmean([line["correlation"][-1] for line in self.ends[package]]) if self.ends[package] else float("nan")

    def ratios(self, package: str) -> list[float]:
        """How many times longer it takes than adaptycho to be as far, for each test; nan where adaptycho never is."""
        return [line["seconds"][-1] / self.reached(line) for line in self.ends[package]]

    def caught(self, package: str) -> list[float]:
        """The same, until they are as far as adaptycho at its end; nan where they never are."""
        found = []
        for ours in self.ends.get("ours", []):
            of = (ours["problem"], ours["repeat"])
            same = [line for line in self.ends[package] if (line["problem"], line["repeat"]) == of]
            steps = (point for line in same for point in zip(line["seconds"], line["correlation"], strict=True))
            found.append(next((s for s, c in steps if c >= ours["correlation"][-1]), float("nan")) / ours["seconds"][-1])
        return found

    def reached(self, theirs: Line) -> float:
        """Seconds after which adaptycho had the correlation that they ended with, same specimen and repeat; nan if it never had."""
        same = (
            line
            for line in self.tests
            if (line["package"], line["problem"], line["repeat"]) == ("ours", theirs["problem"], theirs["repeat"])
        )
        reached = (s for line in same for s, c in zip(line["seconds"], line["correlation"], strict=True) if c >= theirs["correlation"][-1])
        return next(reached, float("nan"))


def conditions(lines: list[Line]) -> list[Condition]:
    """One for each line that tells what was asked."""
    starts = [number for number, line in enumerate(lines) if line["kind"] == "asked"]
    return [Condition(lines[start:end]) for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]


def page(lines: list[Line]) -> str:
    """Markdown: what each package reaches, in which time, and when adaptycho is as far on the same specimen, condition by condition."""
    found = conditions(lines)
    packages = dict.fromkeys(package for one in found for package in one.chosen)
    machine = next(line for line in lines if line["kind"] == "machine")
    text = TEXT.format(
        verdict=_fill(_verdict(found)),
        names="".join(f" {_name(package, found)} |" for package in packages),
        rules="---|" * len(packages),
        summary="\n".join(_summary(one, list(packages)) for one in found),
        fits=_fill(_fits(found)),
        sections="\n\n".join(_section(one) for one in found),
        machine=f"{machine['cpu']}, Python {machine['python']}, torch {machine['torch']}.",
        commands="\n".join(f"$ python benchmarks/peers/compare.py {_options(one)} >> docs/results/peers.jsonl" for one in found),
    )
    return text.replace("\n\n\n", "\n\n")  # where there was nothing to say


def _fill(text: str) -> str:
    return textwrap.fill(text, 138)


def _name(package: str, found: list[Condition]) -> str:
    """As it calls itself, where it ran."""
    programs = [line["program"] for one in found for line in one.tests if line["package"] == package]
    return programs[0].rsplit(" ", 1)[0] if programs else package


def _others(one: Condition) -> list[str]:
    return [package for package in one.chosen if package != "ours" and one.ends[package]]


def _options(one: Condition) -> str:
    """As they were given, without the note, which the page has."""
    given = shlex.split(one.told["options"])
    if "--note" in given:
        place = given.index("--note")
        del given[place : place + 2]
    return shlex.join(given)


def _where(one: Condition) -> str:
    return f"{one.told['side'] ** 2:,} positions, {one.told['electrons']:g} electrons, probe {one.probe}"


def _verdict(found: list[Condition]) -> str:
    """How often adaptycho is first, and by how much, in words; nothing where there is no other package."""
    nearest = {}
    for one in found:
        factors = {package: factor for package in _others(one) if not np.isnan(factor := _factor(one, package))}
        if factors:
            package = min(factors, key=lambda name: factors[name])
            nearest[_where(one)] = (package, factors[package])
    if not nearest:
        return ""
    first = sum(factor > 1 for _, factor in nearest.values())
    clear = sum(factor >= CLEAR for _, factor in nearest.values())
    listed = "; ".join(f"{_name(package, found)} {factor:.1f} times ({where})" for where, (package, factor) in nearest.items())
    return (
        f"Until both are as near to the truth, adaptycho takes less processor time than every other package in {first} of {len(nearest)} "
        f"conditions, and less than a third of it in {clear}. The nearest, in times of adaptycho's: {listed}."
    )


def _factor(one: Condition, package: str) -> float:
    """How many times longer it takes than adaptycho until both are as near to the truth as the one that stays farther from it."""
    ratio = _middle(one.ratios(package))
    return _middle(one.caught(package)) if np.isnan(ratio) else ratio


def _fits(found: list[Condition]) -> str:
    """Who comes nearer to the truth than adaptycho, which no time makes up for."""
    better = []
    for one in found:
        above = [package for package in _others(one) if one.correlation(package) > one.correlation("ours")]
        if "ours" in one.chosen and above:
            listed = ", ".join(f"{_name(package, found)} {one.correlation(package):.3f}" for package in above)
            better.append(f"{listed} where adaptycho comes to {one.correlation('ours'):.3f} ({_where(one)})")
    return f"Nearer to the truth than adaptycho: {'; '.join(better)}." if better else ""


def _middle(values: list[float]) -> float:
    """The median, in which a nan is above all numbers."""
    middle = median([float("inf") if np.isnan(value) else value for value in values]) if values else float("nan")
    return float("nan") if np.isinf(middle) else middle


def _summary(one: Condition, packages: list[str]) -> str:
    cells = [_cell(one, package) for package in packages]
    return f"| {one.told['side'] ** 2:,} | {one.told['electrons']:g} | {one.probe} | " + " | ".join(cells) + " |"


def _cell(one: Condition, package: str) -> str:
    if package not in one.chosen:
        return ""
    if not one.ends[package]:
        return "failed"
    bold = f"**{one.correlation(package):.3f}**"
    if package == "ours":
        return f"{bold} in {median([line['seconds'][-1] for line in one.ends[package]]):.2g} s"
    ratio = _middle(one.ratios(package))
    if not np.isnan(ratio):
        return f"{bold} {ratio:.1f} x"
    caught = _middle(one.caught(package))
    return f"{bold} *not reached*" + ("" if np.isnan(caught) else f", {caught:.1f} x to {one.correlation('ours'):.3f}")


def _section(one: Condition) -> str:
    told = one.told
    return SECTION.format(
        positions=f"{told['side'] ** 2:,}",
        electrons=told["electrons"],
        probe="refined, its guess out of focus by 20 Å" if told["refine"] else "known",
        rows="\n".join(_row(one, package) for package in one.chosen),
        specimens=len({line["problem"] for line in one.tests}),
        repeats=told["repeats"],
        trials=told["trials"],
        limit=told["limit"],
        iterations=told["iterations"],
        note=_fill(told["note"]),
    ).rstrip()


def _row(one: Condition, package: str) -> str:
    choice, mine = one.chosen[package], one.ends[package]
    if not mine:
        return f"| {package} | {choice.get('error', 'no run finished')} | | | | | | | |"
    ends = [line["correlation"][-1] for line in mine]
    seconds = [line["seconds"][-1] for line in mine]
    each = [line["seconds"][-1] / line["iterations"][-1] for line in mine]
    settings = f"`{json.dumps(choice['settings'])}`" if choice["settings"] else "defaults"
    return (
        f"| {mine[0]['program']} | {settings} | {choice['iterations']} | {fmean(ends):.3f} [{min(ends):.3f}, {max(ends):.3f}] | "
        f"{median(seconds):.2f} | {median(each):.3f} | {_spread([one.reached(line) for line in mine], 2)} | "
        f"{_spread(one.ratios(package), 1)} | {max(line['peak_mib'] for line in mine)} |"
    )


def _spread(values: Iterable[float], digits: int) -> str:
    """Median [quartiles] of those that are numbers, and how many are not."""
    every = list(values)
    numbers = [value for value in every if not np.isnan(value)]
    if not numbers:
        return "not reached"
    low, middle, high = np.quantile(numbers, (0.25, 0.5, 0.75))
    missed = f", {len(every) - len(numbers)} of {len(every)} not reached" if len(numbers) < len(every) else ""
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]{missed}"
