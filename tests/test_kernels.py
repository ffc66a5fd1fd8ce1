"""The compiled passes against plain torch, and against one another where one is the adjoint of another."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptycho.physics.forward import record
from adaptycho.physics.grid import Grid, fft2
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct import LOSSES, kernels, losses
from adaptycho.reconstruct.losses.function import FLOOR, LossFunction
from adaptycho.reconstruct.losses.poisson import BACKGROUND

KINDS = [torch.float32, torch.float64]


def random(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def windows(dtype: torch.dtype, count: int = 5, n: int = 12, m: int = 10) -> dict[str, torch.Tensor]:
    """Probes, an object and windows in it that reach its edges."""
    generator = torch.Generator().manual_seed(1)
    corner = torch.stack(
        [torch.randint(0, 30 - n + 1, (count,), generator=generator), torch.randint(0, 26 - m + 1, (count,), generator=generator)], 1
    )
    corner[0], corner[1] = torch.tensor([0, 0]), torch.tensor([30 - n, 26 - m])
    complex_ = dtype.to_complex()
    return {
        "probes": random(2, 3, n, m, dtype=complex_),
        "which": torch.randint(0, 3, (count,), generator=generator),
        "transmission": random(3, 30, 26, dtype=complex_),
        "corner": corner,
    }


@pytest.mark.parametrize("dtype", KINDS)
def test_exit_waves_compiled_as_in_torch(dtype):
    given = windows(dtype)
    compiled, plain = (torch.empty(5, 12, 10, dtype=dtype.to_complex()) for _ in range(2))
    kernels.exit_waves(**given, out=compiled)
    kernels._exit_waves_torch(**given, out=plain)
    # One complex product: two roundings of numbers below |4 x 4|.
    torch.testing.assert_close(compiled, plain, rtol=0, atol=32 * torch.finfo(dtype).eps)
    (top, left), (last, right) = given["corner"][1].tolist(), (30, 26)
    expected = given["probes"][given["which"][1]] * given["transmission"][top:last, left:right]
    torch.testing.assert_close(compiled[1], expected, rtol=0, atol=32 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", KINDS)
def test_scatter_compiled_as_in_torch(dtype):
    corner = windows(dtype)["corner"]
    waves, back = random(4, 5, 12, 10, dtype=dtype.to_complex()), random(5, 5, 12, 10, dtype=dtype.to_complex())
    compiled, plain = random(6, 30, 26, dtype=dtype.to_complex()), random(6, 30, 26, dtype=dtype.to_complex())
    kernels.scatter(waves, back, corner, compiled)
    kernels._scatter_torch(waves, back, corner, plain)
    # At most five products of numbers below |4 x 4| are added.
    torch.testing.assert_close(compiled, plain, rtol=0, atol=5 * 32 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", KINDS)
def test_of_a_real_potential_the_imaginary_part_is_gathered(dtype):
    corner = windows(dtype)["corner"]
    waves, back = random(4, 5, 12, 10, dtype=dtype.to_complex()), random(5, 5, 12, 10, dtype=dtype.to_complex())
    whole, real, plain = torch.zeros(30, 26, dtype=dtype.to_complex()), *(torch.zeros(30, 26, dtype=dtype) for _ in range(2))
    kernels.scatter(waves, back, corner, whole)
    kernels.scatter(waves, back, corner, real)
    kernels._scatter_torch(waves, back, corner, plain)
    # At most five products of numbers below |4 x 4| are added.
    torch.testing.assert_close(real, whole.imag, rtol=0, atol=5 * 32 * torch.finfo(dtype).eps)
    torch.testing.assert_close(plain, whole.imag, rtol=0, atol=5 * 32 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("loss", LOSSES)
def test_residuals_whose_squares_are_below_single_precision_are_not_lost(loss):
    """Intensities of 1e-20: their squares have no normal number, and the loss is still theirs; beside Poisson's background it is none."""
    waves = torch.full((1, 8, 6), 1e-10, dtype=torch.complex64)
    value = kernels.residual(waves, torch.zeros(1, 8, 6), torch.ones(1), torch.ones(8, 6), loss, 1)
    expected = {"intensity": 48 * 1e-40, "amplitude": 48 * FLOOR, "anscombe": 0.0, "poisson": 0.0}[loss]
    # 48 terms in single precision.
    assert value == pytest.approx(expected, rel=48 * torch.finfo(torch.float32).eps, abs=0)


def test_scatter_is_the_adjoint_of_the_exit_wave():
    """<psi(t), chi> = <t, scatter(probe, chi)> for every t: the two passes belong together."""
    given = windows(torch.float64)
    psi, chi = torch.empty(5, 12, 10, dtype=torch.complex128), random(7, 5, 12, 10, dtype=torch.complex128)
    kernels.exit_waves(**given, out=psi)
    gathered = torch.zeros_like(given["transmission"])
    kernels.scatter(given["probes"][given["which"]], chi, given["corner"], gathered)
    left, right = torch.vdot(psi.flatten(), chi.flatten()), torch.vdot(given["transmission"].flatten(), gathered.flatten())
    # 600 products of size one: 600 eps is far above the rounding.
    assert abs(left - right) < 600 * torch.finfo(torch.float64).eps * 16


