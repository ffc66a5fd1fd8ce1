"""The three passes of one ROP iteration around its two Fourier transforms, over one chunk of patterns, and the probes they start from.

On a CPU each pass is one compiled loop (numba) that reads and writes every number once; on other devices, and for detectors that crop or
bin, plain torch does the same (compared with the compiled loops on the CPU; untested on a GPU). The interpreter lock is released, so data
sets run side by side in threads.
"""

import math

import numba
import numpy as np
import torch
from jaxtyping import Complex, Float, Int, Shaped
from torch import Tensor

from adaptycho.names import LOSSES as LOSSES
from adaptycho.names import Loss as Loss

# Smallest intensity (fraction of the electrons of a pattern, per pixel) that the amplitude and Poisson losses divide by.
FLOOR = 1e-9

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp", "reassoc"})


def exit_waves(
    probes: Complex[Tensor, "M N N2"],
    which: Int[Tensor, " K"],
    transmission: Complex[Tensor, "H W"],
    corner: Int[Tensor, "K 2"],
    out: Complex[Tensor, "K N N2"],
) -> None:
    """`out[k] = probes[which[k]] * transmission` in the window whose top-left pixel is `corner[k]`."""
    if out.device.type == "cpu":
        _exit_waves(probes.numpy(), which.numpy(), transmission.numpy(), corner.numpy(), out.numpy())
    else:
        _exit_waves_torch(probes, which, transmission, corner, out)


def residual(
    waves: Complex[Tensor, "K N N2"],
    patterns: Shaped[Tensor, "K Q Q2"],
    scale: Shaped[Tensor, " K"],
    weight: Shaped[Tensor, "Q Q2"],
    loss: Loss,
    binning: int,
) -> float:
    """Turns waves at the detector into `dL/dI * wave` in place and returns the summed loss L.

    I is |wave|^2 cropped and binned to the detector, J = scale * pattern; outside the detector and where `weight` is zero nothing is known
    and the result is zero. `intensity` is (I - J)^2 (Eq. 2), `amplitude` (sqrt I - sqrt J)^2, `poisson` I - J log I + const.
    """
    if waves.device.type == "cpu" and patterns.shape == waves.shape:
        count = len(waves)
        flat = waves.numpy().reshape(count, -1), patterns.numpy().reshape(count, -1), scale.numpy(), weight.numpy().reshape(-1)
        return float(_residual(*flat, LOSSES.index(loss)))
    return _residual_torch(waves, patterns, scale, weight, loss, binning)


def scatter(
    waves: Complex[Tensor, "K N N2"], back: Complex[Tensor, "K N N2"], corner: Int[Tensor, "K 2"], gradient: Complex[Tensor, "H W"]
) -> None:
    """Adds `conj(waves[k]) * back[k]` to the gradient in the window at `corner[k]`."""
    if waves.device.type == "cpu":
        _scatter(waves.numpy(), back.numpy(), corner.numpy(), gradient.numpy())
    else:
        _scatter_torch(waves, back, corner, gradient)


