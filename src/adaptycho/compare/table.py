"""From the numbers of finished comparisons to tables: means with intervals, gains, win rates, doses saved."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.compare.race import Cell
from adaptycho.compare.strategies import CONVENTIONAL, FOCUSED, ORACLES
from adaptycho.compare.work import family
from adaptycho.metrics import statistics
from adaptycho.metrics.statistics import Estimate
from adaptycho.settings import microscopes

SHOWN = ("ssim", "ssim_aligned", "correlation", "correlation_inside", "resolution")
# Of these less is better, so a scan that diverged counts as the highest.
LESS = (
    "nrmse",
    "nrmse_inside",
    "resolution",
    "frc_half_bit",
    "frc_one_seventh",
    "column_error",
    "columns_missed",
    "columns_invented",
    "held_out",
)
FEWEST = 3  # specimens, for an interval; of three or four it is still too narrow
Table = dict[str, Any]


def table(cell: Cell) -> Table:
    """One comparison, ready for JSON.

    Keys: what was compared (`protocol`, `family`, `positions`, `dose`, `subsequences`, `specimens`, `seed`, `reference`, `primary`), and
    `test` and `measured` as `source` gives them; every metric as a mapping from strategy to mean, and with `_ci` to its 95 % interval (none
    for fewer than three specimens); `plans`; `best_conventional`, the conventional strategy with the best primary score; against it `gain`
    (relative, with interval) and `win_rate`; against the random scan (`q_against` says which) `q_ssim` and `q_res` as Table I of Schloz et
    al. has them; `oracle_fraction`, the share of the best oracle's gain that is reached. What diverged scores as `columns` says.
    """
    s = cell.settings
    known = microscopes.of(s).capabilities.specimens
    found: Table = {
        "protocol": cell.protocol.name,
        "family": family(s),
        "positions": s.scan.positions,
        "dose": s.scan.dose,
        "subsequences": s.scan.subsequences,
        "specimens": len(next(iter(cell.numbers.values()))),
        "seed": s.scan.seed,
        "reference": cell.protocol.reference if known else "full",
        "primary": cell.protocol.primary,
        **source(cell),
    }
    for metric in dict.fromkeys(k for rows in cell.numbers.values() for row in rows for k in row):
        values = columns(cell, metric)
        estimates = {name: statistics.interval(v, generator=_generator(), better=_better(metric)) for name, v in values.items()}
        found[metric] = {name: _round(e.mean) for name, e in estimates.items()}
        found[f"{metric}_ci"] = {name: _listed(e)[1:] for name, e in estimates.items()}
    if not known:  # as it was recorded
        found["dose"] = round(next(iter(found["dose_total"].values())) / s.scan.positions, 1)
    found["plans"] = {n: {"strategy": p.strategy, "defocus": p.defocus, "reconstruct": dict(p.reconstruct)} for n, p in cell.plans.items()}
    return found | _gains(cell)


def source(cell: Cell) -> Table:
    """`test`, the range that test specimens came from (null for a recording), and `measured`: `date`, `code` and `version` if known."""
    ordered = microscopes.of(cell.settings).capabilities.specimens
    measured = None if cell.origin is None else dataclasses.asdict(cell.origin)
    return {"test": list(cell.settings.evaluate.test) if ordered else None, "measured": measured}


def columns(cell: Cell, metric: str) -> dict[str, Float[Tensor, " B"]]:
    """One metric of every strategy, on the specimens that have it.

    What diverged knows nothing: it scores 0, or, where less is better, as the worst of all strategies.
    """
    have = [i for i in range(len(next(iter(cell.numbers.values())))) if any(metric in rows[i] for rows in cell.numbers.values())]
    raw = {
        name: torch.tensor([rows[i].get(metric, math.nan) for i in have], dtype=torch.float64)
        for name, rows in cell.numbers.items()
        if any(metric in row for row in rows)
    }
    if not raw:
        return {}
    if _better(metric) == "more":
        return {name: v.nan_to_num(nan=0.0) for name, v in raw.items()}
    return dict(zip(raw, statistics.filled(list(raw.values()), better=_better(metric)), strict=True))


def best_of(cell: Cell, names: Sequence[str]) -> str | None:
    """The strategy among `names`, focused or not, with the best mean primary score."""
    means = {n: float(v.mean()) for n, v in columns(cell, cell.protocol.primary).items() if n.removesuffix(FOCUSED) in names}
    return max(means, key=lambda n: means[n], default=None)


def chosen_blindly(cell: Cell, names: Sequence[str]) -> Float[Tensor, " B"]:
    """Primary scores of the best among `names` when the best is chosen, for each specimen, on all the others.

    The best of many on the specimens that it is then reported on owes some of its lead to chance; this does not.
    """
    scores = torch.stack([v for n, v in columns(cell, cell.protocol.primary).items() if n.removesuffix(FOCUSED) in names])
    others = scores.sum(1, keepdim=True) - scores
    return scores.gather(0, others.argmax(0, keepdim=True))[0]


def blind_gain(cell: Cell, names: Sequence[str], base: Sequence[str] = CONVENTIONAL) -> list[float | None]:
    """Relative gain, with interval, of the best among `names` over the best of others, both chosen without looking."""
    return _listed(statistics.relative(chosen_blindly(cell, names), chosen_blindly(cell, base), generator=_generator()))


def cautious_gain(cell: Cell, names: Sequence[str]) -> list[float | None]:
    """Relative gain of the best among `names`, chosen without looking, over the conventional scan that is best on these very specimens.

    A best that is chosen without looking is worse than most where many are alike, and would make a gain of nothing.
    """
    base = best_of(cell, CONVENTIONAL)
    if base is None:
        return [None, None, None]
    known = columns(cell, cell.protocol.primary)[base]
    return _listed(statistics.relative(chosen_blindly(cell, names), known, generator=_generator()))


def _gains(cell: Cell) -> Table:
    found: Table = {}
    primary = columns(cell, cell.protocol.primary)
    base, oracle = best_of(cell, CONVENTIONAL), best_of(cell, ORACLES)
    if base is not None:
        found["best_conventional"] = base
        found["gain"] = {n: _listed(statistics.relative(v, primary[base], generator=_generator())) for n, v in primary.items()}
        found["win_rate"] = {n: _listed(statistics.win_rate(v, primary[base], generator=_generator())) for n, v in primary.items()}
    if base is not None and oracle is not None:
        found["oracle_fraction"] = {
            n: _listed(statistics.oracle_fraction(v, primary[base], primary[oracle], generator=_generator())) for n, v in primary.items()
        }
    random = next((n for n in ("random:focused", "random") if n in cell.numbers), None)
    if random is not None:
        found["q_against"] = random
        for key, metric, against in (("q_ssim", "ssim", statistics.relative), ("q_res", "resolution", statistics.relative_reduction)):
            if random in (values := columns(cell, metric)):
                found[key] = {n: _listed(against(v, values[random], generator=_generator())) for n, v in values.items()}
    return found


def dose_savings(cells: Sequence[Cell]) -> list[Table]:
    """How many times the dose the best conventional scan needs for the same primary score, for every strategy that is not conventional.

    Cells of one family and one number of electrons per position are compared along their numbers of positions: a conventional scan of more
    positions, at its best, against the strategy's fewer ones.
    """
    groups: dict[tuple[str, float], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((family(cell.settings), cell.settings.scan.dose), []).append(cell)
    found = []
    for (what, dose), group in groups.items():
        group = sorted(group, key=lambda c: c.settings.scan.positions)
        curve = [(c, best_of(c, CONVENTIONAL)) for c in group]
        known = [(c.settings.scan.positions * dose, columns(c, c.protocol.primary)[name]) for c, name in curve if name is not None]
        if len(known) < 2:
            continue
        at, scores = torch.tensor([k[0] for k in known], dtype=torch.float64), torch.stack([k[1] for k in known])
        for cell in group:
            for name, ours in columns(cell, cell.protocol.primary).items():
                if name.removesuffix(FOCUSED) in CONVENTIONAL:
                    continue
                saved = statistics.dose_saving(cell.settings.scan.positions * dose, ours, at, scores, generator=_generator())
                row = {"family": what, "dose": dose, "positions": cell.settings.scan.positions, "strategy": name}
                found.append(row | {"dose_saving": _listed(saved), "bounded": saved.bounded})
    return found


def text(found: Mapping[str, Any]) -> list[str]:
    """The table as lines to read: strategies ranked by the primary score."""
    head = (
        f"{found['family']}, {found['positions']} positions, {found['dose']:g} electrons each, protocol {found['protocol']}: "
        f"{found['specimens']} test specimens, seed {found['seed']}, against the "
        f"{'true phase' if found['reference'] == 'truth' else 'full scan'}; mean [95 % interval]"
    )
    primary = found["primary"]
    shown = [primary, *(m for m in SHOWN if m != primary and m in found)]
    shown_as = {n: _called(n, found["plans"]) for n in found[primary]}
    width = max(map(len, shown_as.values())) + 2
    lines = [head, "  " + " " * width + "".join(f"{m.replace('_', ' '):<26}" for m in shown) + "gain over best conventional"]
    for name in sorted(found[primary], key=lambda n: -(found[primary][n] if found[primary][n] is not None else -math.inf)):
        line = f"  {shown_as[name]:<{width}}" + "".join(f"{_cell_text(found, m, name):<26}" for m in shown)
        if "gain" in found:
            line += "best conventional" if name == found["best_conventional"] else percent(found["gain"][name])
        lines.append(line)
    return lines


def _called(name: str, plans: Mapping[str, Any]) -> str:
    """A strategy's name, with the one that it was if it was chosen among others."""
    strategy = plans[name]["strategy"] if name in plans else name
    return name if strategy == name.split(" ")[0].removesuffix(FOCUSED) else f"{name} ({strategy})"


def percent(values: Sequence[float | None]) -> str:
    """A relative change and its interval in per cent."""
    mean, low, high = values
    if mean is None:
        return "–"
    return f"{100 * mean:+.1f} %" if low is None or high is None else f"{100 * mean:+.1f} % [{100 * low:+.1f}, {100 * high:+.1f}]"


def between(values: Sequence[float | None], digits: int = 3) -> str:
    """A mean and its interval."""
    mean, low, high = values
    if mean is None:
        return "–"
    return f"{mean:.{digits}f}" if low is None or high is None else f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _cell_text(found: Mapping[str, Any], metric: str, name: str) -> str:
    return between([found[metric][name], *found[f"{metric}_ci"][name]]) if name in found[metric] else "–"


def _better(metric: str) -> statistics.Better:
    return "less" if metric in LESS else "more"


def _generator() -> torch.Generator:
    """The same resampling for everything that is compared."""
    return torch.Generator().manual_seed(0)


def _listed(estimate: Estimate) -> list[float | None]:
    mean, low, high = (_round(v) for v in (estimate.mean, estimate.low, estimate.high))
    return [mean, low, high] if estimate.count >= FEWEST else [mean, None, None]


def _round(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None
