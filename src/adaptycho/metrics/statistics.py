"""What a set of specimens says about a strategy, with 95 % intervals: means, differences, ratios, dose saved, share of an oracle's gain.

Scores have one value for each of B specimens, the same specimens in the same order for all strategies, and more is better unless a
function says otherwise (give a resolution or an error with its sign changed). Intervals are percentile bootstraps over specimens, drawn
together for all strategies, so that what specimens have in common cancels, and expanded for their number (Hesterberg, Am. Stat. 69, 371,
2015): of few specimens a plain percentile interval is too narrow, and of 12 holds the truth in 90 % of cases instead of 95.

A reconstruction that has diverged has a score that is not finite. It is not left out, which would reward diverging, but counts as much as
the worst finite score in the same comparison (`filled`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from scipy.special import ndtr, stdtrit
from torch import Tensor

LEVEL = 0.95
SAMPLES = 10_000
ROUNDING = 1e-12  # relative: scores nearer than this are the same

Better = Literal["more", "less"]
Bound = Literal["above", "below"]


@dataclass(frozen=True)
class Estimate:
    """A number and how far it can be trusted.

    Attributes:
        mean: from all specimens.
        low: lower end of its 95 % interval.
        high: upper end.
        count: number of specimens.
        bounded: "above" if the number is at least `mean`, "below" if it is at most that, because measurements end there.
    """

    mean: float
    low: float
    high: float
    count: int
    bounded: Bound | None = None


def relative_improvement(a: Float[Tensor, "*batch"] | float, b: Float[Tensor, "*batch"] | float) -> Float[Tensor, "*batch"] | float:
    """`(a - b) / b`: how much better score `a` is than score `b`; Q_SSIM of Schloz et al. when `b` is the random scan's."""
    return (a - b) / b


