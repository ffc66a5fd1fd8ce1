"""Tables of the JSON lines that experiments printed, as lines of Markdown."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shown import Lines, head, hundredths, percent, row, times

from adaptycho.compare import table
from adaptycho.compare.race import Cell
from adaptycho.compare.work import family

Line = Mapping[str, Any]
Column = tuple[str, Callable[[Line], object]]  # its name, and what it says of a comparison

WHERE: list[Column] = [
    ("family", lambda r: r["family"]),
    ("electrons", lambda r: f"{r['dose']:g}"),
    ("positions", lambda r: r["positions"]),
]
CONVENTIONAL: list[Column] = [("best conventional", lambda r: r["conventional"]), ("its score", lambda r: f"{r['conventional_score']:.3f}")]
SCORE: Column = ("its score", lambda r: f"{r['score']:.3f}")
WON: list[Column] = [("gain / %", lambda r: percent(r["gain"])), ("dose saved", lambda r: times(r["saving"], r["bounded"]))]
AS_ASKED: Column = ("as asked", lambda r: times(r["saving_as_asked"], None))
ORACLE: Column = ("the oracle's", lambda r: f"{r['oracle'][0]:.2f}")
BY_POLICY: list[Column] = [
    ("by policy", lambda r: ", ".join(f"{v:.2f}" for v in r["by_policy"])),
    ("over the one chosen", lambda r: f"{r['saving_over_chosen'][0]:.2f}"),
]


def table1(found: Line) -> Lines:
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


def learned(lines: Sequence[Line]) -> Lines:
    """The learned policies in every cell: gain over the best conventional scan, and dose saved."""
    yield from columns(lines, [*WHERE, *CONVENTIONAL, ("auto", chosen), SCORE, *WON, *BY_POLICY, ORACLE])


def saved(lines: Sequence[Line]) -> Lines:
    """What `learned.py saving` printed: dose that a learned scan saves where structure fills a part of the field."""
    yield from columns(lines, [*WHERE, ("learned scan", scans), SCORE, *CONVENTIONAL, *WON, AS_ASKED, ORACLE])


def prior(lines: Sequence[Line]) -> Lines:
    """What `prior.py` printed of scans with and without a prior."""
    wanted: list[Column] = [
        *WHERE,
        ("scan", lambda r: f"{r['strategy']} ({r['is']})" if r.get("is", r["strategy"]) != r["strategy"] else r["strategy"]),
        ("prior", lambda r: "chosen" if r["prior"] else "none"),
        ("inside", lambda r: table.between(r["correlation_inside"], 3)),
        ("whole field", lambda r: table.between(r["correlation"], 3)),
        ("missed / %", lambda r: _percent(r, "columns_missed")),
        ("invented / %", lambda r: _percent(r, "columns_invented")),
        ("dose on the structure, e/Å²", lambda r: f"{r['dose_p95'][0]:.0f}"),
        ("gain / %", lambda r: percent(r["gain"]) if "gain" in r else ""),
        ("saved, no prior there", lambda r: _saved(r, "saving_over_best_without")),
        ("saved, prior there", lambda r: _saved(r, "saving_over_best_with")),
    ]
    yield from columns(lines, wanted)


def uncertain(lines: Sequence[Line]) -> Lines:
    """What `uncertainty.py` printed: errors against standard errors."""

    def told(name: str) -> Callable[[Line], str]:
        return lambda r: f"{r[name][0]:.2f} ± {r[name][1]:.2f}" if name in r else ""

    wanted: list[Column] = [
        *WHERE,
        ("scanned", lambda r: "half of the field" if r["half"] else "all of it"),
        ("specimens with a prior", lambda r: str(r["with_prior"])),
        ("within one", told("within_1")),
        ("within two", told("within_2")),
        ("rms", told("rms")),
        ("far from the scan: within two", told("dark_within_2")),
        ("standard error over spread of the phase", told("dark_known")),
    ]
    yield from columns(lines, wanted)


def surveys(lines: Sequence[Line]) -> Lines:
    """What `survey.py` printed: each signal at its best defocus."""
    doses = sorted({r["dose"] for r in lines})
    yield from head(["signal", *(f"{dose:g} electrons" for dose in doses)])
    for signal in dict.fromkeys(r["signal"] for r in lines):
        best = [max((r for r in lines if (r["signal"], r["dose"]) == (signal, dose)), key=lambda r: r["auc"][0]) for dose in doses]
        yield row([signal, *(f"{table.between(r['auc'], 3)}, {r['defocus']:g} Å" for r in best)])


def believed(lines: Sequence[Line]) -> Lines:
    """What `atoms.py` printed: columns that are believed, missed and invented."""
    yield from head(["scan", "believed above", "missed / %", "invented / %", "inside"])
    for r in lines:
        asked = f"{r['asked']:g} " + ("standard errors" if r["scan"].endswith(", prior") else "of the brightest")
        yield row([r["scan"], asked, _percent(r, "missed", 1), _percent(r, "invented", 1), table.between(r["correlation_inside"], 3)])


def _percent(r: Line, key: str, digits: int = 0) -> str:
    return table.between([100 * v for v in r[key]], digits) if r.get(key) and None not in r[key] else ""


def _saved(r: Line, key: str) -> str:
    return times(r[key], r[f"{key}_bounded"]) if key in r else ""


def columns(lines: Sequence[Line], wanted: Sequence[Column]) -> Lines:
    """A row for each comparison; means of several are left out."""
    yield from head([name for name, _ in wanted])
    for r in (r for r in lines if "family" in r):
        yield row([said(r) for _, said in wanted])


def scans(r: Line) -> str:
    """What the policies scanned by."""
    return ", ".join(dict.fromkeys(name for name, _ in r["plans"]))


def chosen(r: Line) -> str:
    """The same with how many of them, where they did not agree."""
    found = Counter(name for name, _ in r["plans"]).most_common()
    return ", ".join(name if count == len(r["plans"]) else f"{count} {name}" for name, count in found)


def learned_means(lines: Sequence[Line]) -> Lines:
    """Means over the cells of the last table."""
    yield from head(["specimens", "cells", "dose saved", "over the one chosen on training specimens", "learned scan as asked", "gain / %"])
    for r in (r for r in lines if "mean of" in r):
        saved = [table.between(r[key], 2) for key in ("saving", "saving_over_chosen")]
        yield row([r["mean of"], r["cells"], *saved, f"{r['saving_as_asked']:.2f}", f"{100 * r['gain']:+.1f}"])


def saved_means(lines: Sequence[Line]) -> Lines:
    """Their means over islands and particles, of both numbers of positions and of each."""
    yield from head(["electrons per position", "positions", "the best conventional scan needs ... times as many"])
    for r in (r for r in lines if "means" in r):
        for of, mean in r["means"].items():
            positions, _, dose = of.rpartition(" x ")
            least = " or more" if r["bounded"][of] else ""  # beyond the end of the conventional scan's curve
            yield row([dose, positions or "64 and 144", f"{table.between(mean, 2)}{least}"])


def on_the_structure(lines: Sequence[Line], cells: Sequence[Cell]) -> Lines:
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


def harmless(lines: Sequence[Line]) -> Lines:
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
        best = r["best_other"]
        where = [r["family"], f"{r['dose']:g}", r["positions"], scans(r), f"{r['learned']:.3f}", best, f"{r[best]:.3f}"]
        yield row([*where, percent(r["over_best"]), percent(r["over_best_as_asked"])])


def generalised(lines: Sequence[Line]) -> Lines:
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


def parts(lines: Sequence[Line]) -> Lines:
    """What each part of a learned scan is worth."""
    yield from head(["scan", "SSIM", "by training", "over random / %", "difference from the whole"])
    for r in lines:
        trainings = ", ".join(f"{v:.3f}" for v in r["by_policy"]) if len(r["by_policy"]) > 1 else ""
        difference = "" if r["what"] == "full" else table.between(r["difference"])
        yield row([r["what"], table.between(r["ssim"]), trainings, percent(r["over_random"]), difference])


def engines(lines: Sequence[Line]) -> Lines:
    """The same patterns reconstructed by two programs."""
    yield from head(["specimens", "reconstruction", "score", "learned", "random", "raster", "Halton", "over random / %", "over raster / %"])
    for r in lines:
        for metric in ("ssim", "ssim_aligned", "correlation", "correlation_inside"):
            if f := r.get(metric):
                scores = [f"{f[name]:.3f}" for name in ("learned", "random", "raster", "halton")]
                yield row([r["case"], r["engine"], metric, *scores, percent(f["over_random"]), percent(f["over_raster"])])
