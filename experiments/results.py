"""Writes the tables of the pages in docs/ from the raw numbers in docs/results/, between their `<!-- table NAME -->` marks.

`python experiments/results.py` rewrites the pages in place (two minutes); `--check` only says whether they are up to date; `--only` takes
some of the tables.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import judged
import printed
from shown import Lines

from adaptycho.compare import archive, table
from adaptycho.compare.race import Cell

DOCS = Path(__file__).parents[1] / "docs"
MARK = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


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


@cache
def lines(name: str) -> list[dict[str, Any]]:
    """JSON lines that a benchmark printed."""
    return [json.loads(line) for line in (DOCS / "results" / name).read_text(encoding="utf-8").splitlines()]


@cache
def read(name: str) -> list[Cell]:
    return archive.read(DOCS / "results" / name)


def best() -> list[Cell]:
    return read("best.json.gz")


TABLES: dict[str, Callable[[], Lines]] = {
    "paper-light": lambda: sourced(judged.paper, read("paper-light.json")[0]),
    "paper-size": lambda: sourced(judged.paper, read("paper-size.json")[0]),
    "paper-wse2": lambda: sourced(judged.paper, read("paper-wse2.json")[0]),
    "paper-graphene": lambda: sourced(judged.paper, read("paper-graphene.json")[0]),
    "recorded": lambda: sourced(judged.recorded, read("recorded.json")),
    "summary": lambda: sourced(judged.summary, best()),
    "defocus": lambda: sourced(judged.defocus, best()),
    "conventional": lambda: sourced(judged.conventional, best()),
    "adaptive": lambda: sourced(judged.adaptive, best()),
    "savings": lambda: sourced(judged.savings, [*best(), *read("further.json")]),
    "table1": lambda: sourced(printed.table1, lines("table1.json")[0]),
    "table1-recurrent": lambda: sourced(printed.table1, lines("table1-recurrent.json")[0]),
    "table1-size": lambda: sourced(printed.table1, lines("table1-size.json")[0]),
    "table1-recurrent-size": lambda: sourced(printed.table1, lines("table1-recurrent-size.json")[0]),
    "saving": lambda: sourced(printed.saved, lines("saving.jsonl")),
    "saving-means": lambda: sourced(printed.saved_means, lines("saving.jsonl")),
    "saving-local": lambda: sourced(partial(printed.on_the_structure, cells=read("saving.json.gz")), lines("saving.jsonl")),
    "prior": lambda: sourced(printed.prior, lines("prior.jsonl")),
    "atoms": lambda: sourced(printed.believed, lines("atoms.jsonl")),
    "uncertainty": lambda: sourced(printed.uncertain, lines("uncertainty.jsonl")),
    "survey": lambda: sourced(printed.surveys, lines("survey.jsonl")),
    "harmless": lambda: sourced(printed.harmless, lines("harmless.jsonl")),
    "learned": lambda: sourced(printed.learned, lines("learned.jsonl")),
    "learned-means": lambda: sourced(printed.learned_means, lines("learned.jsonl")),
    "generalise": lambda: sourced(printed.generalised, lines("generalise.jsonl")),
    "ablate": lambda: sourced(printed.parts, lines("ablate.jsonl")),
    "engine": lambda: sourced(printed.engines, lines("engine.jsonl")),
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