def probe_table(
    spectra: Complex[Tensor, "S N N2"], which: Int[Tensor, " M"], shift: Int[Tensor, "M 2"], subpixel: int
) -> Complex[Tensor, "M N N2"]:
    """Probes: of spectrum `which`, shifted by `shift` (y, x) in 1/subpixel of a pixel and centred in the window.

    A Fourier sum over the frequencies inside the aperture only, separable, as two matrix products: cheaper than M inverse transforms.
    """
    inside = spectra.abs().sum(0) > 0
    rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]

    def waves(n: int, frequencies: Tensor, steps: Tensor) -> Tensor:
        # All phases are multiples of one angle, so they are looked up, exactly, instead of calculated.
        turn = torch.arange(n * subpixel, dtype=torch.float64, device=steps.device) * (2 * math.pi / (n * subpixel))
        roots = (torch.polar(torch.ones_like(turn), turn) / math.sqrt(n)).to(spectra.dtype)
        k = torch.where(frequencies < (n + 1) // 2, frequencies, frequencies - n)
        x = (torch.arange(n, device=steps.device) - n // 2) * subpixel - steps[:, None]
        return roots[(k * x[:, :, None]) % len(roots)]

    down, y = torch.unique(shift[:, 0], return_inverse=True)
    right, x = torch.unique(shift[:, 1], return_inverse=True)
    across = torch.einsum("urc,sxc->usrx", spectra[:, rows][:, :, columns], waves(spectra.shape[2], columns, right))
    return torch.bmm(waves(spectra.shape[1], rows, down)[y], across[which, x])


def illumination(
    probes: Complex[Tensor, "M N N2"], which: Int[Tensor, " K"], corner: Int[Tensor, "K 2"], shape: tuple[int, int]
) -> Float[Tensor, "H W"]:
    """Summed probe intensity at each object pixel."""
    open_, total = (torch.full(shape, value, dtype=probes.dtype, device=probes.device) for value in (1.0, 0.0))
    for chosen, where in zip(which.split(32), corner.split(32), strict=True):
        waves = torch.empty(len(chosen), *probes.shape[1:], dtype=probes.dtype, device=probes.device)
        exit_waves(probes, chosen, open_, where, waves)
        scatter(waves, waves, where, total)
    return total.real.contiguous()


@_compiled
def _exit_waves(probes, which, transmission, corner, out):  # type: ignore[no-untyped-def]
    count, height, width = out.shape
    for k in range(count):
        top, left = corner[k, 0], corner[k, 1]
        for i in range(height):
            p, t, o = probes[which[k], i], transmission[top + i, left : left + width], out[k, i]
            for j in range(width):
                o[j] = p[j] * t[j]


@_compiled
def _residual(waves, patterns, scale, weight, kind):  # type: ignore[no-untyped-def]
    """One flat pass over patterns (K, N N): any shorter inner loop costs more than its arithmetic."""
    count, pixels = waves.shape
    total = 0.0
    for k in range(count):
        # Constants in the waves' own precision: a Python number would turn the loops to double and halve their speed.
        s, zero = scale[k], scale[k] * 0
        one, floor, loss = zero + 1, zero + FLOOR, zero
        two = one + one
        if kind == 0:
            for j in range(pixels):
                w = waves[k, j]
                r = w.real * w.real + w.imag * w.imag - s * patterns[k, j]
                f = two * weight[j] * r
                loss += weight[j] * r * r
                waves[k, j] = complex(w.real * f, w.imag * f)
        elif kind == 1:
            for j in range(pixels):
                w = waves[k, j]
                model = np.sqrt(max(w.real * w.real + w.imag * w.imag, floor))
                r = model - np.sqrt(s * patterns[k, j])
                f = weight[j] * r / model
                loss += weight[j] * r * r
                waves[k, j] = complex(w.real * f, w.imag * f)
        else:
            for j in range(pixels):
                w = waves[k, j]
                model, n = max(w.real * w.real + w.imag * w.imag, floor), s * patterns[k, j]
                f = weight[j] * (one - n / model)
                loss += weight[j] * (model - n - n * np.log(model / max(n, floor)))
                waves[k, j] = complex(w.real * f, w.imag * f)
        total += loss
    return total


@_compiled
def _scatter(waves, back, corner, gradient):  # type: ignore[no-untyped-def]
    count, height, width = waves.shape
    for k in range(count):
        top, left = corner[k, 0], corner[k, 1]
        for i in range(height):
            a, c, g = waves[k, i], back[k, i], gradient[top + i, left : left + width]
            for j in range(width):
                g[j] += complex(a[j].real * c[j].real + a[j].imag * c[j].imag, a[j].real * c[j].imag - a[j].imag * c[j].real)


def _exit_waves_torch(probes: Tensor, which: Tensor, transmission: Tensor, corner: Tensor, out: Tensor) -> None:
    """The same as `_exit_waves` in torch, for other devices."""
    torch.mul(probes[which], transmission.reshape(-1)[_pixels(corner, out, transmission)], out=out)


def _residual_torch(waves: Tensor, patterns: Tensor, scale: Tensor, weight: Tensor, loss: Loss, binning: int) -> float:
    """The same as `_residual` in torch, for other devices and for detectors that crop or bin."""
    known = []
    for n, q in zip(waves.shape[-2:], patterns.shape[-2:], strict=True):
        half = q * binning // 2
        index = torch.arange(n, device=waves.device)
        known.append(torch.cat([index[:half], index[n - half :]]))
    inside = waves[:, known[0]][:, :, known[1]]
    count, rows, columns = patterns.shape
    model = inside.abs().square().view(count, rows, binning, columns, binning).sum((2, 4))
    data = patterns.to(model.dtype) * scale[:, None, None]
    if loss == "intensity":
        factor, value = 2 * (model - data), (model - data).square()
    elif loss == "amplitude":
        amplitude = model.clamp(min=FLOOR).sqrt()
        factor, value = 1 - data.sqrt() / amplitude, (amplitude - data.sqrt()).square()
    else:
        model = model.clamp(min=FLOOR)
        factor, value = 1 - data / model, model - data - data * torch.log(model / data.clamp(min=FLOOR))
    factor = (factor * weight).repeat_interleave(binning, 1).repeat_interleave(binning, 2)
    waves.zero_()
    waves[:, known[0][:, None], known[1]] = inside * factor
    return float((value * weight).sum())


def _scatter_torch(waves: Tensor, back: Tensor, corner: Tensor, gradient: Tensor) -> None:
    """The same as `_scatter` in torch, for other devices."""
    gradient.view(-1).index_put_((_pixels(corner, waves, gradient),), waves.conj() * back, accumulate=True)


def _pixels(corner: Tensor, like: Tensor, image: Tensor) -> Tensor:
    """Flat object pixel of each window pixel."""
    rows = corner[:, 0, None] + torch.arange(like.shape[-2], device=like.device)
    columns = corner[:, 1, None] + torch.arange(like.shape[-1], device=like.device)
    return rows[:, :, None] * image.shape[-1] + columns[:, None, :]