def bootstrap_interval(
    values: Float[Tensor, " N"], *, generator: torch.Generator, level: float = 0.95, samples: int = 10_000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean. With fewer than about ten values it is too narrow; with one it has no width.

    Raises:
        ValueError: no values, or a level that is not between 0 and 1.
    """
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values: expected at least one value along one axis, got shape {tuple(values.shape)}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a probability between 0 and 1, got {level}")
    drawn = torch.randint(len(values), (samples, len(values)), generator=generator, device=generator.device).to(values.device)
    means = values.to(torch.float64)[drawn].mean(1)
    low, high = torch.quantile(means, means.new_tensor([(1 - level) / 2, (1 + level) / 2])).tolist()
    return low, high


def filled(scores: Sequence[Float[Tensor, "..."]], *, better: Better = "more") -> tuple[Float[Tensor, "..."], ...]:
    """The scores in float64 with all that are not finite replaced by the worst finite one of any of them; nan if there is none.

    The functions below do this for what they compare. Of several strategies in one table, fill all at once first: the worst is then the
    same for each pair.
    """
    values = [s.detach().to("cpu", torch.float64) for s in scores]
    everything = torch.cat([v.flatten() for v in values])
    finite = everything[everything.isfinite()]
    if not len(finite):
        return tuple(torch.full_like(v, math.nan) for v in values)
    worst = finite.min() if better == "more" else finite.max()
    return tuple(torch.where(v.isfinite(), v, worst) for v in values)


def interval(values: Float[Tensor, " B"], *, generator: torch.Generator, better: Better = "more") -> Estimate:
    """Mean over specimens; what has diverged counts as the worst of them, the highest if less is better."""
    (scores,) = _comparable(values, better=better)
    low, high = bootstrap_interval(scores, generator=generator, level=expanded(len(scores)), samples=SAMPLES)
    return Estimate(float(scores.mean()), low, high, len(scores))


def paired(ours: Float[Tensor, " B"], other: Float[Tensor, "..."], *, generator: torch.Generator) -> Estimate:
    """Mean difference ours - other over specimens."""
    first, second = _comparable(ours, other)
    return interval(first - second, generator=generator)


def win_rate(ours: Float[Tensor, " B"], other: Float[Tensor, "..."], *, generator: torch.Generator) -> Estimate:
    """Fraction of specimens on which ours is better; a tie is half a win, as where both have diverged.

    The interval is that of the specimens and one more win and one more loss (Laplace's rule), for to have won all of 12 does not prove that
    ours always wins.
    """
    first, second = _comparable(ours, other)
    wins = 0.5 + 0.5 * (first - second).sign()
    return replace(interval(torch.cat([wins, wins.new_tensor([0.0, 1.0])]), generator=generator), mean=float(wins.mean()), count=len(wins))


def relative(ours: Float[Tensor, " B"], other: Float[Tensor, "..."], *, generator: torch.Generator) -> Estimate:
    """`mean(ours) / mean(other) - 1`: Q_SSIM of Schloz et al. (2022, Table I) if the other is the random scan.

    The paper does not say whether it averages ratios; the ratio of averages is not decided by one specimen on which the other scan fails.
    Not a number if the other's mean is not positive.
    """
    first, second = _comparable(ours, other)
    return _of_means(lambda m: _ratio(m[:, 0] - m[:, 1], m[:, 1]), [first, second], generator)


def relative_reduction(ours: Float[Tensor, " B"], other: Float[Tensor, "..."], *, generator: torch.Generator) -> Estimate:
    """`1 - mean(ours) / mean(other)` of a quantity of which less is better: Q_res of Schloz et al. for resolutions in Å.

    What has diverged counts as the highest value. Not a number if the other's mean is not positive.
    """
    first, second = _comparable(ours, other, better="less")
    return _of_means(lambda m: _ratio(m[:, 1] - m[:, 0], m[:, 1]), [first, second], generator)


def oracle_fraction(
    ours: Float[Tensor, " B"], base: Float[Tensor, "..."], oracle: Float[Tensor, "..."], *, generator: torch.Generator
) -> Estimate:
    """Share of the oracle's gain over the base that is reached: `mean(ours - base) / mean(oracle - base)`.

    Not a number where there is nothing to share: if the 95 % interval of the oracle's own gain reaches down to zero.
    """
    scores = _comparable(ours, base, oracle)
    if not paired(scores[2], scores[1], generator=generator).low > 0:
        return Estimate(math.nan, math.nan, math.nan, len(ours))
    return _of_means(lambda m: _ratio(m[:, 0] - m[:, 1], m[:, 2] - m[:, 1]), scores, generator)


def dose_saving(
    dose: float,
    score: Float[Tensor, " B"],
    curve_dose: Float[Tensor, " D"],
    curve_scores: Float[Tensor, "n B"],
    *,
    generator: torch.Generator,
) -> Estimate:
    """How many times the dose another scan needs for the same score.

    The other scan's mean scores at the doses at which it was measured are made monotone by isotonic regression (more electrons cannot be
    worse; a running maximum would take every upward fluctuation for truth) and interpolated linearly in the logarithm of the dose. On a
    level stretch the lowest dose counts. A score beyond the curve's ends only bounds the factor, which then is that of the end, with
    `bounded` set; so is an end of the interval that equals it.

    Args:
        dose: of ours, in the unit of the curve's.
        score: ours at that dose.
        curve_dose: increasing doses of the other scan.
        curve_scores: its scores (D, B) at each dose on the same specimens.
        generator: of the bootstrap.

    Raises:
        ValueError: doses are not positive and increasing, there are fewer than two, or specimens differ in number.
    """
    logs = _logs(dose, curve_dose, curve_scores)
    scores = _comparable(score, *curve_scores)
    return replace(_of_means(lambda m: _factor(m, logs, dose), scores, generator), bounded=_beyond(scores))


def mean_dose_saving(
    cases: Sequence[tuple[float, Float[Tensor, " B"], Float[Tensor, " D"], Float[Tensor, "n B"]]], *, generator: torch.Generator
) -> Estimate:
    """Arithmetic mean of several factors of `dose_saving`, with the interval of that mean: specimens are drawn alike in all of the cases.

    A factor beyond the end of its curve counts with that end, and then so is the mean a bound, if all such factors are to the same side:
    `bounded`. What has diverged counts as the worst of its own case.

    Args:
        cases: dose, score, curve_dose and curve_scores of each, as for `dose_saving`; number B of specimens is the same in all.
        generator: of the bootstrap.

    Raises:
        ValueError: as `dose_saving`, or there are no cases.
    """
    if not cases:
        raise ValueError("cases: expected at least one, got none")
    logs = [_logs(dose, curve_dose, curve_scores) for dose, _, curve_dose, curve_scores in cases]
    scores = [_comparable(score, *curve_scores) for _, score, _, curve_scores in cases]
    widths = [1 + len(curve) for curve in logs]

    def statistic(means: Tensor) -> Tensor:
        parts = zip(means.split(widths, 1), logs, cases, strict=True)
        return torch.stack([_factor(part, curve, dose) for part, curve, (dose, *_) in parts]).mean(0)

    estimate = _of_means(statistic, _comparable(*(s for some in scores for s in some)), generator)
    bounds = {_beyond(some) for some in scores} - {None}
    return replace(estimate, bounded=bounds.pop() if len(bounds) == 1 else None)


def _logs(dose: float, curve_dose: Float[Tensor, " D"], curve_scores: Float[Tensor, "n B"]) -> Float[Tensor, " D"]:
    """Logarithms of the doses of a curve."""
    doses = curve_dose.detach().to("cpu", torch.float64)
    if len(doses) < 2 or not dose > 0 or not doses[0] > 0 or not bool((doses.diff() > 0).all()):
        raise ValueError(f"curve_dose: expected at least two increasing positive doses, got {doses.tolist()} and dose {dose}")
    if len(curve_scores) != len(doses):
        raise ValueError(f"curve_scores: expected scores at each of {len(doses)} doses, got {len(curve_scores)}")
    return doses.log()


def _factor(means: Float[Tensor, "S columns"], logs: Float[Tensor, " D"], dose: float) -> Float[Tensor, " S"]:
    """The factor from mean scores: ours, then those of the curve."""
    return (_log_dose_for(means[:, 0], _isotonic(means[:, 1:]), logs) - math.log(dose)).exp()


def _log_dose_for(score: Float[Tensor, " S"], curve: Float[Tensor, "S D"], logs: Float[Tensor, " D"]) -> Float[Tensor, " S"]:
    """Logarithm of the lowest dose at which each rising curve reaches its score, within the measured ones."""
    reached = curve >= score[:, None] - _slack(score)[:, None]
    # The first dose that suffices; the last if none does.
    after = torch.where(reached.any(1), reached.int().argmax(1), len(logs) - 1)[:, None]
    before = (after - 1).clamp(min=0)
    below, above = curve.gather(1, before)[:, 0], curve.gather(1, after)[:, 0]
    rise = above - below
    part = torch.where(rise > 0, (score - below) / torch.where(rise > 0, rise, 1.0), 1.0).clamp(0, 1)
    return torch.where(score.isfinite(), torch.lerp(logs[before[:, 0]], logs[after[:, 0]], part), math.nan)


def _beyond(scores: Sequence[Float[Tensor, " B"]]) -> Bound | None:
    """On which side the mean of the first scores is beyond those of the curve."""
    means = torch.stack(list(scores)).mean(1)
    score, curve = float(means[0]), _isotonic(means[None, 1:])[0]
    slack = float(_slack(torch.tensor(score)))
    if score > float(curve[-1]) + slack:
        return "above"
    return "below" if score < float(curve[0]) - slack else None


def _slack(score: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return ROUNDING * (1 + score.abs())


def _isotonic(curve: Float[Tensor, "S D"]) -> Float[Tensor, "S D"]:
    """Least-squares rising fit of each row: `fit_i = max over j <= i of min over k >= i of mean(curve_j .. curve_k)`."""
    count = curve.shape[1]
    sums = torch.nn.functional.pad(curve.cumsum(1), (1, 0))
    fit = []
    for i in range(count):
        first, last = torch.arange(i + 1)[:, None], torch.arange(i, count)
        fit.append(((sums[:, last + 1][:, None] - sums[:, first]) / (last + 1 - first)).amin(2).amax(1))
    return torch.stack(fit, 1)


def _ratio(part: Float[Tensor, " S"], whole: Float[Tensor, " S"]) -> Float[Tensor, " S"]:
    """The quotient; where resampling has taken the whole to zero or below, as large as can be."""
    return torch.where(whole > 0, part / whole, torch.copysign(torch.full_like(part, math.inf), part))


def _of_means(statistic: Callable[[Tensor], Tensor], scores: Sequence[Tensor], generator: torch.Generator) -> Estimate:
    """A function of several mean scores (S, M) -> (S,), with its percentile bootstrap interval over specimens."""
    table = torch.stack(list(scores), 1)
    count = len(table)
    mean = float(statistic(table.mean(0, keepdim=True)))
    if not math.isfinite(mean):
        return Estimate(math.nan, math.nan, math.nan, count)
    drawn = torch.randint(count, (SAMPLES, count), generator=generator, device=generator.device).cpu()
    weights = torch.zeros(SAMPLES, count, dtype=torch.float64).scatter_add_(1, drawn, torch.full((SAMPLES, count), 1 / count).double())
    values = statistic(weights @ table)
    # No interpolation: an infinite value may be among them.
    level = expanded(count)
    ends = torch.quantile(values, values.new_tensor([(1 - level) / 2, (1 + level) / 2]), interpolation="nearest")
    return Estimate(mean, float(ends[0]), float(ends[1]), count)


def expanded(count: int) -> float:
    """Level at which the percentile interval of the mean of normal values is as wide as Student's at `LEVEL`."""
    if count < 2:
        return LEVEL
    reach = math.sqrt(count / (count - 1)) * float(stdtrit(count - 1, (1 + LEVEL) / 2))
    return min(1 - 2 * float(ndtr(-reach)), 1 - 2 / SAMPLES)


def _comparable(*scores: Tensor, better: Better = "more") -> tuple[Tensor, ...]:
    """`filled` scores of the same specimens, at least one."""
    shapes = [tuple(s.shape) for s in scores]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or shapes[0][0] == 0:
        raise ValueError(f"scores: expected one for each of the same specimens, got shapes {', '.join(map(str, shapes))}")
    return filled(scores, better=better)
