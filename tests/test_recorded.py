"""Replaying recorded data: nearest real position, nothing invented, and sub-fields that keep their geometry."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptycho.formats import Recording, cut
from adaptycho.instruments.recorded import Recorded, distance
from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Aberrations, Setup
from adaptycho.types import Action, Measurement

WINDOW = Grid((16, 16), 0.5)
FIELD = (22.0, 11.0)  # 12 x 12 positions, twice as far apart along y as along x


def setup(rotation: float = 30.0) -> Setup:
    lens = Aberrations(C10=-100.0)
    return Setup(FIELD, Grid((84, 84), 0.5), WINDOW, (8, 8), 20.0, energy=80e3, aberrations=lens, binning=2, rotation=rotation)


def raster() -> Measurement:
    """12 x 12 positions; each pattern holds its own number."""
    axis = torch.arange(12) / 11
    positions = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(1, 144, 2)
    patterns = torch.arange(144, dtype=torch.uint8)[None, :, None, None].expand(1, 144, 8, 8).clone()
    return Measurement(positions, patterns, torch.full((1, 144), 500.0), torch.full((1, 144), 100.0))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**31), st.floats(0.1, 3.0))
def test_property_the_nearest_recorded_position_in_angstrom_answers(count, seed, spread):
    wanted = 0.5 + spread * (torch.rand(1, count, 2, generator=torch.Generator().manual_seed(seed)) - 0.5)
    data, microscope = raster(), Recorded(setup(), raster())
    found = microscope.acquire(Action(wanted))
    apart = distance(setup(), wanted[0, :, None], data.positions[0, None])
    # No recorded position is nearer; a tie may fall either way within single precision of a field of 22 Å.
    reported = distance(setup(), wanted, found.positions)
    assert bool((reported[0] <= apart.amin(1) + 22 * 3 * 2**-22).all())
    number = found.patterns[0, :, 0, 0].long()
    assert torch.equal(found.positions[0], data.positions[0, number]) and found.patterns.dtype == torch.uint8
    assert torch.equal(found.dose, torch.full((1, count), 500.0))


def test_identity_recorded_positions_come_back_exactly_and_repeats_cost_dose_again():
    data = raster()
    microscope = Recorded(setup(), data)
    again = microscope.acquire(Action(data.positions, defocus=100.0, dose=500.0))
    assert torch.equal(again.positions, data.positions) and torch.equal(again.patterns, data.patterns)
    twice = microscope.acquire(Action(data.positions[:, [5, 5]])) + microscope.acquire(Action(data.positions[:, [5]]))
    assert twice.patterns[0, :, 0, 0].tolist() == [5, 5, 5] and float(twice.dose.sum()) == 1500.0


def test_what_was_not_recorded_is_refused():
    microscope = Recorded(setup(), raster(), counts_per_electron=5.0)
    here = torch.full((1, 3, 2), 0.5)
    microscope.acquire(Action(here, dose=100.0))  # 100 electrons of 5 counts each are the recorded 500 counts
    with pytest.raises(ValueError, match=r"action.dose: expected the recorded 100 electrons .* got 500"):
        microscope.acquire(Action(here, dose=500.0))
    microscope.acquire(Action(here, dose=torch.full((1, 3), 100.0)))
    with pytest.raises(ValueError, match=r"action.dose: expected the recorded 100 electrons .* got 250"):
        microscope.acquire(Action(here, dose=torch.tensor([[100.0, 250.0, 100.0]])))
    with pytest.raises(ValueError, match=r"action.defocus: expected the recorded 100 Å .* got 0"):
        microscope.acquire(Action(here, defocus=0.0))
    with pytest.raises(ValueError, match="expected finite positions"):
        microscope.acquire(Action(here * torch.nan))
    with pytest.raises(ValueError, match="expected requests for 1 data sets, got 2"):
        microscope.acquire(Action(here.expand(2, 3, 2)))
    with pytest.raises(ValueError, match="at least one recorded position"):
        Recorded(setup(), Measurement(torch.zeros(1, 0, 2), torch.zeros(1, 0, 8, 8), torch.zeros(1, 0), torch.zeros(1, 0)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 8), st.integers(0, 8), st.integers(1, 3), st.floats(-180, 180))
def test_property_a_cut_out_field_keeps_distances_patterns_and_directions(top, left, size, rotation):
    whole, data = setup(rotation), raster()
    found = cut(Recording(whole, data), rows=(top / 11, (top + size) / 11), columns=(left / 11, (left + size) / 11))
    smaller, part = found.setup, found.measurement
    number = [12 * i + j for i in range(top, top + size + 1) for j in range(left, left + size + 1)]
    assert part.patterns[0, :, 0, 0].tolist() == number
    assert smaller.field == pytest.approx((2.0 * size, 1.0 * size), rel=1e-12)
    full = whole.to_pixels(data.positions[0, number].double())
    small = smaller.to_pixels(part.positions[0].double())
    # Positions are single-precision fractions (6e-8, rounded twice) of a field of 44 pixels.
    np.testing.assert_allclose((small - small[0]).numpy(), (full - full[0]).numpy(), atol=44 * 2**-22)
    assert min(smaller.object.shape) >= 16 + 8 and smaller.object.shape[0] < whole.object.shape[0]


def test_windows_of_one_size_scan_together_as_they_do_alone():
    first, second = (cut(Recording(setup(), raster()), rows=r, columns=(0, 5 / 11)) for r in ((0, 5 / 11), (6 / 11, 1.0)))
    assert first.setup.object == second.setup.object and first.setup.field == pytest.approx(second.setup.field, rel=1e-12)
    wanted = torch.rand(2, 9, 2, generator=torch.Generator().manual_seed(3))
    # One of the two with fewer positions: padding must never be an answer.
    fewer = second.measurement.take(torch.arange(20))
    both = Recorded(first.setup, Measurement.stack([first.measurement, fewer]))
    assert both.batch == 2
    found = both.acquire(Action(wanted))
    for b, alone in enumerate((Recorded(first.setup, first.measurement), Recorded(second.setup, fewer))):
        answer = alone.acquire(Action(wanted[b : b + 1]))
        assert torch.equal(found.patterns[b], answer.patterns[0]) and torch.equal(found.positions[b], answer.positions[0])


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ((0.5, 0.5), (0, 1), "rows: expected two fractions of the field, the smaller first"),
        ((0, 1), (0.2, 1.2), "columns: expected two fractions"),
        ((0.01, 0.02), (0, 1), "expected a rectangle with recorded positions"),
    ],
)
def test_impossible_rectangles_are_refused(rows, columns, message):
    with pytest.raises(ValueError, match=message):
        cut(Recording(setup(), raster()), rows=rows, columns=columns)
