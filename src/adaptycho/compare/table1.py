"""Table I of Schloz et al. (2022): what an adaptive scan gains over a random one, by positions and sub-sequences.

Two columns of the table follow from the scan alone. The dose is the electrons of all positions over the area of the scan field. N_k/N_u,
measured pixels over unknown ones, needs an area that counts as lit; the paper refers to another one for it. With all 64 x 64 pixels of
every pattern measured and two unknowns (real and imaginary part) in a pixel of 0.154 Å, its figures imply 14.8 nm² at 250 positions and
15.3 nm² at 500, more than the 200 x 200 pixels (9.5 nm²) of its object. Disks of 21.0 Å diameter round random positions on 20 x 20 Å come
to that within 2 %: 8.06, 10.72, 13.35 and 15.85 for the printed 8.21, 10.83, 13.43 and 15.86. 21.0 Å is a window of the reciprocal
sampling of 0.4759 nm⁻¹ in its Table II, which is not the window of the reconstruction (docs/decisions/0003). This is how `oversampling`
reads it. `nk_nu_lit` is the ratio of the project's conventions (`adaptycho inspect`): its disks hold 90 % of the probe's intensity and lie
inside the object, and it is 3.6 times as large at 250 positions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from adaptycho.compare import race, table, trained
from adaptycho.compare.ledger import Ledger
from adaptycho.compare.trained import Trained
from adaptycho.formats import Recording
from adaptycho.formats.inspect import describe
from adaptycho.metrics import statistics
from adaptycho.physics.optics import Setup
from adaptycho.scan import patterns
from adaptycho.scan.episode import stream
from adaptycho.settings import Settings, build, update
from adaptycho.types import Action

PROTOCOL = race.PROTOCOLS["paper"]
UNIT = "per cent"
REACH = 5.0 / 0.4759  # Å: half of one over the reciprocal sampling of Table II in nm⁻¹
DRAWS = 25  # random scans that `nk_nu` is the mean of
USUAL = 5  # sub-sequences of the settings by default
Found = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """A row of the table as it is printed.

    Attributes:
        positions: of the whole scan.
        subsequences: they are taken in, the survey included.
        nk_nu: measured over unknown pixels.
        dose: electrons per Å².
        q_ssim: relative gain in SSIM over a random scan, per cent.
        q_res: relative gain in resolution, per cent.
    """

    positions: int
    subsequences: int
    nk_nu: float
    dose: float
    q_ssim: float
    q_res: float

    @property
    def name(self) -> str:
        """`250x5`, as the command line calls it."""
        return f"{self.positions}x{self.subsequences}"

    def cell(self, base: Settings) -> Settings:
        """The row's settings on top of others."""
        return update(base, {"scan": {"positions": self.positions, "subsequences": self.subsequences, "weights": None}}, f"row {self.name}")


ROWS = (
    Published(250, 2, 8.21, 1.34e5, 16.71, 9.74),
    Published(250, 3, 8.21, 1.34e5, 22.89, 15.06),
    Published(250, 4, 8.21, 1.34e5, 24.96, 19.79),
    Published(250, 5, 8.21, 1.34e5, 25.75, 27.57),
    Published(335, 5, 10.83, 1.79e5, 12.53, 28.71),
    Published(420, 5, 13.43, 2.25e5, 12.29, 29.23),
    Published(500, 5, 15.86, 2.68e5, 8.16, 31.59),
)


def choose(names: Sequence[str], positions: Sequence[int] = (), subsequences: Sequence[int] = ()) -> tuple[Published, ...]:
    """Rows by their names such as `250x5`, or else those of some positions and sub-sequences; what is empty leaves all.

    Raises:
        ValueError: the table has no such row.
    """
    known = {row.name: row for row in ROWS}
    for name in names:
        if name not in known:
            raise ValueError(f"rows: expected some of {', '.join(known)}, found {name!r}")
    if names:
        return tuple(known[name] for name in dict.fromkeys(names))
    found = tuple(r for r in ROWS if r.positions in (positions or (r.positions,)) and r.subsequences in (subsequences or (r.subsequences,)))
    if not found:
        said = f"{', '.join(map(str, positions)) or 'any'} positions in {', '.join(map(str, subsequences)) or 'any'} sub-sequences"
        raise ValueError(f"scan.positions, scan.subsequences: expected a row of Table I, {', '.join(known)}, found {said}")
    return found


