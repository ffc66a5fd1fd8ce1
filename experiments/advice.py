"""Writes the table behind `adaptycho advise`, src/adaptycho/compare/advice/table.json, and the answers in docs/advise.md, from comparisons.

    python experiments/advice.py [--learned FOLDER]

The folder is that of `experiments/learned.py saving` and `harmless`, with any number of policies; without it, the rows of learned scans
stay as they are. The judge's table (docs/results/best.json.gz with further.json), the dose on the structure, what is kept on other
materials, and the recorded scans are published. Nothing is measured here.
"""

import argparse
import contextlib
import dataclasses
import inspect
import io
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import spreads
import torch
from generalise import sheets

from adaptycho.app import cli
from adaptycho.compare import archive, table
from adaptycho.compare.advice.table import FORMAT, KINDS, UNLEARNED, Kind
from adaptycho.compare.race import Cell
from adaptycho.compare.strategies import CONVENTIONAL, FOCUSED, ORACLES
from adaptycho.compare.trial import Plan
from adaptycho.compare.work import family
from adaptycho.metrics import statistics
from adaptycho.physics.specimen import families
from adaptycho.settings import ADAPTIVE
from adaptycho.support.atomic import whole

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
TABLE = ROOT / "src" / "adaptycho" / "compare" / "advice" / "table.json"
PAGE = ROOT / "docs" / "advise.md"
ASKED = re.compile(r"(?<=^```console\n)\$ adaptycho (advise .*)\n(?:.*\n)*?(?=```$)", re.MULTILINE)
WEIGHTS = "structure"
LEARNED = ("saving", "harmless")
SOURCES = {
    "saving": "experiments/learned.py saving",
    "harmless": "experiments/learned.py harmless",
    "best": "adaptycho evaluate --protocol best (docs/results/best.json.gz and further.json)",
    **spreads.SOURCES,
}


