"""Wavelength, aberrations, probe, and how positions become object pixels."""

import math
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptycho.physics.grid import Grid, fft2, ifft2
from adaptycho.physics.optics import Aberrations, Setup, interaction_constant, wavelength


def variant(**changes) -> Setup:
    grid = {"object": Grid((100, 100), 0.308), "window": Grid((32, 32), 0.308), "detector": (32, 32)}
    return Setup(**({"field": (20.0, 20.0), **grid, "semiangle": 33.0, "energy": 60e3} | changes))


@pytest.mark.parametrize(("energy", "angstrom"), [(60e3, 0.04866), (80e3, 0.04176), (200e3, 0.02508), (300e3, 0.019687)])
def test_wavelength_is_the_textbook_value(energy, angstrom):
    # Half a unit of the last digit the tables give, five decimals (300 kV: six).
    assert wavelength(energy) == pytest.approx(angstrom, abs=5e-6 if energy < 300e3 else 5e-7)


def test_interaction_constant_is_the_textbook_value():
    # Kirkland's table: 0.9244 rad/(kV Å) at 100 kV and 0.6526 at 300 kV.
    assert 1e3 * interaction_constant(100e3) == pytest.approx(0.9244, abs=1e-4)
    assert 1e3 * interaction_constant(300e3) == pytest.approx(0.6526, abs=1e-4)


@pytest.mark.parametrize("energy", [20e3, 60e3, 300e3])
def test_interaction_constant_equals_its_definition(energy):
    mass, charge, planck, light_speed = 9.1093837015e-31, 1.602176634e-19, 6.62607015e-34, 299792458.0
    relativistic = mass * (1 + charge * energy / (mass * light_speed**2))
    sigma = 2 * math.pi * relativistic * charge * wavelength(energy) * 1e-10 / planck**2  # rad/(V m)
    # The CODATA constants are given to ten digits.
    assert interaction_constant(energy) == pytest.approx(sigma * 1e-10, rel=1e-9)


def test_energy_must_be_positive():
    with pytest.raises(ValueError, match="energy: expected a positive beam energy"):
        wavelength(0.0)


@given(st.floats(5, 40), st.floats(-300, 300), st.floats(0, 50), st.sampled_from([(16, 16), (32, 32), (34, 34)]), st.floats(30e3, 300e3))
def test_probe_has_unit_sum(semiangle, defocus, astigmatism, shape, energy):
    setup = variant(
        semiangle=semiangle,
        energy=energy,
        window=Grid(shape, 0.308),
        detector=shape,
        aberrations=Aberrations(C10=-defocus, C12=astigmatism),
    )
    # Double precision over a thousand pixels.
    assert float(setup.probe().abs().square().sum()) == pytest.approx(1, abs=1e-12)


def test_propagating_an_underfocused_probe_by_its_defocus_focuses_it():
    setup = variant(aberrations=Aberrations(C10=-120.0))
    ky, kx = setup.window.frequencies()
    # Free space over the distance z multiplies by exp(-i pi lambda z k^2); underfocus means the crossover still lies ahead.
    ahead = torch.polar(torch.ones(32, 32, dtype=torch.float64), -math.pi * setup.wavelength * 120.0 * (ky**2 + kx**2))
    focused = ifft2(fft2(setup.probe()) * ahead)
    assert setup.aberrations.defocus == 120.0
    torch.testing.assert_close(focused, setup.probe(0.0), rtol=0, atol=1e-12)
    peak = focused.abs().max()
    away = ifft2(fft2(setup.probe()) * ahead.conj()).abs().max()
    assert peak > 2 * away  # the other sign would have spread it further


@given(st.integers(-500, 500).map(float), st.integers(-500, 500).map(float))
def test_with_defocus_is_the_same_for_calculated_and_measured_probes(first, second):
    calculated = variant(aberrations=Aberrations(C10=-first, C30=1e4))
    measured = variant(aberrations=Aberrations(C10=-first), measured_probe=calculated.probe())
    moved = measured.with_defocus(second)
    assert moved.aberrations.defocus == second
    # Phases of up to a hundred rad in double precision.
    torch.testing.assert_close(moved.probe(), calculated.with_defocus(second).probe(), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "n", "m"),
    [("C10", 1, 0), ("C12", 1, 2), ("C21", 2, 1), ("C23", 2, 3), ("C30", 3, 0), ("C32", 3, 2), ("C34", 3, 4), ("C50", 5, 0)],
)
def test_aberrations_by_name(name, n, m):
    angle = {f"phi{n}{m}": 0.3} if m else {}
    lens = Aberrations(**{name: 1e3}, **angle)
    k, phi, waves = 0.4, 0.9, 0.05
    point = torch.tensor([[k * math.sin(phi)]], dtype=torch.float64), torch.tensor([[k * math.cos(phi)]], dtype=torch.float64)
    expected = 2 * math.pi / waves * 1e3 * (waves * k) ** (n + 1) / (n + 1) * math.cos(m * (phi - 0.3 * bool(m)))
    assert float(lens.chi(*point, waves)) == pytest.approx(expected, rel=1e-12)