def counts(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Few electrons, many pixels empty, the first pattern altogether."""
    drawn = torch.poisson(torch.full(shape, 1.5), generator=torch.Generator().manual_seed(8))
    drawn[0] = 0
    return drawn.to(dtype)


@pytest.mark.parametrize("pattern", [torch.float32, torch.float64, torch.uint8, torch.uint16, torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("loss", LOSSES)
def test_residual_compiled_as_in_torch(loss, dtype, pattern):
    given = random(9, 4, 8, 6, dtype=dtype.to_complex()), counts(pattern, 4, 8, 6), torch.tensor([0.5, 1.0, 2.0, 0.1], dtype=dtype)
    weight = (random(10, 8, 6) > -0.8).to(dtype)
    compiled, plain = given[0].clone(), given[0].clone()
    value = kernels.residual(compiled, *given[1:], weight, loss, 1)
    expected = kernels._residual_torch(plain, *given[1:], weight, loss, 1)
    eps = torch.finfo(dtype).eps
    # dL/dI loses digits where I is small against J (amplitude: J/I below 16 / 1e-2); the sum is of 192 terms below 100.
    scale = plain.abs().max()
    assert scale.isfinite()
    torch.testing.assert_close(compiled, plain, rtol=0, atol=8 * eps * float(scale))
    assert value == pytest.approx(expected, rel=192 * eps)
    assert (compiled[:, weight == 0] == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("binning", [1, 2])
def test_an_empty_pattern_and_an_empty_wave_are_finite(loss, binning):
    """Zero counts where there is light, light where there are no counts, and neither."""
    q = 8 // binning
    for wave, pattern in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        waves = torch.full((2, 8, 8), wave, dtype=torch.complex64)
        value = kernels.residual(waves, torch.full((2, q, q), pattern), torch.ones(2), torch.ones(q, q), loss, binning)
        assert math.isfinite(value)
        assert waves.isfinite().all()
        if wave == pattern == 0:
            # Nothing measured, nothing expected: no more than the floor that keeps logarithm and root finite.
            assert 0 <= value <= 2 * q * q * FLOOR * 1.01


@pytest.mark.parametrize("loss", LOSSES)
@given(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_a_detector_that_crops_and_bins(loss, binning, rows, columns, seed):
    """The loss is that of the recorded pattern, and nothing is known outside the detector."""
    q = (2 * rows // binning * 2 or 2, 2 * columns // binning * 2 or 2)
    setup = Setup(
        field=(4.0, 4.0), object=Grid((36, 36), 0.3), window=Grid((16, 16), 0.3), detector=q, semiangle=20.0, energy=60e3, binning=binning
    )
    waves, weight = random(seed, 3, 16, 16, dtype=torch.complex128), (random(seed + 1, *q) > -1).double()
    patterns, scale = counts(torch.float64, 3, *q) + 1, torch.full((3,), 0.5, dtype=torch.float64)
    model, data, more, few = record(setup, waves.abs().square()), 0.5 * patterns, 0.5 * BACKGROUND, 0.5 * 3 / 8
    value = {
        "intensity": (model - data).square(),
        "amplitude": (model.sqrt() - data.sqrt()).square(),
        "anscombe": ((model + few).sqrt() - (data + few).sqrt()).square(),
        "poisson": model - data - (data + more) * torch.log((model + more) / (data + more)),
    }[loss]
    factor = waves.clone()
    # 1e-12: double precision over a few thousand terms.
    assert kernels.residual(factor, patterns, scale, weight, loss, binning) == pytest.approx(float((value * weight).sum()), rel=1e-12)
    known = record(setup, torch.ones(1, 16, 16, dtype=torch.float64))[0].sum()
    assert (factor != 0).sum() <= 3 * known


def test_illumination_is_the_summed_intensity():
    given = windows(torch.float64, count=40)
    total = torch.zeros(30, 26, dtype=torch.float64)
    for which, (top, left) in zip(given["which"], given["corner"].tolist(), strict=True):
        total[top : top + 12, left : left + 10] += given["probes"][which].abs().square()
    found = kernels.illumination(given["probes"], given["which"], given["corner"], (30, 26))
    # At most 40 terms below 16.
    torch.testing.assert_close(found, total, rtol=0, atol=40 * 16 * torch.finfo(torch.float64).eps)


def test_passes_agree_through_the_transform():
    """One chunk by hand: exit wave, transform, dL/dI, for Eq. 2."""
    given = windows(torch.float64)
    waves = torch.empty(5, 12, 10, dtype=torch.complex128)
    kernels.exit_waves(**given, out=waves)
    far = fft2(waves)
    patterns, expected = counts(torch.float64, 5, 12, 10), fft2(waves)
    value = kernels.residual(far, patterns, torch.ones(5, dtype=torch.float64), torch.ones(12, 10, dtype=torch.float64), "intensity", 1)
    difference = expected.abs().square() - patterns
    assert value == pytest.approx(float(difference.square().sum()), rel=1e-13)
    torch.testing.assert_close(far, 2 * difference * expected, rtol=1e-12, atol=0)


def test_every_loss_is_a_file_of_its_name_and_another_is_refused():
    names = {path.stem for path in Path(losses.__path__[0]).glob("*.py")} - {"__init__", "function"}
    assert names == set(LOSSES)
    assert all(isinstance(losses.load(name), LossFunction) for name in LOSSES)
    with pytest.raises(ValueError, match="loss: expected one of intensity, amplitude, anscombe, poisson, got 'huber'"):
        losses.load("huber")
    waves = torch.ones(1, 8, 6, dtype=torch.complex64)
    with pytest.raises(ValueError, match=r"loss: expected one of .*, got 'huber'"):
        kernels.residual(waves, torch.ones(1, 8, 6), torch.ones(1), torch.ones(8, 6), "huber", 1)
