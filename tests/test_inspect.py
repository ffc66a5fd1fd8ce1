"""Descriptions of recordings: measured against known beams, and the shipped part is what it says."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptycho import formats
from adaptycho.formats import Recording, read
from adaptycho.formats.inspect import describe, lines
from adaptycho.instruments.simulated import Simulated
from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Aberrations, Setup, object_grid
from adaptycho.types import Action, Measurement


def recorded(n: int) -> Recording:
    """Random counts at n positions."""
    generator = torch.Generator().manual_seed(0)
    window = Grid((16, 16), 0.5)
    grid = object_grid((12.0, 9.0), window, 20.0)
    lens = Aberrations(C10=-150.0)
    setup = Setup((12.0, 9.0), grid, window, (8, 8), 20.0, energy=80e3, binning=2, rotation=20.0, aberrations=lens)
    positions, counts = torch.rand(1, n, 2, generator=generator), torch.randint(0, 200, (1, n, 8, 8), generator=generator)
    return Recording(setup, Measurement(positions, counts, torch.full((1, n), 6000.0), torch.full((1, n), 150.0)), counts_per_electron=2.5)


def test_independent_probe_radius_of_a_gaussian():
    grid, sigma = Grid((128, 128), 0.5), 4.0
    axis = np.fft.fftfreq(128, 1 / 128) * 0.5
    amplitude = np.exp(-(axis[:, None] ** 2 + axis**2) / (4 * sigma**2))
    held, probe = object_grid((10.0, 10.0), grid), torch.tensor(amplitude)
    setup = Setup((10.0, 10.0), held, grid, (128, 128), 20.0, energy=80e3, measured_probe=probe)
    half, most = setup.probe_radius(0.5), setup.probe_radius(0.9)
    # A two-dimensional Gaussian holds 1 - exp(-r^2 / 2 sigma^2) inside r; radii fall on pixels, so half a pixel's diagonal either way.
    assert abs(half - sigma * math.sqrt(2 * math.log(2))) < 0.5 * math.sqrt(0.5)
    assert abs(most - sigma * math.sqrt(2 * math.log(10))) < 0.5 * math.sqrt(0.5)


@settings(max_examples=20, deadline=None)
@given(st.floats(6, 26), st.floats(-3, 3), st.floats(-3, 3), st.integers(0, 2**31))
def test_property_bright_field_disc_is_measured(radius, dy, dx, seed):
    grid = Grid((64, 64), 0.5)
    y, x = np.indices((64, 64)) - 32.0
    inside = np.hypot(y - dy, x - dx) < radius
    counts = np.random.default_rng(seed).poisson(np.where(inside, 50.0, 2.0), (8, 64, 64))
    setup = Setup((10.0, 10.0), object_grid((10.0, 10.0), grid), grid, (64, 64), 20.0, energy=80e3)
    patterns = torch.from_numpy(np.fft.ifftshift(counts.astype(np.int32), (-2, -1)))[None]
    data = Measurement(torch.rand(1, 8, 2), patterns, torch.full((1, 8), 1e5), torch.zeros(1, 8))
    found = describe(Recording(setup, data))
    # A disc drawn on pixels: its area is uncertain by about the square root of the pixels on its edge, so the radius by less than 0.3.
    assert found["disc_radius_px"] == pytest.approx(radius, abs=0.3)
    assert found["disc_offset_px"] == pytest.approx([dy, dx], abs=0.3)


def test_description_counts_unknowns_and_warns(tmp_path):
    made = recorded(n=2)
    found = describe(made)
    json.dumps(found)
    assert found["measured_px"] == 2 * 8 * 8 and found["measured_per_unknown"] == found["measured_px"] / found["unknowns"]
    assert found["electrons"] == pytest.approx(float(made.measurement.patterns.sum()) / 2.5)
    assert found["dose_e_per_A2"] == pytest.approx(2 * 6000 / 2.5 / (12 * 9))
    text = "\n".join(lines(found))
    assert "150 Å underfocus" in text and "warning: there are fewer measured pixels than unknown ones" in text
    made.measurement.patterns[0, 0] = 0
    assert "1 patterns hold no counts" in describe(made)["warnings"]
    over = replace(made, measurement=replace(made.measurement, defocus=torch.full((1, 2), -80.1)))
    assert describe(over)["defocus_A"] == -80.1 and "80.1 Å overfocus" in "\n".join(lines(describe(over)))
    assert describe(recorded(n=1))["step_A"] is None and "one position" in "\n".join(lines(describe(recorded(n=1))))


def test_description_follows_the_defocus_that_was_recorded():
    """A beam of 2 Å in focus is 20 Å wide at 500 Å of defocus: steps of 5 Å overlap there, whatever the nominal defocus is."""
    window, field = Grid((128, 128), 0.5), (20.0, 20.0)
    setup = Setup(field, object_grid(field, window), window, (64, 64), 20.0, energy=80e3)
    microscope = Simulated(setup, torch.zeros(1, *setup.object.shape), 1e4)
    steps = torch.arange(5) / 4
    positions = torch.cartesian_prod(steps, steps)[None]
    taken = {}
    for defocus in (0.0, 500.0):
        action = Action(positions, defocus)
        taken[defocus] = describe(Recording(setup, microscope.acquire(action, generator=torch.Generator().manual_seed(0))))
    assert any("overlap" in text for text in taken[0.0]["warnings"])
    wide = taken[500.0]
    assert wide["warnings"] == [] and wide["defocus_A"] == 500.0 and "500 Å underfocus" in "\n".join(lines(wide))
    # Geometrical optics: a cone of 20 mrad over 500 Å makes a uniform disc of radius 10 Å, which holds 90 % within sqrt(0.9) of it;
    # diffraction blurs its edge by about sqrt(wavelength x defocus) / 2 = 2.3 Å.
    assert wide["probe_diameter_90_A"] == pytest.approx(2 * math.sqrt(0.9) * 10, abs=2 * 2.3)
    assert wide["unknowns"] > taken[0.0]["unknowns"]
    known = describe(Recording(setup.with_defocus(500.0), microscope.acquire(action, generator=torch.Generator().manual_seed(0))))
    assert known == wide  # the nominal defocus is only where the calculated probe starts from


def test_dose_per_area_says_which_area():
    made = recorded(n=3)
    assert "e/Å^2 over the scan field" in "\n".join(lines(describe(made)))
    made.measurement.positions[0, :2] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert "e/Å^2 over the box of the positions" in "\n".join(lines(describe(made)))


@pytest.fixture(scope="module")
def shipped() -> Recording:
    return read(formats.example())


def test_shipped_recording_is_what_it_says(shipped):
    assert formats.example().stat().st_size < 13e6
    assert shipped.measurement.patterns.shape == (1, 4096, 64, 64) and shipped.measurement.patterns.dtype == torch.uint8
    assert "MIT" in shipped.licence and (formats.example().parent / "ROTAVIRUS-LICENSE.txt").read_text().startswith("MIT License")
    found = describe(shipped)
    # The source gives a disc radius of 30.1 pixels and a centre of (30.92, 31.45) for the whole scan by another method: half a pixel.
    assert found["disc_radius_px"] == pytest.approx(30.1, abs=0.5)
    assert found["disc_offset_px"] == pytest.approx([-1.08, -0.55], abs=0.5)
    assert found["step_A"] == pytest.approx(31.25, rel=1e-5) and found["warnings"] == []
    assert f"{found['counts_per_pattern']:,.0f}" in (formats.example().parent / "ROTAVIRUS.md").read_text()


def test_independent_shipped_rotation_makes_beam_deflections_a_gradient(shipped):
    """A thin specimen deflects the beam along the gradient of its phase, which has no curl in the frame of the scan."""
    patterns = shipped.measurement.patterns[0].double()
    axis = torch.fft.fftfreq(64, dtype=torch.float64)
    total = patterns.sum((-2, -1))
    centre = torch.stack([(patterns.sum(2) @ axis) / total, (patterns.sum(1) @ axis) / total], -1).reshape(64, 64, 2)

    def curl(degrees: float) -> float:
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        # Detector (row, column) to scan (row, column), counter-clockwise: the inverse of the turn in `Setup.to_pixels`.
        y, x = (centre @ torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64).T).unbind(-1)
        return float((y.diff(dim=1)[:-1] - x.diff(dim=0)[:, :-1]).square().sum())

    angles = list(range(0, 180, 5))  # the curl cannot tell a turn from the same turn plus 180 degrees
    best = min(angles, key=curl)
    # The source fits 122.5 with an error of 2 degrees; 4 of them, and half a step.
    assert abs(best - shipped.setup.rotation) <= 8 + 2.5
    assert curl(shipped.setup.rotation) < curl(-shipped.setup.rotation)
