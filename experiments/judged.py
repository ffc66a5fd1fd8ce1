"""Tables of what the judge measured: one comparison, or all of them, as lines of Markdown."""

from shown import Lines, head, percent, row, times

from adaptycho.compare import table
from adaptycho.compare.race import Cell
from adaptycho.compare.strategies import CONVENTIONAL, ORACLES
from adaptycho.compare.work import family
from adaptycho.settings import ADAPTIVE

TABLED: dict[int, dict] = {}  # a table takes seconds, and several pages want it


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


def tabled(cell: Cell) -> dict:
    if id(cell) not in TABLED:
        TABLED[id(cell)] = table.table(cell)
    return TABLED[id(cell)]


def ranked(found: dict) -> list[str]:
    return sorted(found[found["primary"]], key=lambda n: -(found[found["primary"]][n] or -9))


def between(found: dict, metric: str, name: str, digits: int = 3) -> str:
    return table.between([found[metric][name], *found[f"{metric}_ci"][name]], digits)
