"""Writes the tables of the pages in docs/ from the raw numbers in docs/results/, between their `<!-- table NAME -->` marks.

`python experiments/results.py` rewrites the pages in place (two minutes); `--check` only says whether they are up to date; `--only` takes
some of the tables.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from adaptycho.compare import archive, table
from adaptycho.compare.race import Cell
from adaptycho.compare.strategies import CONVENTIONAL, ORACLES
from adaptycho.compare.work import family
from adaptycho.settings import ADAPTIVE

DOCS = Path(__file__).parents[1] / "docs"
MARK = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
Lines = Iterator[str]


def row(values: Sequence[object]) -> str:
    return "| " + " | ".join(str(v) for v in values) + " |"


def head(names: Sequence[str]) -> Lines:
    yield row(names)
    yield row(["---"] * len(names))


def between(found: dict, metric: str, name: str, digits: int = 3) -> str:
    return table.between([found[metric][name], *found[f"{metric}_ci"][name]], digits)


def percent(values: Sequence[float | None]) -> str:
    return table.percent(values).replace(" %", "")


def ranked(found: dict) -> list[str]:
    return sorted(found[found["primary"]], key=lambda n: -(found[found["primary"]][n] or -9))


TABLED: dict[int, dict] = {}  # a table takes seconds, and several pages want it


def tabled(cell: Cell) -> dict:
    if id(cell) not in TABLED:
        TABLED[id(cell)] = table.table(cell)
    return TABLED[id(cell)]


def paper(cell: Cell) -> Lines:
    """Everything that the paper's protocol says."""
    found = tabled(cell)
    yield from head(
        [
            "strategy",
            "SSIM",
            "SSIM, 7 px uniform",
            "SSIM, aligned",
            "correlation",
            "resolution / Å",
            "FRC half-bit / Å",
            "Q_SSIM / %",
            "Q_res / %",
        ]
    )
    for name in ranked(found):
        scores = [between(found, m, name) for m in ("ssim", "ssim_uniform", "ssim_aligned", "correlation")]
        lengths = [between(found, m, name, 2) for m in ("resolution", "frc_half_bit")]
        yield row([name, *scores, *lengths, percent(found["q_ssim"][name]), percent(found["q_res"][name])])


def recorded(cells: list[Cell]) -> Lines:
    """Correlation with the other half of the recording."""
    names = list(cells[0].numbers)
    yield from head(["positions", *names])
    for metric in ("correlation_inside", "correlation"):
        for cell in cells:
            found = tabled(cell)
            where = "structured half" if metric.endswith("inside") else "whole window"
            yield row([f"{found['positions']}, {where}", *(between(found, metric, n, 2) for n in names)])


def summary(cells: list[Cell]) -> Lines:
    """A row for each cell: who is best among the conventional, the adaptive and the oracles."""
    yield from head(
        [
            "family",
            "electrons",
            "positions",
            "best conventional",
            "its score",
            "best adaptive",
            "gain / %",
            "wins",
            "best oracle",
            "gain / %",
        ]
    )
    for cell in cells:
        found = tabled(cell)
        base = found["best_conventional"]
        ours, oracle = table.best_of(cell, ADAPTIVE), table.best_of(cell, ORACLES)
        yield row(
            [
                found["family"],
                f"{found['dose']:g}",
                found["positions"],
                base,
                between(found, found["primary"], base),
                ours,
                percent(table.blind_gain(cell, ADAPTIVE)),
                f"{100 * found['win_rate'][ours][0]:.0f} %",
                oracle,
                percent(table.blind_gain(cell, ORACLES)),
            ]
        )


def defocus(cells: list[Cell]) -> Lines:
    """What defocus is worth, against focus and against the dense raster."""
    names = ("raster:focused", "raster", "dense:focused", "dense", "oracle:focused", "oracle", "oracle-density")
    yield from head(["family", "electrons", "positions", *names])
    for cell in cells:
        if family(cell.settings) in ("crystal", "island"):
            found = tabled(cell)
            values = []
            for name in names:
                focus = cell.plans[name].defocus
                where = "" if name.endswith("focused") or (name == "oracle-density" and not focus) else f", {focus:g} Å"
                values.append(between(found, "correlation_inside", name, 2) + where)
            yield row([found["family"], f"{found['dose']:g}", found["positions"], *values])


