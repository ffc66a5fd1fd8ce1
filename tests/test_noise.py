"""Electrons are counted by inverting Poisson's distribution: exact, and one uniform number for each pixel."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from adaptycho.physics.noise import FEW, LEAST, _quantile_torch, counted, quantile

RANGES = [(1e-8, 1.0), (1.0, FEW), (FEW, 40.0), (40.0, 1e3), (1e3, 1e5)]


def drawn(low: float, high: float, count: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Uniform numbers, among them some far out on either side, and means of every size between two."""
    rng = np.random.default_rng(int(low * 7) + 1)
    uniform = rng.random(count)
    uniform[:200] = np.linspace(1, 40, 200) ** 2 * 1e-12
    uniform[200:400] = 1 - np.linspace(1, 40, 200) ** 2 * 1e-9
    uniform[400] = 0.0
    return torch.from_numpy(uniform), torch.from_numpy(np.exp(rng.uniform(math.log(low), math.log(high), count)))


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_a_count_is_the_quantile_that_scipy_finds(low: float, high: float) -> None:
    uniform, mean = drawn(low, high)
    expected = stats.poisson.ppf(uniform.clamp(min=LEAST).numpy(), mean.numpy())
    found = quantile(uniform, mean).numpy()
    different = np.flatnonzero(found != expected)
    # Both round: where they differ u is next to a step, closer than the error of 1e5 terms of 1e5 electrons in double precision.
    steps = stats.poisson.cdf(np.minimum(found, expected)[different], mean.numpy()[different])
    assert np.abs(found - expected).max() <= 1
    assert np.abs(steps - uniform.numpy()[different]).max(initial=0) < 1e-10


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_other_devices_count_the_same(low: float, high: float) -> None:
    uniform, mean = drawn(low, high)
    mean[500:600] = 0
    usual = slice(400, None)  # the compiled loop and the incomplete gamma function round differently far out
    assert torch.equal(quantile(uniform, mean)[usual], _quantile_torch(uniform.clamp(min=LEAST), mean)[usual])


@pytest.mark.parametrize("mean", [0.3, 5.0, 15.9, 16.1, 300.0, 2e4])
def test_counts_have_poissons_moments(mean: float) -> None:
    n = 100_000
    found = counted(torch.full((n,), mean, dtype=torch.float64), generator=torch.Generator().manual_seed(0))
    # Four standard errors: of the mean sqrt(m / n), of the variance sqrt((2 m^2 + m) / n), of the third central moment below the normal's.
    assert float(found.mean()) == pytest.approx(mean, abs=4 * math.sqrt(mean / n))
    assert float(found.var()) == pytest.approx(mean, abs=4 * math.sqrt((2 * mean**2 + mean) / n))
    assert float(((found - mean) ** 3).mean()) == pytest.approx(mean, abs=4 * math.sqrt((15 * mean**3 + 105 * mean**2 + mean) / n))


def test_a_rate_that_differs_in_its_last_bit_changes_its_own_pixel_only() -> None:
    expected = torch.rand(65_536, generator=torch.Generator().manual_seed(1)) ** 4 * 500
    other = torch.nextafter(expected, torch.full_like(expected, math.inf))
    first, second = (counted(e, generator=torch.Generator().manual_seed(2)) for e in (expected, other))
    # A count changes if u lies between two distribution functions: with probability d(mean) P(N = n) < 6e-8 * 500 * 0.1, in 0.2 pixels.
    assert int((first != second).sum()) <= 3
    assert float((first - second).abs().max()) <= 1


def test_random_numbers_do_not_depend_on_what_is_expected() -> None:
    few, many = (torch.Generator().manual_seed(3) for _ in range(2))
    counted(torch.full((1000,), 0.1), generator=few)
    counted(torch.full((1000,), 1e4), generator=many)
    assert torch.equal(torch.rand(5, generator=few), torch.rand(5, generator=many))


def test_nothing_where_nothing_is_expected_and_a_great_many_elsewhere() -> None:
    found = counted(torch.tensor([0.0, 1e12, 1e15], dtype=torch.float64), generator=torch.Generator().manual_seed(4))
    assert float(found[0]) == 0
    assert (found[1:] / torch.tensor([1e12, 1e15]) - 1).abs().max() < 1e-5  # ten standard deviations of 1e12
    assert bool((found == found.floor()).all())


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, 1e16])
def test_what_cannot_be_counted_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"dose: expected 0 to 1e\+15 electrons in each detector pixel, got"):
        counted(torch.tensor([1.0, value]), generator=torch.Generator())
