"""From the numbers of finished comparisons to tables: means with intervals, gains, win rates, doses saved."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.evaluate.judge import Cell, family
from adaptycho.evaluate.search import FOCUSED
from adaptycho.evaluate.strategies import CONVENTIONAL, ORACLES
from adaptycho.metrics import statistics
from adaptycho.metrics.statistics import Estimate

SHOWN = ("ssim", "ssim_aligned", "correlation", "correlation_inside", "resolution")
# Of these less is better, so a scan that diverged counts as the highest.
LESS = ("nrmse", "nrmse_inside", "resolution", "frc_half_bit", "frc_one_seventh", "column_error", "held_out")
Table = dict[str, Any]


def table(cell: Cell) -> Table:
    """One comparison, ready for JSON.

    Keys: what was compared (`protocol`, `family`, `positions`, `dose`, `subsequences`, `specimens`, `seed`, `reference`, `primary`); every
    metric as a mapping from strategy to mean, and with `_ci` to its 95 % interval; `plans`; `best_conventional`, the conventional strategy
    with the best primary score; against it `gain` (relative, with interval) and `win_rate`; against the random scan `q_ssim` and `q_res` as
    Table I of Schloz et al. has them; `oracle_fraction`, the share of the best oracle's gain that is reached.
    """
    s = cell.settings
    found: Table = {
        "protocol": cell.protocol.name,
        "family": family(s),
        "positions": s.scan.positions,
        "dose": s.scan.dose,
        "subsequences": s.scan.subsequences,
        "specimens": len(next(iter(cell.numbers.values()))),
        "seed": s.scan.seed,
        "reference": cell.protocol.reference if s.scan.microscope == "simulated" else "full",
        "primary": cell.protocol.primary,
    }
    names = list(dict.fromkeys(k for rows in cell.numbers.values() for row in rows for k in row))
    for metric in names:
        values = {name: column(cell, name, metric) for name in cell.numbers if metric in cell.numbers[name][0]}
        better: statistics.Better = "less" if metric in LESS else "more"
        estimates = {name: statistics.interval(v, generator=_generator(), better=better) for name, v in values.items()}
        found[metric] = {name: _round(e.mean) for name, e in estimates.items()}
        found[f"{metric}_ci"] = {name: [_round(e.low), _round(e.high)] for name, e in estimates.items()}
    found["plans"] = {n: {"defocus": p.defocus, "reconstruct": dict(p.reconstruct)} for n, p in cell.plans.items()}
    return found | _gains(cell)


def column(cell: Cell, strategy: str, metric: str) -> Float[Tensor, " B"]:
    """One metric of one strategy on every specimen."""
    return torch.tensor([row.get(metric, math.nan) for row in cell.numbers[strategy]], dtype=torch.float64)


def best_of(cell: Cell, names: Sequence[str]) -> str | None:
    """The strategy among `names`, focused or not, with the best mean primary score."""
    present = [n for n in cell.numbers if n.removesuffix(FOCUSED) in names]
    return max(present, key=lambda n: float(column(cell, n, cell.protocol.primary).nan_to_num(-1).mean()), default=None)


def _gains(cell: Cell) -> Table:
    found: Table = {}
    primary = {name: column(cell, name, cell.protocol.primary) for name in cell.numbers}
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
        for key, metric, against in (("q_ssim", "ssim", statistics.relative), ("q_res", "resolution", statistics.relative_reduction)):
            other = column(cell, random, metric)
            found[key] = {n: _listed(against(column(cell, n, metric), other, generator=_generator())) for n in cell.numbers}
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
        known = [(c.settings.scan.positions * dose, column(c, name, c.protocol.primary)) for c, name in curve if name is not None]
        if len(known) < 2:
            continue
        at, scores = torch.tensor([k[0] for k in known], dtype=torch.float64), torch.stack([k[1] for k in known])
        for cell in group:
            for name in cell.numbers:
                if name.removesuffix(FOCUSED) in CONVENTIONAL:
                    continue
                ours = column(cell, name, cell.protocol.primary)
                saved = statistics.dose_saving(cell.settings.scan.positions * dose, ours, at, scores, generator=_generator())
                row = {"family": what, "dose": dose, "positions": cell.settings.scan.positions, "strategy": name}
                found.append(row | {"dose_saving": _listed(saved), "bounded": saved.bounded})
    return found


def text(found: Mapping[str, Any]) -> list[str]:
    """The table as lines to read: strategies ranked by the primary score."""
    head = (
        f"{found['family']}, {found['positions']} positions, {found['dose']:g} electrons each, protocol {found['protocol']}: "
        f"{found['specimens']} test specimens, seed {found['seed']}, against the {found['reference']} "
        f"{'phase' if found['reference'] == 'truth' else 'scan'}; mean [95 % interval]"
    )
    primary = found["primary"]
    shown = [primary, *(m for m in SHOWN if m != primary and m in found)]
    width = max(len(n) for n in found[primary]) + 2
    lines = [head, "  " + " " * width + "".join(f"{m.replace('_', ' '):<26}" for m in shown) + "gain over best conventional"]
    for name in sorted(found[primary], key=lambda n: -(found[primary][n] if found[primary][n] is not None else -math.inf)):
        line = f"  {name:<{width}}" + "".join(f"{_cell_text(found, m, name):<26}" for m in shown)
        if "gain" in found:
            mean, low, high = found["gain"][name]
            line += (
                "best conventional" if name == found["best_conventional"] else f"{100 * mean:+.1f} % [{100 * low:+.1f}, {100 * high:+.1f}]"
            )
        lines.append(line)
    return lines


def _cell_text(found: Mapping[str, Any], metric: str, name: str) -> str:
    mean, (low, high) = found[metric][name], found[f"{metric}_ci"][name]
    return "nan" if mean is None else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _generator() -> torch.Generator:
    """The same resampling for everything that is compared."""
    return torch.Generator().manual_seed(0)


def _listed(estimate: Estimate) -> list[float | None]:
    return [_round(v) for v in (estimate.mean, estimate.low, estimate.high)]


def _round(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None