def conventional(cells: list[Cell]) -> Lines:
    """Mean rank of the conventional scans over all cells, and how often each is best."""
    names = [n for n in cells[0].numbers if n.partition(":")[0] in CONVENTIONAL]
    ranks: dict[str, list[int]] = {n: [] for n in names}
    behind: dict[str, list[float]] = {n: [] for n in names}
    for cell in cells:
        means = {n: float(v.mean()) for n, v in table.columns(cell, cell.protocol.primary).items() if n in names}
        order = sorted(names, key=lambda n: -means[n])
        for n in names:
            ranks[n].append(order.index(n) + 1)
            behind[n].append(100 * (1 - means[n] / means[order[0]]))
    yield from head(["strategy", "mean rank", "best in", "behind the best by / %, mean", "at most"])
    for n in sorted(names, key=lambda n: sum(ranks[n])):
        yield row(
            [
                n,
                f"{sum(ranks[n]) / len(cells):.1f}",
                f"{ranks[n].count(1)} of {len(cells)}",
                f"{sum(behind[n]) / len(cells):.1f}",
                f"{max(behind[n]):.1f}",
            ]
        )


def adaptive(cells: list[Cell]) -> Lines:
    """Mean gain of every adaptive strategy and oracle by family, and in how many cells its interval lies above and below 0."""
    names = [n for n in cells[0].numbers if n in ADAPTIVE + ORACLES]
    families = list(dict.fromkeys(family(c.settings) for c in cells))
    found = [tabled(c) for c in cells]
    yield from head(["strategy", *families])
    for name in names:
        values = []
        for what in families:
            gains = [t["gain"][name] for t in found if t["family"] == what]
            better, worse = sum(g[1] > 0 for g in gains), sum(g[2] < 0 for g in gains)
            values.append(f"{100 * sum(g[0] for g in gains) / len(gains):+.1f} % ({better} better, {worse} worse)")
        yield row([name, *values])


def savings(cells: list[Cell]) -> Lines:
    """How many times the dose the best conventional scan needs for the same score."""
    found = [r for r in table.dose_savings(cells) if ":" not in r["strategy"]]
    names = list(dict.fromkeys(r["strategy"] for r in found))
    yield from head(["family", "electrons", "positions", *names])
    found = [r for r in found if r["family"] in ("island", "particles")]  # elsewhere there is hardly anything to save
    cellwise = {(r["family"], r["dose"], r["positions"], r["strategy"]): r for r in found}
    for what, dose, positions in dict.fromkeys((r["family"], r["dose"], r["positions"]) for r in found):
        values = []
        for name in names:
            r = cellwise.get((what, dose, positions, name))
            values.append("" if r is None else times(r["dose_saving"], r["bounded"]))
        yield row([what, f"{dose:g}", positions, *values])


def table1(found: Mapping[str, Any]) -> Lines:
    """Table I of the paper, its figures beside ours; what falls short of them is in italics."""
    yield from head(["positions", "sub-sequences", "N_k/N_u", "paper", "e/Å²", "paper", "Q_SSIM / %", "paper", "Q_res / %", "paper"])
    for r in found["rows"]:
        if r["q_ssim"] is None:
            continue
        values: list[object] = [r["positions"], r["subsequences"], f"{r['nk_nu']:.2f}", f"{r['paper_nk_nu']:.2f}"]
        values += [f"{r[key] / 1e5:.2f}e5" for key in ("dose", "paper_dose")]
        for key in ("q_ssim", "q_res"):
            low, high = r[f"{key}_ci"]
            shown = f"{r[key]:.1f} [{low:.1f}, {high:.1f}]"
            values += [f"*{shown}*" if key in r["below_paper"] else shown, f"{r[f'paper_{key}']:.2f}"]
        yield row(values)


def learned(lines: Sequence[Mapping[str, Any]]) -> Lines:
    """The learned policies in every cell: gain over the best conventional scan, and dose saved."""
    yield from head(
        [
            "family",
            "electrons",
            "positions",
            "best conventional",
            "its score",
            "auto",
            "its score",
            "gain / %",
            "dose saved",
            "by policy",
            "over the one chosen",
            "the oracle's",
        ]
    )
    for r in (r for r in lines if "family" in r):
        chosen = Counter(strategy for strategy, _ in r["plans"])
        yield row(
            [
                r["family"],
                f"{r['dose']:g}",
                r["positions"],
                r["conventional"],
                f"{r['conventional_score']:.3f}",
                ", ".join(name if count == len(r["plans"]) else f"{count} {name}" for name, count in chosen.most_common()),
                f"{r['score']:.3f}",
                percent(r["gain"]),
                times(r["saving"], r["bounded"]),
                ", ".join(f"{v:.2f}" for v in r["by_policy"]),
                f"{r['saving_over_chosen'][0]:.2f}",
                f"{r['oracle'][0]:.2f}",
            ]
        )


def learned_means(lines: Sequence[Mapping[str, Any]]) -> Lines:
    """Means over the cells of the last table."""
    yield from head(["specimens", "cells", "dose saved", "over the one chosen on training specimens", "learned scan as asked", "gain / %"])
    for r in (r for r in lines if "mean of" in r):
        saved = [table.between(r[key], 2) for key in ("saving", "saving_over_chosen")]
        yield row([r["mean of"], r["cells"], *saved, f"{r['saving_as_asked']:.2f}", f"{100 * r['gain']:+.1f}"])


