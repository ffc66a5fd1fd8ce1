"""Estimates and their intervals: exact cases, independent implementations, and how often intervals hold the truth."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from adaptycho.metrics import statistics
from adaptycho.metrics.statistics import (
    Estimate,
    dose_saving,
    filled,
    interval,
    mean_dose_saving,
    oracle_fraction,
    paired,
    relative,
    relative_reduction,
    win_rate,
)

TABLES = 300
DOSES = torch.tensor([100.0, 300.0, 1000.0, 3000.0, 10000.0], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# Exact cases


def test_of_equal_specimens_nothing_is_uncertain() -> None:
    ours, other = torch.full((5,), 0.6, dtype=torch.float64), torch.full((5,), 0.5, dtype=torch.float64)
    base = torch.full((5,), 0.4, dtype=torch.float64)
    cases = [
        (interval(ours, generator=seeded()), 0.6),
        (paired(ours, other, generator=seeded()), 0.1),
        (relative(ours, other, generator=seeded()), 0.2),
        (relative_reduction(other, ours, generator=seeded()), 1 / 6),
        (oracle_fraction(other, base, ours, generator=seeded()), 0.5),
        (dose_saving(2.0, other, tensor(1, 16), torch.stack([base, ours]), generator=seeded()), 2.0),
    ]
    for found, expected in cases:
        # Rounding: differences of means of order one, in ratios of order 0.1.
        assert [found.mean, found.low, found.high] == pytest.approx([expected] * 3, abs=1e-13)
        assert found.count == 5 and found.bounded is None


def test_differences_are_paired() -> None:
    # Specimens differ by ten, strategies by 0.1 on each: pairing leaves no doubt.
    common = 10 * normal(seeded(), 12)
    found = paired(common + 0.1, common, generator=seeded())
    assert [found.low, found.high] == pytest.approx([0.1, 0.1], abs=1e-12)
    gain = relative(1.1 * common.abs(), common.abs(), generator=seeded())
    assert [gain.mean, gain.low, gain.high] == pytest.approx([0.1] * 3, abs=1e-12)


def test_win_rate_counts_ties_by_half() -> None:
    found = win_rate(tensor(1, 2, 3, 4), tensor(0, 2, 4, 3), generator=seeded())
    assert found.mean == (1 + 0.5 + 0 + 1) / 4 and found.count == 4
    assert 0 <= found.low < found.mean < found.high <= 1


@pytest.mark.parametrize(("chance", "count"), [(0.5, 12), (0.8, 12), (0.8, 25), (0.97, 12), (1.0, 12)])
def test_win_rates_hold_the_truth(chance: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SAMPLES", 1000)
    generator = seeded(21)
    lost = torch.rand(TABLES, count, generator=generator, dtype=torch.float64) >= chance
    found = [win_rate(-row.double(), torch.full((count,), -0.5), generator=generator) for row in lost]
    # Counts are few, so coverage moves in steps; 95 % less four standard errors (n = 300) of 1.26 %, and 2 % for the steps.
    assert sum(e.low <= chance <= e.high for e in found) / TABLES > 0.88
    assert all(0.5 < e.low < 1 for e in found if e.mean == 1)


def test_ratios_are_of_means() -> None:
    ours, other = tensor(0.5, 0.5), tensor(0.1, 0.7)
    # A mean of ratios would be 2.9.
    assert relative(ours, other, generator=seeded()).mean == pytest.approx(0.25, rel=1e-12)
    assert relative_reduction(ours, other, generator=seeded()).mean == pytest.approx(-0.25, rel=1e-12)


def test_relative_gain_agrees_with_scipys_bootstrap() -> None:
    other = 0.3 + 0.05 * normal(seeded(1), 25)
    ours = other + 0.06 + 0.02 * normal(seeded(2), 25)
    found = relative(ours, other, generator=seeded(3))
    # Student's t of 24 degrees of freedom and n - 1 for n: the interval's level is higher than 95 %.
    level = 1 - 2 * stats.norm.sf(stats.t.ppf(0.975, 24) * math.sqrt(25 / 24))
    reference = stats.bootstrap(
        (ours.numpy(), other.numpy()),
        lambda a, b, axis: a.mean(axis) / b.mean(axis) - 1,
        paired=True,
        n_resamples=10_000,
        method="percentile",
        confidence_level=level,
        rng=np.random.default_rng(0),
    )
    # The 1.8 % quantile of 10,000 normal values has a standard error of sqrt(0.018 * 0.982 / 10000) / 0.044 = 3.0 % of their spread; the
    # difference of two, four times: 17 %.
    bound = 0.17 * reference.standard_error
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=bound)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=bound)


@settings(max_examples=40)
@given(values=st.lists(st.lists(st.floats(-100, 100), min_size=4, max_size=4), min_size=1, max_size=5))
def test_monotone_curves_are_scikit_learns(values: list[list[float]]) -> None:
    curves = torch.tensor(values, dtype=torch.float64)
    expected = np.stack([IsotonicRegression().fit_transform(np.arange(4), row) for row in curves.numpy()])
    # Means of up to four numbers below 100, from cumulative sums.
    np.testing.assert_allclose(statistics._isotonic(curves).numpy(), expected, rtol=0, atol=1e-12)


# Dose savings


@settings(max_examples=40)
@given(slope=st.floats(0.01, 10), factor=st.floats(0.02, 200), offset=st.floats(-5, 5))
def test_dose_saving_of_a_logarithmic_score_is_exact(slope: float, factor: float, offset: float) -> None:
    specimens = offset + normal(seeded(), 8)
    curve = specimens + slope * DOSES.log()[:, None]
    # Ours is the same curve at `factor` times the dose. The lines are straight in log dose, whatever segment they are on.
    found = dose_saving(500.0, specimens + slope * math.log(500 * factor), DOSES, curve, generator=seeded())
    if 100 <= 500 * factor <= 10_000:
        # Scores of order 10 rounded to 1e-15, divided by the slope.
        assert [found.mean, found.low, found.high] == pytest.approx([factor] * 3, rel=1e-10) and found.bounded is None
    else:
        assert found.mean == pytest.approx(20 if factor > 1 else 0.2, rel=1e-12) and found.bounded == ("above" if factor > 1 else "below")


def test_dose_saving_beyond_the_curve_is_a_bound() -> None:
    curve = DOSES.log10()[:, None].expand(-1, 6)
    score = torch.ones(6, dtype=torch.float64)
    above = dose_saving(2000.0, 4.5 * score, DOSES, curve, generator=seeded())
    assert [above.mean, above.low, above.high] == pytest.approx([5] * 3, rel=1e-12) and above.bounded == "above"
    below = dose_saving(2000.0, 1.5 * score, DOSES, curve, generator=seeded())
    assert [below.mean, below.low, below.high] == pytest.approx([0.05] * 3, rel=1e-12) and below.bounded == "below"
    # On the ends themselves it is known, up to rounding of the scores.
    for end, factor in ((2.0, 0.05), (4.0, 5.0)):
        for nudge in (-1e-14, 0.0, 1e-14):
            exact = dose_saving(2000.0, (end + nudge) * score, DOSES, curve, generator=seeded())
            assert exact.mean == pytest.approx(factor, rel=1e-9) and exact.bounded is None


def test_dose_saving_on_a_level_stretch_takes_the_lowest_dose() -> None:
    curve = tensor(1, 2, 2, 2, 3)[:, None].expand(-1, 3)
    assert dose_saving(100.0, torch.full((3,), 2.0), DOSES, curve, generator=seeded()).mean == pytest.approx(3, rel=1e-9)
    # Mean 2 of a dip (3, 1) is a level stretch too.
    dip = tensor(1, 3, 1, 4, 5)[:, None].expand(-1, 3)
    assert dose_saving(100.0, torch.full((3,), 2.0), DOSES, dip, generator=seeded()).mean == pytest.approx(3, rel=1e-9)


def straight(specimens: torch.Tensor, dose: float, factor: float, slope: float) -> tuple[float, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ours is the curve at `factor` times the dose, on a line that is straight in the logarithm of the dose."""
    return dose, specimens + slope * math.log(dose * factor), DOSES, specimens + slope * DOSES.log()[:, None]


