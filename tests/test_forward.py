"""Eq. 1 and what a real instrument adds to it."""

import math
from dataclasses import replace

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptycho.physics.forward import CHUNK, Imperfections, diffract, expose, record, transmission
from adaptycho.physics.grid import Grid, fft2
from adaptycho.physics.optics import Aberrations, Setup
from adaptycho.types import Measurement

IDEAL = Imperfections(noise=False)


def small(**changes) -> Setup:
    given = {"field": (6.0, 6.0), "object": Grid((48, 48), 0.3), "window": Grid((24, 24), 0.3), "detector": (24, 24)}
    return Setup(**(given | {"semiangle": 33.0, "energy": 60e3, "aberrations": Aberrations(C10=-40.0)} | changes))


def rough(seed: int = 0, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, 48, 48, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def somewhere(count: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def focus(count: int, value: float = 40.0) -> torch.Tensor:
    return torch.full((count,), value, dtype=torch.float64)


@given(st.integers(0, 100), st.floats(-200, 200), st.integers(1, 3))
def test_a_real_potential_loses_no_electron(seed, defocus, slices):
    patterns = diffract(small(), 3 * rough(seed, slices), somewhere(3, seed), focus(3, defocus), thickness=4.0)
    # Double precision over 576 pixels and a few transforms.
    torch.testing.assert_close(patterns.sum((1, 2)), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_absorption_loses_electrons():
    potential = torch.complex(rough(), torch.full((48, 48), 0.2, dtype=torch.float64))
    patterns = diffract(small(), potential, somewhere(4), focus(4))
    # exp(-0.2) in amplitude everywhere.
    torch.testing.assert_close(patterns.sum((1, 2)), torch.full((4,), math.exp(-0.4), dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(patterns, math.exp(-0.4) * diffract(small(), rough(), somewhere(4), focus(4)), rtol=0, atol=1e-14)


def test_transmission_is_exp_iv():
    potential = torch.complex(rough(1), rough(2))
    torch.testing.assert_close(transmission(potential), torch.exp(1j * potential), rtol=0, atol=1e-15)
    torch.testing.assert_close(transmission(rough(1)), torch.exp(1j * rough(1)), rtol=0, atol=1e-15)


def test_vacuum_shows_the_aperture():
    setup = small()
    ky, kx = setup.window.frequencies()
    disc = setup.aperture(ky, kx).square()
    patterns = diffract(setup, torch.zeros(48, 48, dtype=torch.float64), somewhere(3), focus(3))
    torch.testing.assert_close(patterns, (disc / disc.sum()).expand(3, -1, -1), rtol=0, atol=1e-14)


def test_a_phase_ramp_shifts_the_pattern():
    setup = small()
    ramp = 2 * math.pi * 3 / 24 * torch.arange(48, dtype=torch.float64)[:, None].expand(48, 48)
    patterns = diffract(setup, ramp, somewhere(2), focus(2))
    # exp(+2 pi i k.r) deflects towards +k: three pixels of a window of 24.
    vacuum = diffract(setup, torch.zeros_like(ramp), somewhere(2), focus(2))
    torch.testing.assert_close(patterns, vacuum.roll(3, -2), rtol=0, atol=1e-12)


def test_moving_the_specimen_equals_moving_the_probe_back():
    setup, potential = small(), rough()
    step = torch.tensor([2.0, -3.0], dtype=torch.float64)
    position = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    moved = position + step * 0.3 / 6.0
    torch.testing.assert_close(
        diffract(setup, potential.roll((2, -3), (0, 1)), moved, focus(1)),
        diffract(setup, potential, position, focus(1)),
        rtol=0,
        atol=1e-12,
    )


@given(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4))
def test_sub_pixel_positions_are_exact(y, x):
    # A band-limited specimen can be moved by a fraction of a pixel in Fourier space; transmission 1 + t for a weak one keeps it so.
    setup = small(field=(4.8, 4.8), window=Grid((32, 32), 0.3), detector=(24, 24))
    k, phase = 2 / 9.6, 2 * math.pi * torch.arange(48, dtype=torch.float64) * 0.3
    here = 1e-3 * (torch.cos(k * phase)[:, None] + torch.sin(2 * k * phase)[None, :])
    dy, dx = 2 * math.pi * k * 0.3 * y, 4 * math.pi * k * 0.3 * x
    there = 1e-3 * (torch.cos(k * phase + dy)[:, None] + torch.sin(2 * k * phase + dx)[None, :])
    centre = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    moved = centre + torch.tensor([[y, x]], dtype=torch.float64) * 0.3 / 4.8
    difference = diffract(setup, here, moved, focus(1)) - diffract(setup, there, centre, focus(1))
    # exp(iV) has harmonics of order V^3 = 1e-9 beyond the band; the lattice of 32 pixels holds both periods whole.
    assert difference.abs().max() < 1e-9


def test_batch_equals_one_by_one():
    setup, potential, count = small(), rough(), CHUNK + 7
    positions = somewhere(count)
    defocus = torch.linspace(-100, 100, 5, dtype=torch.float64).repeat(count)[:count]
    together = diffract(setup, potential, positions, defocus)
    for i in (0, CHUNK - 1, CHUNK, count - 1):
        alone = diffract(setup, potential, positions[i : i + 1], defocus[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-14)


def test_no_positions_give_no_patterns():
    assert diffract(small(), rough(), somewhere(0), focus(0)).shape == (0, 24, 24)


def test_binning_sums_and_cropping_keeps_the_middle():
    full = torch.rand(2, 24, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centred = torch.fft.fftshift(full, dim=(-2, -1))
    binned = record(small(detector=(8, 8), binning=2), full)
    expected = centred[:, 4:20, 4:20].reshape(2, 8, 2, 8, 2).sum((2, 4))
    torch.testing.assert_close(torch.fft.fftshift(binned, dim=(-2, -1)), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(record(small(), full), full, rtol=0, atol=0)


def test_empty_slices_are_free_space():
    # Free space changes the phase of each plane wave only.
    empty = torch.zeros(4, 48, 48, dtype=torch.float64)
    torch.testing.assert_close(
        diffract(small(), empty, somewhere(3), focus(3), thickness=25.0),
        diffract(small(), empty[0], somewhere(3), focus(3)),
        rtol=0,
        atol=1e-14,
    )


def test_free_space_before_the_specimen_is_defocus():
    # Focused 75 Å behind the first, empty slice: underfocus there, in focus at the specimen. The other sign would be 150 Å off.
    potential = rough()
    behind = torch.stack([torch.zeros_like(potential), potential])
    patterns = diffract(small(), behind, somewhere(3), focus(3, 75.0), thickness=75.0)
    torch.testing.assert_close(patterns, diffract(small(), potential, somewhere(3), focus(3, 0.0)), rtol=0, atol=1e-13)
    assert (patterns - diffract(small(), potential, somewhere(3), focus(3, 150.0))).abs().max() > 1e-3


def test_two_halves_at_no_distance_are_one_slice():
    halves = rough().expand(2, -1, -1) / 2
    torch.testing.assert_close(
        diffract(small(), halves, somewhere(3), focus(3), thickness=0.0),
        diffract(small(), rough(), somewhere(3), focus(3)),
        rtol=0,
        atol=1e-13,
    )


def test_the_beam_meets_the_first_slice_first():
    slices = rough(0, 2)
    forwards, backwards = (diffract(small(), s, somewhere(2), focus(2), thickness=30.0) for s in (slices, slices.flip(0)))
    assert (forwards - backwards).abs().max() > 1e-3


def test_each_measured_probe_serves_its_own_data_set():
    probes = torch.stack([small().probe(d) for d in (0.0, 80.0)])
    setup = small(measured_probe=probes, aberrations=Aberrations())
    for item, defocus in enumerate((0.0, 80.0)):
        patterns = diffract(setup, rough(), somewhere(2), focus(2, 0.0), item=item)
        torch.testing.assert_close(patterns, diffract(small(), rough(), somewhere(2), focus(2, defocus)), rtol=0, atol=1e-12)


def test_counts_are_poisson():
    setup, generator, n = small(), torch.Generator().manual_seed(5), 400
    positions = torch.full((n, 2), 0.5, dtype=torch.float64)
    counts = expose(setup, rough(), positions, torch.full((n,), 2e3), focus(n), Imperfections(background=0.5), generator=generator)
    expected = 2e3 * diffract(setup, rough(), positions[:1], focus(1))[0] + 0.5
    assert bool((counts == counts.round()).all())
    # n = 400 exposures; standard errors of mean and variance, bound 4.5 of them for the largest of 576 pixels (P = 4e-3).
    error = (expected / n).sqrt()
    assert ((counts.mean(0) - expected) / error).abs().max() < 4.5
    # The variance of a sample variance of a Poisson number of mean m is (2 m^2 + m) / n.
    spread = float(((2 * expected.square() + expected).sum() / n).sqrt() / expected.sum())
    assert float(counts.var(0).sum() / expected.sum()) == pytest.approx(1, abs=4 * spread)


def test_dose_and_background_scale_the_expectation():
    positions, dose = somewhere(2), torch.tensor([10.0, 300.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    exposed = expose(small(), rough(), positions, dose, focus(2), replace(IDEAL, background=0.25), generator=generator)
    torch.testing.assert_close(exposed, dose[:, None, None] * diffract(small(), rough(), positions, focus(2)) + 0.25, rtol=1e-13, atol=0)


@pytest.mark.parametrize("axis", [0, 1])
def test_jitter_has_the_rms_that_was_asked_for(axis):
    # Behind a ramp of absorption a y the transmitted fraction is proportional to exp(-2 a y): its logarithm tells where the beam was.
    setup, generator, n = small(), torch.Generator().manual_seed(7), 1500
    absorb = 0.02 * torch.arange(48, dtype=torch.float64).unsqueeze(1 - axis).expand(48, 48)
    potential = torch.complex(torch.zeros_like(absorb), absorb)
    positions = torch.full((n, 2), 0.5, dtype=torch.float64)
    exposed = expose(
        setup, potential, positions, torch.ones(n, dtype=torch.float64), focus(n), replace(IDEAL, jitter=0.4), generator=generator
    )
    kicks = -exposed.sum((1, 2)).log() / (2 * 0.02) * 0.3
    # n = 1500: the standard error of a standard deviation is its 1 / sqrt(2 n); the beam's changing tails add less than 1 %.
    assert float(kicks.std()) == pytest.approx(0.4, rel=4 / math.sqrt(2 * n) + 0.01)


def test_jitter_stays_inside_the_field():
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64).repeat(50, 1)
    dose = torch.ones(100, dtype=torch.float64)
    exposed = expose(small(), rough(), corners, dose, focus(100), replace(IDEAL, jitter=3.0), generator=torch.Generator().manual_seed(0))
    # A window that left the object would be wrapped round; every pattern stays normalised and some are exactly those at the corners.
    pinned = diffract(small(), rough(), corners[:1], focus(1))
    assert bool((exposed - pinned).abs().amax((1, 2)).lt(1e-12).any())


def test_source_size_averages_over_a_gaussian():
    setup, potential, position, size = small(), rough(), torch.tensor([[0.5, 0.5]], dtype=torch.float64), 0.15
    blurred = diffract(setup, potential, position, focus(1), source_size=size)[0]
    steps = torch.linspace(-4, 4, 17, dtype=torch.float64) * size / 6.0
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    weights = torch.exp(-grid.square().sum(1) / 2 / (size / 6.0) ** 2)
    many = diffract(setup, potential, position + grid, focus(len(grid)))
    averaged = (weights[:, None, None] * many).sum(0) / weights.sum()
    sharp = diffract(setup, potential, position, focus(1))[0]
    # Three nodes are exact to the fifth order: what is left is far below what the blur does.
    assert (blurred - averaged).norm() < 0.1 * (sharp - averaged).norm()
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-12)


def test_a_larger_source_blurs_more():
    # Contrast of a grating across the beam, seen as the change of patterns with position.
    k = 2 * math.pi * torch.arange(48, dtype=torch.float64) / 8
    potential = 0.3 * torch.cos(k)[:, None].expand(48, 48)
    positions = torch.stack([torch.linspace(0.3, 0.7, 9, dtype=torch.float64), torch.full((9,), 0.5, dtype=torch.float64)], -1)
    contrast = [float(diffract(small(), potential, positions, focus(9), source_size=s).std(0).norm()) for s in (0.0, 0.1, 0.2, 0.4)]
    assert contrast == sorted(contrast, reverse=True)
    assert contrast[-1] < 0.7 * contrast[0]


@pytest.mark.parametrize("name", ["jitter", "background", "source_size"])
def test_imperfections_are_not_negative(name):
    with pytest.raises(ValueError, match=f"{name}: expected a value from 0 to 9e\\+15, got -1"):
        Imperfections(**{name: -1.0})


@pytest.fixture
def unchecked_shapes():
    """Users run without the shape checks of the tests and have to get the message itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def measured(batch: int, count: int, seed: int = 0) -> Measurement:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, count, 2), (batch, count, 4, 4), (batch, count), (batch, count))
    return Measurement(*(torch.rand(s, generator=generator) for s in shapes))


def same(a: Measurement, b: Measurement) -> bool:
    names = ("positions", "patterns", "dose", "defocus", "lengths")
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in names)


def test_measurements_join_along_the_positions():
    first, second = measured(2, 3), measured(2, 4, 1)
    joined = first + second
    assert joined.positions.shape == (2, 7, 2) and joined.lengths.tolist() == [7, 7]
    assert same(joined.take(torch.arange(3)), first)
    assert same(joined.take(torch.arange(3, 7)), second)


def test_a_measurement_starts_from_nothing():
    nothing = measured(2, 0)
    assert same(nothing + measured(2, 3), measured(2, 3))
    assert same(measured(2, 3) + nothing, measured(2, 3))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any), st.integers(0, 3))
def test_ragged_measurements_split_into_what_was_stacked(counts, more):
    parts = [measured(1, k, seed) for seed, k in enumerate(counts)]
    ragged = Measurement.stack(parts)
    assert ragged.lengths.tolist() == counts
    assert ragged.positions.shape[1] == max(counts)
    assert all(same(a, b) for a, b in zip(ragged.split(), parts, strict=True))
    # Adding to a ragged batch adds to each data set, behind its own last pattern and not behind the padding.
    extra = measured(len(counts), more, 99)
    longer = ragged + extra
    assert longer.lengths.tolist() == [k + more for k in counts]
    assert all(same(longer[i], parts[i] + extra[i]) for i in range(len(counts)))


def test_items_count_from_either_end():
    batch = measured(3, 2)
    assert same(batch[-1], batch[2]) and len(batch) == 3
    with pytest.raises(IndexError):
        batch[3]


def test_measurement_says_what_is_wrong(unchecked_shapes):
    good = measured(2, 3)
    with pytest.raises(ValueError, match=r"dose: expected shape \(2, 3\), got \(2, 4\)"):
        replace(good, dose=torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"patterns: expected shape \(2, 3, Q, Q\), .* got \(2, 5, 4, 4\)"):
        replace(good, patterns=torch.zeros(2, 5, 4, 4))
    with pytest.raises(ValueError, match="measurement: expected 2 data sets to add, got 1"):
        good + measured(1, 3)
    with pytest.raises(ValueError, match="take: expected indices below 3, got 3"):
        good.take(torch.tensor([0, 3]))


def test_patterns_do_not_depend_on_the_precision():
    setup, positions = small(), somewhere(3)
    double = diffract(setup, rough(), positions, focus(3))
    single = diffract(setup, rough().float(), positions.float(), focus(3).float())
    assert single.dtype == torch.float32
    # Positions of up to 48 pixels are good to 2e-6 pixels in single precision, transforms to a few 1e-7 of the largest amplitude.
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5 * float(double.max()))


def test_fft_of_a_placed_probe_keeps_its_spectrum():
    setup = small()
    spectra = setup.spectra(focus(2))
    shifted = setup.shift(spectra, torch.tensor([[0.3, -0.2], [0.0, 0.5]], dtype=torch.float64))
    torch.testing.assert_close(fft2(shifted).abs(), spectra.abs(), rtol=0, atol=1e-13)