def rows(cells: Sequence[Cell], curve: Sequence[Cell], source: str, *, focused: bool = False) -> Iterator[dict[str, Any]]:
    """A row for each cell and kind of scan; the conventional scans are those of `curve`, along all its numbers of positions."""
    end = FOCUSED if focused else ""
    for cell in cells:
        scan, scores = cell.settings.scan, table.columns(cell, cell.protocol.primary)
        oracle = max((scores[n + end] for n in ORACLES if n + end in scores), key=lambda values: float(values.mean()), default=None)
        beside = sorted((c for c in curve if _alike(c, cell)), key=lambda c: c.settings.scan.positions)
        same = next(c for c in beside if c.settings.scan.positions == scan.positions)
        for kind in KINDS:
            if (found := results(cell, kind, end)) is None:
                continue
            each, plans = found
            strategy = Counter(plan.strategy for plan in plans).most_common(1)[0][0]
            defoci = sorted(plan.defocus or 0.0 for plan in plans if plan.strategy == strategy)
            yield {
                "family": family(cell.settings),
                "filling": filling(cell),
                "electrons": scan.dose,
                "positions": scan.positions,
                "scan": kind,
                "strategy": strategy,
                **({"focused": True} if focused else {}),
                "defocus": defoci[len(defoci) // 2],
                "score": _round(float(each.mean())),
                "specimens": each.shape[1],
                **({"policies": len(plans)} if kind != "unlearned" else {}),
                "source": source,
                "dense": _round(float(table.columns(same, cell.protocol.primary)["dense" + end].mean())),
                "against": {
                    base: against(each, oracle, scan.positions, scan.dose, beside, among, end)
                    for base, among in (("all", CONVENTIONAL), ("sparse", spreads.SPARSE))
                },
            }


def results(cell: Cell, kind: Kind, end: str) -> tuple[torch.Tensor, list[Plan]] | None:
    """Scores of a kind of scan (policies, specimens), and the plan of each policy; None if it was not measured."""
    unlearned = [name + end for name in UNLEARNED]
    names = [n for n in cell.numbers if (n in unlearned if kind == "unlearned" else n.startswith(f"{kind} ") and n.endswith(end))]
    if not names:
        return None
    scores = table.columns(cell, cell.protocol.primary)
    if kind != "unlearned":
        return torch.stack([scores[n] for n in names]), [cell.plans[n] for n in names]
    some = dataclasses.replace(cell, numbers={n: cell.numbers[n] for n in names})
    return table.chosen_blindly(some, UNLEARNED)[None], [cell.plans[max(names, key=lambda n: float(scores[n].mean()))]]


def against(
    each: torch.Tensor, oracle: torch.Tensor | None, positions: int, dose: float, beside: Sequence[Cell], among: Sequence[str], end: str
) -> dict[str, Any]:
    """The scores of one or several policies (policies, specimens) against the best conventional scans among some."""
    best, known, defoci = [], [], []
    for cell in beside:
        scores = {n: v for n, v in table.columns(cell, cell.protocol.primary).items() if n in [a + end for a in among]}
        name = max(scores, key=lambda n: float(scores[n].mean()))
        best.append(name)
        known.append(scores[name])
        defoci.append(cell.plans[name].defocus)
    counts = [cell.settings.scan.positions for cell in beside]
    here = counts.index(positions)
    at, curve = torch.tensor([dose * c for c in counts], dtype=torch.float64), torch.stack(known)

    def saved(score: torch.Tensor) -> statistics.Estimate:
        return statistics.dose_saving(dose * positions, score, at, curve, generator=_seeded())

    def gained(score: torch.Tensor) -> statistics.Estimate:
        return statistics.relative(score, known[here], generator=_seeded())

    mean = each.mean(0)
    saving = saved(mean)
    return {
        "scan": best[here].removesuffix(end),
        "defocus": defoci[here] or 0.0,
        "score": _round(float(known[here].mean())),
        "gain": _listed(gained(mean)),
        "saving": _listed(saving),
        **({"bounded": saving.bounded} if saving.bounded else {}),
        **({"gain_by_policy": [_round(gained(one).mean) for one in each]} if len(each) > 1 else {}),
        **({"saving_by_policy": [_round(saved(one).mean) for one in each]} if len(each) > 1 else {}),
        **({"oracle": _listed(gained(oracle))} if oracle is not None else {}),
    }


def filling(cell: Cell) -> list[float]:
    """Fraction of the field with structure, from and to; 1 of families that fill it."""
    made = getattr(families, family(cell.settings), None)
    usual = inspect.signature(made).parameters.get("filling") if made else None
    found = cell.settings.specimen.options.get("filling", usual.default if usual else 1.0)
    return [float(v) for v in (found if isinstance(found, list | tuple) else (found, found))]


def replayed(cell: Cell) -> dict[str, Any]:
    """Scans of a recording, all that are best among others chosen on the other windows."""
    ours = [n for n in cell.numbers if n.split(" ")[0] in ADAPTIVE]
    blind = table.chosen_blindly(cell, CONVENTIONAL)
    oracle = table.chosen_blindly(cell, ORACLES)
    return {
        "positions": cell.settings.scan.positions,
        "scan": table.best_of(cell, ours),
        "gain": table.blind_gain(cell, ours),
        "oracle": _listed(statistics.relative(oracle, blind, generator=_seeded())),
        "windows": len(oracle),
    }


def learned(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of the learned scans, from the folder of `experiments/learned.py`."""
    for source in LEARNED:
        cells = archive.read(folder / f"{source}.json.gz")
        yield from rows([cell for cell in cells if results(cell, "adaptive", "")], cells, source)


def shipped() -> list[dict[str, Any]]:
    """The rows of the learned scans as they are in the package."""
    return [row for row in json.loads(TABLE.read_text(encoding="utf-8"))["rows"] if row["source"] in LEARNED]


def kept() -> dict[str, list[float]]:
    """How much of its gain over a random scan a policy that was trained on one material kept on each of others."""
    lines = [json.loads(line) for line in (RESULTS / "generalise.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["case"]: line["ssim"]["kept"] for line in lines if line["case"] in sheets()}


def made(scans: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole table, with the rows of learned scans."""
    judged = archive.read(RESULTS / "best.json.gz")
    beam, field = judged[0].settings.beam, judged[0].settings.geometry.field
    return {
        "format": FORMAT,
        "beam": {
            "energy": beam.energy,
            "semiangle": beam.semiangle,
            "field": list(field),
            "structure": judged[0].settings.specimen.structure,
            "dense": judged[0].settings.evaluate.dense,
        },
        "weights": WEIGHTS,
        "sources": SOURCES,
        "kept": kept(),
        "rows": [
            *scans,
            *rows(judged, [*judged, *archive.read(RESULTS / "further.json")], "best"),
            *rows(judged, judged, "best", focused=True),
        ],
        "recorded": [replayed(cell) for cell in archive.read(RESULTS / "recorded.json")],
        "spreads": list(spreads.spreads(RESULTS)),
    }


def answered(page: str) -> str:
    """The page with what its commands print from the shipped table."""

    def answer(command: re.Match[str]) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            if cli.main(shlex.split(command[1])):
                raise ValueError(f"{PAGE.name}: expected commands that work, found {command[1]!r}")
        return f"$ adaptycho {command[1]}\n{said.getvalue()}"

    return ASKED.sub(answer, page)


def _alike(one: Cell, other: Cell) -> bool:
    first, second = ((family(c.settings), c.settings.scan.dose, filling(c)) for c in (one, other))
    return first == second


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _listed(estimate: statistics.Estimate) -> list[float]:
    return [_round(v) for v in (estimate.mean, estimate.low, estimate.high)]


def _round(value: float) -> float:
    return round(value, 4)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--learned", type=Path)
    asked.add_argument("--out", type=Path, default=TABLE)
    given = asked.parse_args()
    found = made(shipped() if given.learned is None else list(learned(given.learned)))
    lists = {name: found.pop(name) for name in ("rows", "recorded", "spreads")}
    head = json.dumps(found, indent=1)[:-2]
    body = ",\n".join(f' "{name}": [\n' + ",\n".join(json.dumps(r, separators=(",", ":")) for r in v) + "\n]" for name, v in lists.items())
    with whole(given.out) as part:  # a row on a line: differences can be read
        part.write_text(f"{head},\n{body}\n}}\n", encoding="utf-8")
    if given.out == TABLE:
        PAGE.write_text(answered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(json.dumps({"file": given.out.name, "bytes": given.out.stat().st_size, "rows": len(lists["rows"])}))


if __name__ == "__main__":
    main()
