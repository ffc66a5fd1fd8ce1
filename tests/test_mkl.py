"""MKL called from compiled code transforms as torch does, and all passes window by window come to what chunks come to."""

import numba
import numpy as np
import pytest
import torch

from adaptycho.physics.grid import fft2, ifft2
from adaptycho.reconstruct import LOSSES, kernels, mkl

SHAPE = (12, 20)


@pytest.fixture
def transform(request: pytest.FixtureRequest) -> mkl.Transform:
    found = mkl.transform(SHAPE, request.param)
    if found is None:
        pytest.skip("torch shows no MKL here")
    return found


@numba.njit
def applied(function: int, plan: int, source: np.ndarray, target: np.ndarray) -> int:
    return mkl.apply(function, plan, source.ctypes.data, target.ctypes.data)


@pytest.mark.parametrize("transform", [torch.complex64, torch.complex128], indirect=True)
def test_transforms_are_torchs(transform: mkl.Transform, request: pytest.FixtureRequest) -> None:
    dtype = request.node.callspec.params["transform"]
    wave = torch.randn(SHAPE, dtype=dtype, generator=torch.Generator().manual_seed(0))
    for function, expected in ((transform.forward, fft2(wave)), (transform.backward, ifft2(wave))):
        found = torch.empty_like(wave)
        before = wave.clone()
        assert applied(function, transform.plan, wave.numpy(), found.numpy()) == 0
        assert torch.equal(wave, before)
        # Two orders of the same sums of 240 numbers.
        torch.testing.assert_close(found, expected, rtol=0, atol=20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("real", [True, False])
def test_window_by_window_is_chunk_by_chunk(dtype: torch.dtype, loss: str, real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if mkl.transform(SHAPE, dtype) is None:
        pytest.skip("torch shows no MKL here")
    generator = torch.Generator().manual_seed(1)
    floats = torch.empty((), dtype=dtype).real.dtype
    probes = torch.randn(3, *SHAPE, dtype=dtype, generator=generator)
    which = torch.tensor([2, 0, 1, 0, 2, 2, 1])
    corner = torch.randint(0, 9, (7, 2), generator=generator)
    patterns = torch.rand(7, *SHAPE, dtype=floats, generator=generator) * 50
    scale = torch.rand(7, dtype=floats, generator=generator) / 50
    through = torch.randn(20, 28, dtype=dtype, generator=generator)
    weight = (torch.rand(SHAPE, generator=generator) > 0.2).to(floats)
    ways = []
    for absent in (False, True):
        if absent:
            monkeypatch.setattr(mkl, "transform", lambda *_: None)
            monkeypatch.setattr(kernels, "CHUNK_BYTES", 3 * probes[0].nbytes)
        gradient = torch.zeros(20, 28, dtype=floats if real else dtype)
        ways.append((kernels.passes(probes, which, corner, patterns, scale, weight, loss, 1)(through, gradient), gradient))
    (first, one), (second, other) = ways
    # The same arithmetic with sums in another order; the largest of some hundred terms is not above twice the largest sum.
    eps = torch.finfo(floats).eps
    assert first == pytest.approx(second, rel=100 * eps)
    torch.testing.assert_close(one, other, rtol=0, atol=100 * eps * float(other.abs().max()))


def test_sums_do_not_depend_on_how_probes_are_numbered() -> None:
    """A table that was asked for other probes before numbers the same probes otherwise."""
    generator = torch.Generator().manual_seed(2)
    probes = torch.randn(5, *SHAPE, dtype=torch.complex64, generator=generator)
    which = torch.tensor([3, 0, 4, 0, 3, 1, 2, 4, 1, 0])
    corner, patterns = torch.randint(0, 9, (10, 2), generator=generator), torch.rand(10, *SHAPE, generator=generator)
    scale, through, weight = (
        torch.rand(10, generator=generator),
        torch.randn(20, 28, dtype=torch.complex64, generator=generator),
        torch.ones(SHAPE),
    )
    found = []
    for order in (torch.arange(5), torch.tensor([4, 2, 0, 1, 3])):
        gradient, numbers = torch.zeros(20, 28), torch.empty(5, dtype=torch.int64)
        numbers[order] = torch.arange(5)
        loss = kernels.passes(probes[order], numbers[which], corner, patterns, scale, weight, "intensity", 1)(through, gradient)
        found.append((loss, gradient))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