def saved(lines: Sequence[Mapping[str, Any]]) -> Lines:
    """What `learned.py saving` printed: dose that a learned scan saves where structure fills a part of the field."""
    yield from head(
        [
            "family",
            "electrons",
            "positions",
            "learned scan",
            "its score",
            "best conventional",
            "its score",
            "gain / %",
            "dose saved",
            "the oracle's",
        ]
    )
    for r in (r for r in lines if "family" in r):
        scan = ", ".join(dict.fromkeys(name for name, _ in r["plans"]))
        ours, theirs = f"{r['score']:.3f}", f"{r['conventional_score']:.3f}"
        where = [r["family"], f"{r['dose']:g}", r["positions"], scan, ours, r["conventional"], theirs]
        yield row([*where, percent(r["gain"]), times(r["saving"], r["bounded"]), f"{r['oracle'][0]:.2f}"])


def saved_means(lines: Sequence[Mapping[str, Any]]) -> Lines:
    """Their means over islands and particles, of both numbers of positions and of each."""
    yield from head(["electrons per position", "positions", "the best conventional scan needs ... times as many"])
    for r in (r for r in lines if "means" in r):
        for of, mean in r["means"].items():
            positions, _, dose = of.rpartition(" x ")
            least = " or more" if r["bounded"][of] else ""  # beyond the end of the conventional scan's curve
            yield row([dose, positions or "64 and 144", f"{table.between(mean, 2)}{least}"])


