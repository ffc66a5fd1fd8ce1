"""The three passes of one ROP iteration around its two Fourier transforms, over one chunk of patterns.

Where MKL can be called from compiled code (`adaptycho.reconstruct.mkl`) a window goes through all five while it is in a core's own cache;
elsewhere each pass takes the whole chunk. On a CPU a pass is one compiled loop (numba) that reads and writes every number once; on other
devices, and for detectors that crop or bin, plain torch does the same (compared with the compiled loops on the CPU; untested on a GPU). The
interpreter lock is released, so data sets run side by side in threads.

The loops see complex numbers as pairs of real ones, real part first, and hold every number in the waves' own precision: that is what lets
the compiler work on as many at once as the processor's registers hold. One Python number in the arithmetic makes it double and more than
halves the speed.
"""

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from inspect import getsourcefile
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from jaxtyping import Complex, Float, Int, Shaped
from numba.extending import register_jitable
from torch import Tensor

from adaptycho.physics.grid import fft2, ifft2
from adaptycho.reconstruct import Loss, losses, mkl
from adaptycho.reconstruct.losses import function
from adaptycho.reconstruct.losses.function import FAST

CHUNK_BYTES = 1 << 20  # waves in work at a time where a pass takes a chunk: what a core's own cache holds
DEVICE_CHUNK_BYTES = 1 << 27  # the same on other devices, which want much to do at once; a few times as much memory is taken

Passes = Callable[[Tensor, Tensor], float]
_compiled = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)