def test_every_aberration_changes_the_probe():
    for coefficient in (f.name for f in fields(Aberrations) if f.name.startswith("C")):
        changed = variant(aberrations=Aberrations(**{coefficient: 1e6 if coefficient != "C10" else 50.0}))
        assert (changed.probe() - variant().probe()).abs().max() > 1e-3, coefficient


def test_aperture_area_is_continuous_in_the_angle():
    def area(semiangle: float) -> float:
        setup = variant(semiangle=semiangle)
        return float(setup.aperture(*setup.window.frequencies()).sum())

    radius = 33e-3 / wavelength(60e3) * 32 * 0.308  # in pixels
    # A soft edge counts pixels as a smooth function; a disc of 45 square pixels is right to within a few per cent of them.
    assert area(33.0) == pytest.approx(math.pi * radius**2, rel=0.03)
    assert area(33.01) - area(33.0) == pytest.approx(2 * math.pi * radius**2 * 0.01 / 33, rel=0.3)


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_two_half_shifts_make_a_whole_one(y, x):
    setup = variant(aberrations=Aberrations(C10=-60.0))
    # The Nyquist frequency has no sign and breaks the rule by its share of the spectrum, which the aperture leaves empty.
    spectrum = fft2(setup.probe())[None]
    offset = torch.tensor([[y, x]], dtype=torch.float64)
    back_to_corner = torch.tensor([[16.0, 16.0]], dtype=torch.float64)
    half = fft2(setup.shift(spectrum, offset / 2))
    twice = setup.shift(half, offset / 2 - back_to_corner)
    torch.testing.assert_close(twice, setup.shift(spectrum, offset), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pixels", [(1, 0), (0, -2), (3, 5)])
def test_shift_by_whole_pixels_rolls(pixels):
    setup = variant()
    spectrum = fft2(setup.probe())[None]
    shifted = setup.shift(spectrum, torch.tensor([pixels], dtype=torch.float64))
    torch.testing.assert_close(shifted[0], setup.probe().roll((16 + pixels[0], 16 + pixels[1]), (0, 1)), rtol=0, atol=1e-12)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-45, 45))
def test_place_splits_a_position_without_losing_any_of_it(y, x, rotation):
    setup = variant(rotation=rotation, object=Grid((140, 140), 0.308))
    position = torch.tensor([[y, x]], dtype=torch.float64)
    corner, offset = setup.place(position)
    assert float(offset.abs().max()) <= 0.5
    assert bool((corner >= 0).all()) and bool((corner + 32 <= 140).all())
    torch.testing.assert_close(corner + 16 + offset, setup.to_pixels(position), rtol=0, atol=1e-12)


def test_positions_are_fractions_of_the_field_with_y_down():
    setup = variant()
    centre, right, down = setup.to_pixels(torch.tensor([[0.5, 0.5], [0.5, 1.0], [1.0, 0.5]], dtype=torch.float64))
    half = 10 / 0.308
    assert centre.tolist() == [50, 50]
    assert right.tolist() == pytest.approx([50, 50 + half])
    assert down.tolist() == pytest.approx([50 + half, 50])


def test_rotation_turns_detector_into_scan_counter_clockwise():
    # `rotation` takes detector (row, column) counter-clockwise into the scan frame; with rows down, a scan step to the right is then a step
    # right and *down* on the detector's object (30 degrees clockwise on a picture).
    setup = variant(rotation=30.0, object=Grid((140, 140), 0.308))
    step = setup.to_pixels(torch.tensor([[0.5, 1.0]], dtype=torch.float64))[0] - 70
    half = 10 / 0.308
    assert step.tolist() == pytest.approx([half * math.sin(math.pi / 6), half * math.cos(math.pi / 6)])


def test_crop_without_rotation_is_a_centred_slice():
    setup = variant()
    rows = torch.arange(100.0)[:, None].expand(100, 100)
    cropped = setup.crop(rows)
    assert tuple(cropped.shape) == setup.field_shape == (65, 65)
    assert cropped[:, 0].tolist() == list(range(18, 83))