def table1(
    base: Settings,
    rows: Sequence[Published],
    policies: Sequence[Trained],
    ledger: Ledger,
    *,
    progress: race.Progress,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Found:
    """Measures rows of the table that are not in the ledger yet, and returns them ready for JSON.

    Keys: `unit`, of all `q_...`: per cent; `specimens`, `seed`, `pixels` (of a pattern) and `policies` (files of weights, or "shipped");
    `test` and `measured` as `table.source` gives them; `rows`, each with `positions` and `subsequences`; `dose` in electrons per Å²,
    `nk_nu` and `nk_nu_lit` (see above); `q_ssim` and `q_res`, the gains over a random scan of as many positions, a ratio of means over
    specimens, and their 95 % intervals over specimens `q_ssim_ci` and `q_res_ci` (null for fewer than three); mean scores `ssim`,
    `ssim_aligned`, `correlation` and `resolution` in Å, of the random scan with `_random`; `ssim` and `resolution` of every specimen with
    `_by_specimen`, a list for each policy, and one of the random scan with `_random_by_specimen`; `q_ssim_by_policy` and `q_res_by_policy`;
    `policies` that fit the row; the paper's `paper_q_ssim`, `paper_q_res`, `paper_nk_nu`, `paper_dose`; `below_paper`, those of our gains
    that are smaller than the paper's. What no policy fits is null. A specimen's score is the mean over policies, and what diverged counts
    as `table.columns` says.

    Args:
        base: of everything but positions and sub-sequences; `PROTOCOL` is the caller's to apply.
        rows: of `ROWS`.
        policies: of one strategy, as `trained.read` gives them.
        ledger: of results.
        progress: as for `race.judge`.
        workers: see `spread`.
        scheduler: see `spread`.
    """
    how: Found = {"progress": progress, "workers": workers, "scheduler": scheduler}
    cells = [row.cell(base) for row in rows]
    # A random scan decides nothing, so it is the same in any number of sub-sequences: it is measured under the usual one, once.
    blind = {c.scan.positions: update(c, {"scan": {"subsequences": USUAL}}, "random scan") for c in cells}
    random = dict(zip(blind, race.judge(list(blind.values()), PROTOCOL, ["random"], ledger, **how), strict=True))
    learned = trained.judged(cells, PROTOCOL, policies, ledger, **how)
    scan = {positions: scan_facts(cell) for positions, cell in blind.items()}
    joined = [trained.joined(cell, random[row.positions]) for row, cell in zip(rows, learned, strict=True)]
    return {
        "table": "I",
        "unit": UNIT,
        "protocol": PROTOCOL.name,
        "specimens": base.evaluate.specimens,
        "seed": base.scan.seed,
        "pixels": base.geometry.detector,
        "strategy": policies[0].strategy,
        "policies": [policy.file or trained.SHIPPED for policy in policies],
        **table.source(joined[0]),
        "rows": [_row(row, cell, policies) | scan[row.positions] for row, cell in zip(rows, joined, strict=True)],
    }


def scan_facts(cell: Settings) -> Found:
    """`dose`, `nk_nu` and `nk_nu_lit` of random scans; `nk_nu` of one differs by 1 % from that of another, so it is a mean."""
    one = update(cell, {"specimen": {"first": cell.evaluate.test[0], "count": 1}}, "first test specimen")
    microscope = build.simulated(one)
    setup, draws = microscope.setup, [stream(cell.scan.seed, number) for number in range(DRAWS)]
    scans = [patterns.pattern("random", cell.scan.positions, setup.field, generator=generator) for generator in draws]
    facts = describe(Recording(setup, microscope.acquire(Action(scans[0].float()[None]), generator=draws[0])))
    return {
        "dose": facts["dose_e_per_A2"],
        "nk_nu": round(sum(oversampling(setup, scan) for scan in scans) / DRAWS, 2),
        "nk_nu_lit": round(facts["measured_per_unknown"], 2),
    }


def oversampling(setup: Setup, positions: Float[Tensor, "P 2"]) -> float:
    """N_k/N_u: recorded detector pixels over unknowns, real and imaginary part of each pixel within `REACH` of any position.

    Args:
        setup: of the scan; pixels of the object are also counted where its grid ends before the disks do.
        positions: fractions (y, x) of the scan field.
    """
    pixel = setup.object.pixel
    margin = math.ceil(REACH / pixel) + 1
    index = (positions.double().cpu() * torch.tensor(setup.field, dtype=torch.float64) / pixel).round().long()
    dark = torch.ones([math.ceil(f / pixel) + 2 * margin + 1 for f in setup.field], dtype=torch.bool)
    dark[tuple((index + margin).T)] = False
    lit = int((distance_transform_edt(dark.numpy()) * pixel <= REACH).sum())
    return len(positions) * math.prod(setup.detector) / (2 * lit)


def text(found: Mapping[str, Any]) -> list[str]:
    """The table as lines to read, the paper's figures beside ours."""
    head = (
        "Table I of Schloz et al. (2022): gain over a random scan in per cent, mean [95 % interval]; "
        f"test specimens: {found['specimens']}, patterns of {found['pixels']} x {found['pixels']}, seed {found['seed']}"
    )
    titles = ["positions", "sub-seq.", "N_k/N_u", "(paper)", "e/Å²", "Q_SSIM", "(paper)", "Q_res", "(paper)", ""]
    table_rows = [titles, *(_shown(row) for row in found["rows"])]
    widths = [max(len(line[i]) for line in table_rows) for i in range(len(titles))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in table_rows]
    return [head, f"policy: {found['strategy']}, {', '.join(found['policies'])}", *(f"  {line}" for line in lines)]


def _row(row: Published, cell: race.Cell, policies: Sequence[Trained]) -> Found:
    """One row without its dose: what was measured in a comparison that has the random scan and the policies that fit."""
    found: Found = {"positions": row.positions, "subsequences": row.subsequences, "policies": []}
    found["policies"] = [policy.file or trained.SHIPPED for policy in policies if policy.fits(cell.settings)]
    strategy = policies[0].strategy
    for key, metric, gain in (("q_ssim", "ssim", statistics.relative), ("q_res", "resolution", statistics.relative_reduction)):
        ours, random = trained.by_policy(cell, metric, strategy), table.columns(cell, metric).get("random")
        found |= {key: None, f"{key}_ci": None, f"{key}_by_policy": []}
        if ours is None or random is None:
            continue
        # The same resampling for every row.
        estimates = [gain(v, random, generator=torch.Generator().manual_seed(0)) for v in (ours.mean(0), *ours)]
        q = estimates[0]
        found[key], found[f"{key}_by_policy"] = _percent(q.mean), [_percent(e.mean) for e in estimates[1:]]
        found[f"{key}_ci"] = [_percent(q.low), _percent(q.high)] if q.count >= table.FEWEST else None
    for metric in ("ssim", "ssim_aligned", "correlation", "resolution"):
        ours, random = trained.by_policy(cell, metric, strategy), table.columns(cell, metric).get("random")
        found[metric] = None if ours is None else _rounded(float(ours.mean()), 4)
        found[f"{metric}_random"] = None if random is None else _rounded(float(random.mean()), 4)
        if metric in ("ssim", "resolution"):
            found[f"{metric}_by_specimen"] = [] if ours is None else [_digits(values) for values in ours]
            found[f"{metric}_random_by_specimen"] = [] if random is None else _digits(random)
    paper = {"q_ssim": row.q_ssim, "q_res": row.q_res}
    found |= {f"paper_{key}": value for key, value in paper.items()} | {"paper_nk_nu": row.nk_nu, "paper_dose": row.dose}
    found["below_paper"] = [key for key, value in paper.items() if found[key] is not None and found[key] < value]
    return found


def _shown(row: Mapping[str, Any]) -> list[str]:
    lower = [{"q_ssim": "Q_SSIM", "q_res": "Q_res"}[key] for key in row["below_paper"]]
    note = f"{' and '.join(lower)} below the paper's" if lower else ""
    if not row["policies"]:
        note = "no policy was made for it"
    scan = [str(row["positions"]), str(row["subsequences"]), f"{row['nk_nu']:.2f}", f"{row['paper_nk_nu']:.2f}", f"{row['dose']:.3g}"]
    gains = [word for key in ("q_ssim", "q_res") for word in (_gain(row[key], row[f"{key}_ci"]), f"{row[f'paper_{key}']:.2f}")]
    return [*scan, *gains, note]


def _gain(mean: float | None, ends: Sequence[float] | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.2f}" + ("" if ends is None or None in ends else f" [{ends[0]:.2f}, {ends[1]:.2f}]")


def _digits(values: Float[Tensor, " B"]) -> list[float | None]:
    return [_rounded(v, 5) for v in values.tolist()]


def _percent(fraction: float) -> float | None:
    return _rounded(100 * fraction, 2)


def _rounded(value: float, digits: int) -> float | None:
    """JSON has no NaN."""
    return round(value, digits) if math.isfinite(value) else None