def test_the_mean_of_savings_is_arithmetic() -> None:
    """2.0 in one cell and 1.5 in another: 1.75, and not 1.732; 4 and 1/4 on other curves: 2.125, and not 1."""
    specimens = normal(seeded(), 8)
    for factors, expected in (((2.0, 1.5), 1.75), ((4.0, 0.25), 2.125), ((3.0,), 3.0), ((1.0, 2.0, 6.0), 3.0)):
        cases = [straight(specimens + i, 500.0 * (1 + i), f, 0.1 + i) for i, f in enumerate(factors)]
        found = mean_dose_saving(cases, generator=seeded())
        # Each factor is exact whatever specimens are drawn, so nothing is uncertain: rounding of scores of order 10 over slopes of 0.1.
        assert [found.mean, found.low, found.high] == pytest.approx([expected] * 3, rel=1e-10)
        assert (found.count, found.bounded) == (8, None)


def test_the_mean_of_savings_is_the_mean_of_each() -> None:
    generator = seeded(6)
    cases = []
    for dose, factor in ((300.0, 2.0), (1000.0, 1.2), (2000.0, 0.7)):
        spent, score, at, curve = straight(normal(generator, 12), dose, factor, 0.4)
        cases.append((spent, score + 0.05 * normal(generator, 12), at, curve + 0.05 * normal(generator, 5, 12)))
    # Diverged in the case of low scores: no worse than the worst of that case, though another has far higher ones.
    cases[0][1][3] = math.nan
    cases[2] = (cases[2][0], cases[2][1] + 50, cases[2][2], cases[2][3] + 50)
    singly = [dose_saving(*case, generator=seeded()) for case in cases]
    found = mean_dose_saving(cases, generator=seeded())
    assert found.mean == pytest.approx(sum(e.mean for e in singly) / 3, rel=1e-12)
    # One case is the single factor with its interval.
    assert mean_dose_saving(cases[:1], generator=seeded()) == singly[0]
    # Specimens are drawn alike: two cases that are the same are as uncertain as one, and not less.
    twice = mean_dose_saving(cases[:1] * 2, generator=seeded())
    assert [twice.mean, twice.low, twice.high] == pytest.approx([singly[0].mean, singly[0].low, singly[0].high], rel=1e-12)


