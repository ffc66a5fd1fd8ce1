"""Counts are what was counted: whatever dose is asked for, none is negative or infinite."""

from dataclasses import replace

import pytest
import torch

from adaptycho.physics.forward import MOST, Imperfections
from adaptycho.settings import build, preset, update
from adaptycho.types import Action

SMALL = {"geometry": {"field": [8.0, 6.0], "object": "auto"}}


@pytest.mark.parametrize("dose", [1.0, 1e9, 2.0**31, 1e15, MOST])
def test_counts_of_any_dose_that_is_allowed(dose: float) -> None:
    microscope = replace(build.simulated(update(preset("light"), SMALL, "test")), dose=dose)
    found = microscope.acquire(Action(torch.rand(1, 4, 2)), generator=torch.Generator().manual_seed(0))
    sent, counted = float(found.dose.double().sum()), float(found.patterns.double().sum())
    assert float(found.patterns.min()) >= 0
    # Four standard errors of a Poisson number, and the rounding of single precision; half of the electrons at least hit the detector.
    assert 0.5 * sent - 4 * sent**0.5 <= counted <= sent * (1 + 1e-5) + 4 * sent**0.5


@pytest.mark.parametrize("section", [{"scan": {"dose": 1e22}}, {"practice": {"dose": (1.0, 1e17)}}, {"instrument": {"background": 1e17}}])
def test_more_than_can_be_counted_is_refused_where_it_is_set(section: dict) -> None:
    with pytest.raises(ValueError, match=r"(dose|background): expected less than or equal to 10+, found"):
        update(preset("light"), section, "test")


def test_more_than_can_be_counted_is_refused_where_it_is_asked_for() -> None:
    microscope = build.simulated(update(preset("light"), SMALL, "test"))
    generator = torch.Generator().manual_seed(0)
    for dose in (1e22, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"dose: expected 0 to 9e\+15 electrons per position, got"):
            microscope.acquire(Action(torch.rand(1, 4, 2), dose=dose), generator=generator)
    with pytest.raises(ValueError, match=r"background: expected a value from 0 to 9e\+15, got"):
        Imperfections(background=1e22)
    with pytest.raises(ValueError, match=r"action\.positions: expected finite positions, got NaN or infinity"):
        microscope.acquire(Action(torch.full((1, 4, 2), float("nan"))), generator=generator)
