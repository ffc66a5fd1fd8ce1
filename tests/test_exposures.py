"""Patterns that hold more electrons say more: how much they count in a reconstruction."""

import pytest
import torch
from torch import Tensor

from adaptycho.reconstruct import Loss, data_sets
from adaptycho.reconstruct.data_sets import DataSet, prepare
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.samples.sample import Specimen
from adaptycho.scan import patterns
from adaptycho.types import Action, Measurement
from test_priors import likeness, specimen


def taken(found: Specimen, dose: float, positions: Tensor) -> Measurement:
    return found.microscope.acquire(Action(positions[None], 90.0, dose), generator=torch.Generator().manual_seed(int(dose)))


def data(found: Specimen, measurement: Measurement, loss: Loss) -> DataSet:
    return prepare(found.setup, measurement, loss, subpixel=16, mask=None, illuminated=True)[0]


@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
def test_likelihoods_of_parts_add_up(loss: Loss) -> None:
    """Electrons times loss is the log-likelihood: of everything it is the sum over the parts of each dose, and so is its derivative."""
    found = specimen("island")
    where = patterns.halton(24).float()
    parts = [taken(found, dose, where[i::3]) for i, dose in enumerate((100.0, 300.0, 3000.0))]
    whole = data(found, parts[0] + parts[1] + parts[2], loss)
    potential = 0.1 * torch.randn(found.setup.object.shape, generator=torch.Generator().manual_seed(1))
    value, gradient = whole.gradient(potential, map, real=True)
    pieces = [(*(one := data(found, part, loss)).gradient(potential, map, real=True), one) for part in parts]
    assert whole.dose * value == pytest.approx(sum(one.dose * v for v, _, one in pieces), rel=1e-5)
    # Single precision, summed in another order.
    torch.testing.assert_close(whole.dose * gradient, sum(one.dose * g for _, g, one in pieces), rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(
        whole.dose * whole.illumination, sum(one.dose * one.illumination for *_, one in pieces), rtol=1e-4, atol=1e-4
    )


def test_the_papers_loss_counts_every_pattern_the_same() -> None:
    found = specimen("island")
    where = patterns.halton(8).float()
    both = taken(found, 100.0, where[:4]) + taken(found, 3000.0, where[4:])
    assert [lane.share for lane in data(found, both, "intensity").lanes] == [1.0]
    alike = taken(found, 300.0, where[:4]) + taken(found, 310.0, where[4:])
    assert [lane.share for lane in data(found, alike, "poisson").lanes] == [1.0]


def test_well_exposed_patterns_are_not_spoilt_by_poor_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 electrons in every second position and 20 in the others, which would count as much as they do."""
    found = specimen("island")
    where = patterns.hexagonal(128, found.setup.field).float()
    both = taken(found, 2000.0, where[::2]) + taken(found, 20.0, where[1::2])
    descent = Reconstructor.best(found.setup, iterations=10)
    weighed = likeness(descent(both).phase, found)
    monkeypatch.setattr(data_sets, "_exposures", lambda dose, likely: [(None, 1.0)])
    assert weighed > likeness(descent(both).phase, found) + 0.05


def test_every_position_may_have_a_dose_of_its_own() -> None:
    found = specimen("island")
    where = patterns.halton(3).float()[None]
    draws = torch.Generator().manual_seed(0)
    seen = found.microscope.acquire(Action(where, 90.0, torch.tensor([[50.0, 500.0, 5000.0]])), generator=draws)
    assert seen.dose.tolist() == [[50.0, 500.0, 5000.0]]
    # Poisson counts, most of which reach the detector.
    for counts, dose in zip(seen.patterns.sum((-2, -1))[0].tolist(), seen.dose[0].tolist(), strict=True):
        assert 0.8 * dose - 5 * dose**0.5 < counts < dose + 5 * dose**0.5
    for wrong in (torch.tensor([[50.0, -1.0, 500.0]]), torch.tensor([[50.0, float("nan"), 500.0]])):
        with pytest.raises(ValueError, match=r"dose: expected 0 to .* electrons per position, got"):
            found.microscope.acquire(Action(where, 90.0, wrong), generator=draws)