def test_specimens_are_drawn_alike_in_all_cases() -> None:
    """What one cell gains on a specimen the other loses: the mean is certain, though neither factor is."""
    noise, level = 0.3 * normal(seeded(8), 12), torch.zeros(12, dtype=torch.float64)
    noise = noise - noise.mean()
    curve = DOSES.log()[:, None].expand(-1, 12)
    up, down = ((1000.0, level + math.log(2000) + sign * noise, DOSES, curve) for sign in (1, -1))
    alone, both = dose_saving(*up, generator=seeded()), mean_dose_saving([up, down], generator=seeded())
    # exp(x) + exp(-x) over 2 is 1 to the second order in the mean x of a draw, which is within 0.3 in any.
    assert alone.high - alone.low > 0.4 and both.high - both.low < 0.1
    assert both.mean == pytest.approx(2.0, rel=1e-12)


def test_a_mean_with_factors_beyond_their_curves_is_a_bound() -> None:
    specimens = normal(seeded(), 6)
    inside, above, below = (straight(specimens, dose, factor, 1.0) for dose, factor in ((500.0, 2.0), (2000.0, 9.0), (1000.0, 0.01)))
    cases = [([inside, inside], 2.0, None), ([inside, above], 3.5, "above"), ([inside, below], 1.05, "below"), ([above, below], 2.55, None)]
    for some, expected, bounded in cases:
        found = mean_dose_saving(some, generator=seeded())
        # An end is 5 times the dose of 2000, or a tenth of 1000.
        assert [found.mean, found.low, found.high] == pytest.approx([expected] * 3, rel=1e-10) and found.bounded == bounded