def on_the_structure(lines: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> Lines:
    """How much of the dose comes down on the structure, by the 95th percentile over the field's pixels; structure fills more than 5 %."""
    yield from head(
        [
            "family",
            "electrons per position",
            "positions",
            "e/Å², mean",
            "95th percentile over mean, learned",
            "conventional",
            "dose saved",
            "on the structure, for the same score",
        ]
    )
    for r in (r for r in lines if "plans" in r):
        wanted = r["family"], r["positions"], r["dose"]
        cell = next(c for c in cells if (family(c.settings), c.settings.scan.positions, c.settings.scan.dose) == wanted)
        ours, theirs = (
            sum(s["dose_p95"] / s["dose_mean"] for s in cell.numbers[name]) / len(cell.numbers[name])
            for name in (f"{r['plans'][0][0]} 1", r["conventional"])
        )
        mean = cell.numbers[r["conventional"]][0]["dose_mean"]
        factor = r["saving"][0]
        yield row(
            [
                r["family"],
                f"{r['dose']:g}",
                r["positions"],
                f"{mean:.0f}",
                f"{ours:.2f}",
                f"{theirs:.2f}",
                f"{factor:.2f}",
                f"{ours / theirs / factor:.2f} times as much",
            ]
        )


def harmless(lines: Sequence[Mapping[str, Any]]) -> Lines:
    """What `learned.py harmless` printed: the learned scan against the best conventional one where there is nothing to find."""
    yield from head(
        [
            "family",
            "electrons",
            "positions",
            "learned scan",
            "its score",
            "best conventional",
            "its score",
            "difference / %",
            "as asked / %",
        ]
    )
    for r in lines:
        scan = ", ".join(dict.fromkeys(name for name, _ in r["plans"]))
        best = r["best_other"]
        where = [r["family"], f"{r['dose']:g}", r["positions"], scan, f"{r['learned']:.3f}", best, f"{r[best]:.3f}"]
        yield row([*where, percent(r["over_best"]), percent(r["over_best_as_asked"])])


def generalised(lines: Sequence[Mapping[str, Any]]) -> Lines:
    """What policies that were trained on one material gain on others and under other conditions."""
    yield from head(
        ["specimens", "random", "learned", "over random / %", "over the best conventional / %", "oracle over random / %", "kept / %"]
    )
    for r in lines:
        f = r["ssim"]
        yield row(
            [
                r["case"],
                f"{f['random']:.3f}",
                f"{f['learned']:.3f}",
                percent(f["over_random"]),
                f"{percent(f['over_best'])} ({f['best_other']})",
                percent(f["oracle_over_random"]),
                "" if f["kept"] is None else hundredths(f["kept"]),
            ]
        )


def parts(lines: Sequence[Mapping[str, Any]]) -> Lines:
    """What each part of a learned scan is worth."""
    yield from head(["scan", "SSIM", "by training", "over random / %", "difference from the whole"])
    for r in lines:
        trainings = ", ".join(f"{v:.3f}" for v in r["by_policy"]) if len(r["by_policy"]) > 1 else ""
        difference = "" if r["what"] == "full" else table.between(r["difference"])
        yield row([r["what"], table.between(r["ssim"]), trainings, percent(r["over_random"]), difference])


def engines(lines: Sequence[Mapping[str, Any]]) -> Lines:
    """The same patterns reconstructed by two programs."""
    yield from head(["specimens", "reconstruction", "score", "learned", "random", "raster", "Halton", "over random / %", "over raster / %"])
    for r in lines:
        for metric in ("ssim", "ssim_aligned", "correlation", "correlation_inside"):
            if f := r.get(metric):
                scores = [f"{f[name]:.3f}" for name in ("learned", "random", "raster", "halton")]
                yield row([r["case"], r["engine"], metric, *scores, percent(f["over_random"]), percent(f["over_raster"])])


def sourced(make: Callable[[Any], Lines], data: Any) -> Lines:
    """A table and, if that was kept, when and by what code it was measured and on which specimens."""
    yield from make(data)
    known = [found for found in sources(data) if found.get("measured")]
    if known:
        dates, codes = (", ".join(sorted({found["measured"][key] for found in known})) for key in ("date", "code"))
        firsts = sorted({found["test"][0] for found in known if found["test"]})
        yield from ["", f"*Measured on {dates}, code {codes}{''.join(f', specimens from {n:,} on' for n in firsts)}.*"]


def sources(data: Any) -> list[Mapping[str, Any]]:
    """What comparisons, or lines of a benchmark, say about where they come from."""
    if isinstance(data, Cell):
        return [table.source(data)]
    return [data] if isinstance(data, Mapping) else [found for part in data for found in sources(part)]


def times(values: Sequence[float], bounded: str | None) -> str:
    """How many times the dose, and whether that is only a bound."""
    return {"above": "≥ ", "below": "≤ ", None: ""}[bounded] + table.between(values, 2)


def hundredths(values: Sequence[float]) -> str:
    return table.between([100 * v for v in values], 0)


@cache
def printed(name: str) -> list[dict[str, Any]]:
    """JSON lines that a benchmark printed."""
    return [json.loads(line) for line in (DOCS / "results" / name).read_text(encoding="utf-8").splitlines()]


@cache
def read(name: str) -> list[Cell]:
    return archive.read(DOCS / "results" / name)


def best() -> list[Cell]:
    return read("best.json.gz")


TABLES: dict[str, Callable[[], Lines]] = {
    "paper-light": lambda: sourced(paper, read("paper-light.json")[0]),
    "paper-size": lambda: sourced(paper, read("paper-size.json")[0]),
    "paper-wse2": lambda: sourced(paper, read("paper-wse2.json")[0]),
    "paper-graphene": lambda: sourced(paper, read("paper-graphene.json")[0]),
    "recorded": lambda: sourced(recorded, read("recorded.json")),
    "summary": lambda: sourced(summary, best()),
    "defocus": lambda: sourced(defocus, best()),
    "conventional": lambda: sourced(conventional, best()),
    "adaptive": lambda: sourced(adaptive, best()),
    "savings": lambda: sourced(savings, [*best(), *read("further.json")]),
    "table1": lambda: sourced(table1, printed("table1.json")[0]),
    "table1-recurrent": lambda: sourced(table1, printed("table1-recurrent.json")[0]),
    "table1-size": lambda: sourced(table1, printed("table1-size.json")[0]),
    "table1-recurrent-size": lambda: sourced(table1, printed("table1-recurrent-size.json")[0]),
    "saving": lambda: sourced(saved, printed("saving.jsonl")),
    "saving-means": lambda: sourced(saved_means, printed("saving.jsonl")),
    "saving-local": lambda: sourced(partial(on_the_structure, cells=read("saving.json.gz")), printed("saving.jsonl")),
    "harmless": lambda: sourced(harmless, printed("harmless.jsonl")),
    "learned": lambda: sourced(learned, printed("learned.jsonl")),
    "learned-means": lambda: sourced(learned_means, printed("learned.jsonl")),
    "generalise": lambda: sourced(generalised, printed("generalise.jsonl")),
    "ablate": lambda: sourced(parts, printed("ablate.jsonl")),
    "engine": lambda: sourced(engines, printed("engine.jsonl")),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", nargs="*", choices=list(TABLES), default=list(TABLES), metavar="TABLE")
    chosen = parser.parse_args()
    pages = {page: page.read_text(encoding="utf-8") for page in sorted([*DOCS.glob("*.md"), *(DOCS / "results").glob("*.md")])}
    made = {
        page: MARK.sub(lambda m: m[1] + "\n".join(TABLES[m[2]]()) + "\n" + m[3] if m[2] in chosen.only else m[0], old)
        for page, old in pages.items()
    }
    stale = [page for page in pages if made[page] != pages[page]]
    if chosen.check:
        print(f"{', '.join(p.name for p in stale)}: tables differ from the numbers in docs/results/" if stale else "up to date")
        return int(bool(stale))
    for page in stale:
        page.write_text(made[page], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