def test_crop_follows_the_rotated_field():
    def picture(rotation: float):
        setup = variant(rotation=rotation, object=Grid((160, 160), 0.308), field=(18.0, 20.0))
        rows, columns = setup.field_shape
        i, j = torch.meshgrid(torch.arange(160.0, dtype=torch.float64), torch.arange(160.0, dtype=torch.float64), indexing="ij")
        fractions = torch.stack([(torch.arange(n, dtype=torch.float64) + 0.5)[[0, n // 3, n - 1]] / n for n in (rows, columns)], -1)
        where = setup.to_pixels(fractions)
        plane = 0.3 * i - 0.2 * j
        crop = setup.crop(plane)
        got = crop[[0, rows // 3, rows - 1], [0, columns // 3, columns - 1]]
        return got, 0.3 * where[:, 0] - 0.2 * where[:, 1]

    for rotation in (25.0, -70.0):
        got, expected = picture(rotation)
        # torch's cubic kernel (a = -0.75) moves a point by (2 a + 1) t (1 - t) (1 - 2 t), at most 0.048 pixels along each axis.
        torch.testing.assert_close(got, expected, rtol=0, atol=0.0482 * (0.3 + 0.2))


def test_a_right_angle_of_rotation_turns_the_picture():
    image = torch.rand(100, 100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # An odd number of pixels, so that the field's pixel centres fall on the object's.
    setup, turned = (variant(field=(65 * 0.308, 65 * 0.308), rotation=r) for r in (0.0, 90.0))
    straight, rotated = setup.crop(image), turned.crop(image)
    # Half an object pixel separates the centre of the field from the middle pixel: with 65 pixels the samples fall on the half pixels
    # (row, column) -> (50 + 0, 50 + 0) and interpolation is exact.
    torch.testing.assert_close(rotated, torch.rot90(straight, 1, (0, 1)), rtol=0, atol=1e-9)


def test_detector_pixel_is_lambda_over_the_window():
    assert variant().detector_pixel == pytest.approx(1e3 * wavelength(60e3) / (32 * 0.308))
    assert variant(detector=(16, 16), binning=2).detector_pixel == pytest.approx(2 * variant().detector_pixel)


def test_light_takes_a_wavelength_instead():
    setup = variant(energy=None, wavelength=1.5)
    assert setup.wavelength == 1.5
    assert setup.probe().shape == (32, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wavelength": 0.06}, r"wavelength: expected 0\.0486\S* Å at 60000 eV, got 0\.06 Å"),
        ({"energy": None}, "energy: expected a beam energy in eV or a wavelength in Å, got neither"),
        ({"energy": -1.0}, "energy: expected a positive beam energy in eV, got -1"),
        ({"semiangle": 0.0}, "semiangle: expected a positive convergence semi-angle in mrad, got 0"),
        ({"field": (20.0, 0.0)}, r"field: expected a positive scan field \(y, x\) in Å, got \(20\.0, 0\.0\)"),
        ({"detector": (33, 33)}, r"detector: expected even pixel numbers .* inside the window \(32, 32\), got \(33, 33\) x 1"),
        ({"binning": 2}, r"got \(32, 32\) x 2"),
        ({"binning": 0}, r"got \(32, 32\) x 0"),
        ({"window": Grid((32, 32), 0.3)}, r"window\.pixel: expected the object's pixel 0\.308 Å, got 0\.3 Å"),
        ({"measured_probe": torch.ones(16, 16)}, r"measured_probe: expected the window's shape \(32, 32\), got \(16, 16\)"),
        ({"object": Grid((90, 90), 0.308)}, r"object: expected a grid that holds the field \(20\.0, 20\.0\) Å plus one window"),
        ({"rotation": 45.0}, r"rotation 45 degrees"),
    ],
)
def test_setup_says_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        variant(**changes)


@pytest.mark.parametrize("shape", [(3, 4), (0, 2), (-4, 4)])
def test_grid_wants_even_pixel_numbers(shape):
    with pytest.raises(ValueError, match=r"grid\.shape: expected two even pixel numbers"):
        Grid(shape, 0.3)


def test_grid_wants_a_positive_pixel():
    with pytest.raises(ValueError, match=r"grid\.pixel: expected a positive length in Å, got 0"):
        Grid((4, 4), 0.0)


@given(st.sampled_from([(4, 6), (16, 16), (10, 32)]), st.floats(0.01, 100))
def test_reciprocal_pixel_is_the_step_of_the_frequencies(shape, pixel):
    grid = Grid(shape, pixel)
    ky, kx = grid.frequencies()
    assert float(ky[1, 0]) == pytest.approx(grid.reciprocal_pixel[0])
    assert float(kx[0, 1]) == pytest.approx(grid.reciprocal_pixel[1])
    assert float(ky[0, 0]) == float(kx[0, 0]) == 0


def test_transforms_conserve_energy_and_invert():
    wave = torch.randn(3, 12, 20, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fft2(wave).abs().square().sum(), wave.abs().square().sum(), rtol=1e-13, atol=0)
    torch.testing.assert_close(ifft2(fft2(wave)), wave, rtol=0, atol=1e-13)