def test_a_mean_of_no_savings_is_refused() -> None:
    with pytest.raises(ValueError, match="cases: expected at least one, got none"):
        mean_dose_saving([], generator=seeded())
    with pytest.raises(ValueError, match="scores: expected one for each of the same specimens"):
        mean_dose_saving([straight(normal(seeded(), n), 500.0, 2.0, 1.0) for n in (6, 7)], generator=seeded())


@pytest.mark.parametrize(
    ("dose", "doses", "rows", "message"),
    [
        (1.0, (1.0,), 1, "curve_dose: expected at least two increasing positive doses"),
        (1.0, (2.0, 1.0), 2, "curve_dose: expected at least two"),
        (1.0, (0.0, 1.0), 2, "curve_dose: expected at least two"),
        (0.0, (1.0, 2.0), 2, "curve_dose: expected at least two"),
        (1.0, (1.0, 2.0), 3, "curve_scores: expected scores at each of 2 doses, got 3"),
    ],
)
def test_a_curve_that_is_none_is_refused(dose: float, doses: tuple[float, ...], rows: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dose_saving(dose, torch.ones(4), tensor(*doses), torch.ones(rows, 4), generator=seeded())


# What has diverged, and what cannot be said


def test_what_diverged_is_the_worst() -> None:
    first, second = filled([tensor(0.5, math.nan, 0.7), tensor(0.1, 0.2, math.inf)])
    assert first.tolist() == [0.5, 0.1, 0.7] and second.tolist() == [0.1, 0.2, 0.1]
    ours, other = tensor(0.9, math.nan, 0.8), tensor(0.5, 0.4, 0.3)
    assert paired(ours, other, generator=seeded()).mean == pytest.approx((0.4 - 0.1 + 0.5) / 3, rel=1e-12)
    assert win_rate(ours, other, generator=seeded()).mean == pytest.approx(2 / 3, rel=1e-12)
    assert relative(ours, other, generator=seeded()).mean == pytest.approx(2.0 / 1.2 - 1, rel=1e-12)
    assert interval(tensor(1, 3, math.nan), generator=seeded(), better="less").mean == pytest.approx(7 / 3, rel=1e-12)
    # Of resolutions the highest is the worst: 2 Å.
    assert relative_reduction(tensor(1, math.nan), tensor(2, 1), generator=seeded()).mean == pytest.approx(0, abs=1e-12)
    assert interval(tensor(0.1, 0.5, -math.inf), generator=seeded()).mean == pytest.approx(0.7 / 3, rel=1e-12)


def test_if_all_diverged_nothing_is_known() -> None:
    lost = torch.full((4,), math.nan, dtype=torch.float64)
    for found in (
        interval(lost, generator=seeded()),
        paired(lost, lost, generator=seeded()),
        relative(lost, lost, generator=seeded()),
        oracle_fraction(lost, lost, lost, generator=seeded()),
        dose_saving(1.0, lost, tensor(1, 2), torch.stack([lost, lost]), generator=seeded()),
    ):
        assert math.isnan(found.mean) and math.isnan(found.low) and math.isnan(found.high) and found.count == 4
    assert win_rate(lost, lost, generator=seeded()).mean == 0.5


def test_no_share_of_a_gain_that_is_none() -> None:
    base = 0.5 + 0.1 * normal(seeded(4), 20)
    # The oracle is better by a hundredth of the scatter of its difference.
    oracle = base + 0.001 + 0.1 * normal(seeded(5), 20)
    assert math.isnan(oracle_fraction(base + 0.05, base, oracle, generator=seeded()).mean)
    assert oracle_fraction(base + 0.05, base, base + 0.1, generator=seeded()).mean == pytest.approx(0.5, rel=1e-12)
    assert math.isnan(relative(base, -base, generator=seeded()).mean)


def test_other_specimens_are_refused() -> None:
    for call in (paired, win_rate, relative, relative_reduction):
        with pytest.raises(ValueError, match=r"scores: expected one for each of the same specimens, got shapes \(3,\), \(1,\)"):
            call(torch.ones(3), torch.ones(1), generator=seeded())
    with pytest.raises(ValueError, match="scores: expected one"):
        interval(torch.ones(0), generator=seeded())


def test_one_specimen_has_no_width() -> None:
    found = relative(tensor(0.6), tensor(0.5), generator=seeded())
    assert found.low == found.mean == found.high and found.count == 1


def test_the_same_generator_gives_the_same_interval() -> None:
    values = normal(seeded(), 12)
    assert interval(values, generator=seeded(7)) == interval(values, generator=seeded(7)) != interval(values, generator=seeded(8))


# How often intervals hold the truth


def _mean(generator: torch.Generator, specimens: int) -> tuple[Estimate, float]:
    return interval(0.4 + 0.1 * normal(generator, specimens), generator=generator), 0.4


def _gain(generator: torch.Generator, specimens: int) -> tuple[Estimate, float]:
    common = 0.1 * normal(generator, specimens)
    ours, other = (m + common + 0.05 * normal(generator, specimens) for m in (0.6, 0.5))
    return relative(ours, other, generator=generator), 0.2


def _fraction(generator: torch.Generator, specimens: int) -> tuple[Estimate, float]:
    common = 0.1 * normal(generator, specimens)
    ours, base, oracle = (m + common + 0.03 * normal(generator, specimens) for m in (0.55, 0.5, 0.6))
    return oracle_fraction(ours, base, oracle, generator=generator), 0.5


def _saving(generator: torch.Generator, specimens: int) -> tuple[Estimate, float]:
    # Specimens of different height and slope, noise on each score; ours is worth 2.2 times its dose. Means follow a straight line.
    height, slope = 0.1 * normal(generator, specimens), 0.15 + 0.02 * normal(generator, specimens)
    curve = height + slope * DOSES.log()[:, None] + 0.03 * normal(generator, len(DOSES), specimens)
    score = height + slope * math.log(1000 * 2.2) + 0.03 * normal(generator, specimens)
    return dose_saving(1000.0, score, DOSES, curve, generator=generator), 2.2


def _mean_saving(generator: torch.Generator, specimens: int) -> tuple[Estimate, float]:
    # Cells as in `_saving`, worth 2.0 and 1.5 times their dose, of specimens that have their height in common and no slope.
    height, cases = 0.1 * normal(generator, specimens), []
    for dose, factor in ((1000.0, 2.0), (500.0, 1.5)):
        slope = 0.15 + 0.02 * normal(generator, specimens)
        curve = height + slope * DOSES.log()[:, None] + 0.03 * normal(generator, len(DOSES), specimens)
        cases.append((dose, height + slope * math.log(dose * factor) + 0.03 * normal(generator, specimens), DOSES, curve))
    return mean_dose_saving(cases, generator=generator), 1.75


@pytest.mark.parametrize(("simulate", "specimens"), [*itertools.product((_mean, _gain, _fraction, _saving), (12, 25)), (_mean_saving, 12)])
def test_intervals_hold_the_truth(
    simulate: Callable[[torch.Generator, int], tuple[Estimate, float]], specimens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A 2.5 % quantile of 1,000 resamples is known to 0.5 %: enough here, and ten times faster.
    monkeypatch.setattr(statistics, "SAMPLES", 1000)
    generator = seeded(20)
    tables = [simulate(generator, specimens) for _ in range(TABLES)]
    held = sum(found.low <= truth <= found.high for found, truth in tables) / TABLES
    # Standard error of 95 % in 300 tables 1.26 %, four of them 5 %.
    assert 0.90 <= held <= 1
    # Without bias to speak of: the mean of 300 estimates within four standard errors, and 1 % for the curvature of ratios and curves.
    estimates = torch.tensor([found.mean for found, _ in tables])
    truth = tables[0][1]
    assert abs(float(estimates.mean()) - truth) < 4 * float(estimates.std()) / math.sqrt(TABLES) + 0.01 * truth