def passes(
    probes: Complex[Tensor, "M N N2"],
    which: Int[Tensor, " K"],
    corner: Int[Tensor, "K 2"],
    patterns: Shaped[Tensor, "K Q Q2"],
    scale: Shaped[Tensor, " K"],
    weight: Shaped[Tensor, "Q Q2"],
    loss: Loss,
    binning: int,
    gain: float = 1.0,
) -> Passes:
    """What adds the `conj(psi) chi` of K positions (see `scatter`) to a gradient (H, W) at a transmission (H, W), and returns their loss.

    psi is the exit wave, chi its residual at the detector transformed back, the loss their sum (see `residual`). All that stays the same
    from one iteration to the next is worked out here. One thread at a time may call it. The detector makes `gain` counts of an electron.
    """
    height, width = probes.shape[1:]
    transform = mkl.transform((height, width), probes.dtype) if probes.device.type == "cpu" else None
    if transform is not None and patterns.shape[1:] == probes.shape[1:]:
        through, addresses = _loops(loss).through, (transform.plan, transform.forward, transform.backward)
        arrays = corner.numpy(), patterns.numpy().reshape(len(which), -1), scale.numpy()
        chosen, table, known = which.numpy(), pairs(probes), weight.numpy().reshape(-1)
        more = arrays[2].dtype.type(losses.load(loss).background * gain)
        order = _grouped(chosen, len(probes))
        # Of one position: psi, its transform, chi. From torch, whose arrays begin at multiples of 64 bytes: MKL's last bits depend on that.
        windows = [pairs(torch.empty_like(probes[:1])) for _ in range(3)]

        def compiled(transmission: Tensor, gradient: Tensor) -> float:
            back = pairs(gradient) if gradient.is_complex() else gradient.numpy()
            return float(through(*addresses, order, table, chosen, *arrays, pairs(transmission), known, more, *windows, back))

        return compiled
    chunk = max(1, (CHUNK_BYTES if probes.device.type == "cpu" else DEVICE_CHUNK_BYTES) // probes[0].nbytes)
    parts = list(zip(*(x.split(chunk) for x in (which, corner, patterns, scale)), strict=True))

    def chunked(transmission: Tensor, gradient: Tensor) -> float:
        total = 0.0
        for some, where, counts, fraction in parts:
            psi = probes.new_empty(len(some), *probes.shape[1:])
            exit_waves(probes, some, transmission, where, psi)
            far = fft2(psi)
            total += residual(far, counts, fraction, weight, loss, binning, gain)
            scatter(psi, ifft2(far), where, gradient)
        return total

    return chunked


def exit_waves(
    probes: Complex[Tensor, "M N N2"],
    which: Int[Tensor, " K"],
    transmission: Complex[Tensor, "H W"],
    corner: Int[Tensor, "K 2"],
    out: Complex[Tensor, "K N N2"],
) -> None:
    """`out[k] = probes[which[k]] * transmission` in the window whose top-left pixel is `corner[k]`."""
    if out.device.type == "cpu":
        _exit_waves(pairs(probes), which.numpy(), pairs(transmission), corner.numpy(), pairs(out))
    else:
        _exit_waves_torch(probes, which, transmission, corner, out)


def residual(
    waves: Complex[Tensor, "K N N2"],
    patterns: Shaped[Tensor, "K Q Q2"],
    scale: Shaped[Tensor, " K"],
    weight: Shaped[Tensor, "Q Q2"],
    loss: Loss,
    binning: int,
    gain: float = 1.0,
) -> float:
    """Turns waves at the detector into `dL/dI * wave` in place and returns the summed loss L.

    I is |wave|^2 cropped and binned to the detector, J = scale * pattern; outside the detector and where `weight` is zero nothing is known
    and the result is zero.
    """
    if waves.device.type == "cpu" and patterns.shape == waves.shape:
        count = len(waves)
        flat = pairs(waves).reshape(count, -1), patterns.numpy().reshape(count, -1), scale.numpy(), weight.numpy().reshape(-1)
        more = flat[2].dtype.type(losses.load(loss).background * gain)
        return float(_loops(loss).residual(*flat, more))
    return _residual_torch(waves, patterns, scale, weight, loss, binning, gain)


def scatter(
    waves: Complex[Tensor, "K N N2"], back: Complex[Tensor, "K N N2"], corner: Int[Tensor, "K 2"], gradient: Shaped[Tensor, "H W"]
) -> None:
    """Adds `conj(waves[k]) * back[k]` to the gradient in the window at `corner[k]`; to a real gradient the imaginary part of it."""
    if waves.device.type != "cpu":
        _scatter_torch(waves, back, corner, gradient)
    elif gradient.is_complex():
        add_product(pairs(waves), pairs(back), corner.numpy(), pairs(gradient))
    else:
        add_imaginary(pairs(waves), pairs(back), corner.numpy(), gradient.numpy())


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


def pairs(waves: Tensor) -> np.ndarray:
    """The same memory as real numbers: the last axis is twice as long."""
    numbers: np.ndarray = waves.numpy()
    return numbers.view(numbers.real.dtype)


@_compiled
def _exit_waves(probes, which, transmission, corner, out):  # type: ignore[no-untyped-def]
    count, height, width = out.shape
    for k in range(count):
        top, left = corner[k, 0], 2 * corner[k, 1]
        for i in range(height):
            p, t, o = probes[which[k], i], transmission[top + i, left : left + width], out[k, i]
            for j in range(width // 2):
                re, im = 2 * j, 2 * j + 1
                o[re] = p[re] * t[re] - p[im] * t[im]
                o[im] = p[re] * t[im] + p[im] * t[re]


@_compiled
def add_product(waves, back, corner, gradient):  # type: ignore[no-untyped-def]
    """`scatter` of pairs to pairs."""
    count, height, width = waves.shape
    for k in range(count):
        top, left = corner[k, 0], 2 * corner[k, 1]
        for i in range(height):
            a, c, g = waves[k, i], back[k, i], gradient[top + i, left : left + width]
            for j in range(width // 2):
                re, im = 2 * j, 2 * j + 1
                g[re] += a[re] * c[re] + a[im] * c[im]
                g[im] += a[re] * c[im] - a[im] * c[re]


@_compiled
def add_imaginary(waves, back, corner, gradient):  # type: ignore[no-untyped-def]
    """`scatter` of pairs to a real gradient."""
    count, height, width = waves.shape
    for k in range(count):
        top, left = corner[k, 0], corner[k, 1]
        for i in range(height):
            a, c, g = waves[k, i], back[k, i], gradient[top + i, left : left + width // 2]
            for j in range(width // 2):
                g[j] += a[2 * j] * c[2 * j + 1] - a[2 * j + 1] * c[2 * j]


@_compiled
def _grouped(which, count):  # type: ignore[no-untyped-def]
    """Positions with one probe after the other, so that it still is in the cache; probes in the order in which they first come.

    That order is the scan's own. Numbers of probes are not: they depend on what the table was asked for before.
    """
    first = np.zeros(count, np.int64)
    for k in range(len(which) - 1, -1, -1):
        first[which[k]] = k
    return np.argsort(first[which], kind="mergesort")


class _Loops(NamedTuple):
    """The passes that a loss takes part in, compiled for it.

    Attributes:
        residual: waves, patterns, scale and weight to the summed loss; the waves change in place.
        through: all five passes, window by window.
    """

    residual: Callable[..., float]
    through: Callable[..., float]


@cache
def _loops(loss: Loss) -> _Loops:
    pixel, raised, added = (function := losses.load(loss)).pixel, function.raised, function.background > 0

    def residual(waves, patterns, scale, weight, more):  # type: ignore[no-untyped-def]
        total = 0.0
        for k in range(len(patterns)):
            total += _pattern(pixel, added, waves[k], patterns[k], scale[k], weight, more) / raised
        return total

    def through(  # type: ignore[no-untyped-def]
        plan, forward, backward, order, probes, which, corner, patterns, scale, transmission, weight, more, psi, far, chi, gradient
    ):
        total = 0.0
        for k in order:
            only = slice(k, k + 1)
            _exit_waves(probes, which[only], transmission, corner[only], psi)
            mkl.apply(forward, plan, psi.ctypes.data, far.ctypes.data)  # type: ignore[call-arg]
            total += _pattern(pixel, added, far.reshape(far.size), patterns[k], scale[k], weight, more) / raised
            mkl.apply(backward, plan, far.ctypes.data, chi.ctypes.data)
            if gradient.shape == transmission.shape:
                add_product(psi, chi, corner[only], gradient)
            else:
                add_imaginary(psi, chi, corner[only], gradient)
        return total

    return _Loops(*(_compiled(named_after(pixel, loop)) for loop in (residual, through)))


@register_jitable(error_model="numpy", fastmath=FAST)
def _pattern(pixel, added, wave, pattern, scale, weight, background):  # type: ignore[no-untyped-def]
    """One flat pass over a pattern (N N): any shorter inner loop costs more than its arithmetic."""
    real = type(scale)
    loss, more = real(0), background * scale if added else real(0)
    for j in range(len(pattern)):
        a, b = wave[2 * j], wave[2 * j + 1]
        value, factor = pixel(a * a + b * b + more, scale * real(pattern[j]) + more, weight[j])
        loss += value
        wave[2 * j], wave[2 * j + 1] = a * factor, b * factor
    return loss


def named_after(pixel: Callable[..., Any], loop: Callable[..., Any]) -> Callable[..., Any]:
    """The loop with a name that changes with the files that are compiled into it: numba looks at the date of this one only."""
    files = (str(getsourcefile(pixel)), function.__file__, mkl.__file__, __file__)
    source = b"".join(Path(file).read_bytes() for file in files)
    loop.__qualname__ = f"{loop.__name__}_{sha256(source).hexdigest()[:12]}"
    return loop


def _exit_waves_torch(probes: Tensor, which: Tensor, transmission: Tensor, corner: Tensor, out: Tensor) -> None:
    """The same as `_exit_waves` in torch, for other devices."""
    torch.mul(probes[which], transmission.reshape(-1)[_pixels(corner, out, transmission)], out=out)


def _residual_torch(waves: Tensor, patterns: Tensor, scale: Tensor, weight: Tensor, loss: Loss, binning: int, gain: float = 1.0) -> float:
    """The same as the compiled `residual` in torch, for other devices and for detectors that crop or bin."""
    known = []
    for n, q in zip(waves.shape[-2:], patterns.shape[-2:], strict=True):
        half = q * binning // 2
        index = torch.arange(n, device=waves.device)
        known.append(torch.cat([index[:half], index[n - half :]]))
    inside = waves[:, known[0]][:, :, known[1]]
    count, rows, columns = patterns.shape
    model = inside.abs().square().view(count, rows, binning, columns, binning).sum((2, 4))
    data = patterns.to(model.dtype) * scale[:, None, None]
    more = (chosen := losses.load(loss)).background * gain * scale[:, None, None]
    value, factor = chosen.image(model + more, data + more)
    factor = (factor * weight).repeat_interleave(binning, 1).repeat_interleave(binning, 2)
    waves.zero_()
    waves[:, known[0][:, None], known[1]] = inside * factor
    return float((value * weight).sum())


def _scatter_torch(waves: Tensor, back: Tensor, corner: Tensor, gradient: Tensor) -> None:
    """The same as `add_product` and `add_imaginary` in torch, for other devices."""
    product = waves.conj() * back
    gradient.view(-1).index_put_((_pixels(corner, waves, gradient),), product if gradient.is_complex() else product.imag, accumulate=True)


def _pixels(corner: Tensor, like: Tensor, image: Tensor) -> Tensor:
    """Flat object pixel of each window pixel."""
    rows = corner[:, 0, None] + torch.arange(like.shape[-2], device=like.device)
    columns = corner[:, 1, None] + torch.arange(like.shape[-1], device=like.device)
    return rows[:, :, None] * image.shape[-1] + columns[:, None, :]
