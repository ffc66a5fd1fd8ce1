"""What one data set says at a point: the loss, where it falls in object and probe, and along each position's own directions.

With S = c ramp F[P_m], psi_m = t IFFT[S], Psi_m = F psi_m, I = sum_m |Psi_m|^2 and chi_m = IFFT[(dL/dI) Psi_m], the Wirtinger gradients are
`-i conj(psi_m) chi_m` for the potential and `conj(c ramp) F[conj(t) chi_m]` for the transform of mode m, summed over positions.

A position, the defocus and the intensity of a pattern change I by `dI = 2 Re sum_m conj(Psi_m) F[t IFFT[i d S]]`, where d is -2 pi k, or
pi lambda k^2, and by 2 I. Slopes are the sums of dL/dI dI over a pattern's pixels and curvatures those of L'' dI dI, with L'' that of a
pattern which the model explains (Gauss and Newton).

Through several slices the wave is `psi_s = t_s IFFT[T F psi_(s-1)]` with the propagator T over the distance between them, and chi goes back
through the adjoint of that: every slice has a gradient of the same form. The distance z changes the wave by `dT/dz = -i pi lambda k^2 T`.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Complex, Float, Int, Shaped
from torch import Tensor

from adaptycho.physics.grid import fft2, ifft2
from adaptycho.reconstruct import Loss, losses, mkl
from adaptycho.reconstruct.kernels import pairs
from adaptycho.reconstruct.refine import kernels

CHUNK_BYTES = 1 << 22  # waves of a kind in work at a time where compiled loops cannot run
DEVICE_CHUNK_BYTES = 1 << 27


@dataclass(frozen=True, eq=False)
class Seen:
    """Some patterns and what is known of them beforehand.

    Attributes:
        patterns: counts.
        scale: that turns the counts of each into fractions.
        share: how much the loss of each counts.
        focus: number of the defocus that each was taken with.
        weight: of each detector pixel, 1 or 0.
        loss: that is made smaller.
        binning: window frequencies in a detector pixel along each axis.
        gain: counts that the detector makes of an electron.
    """

    patterns: Shaped[Tensor, "K Q Q2"]
    scale: Float[Tensor, " K"]
    share: Float[Tensor, " K"]
    focus: Int[Tensor, " K"]
    weight: Float[Tensor, "Q Q2"]
    loss: Loss
    binning: int
    gain: float = 1.0

    def part(self, which: slice) -> tuple[slice, "Seen"]:
        """Some of the patterns, and which."""
        some = {name: getattr(self, name)[which] for name in ("patterns", "scale", "share", "focus")}
        return which, replace(self, **some)


@dataclass(frozen=True, eq=False)
class Light:
    """By what the object is lit in each pattern.

    Attributes:
        spectra: Fourier transforms of the modes at each defocus, zero frequency in the corner.
        rows: phase along y that moves the probe to its place in the window, times the amplitude of the pattern.
        columns: the same along x, without.
        corner: top-left object pixel of each window.
        propagator: between neighbouring slices, if there are several.
    """

    spectra: Complex[Tensor, "U M N N2"]
    rows: Complex[Tensor, "K N"]
    columns: Complex[Tensor, "K N2"]
    corner: Int[Tensor, "K 2"]
    propagator: Complex[Tensor, "N N2"] | None = None

    def part(self, which: slice) -> "Light":
        """The same for some of the patterns."""
        return Light(self.spectra, self.rows[which], self.columns[which], self.corner[which], self.propagator)


def light(
    spectra: Complex[Tensor, "U M N N2"],
    pixels: Float[Tensor, "K 2"],
    amplitude: Float[Tensor, " K"],
    propagator: Complex[Tensor, "N N2"] | None = None,
) -> Light:
    """Probes at object pixels (y, x), each with its own amplitude."""
    shape = spectra.shape[-2:]
    centre = pixels.round()
    ramps = []
    for axis, n in enumerate(shape):
        k = torch.fft.fftfreq(n, dtype=pixels.dtype, device=pixels.device)
        turn = -2 * math.pi * k * (pixels[:, axis] - centre[:, axis] + n // 2)[:, None]
        ramps.append(torch.polar(amplitude.to(pixels)[:, None].expand_as(turn) if axis == 0 else torch.ones_like(turn), turn))
    corner = centre.long() - torch.tensor(shape, device=pixels.device) // 2
    rows, columns = (ramp.to(spectra.dtype) for ramp in ramps)
    return Light(spectra, rows, columns, corner, propagator)


def gradient(
    seen: Seen,
    lit: Light,
    transmission: Complex[Tensor, "*slices H W"],
    to_object: Shaped[Tensor, "*slices H W"],
    to_probe: Complex[Tensor, "U2 M N N2"],
) -> float:
    """Adds `conj(psi) chi` to an object (only the imaginary part to a real one) and the gradient to the transforms of the modes.

    Args:
        seen: the patterns.
        lit: their probes.
        transmission: exp(iV).
        to_object: that is added to.
        to_probe: likewise; empty if the probe is known.

    Returns:
        The loss, summed over patterns.
    """
    plan = _plan(seen, lit)
    if plan is None:
        return sum(_gradient(*part, transmission, to_object, to_probe) for part in _chunks(seen, lit))
    modes, window = lit.spectra.shape[1], lit.spectra[0, :1]
    work = [pairs(torch.empty_like(window.expand(m, -1, -1).contiguous())) for m in (modes, modes, 1)]
    intensity = torch.empty(window.shape.numel(), dtype=seen.scale.dtype).numpy()
    object_ = pairs(to_object) if to_object.is_complex() else to_object.numpy()
    known = (*_known(seen, lit), pairs(transmission), *_weighed(seen))
    run = kernels.loops(seen.loss).gradient
    return float(run(*plan, *known, work[0], work[1], work[2][0], intensity, object_, pairs(to_probe)))


def tangents(
    seen: Seen,
    lit: Light,
    transmission: Complex[Tensor, "*slices H W"],
    directions: Float[Tensor, "J N N2"],
    apart: Float[Tensor, "J2 N N2"] | None = None,
) -> tuple[Float[Tensor, "K J1"], Float[Tensor, "K J1 J1"]]:
    """Slope and curvature of the loss of each pattern along some directions, and last along the logarithm of its amplitude.

    Args:
        seen: the patterns.
        lit: their probes.
        transmission: exp(iV).
        directions: by what the phase of the probe's transform changes along each of them.
        apart: by what that of the propagator changes, beyond these directions.
    """
    apart = directions[:0] if apart is None else apart
    count = len(directions) + len(apart) + 1
    slopes = torch.zeros(len(seen.scale), count, dtype=seen.scale.dtype, device=seen.scale.device)
    curvatures = slopes.new_zeros(len(slopes), count, count)
    plan = _plan(seen, lit)
    if plan is None:
        parts = [_tangents(*part, transmission, directions, apart) for part in _chunks(seen, lit)]
        return torch.cat([s for s, _ in parts]), torch.cat([c for _, c in parts])
    modes, window = lit.spectra.shape[1], lit.spectra[0, :1]
    work = [pairs(torch.empty_like(window.expand(m, -1, -1).contiguous())) for m in (2, modes, 1)]
    pixels = window.shape.numel()
    intensity, changes = (torch.empty(*shape, dtype=seen.scale.dtype).numpy() for shape in ((pixels,), (count, pixels)))
    known = (*_known(seen, lit), pairs(transmission), *_weighed(seen), directions.numpy())
    run = kernels.loops(seen.loss).tangents
    run(*plan, *known, work[0], work[1], work[2][0], intensity, changes, slopes.numpy(), curvatures.numpy())
    return slopes, curvatures


def _plan(seen: Seen, lit: Light) -> tuple[int, int, int] | None:
    """Addresses of the transforms, where compiled loops can run."""
    height, width = lit.spectra.shape[-2:]
    if seen.scale.device.type != "cpu" or seen.patterns.shape[1:] != lit.spectra.shape[-2:] or lit.propagator is not None:
        return None
    transform = mkl.transform((height, width), lit.spectra.dtype)
    return None if transform is None else (transform.plan, transform.forward, transform.backward)


def _known(seen: Seen, lit: Light) -> tuple[object, ...]:
    """What both compiled loops begin with."""
    probes = (pairs(lit.spectra), seen.focus.numpy(), pairs(lit.rows), pairs(lit.columns))
    return *probes, lit.corner.numpy(), seen.patterns.numpy().reshape(len(seen.scale), -1), seen.scale.numpy(), seen.share.numpy()


def _weighed(seen: Seen) -> tuple[object, object]:
    """Weight of each detector pixel, and counts that are added to each."""
    more = losses.load(seen.loss).background * seen.gain
    return seen.weight.numpy().reshape(-1), seen.scale.numpy().dtype.type(more)


def _chunks(seen: Seen, lit: Light) -> list[tuple[Seen, Light]]:
    room = CHUNK_BYTES if seen.scale.device.type == "cpu" else DEVICE_CHUNK_BYTES
    size = max(1, room // lit.spectra[0].nbytes)
    cuts = [slice(first, first + size) for first in range(0, len(seen.scale), size)]
    return [(seen.part(c)[1], lit.part(c)) for c in cuts]


def _gradient(seen: Seen, lit: Light, transmission: Tensor, to_object: Tensor, to_probe: Tensor) -> float:
    """`gradient` of a chunk in torch, for several slices, for other devices and for detectors that crop or bin."""
    ramp = (lit.rows[:, :, None] * lit.columns[:, None, :])[:, None]
    where, layers = _windows(lit, transmission)
    psi = _exit_waves(ifft2(lit.spectra[seen.focus] * ramp), layers, lit.propagator)
    far = fft2(psi[-1])
    value, factor, _ = _compared(seen, far.abs().square().sum(1))
    chi, gradients = ifft2(far * factor[:, None]), to_object.view(len(layers), -1)
    for s in reversed(range(len(layers))):
        product = (psi[s].conj() * chi).sum(1)
        gradients[s].index_put_((where,), product if to_object.is_complex() else product.imag, accumulate=True)
        chi = layers[s].conj() * chi
        if s and lit.propagator is not None:
            chi = ifft2(fft2(chi) * lit.propagator.conj())
    if len(to_probe):
        to_probe.index_add_(0, seen.focus, ramp.conj() * fft2(chi))
    return float(value)


def _tangents(seen: Seen, lit: Light, transmission: Tensor, directions: Tensor, apart: Tensor) -> tuple[Tensor, Tensor]:
    """`tangents` of a chunk in torch."""
    spectra = lit.spectra[seen.focus] * (lit.rows[:, :, None] * lit.columns[:, None, :])[:, None]
    _, layers = _windows(lit, transmission)
    psi = _exit_waves(ifft2(spectra), layers, lit.propagator)
    far = fft2(psi[-1])
    moved = [fft2(_exit_waves(ifft2(1j * d * spectra), layers, lit.propagator)[-1]) for d in directions]
    for turn in apart:
        assert lit.propagator is not None  # or there is nothing between slices
        wave = torch.zeros_like(psi[0])
        for layer, before in zip(layers[1:], psi, strict=False):
            wave = layer * ifft2(lit.propagator * (fft2(wave) + 1j * turn * fft2(before)))
        moved.append(fft2(wave))
    intensity = far.abs().square().sum(1)
    changes = [2 * (far.conj() * one).real.sum(1) for one in moved]
    change = _recorded(seen, torch.stack([*changes, 2 * intensity], 1))
    _, _, (factor, bend) = _compared(seen, intensity)
    return torch.einsum("kyx,kjyx->kj", factor, change), torch.einsum("kyx,kjyx,klyx->kjl", bend, change, change)


def _windows(lit: Light, transmission: Tensor) -> tuple[Tensor, Tensor]:
    """Flat object pixel of each window pixel, and what every slice lets through there, (S, K, 1, N, N2)."""
    rows, columns = (lit.corner[:, i, None] + torch.arange(n, device=transmission.device) for i, n in enumerate(lit.spectra.shape[-2:]))
    where = rows[:, :, None] * transmission.shape[-1] + columns[:, None, :]
    return where, transmission.reshape(-1, transmission.shape[-2] * transmission.shape[-1])[:, where][:, :, None]


def _exit_waves(wave: Tensor, layers: Tensor, propagator: Tensor | None) -> list[Tensor]:
    """Behind each slice."""
    waves = [wave * layers[0]]
    for layer in layers[1:]:
        assert propagator is not None  # or there is one slice
        waves.append(ifft2(fft2(waves[-1]) * propagator) * layer)
    return waves


def _compared(seen: Seen, intensity: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Summed loss, dL/dI at every window frequency, and dL/dI and L'' at every detector pixel."""
    chosen = losses.load(seen.loss)
    more = chosen.background * seen.gain * seen.scale[:, None, None]
    level = _recorded(seen, intensity) + more
    data = seen.patterns.to(level.dtype) * seen.scale[:, None, None] + more
    value, factor = chosen.image(level, data)
    ground, weight = level + kernels.DARK, seen.weight * seen.share[:, None, None]
    bend = chosen.image(ground * (1 + kernels.APART), ground)[1] / (kernels.APART * ground) * weight
    factor = factor * weight
    spread = factor.repeat_interleave(seen.binning, 1).repeat_interleave(seen.binning, 2)
    for axis, n in zip((1, 2), intensity.shape[1:], strict=True):
        half = spread.shape[axis] // 2
        gap = list(spread.shape)
        gap[axis] = n - 2 * half
        spread = torch.cat([spread.narrow(axis, 0, half), spread.new_zeros(gap), spread.narrow(axis, half, half)], axis)
    return (value * weight).sum(), spread, (factor, bend)


def _recorded(seen: Seen, intensity: Tensor) -> Tensor:
    """Cropped and binned to the detector, along the last two axes."""
    for axis, q in zip((-2, -1), seen.patterns.shape[1:], strict=True):
        half, n = q * seen.binning // 2, intensity.shape[axis]
        intensity = torch.cat([intensity.narrow(axis, 0, half), intensity.narrow(axis, n - half, half)], axis)
        intensity = intensity.unflatten(axis, (q, seen.binning)).sum(axis)
    return intensity
