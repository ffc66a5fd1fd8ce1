"""Eq. 1: the beam at each position, through the specimen, to electrons on the detector.

`I_p = |F[psi_in(r - R_p) t(r)]|^2` with `t = exp(iV)`, and what a real instrument adds: electron noise, a finite source, a background,
a beam that misses its mark.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Shaped
from torch import Tensor

from adaptycho.physics.grid import fft2, ifft2
from adaptycho.physics.noise import counted
from adaptycho.physics.optics import Setup

MOST = 2.0**53  # electrons of a pattern: beyond, numbers of double precision no longer count them
CHUNK = 64  # patterns in work at a time on a CPU: memory never grows with the number of positions
DEVICE_CHUNK = 1 << 24  # window pixels in work at a time on other devices: some 100 MiB for each array of complex numbers


@dataclass(frozen=True)
class Imperfections:
    """What a real instrument adds to Eq. 1. All zero: an ideal one that still counts electrons.

    Attributes:
        noise: whether electrons are counted (Poisson); otherwise patterns are expectation values.
        jitter: rms error in Å, along each axis, between where the beam is asked to go and where it goes. It is not reported.
        background: electrons per detector pixel and pattern that come from elsewhere.
        source_size: rms radius in Å, along each axis, of the demagnified source (partial spatial coherence).
    """

    noise: bool = True
    jitter: float = 0.0
    background: float = 0.0
    source_size: float = 0.0

    def __post_init__(self) -> None:
        for name in ("jitter", "background", "source_size"):
            if not 0 <= getattr(self, name) <= MOST:
                raise ValueError(f"{name}: expected a value from 0 to {MOST:.0e}, got {getattr(self, name)}")


def transmission(potential: Shaped[Tensor, "*batch H W"]) -> Complex[Tensor, "*batch H W"]:
    """`exp(iV)`; a complex potential absorbs where its imaginary part is positive."""
    phase = potential.real if potential.is_complex() else potential
    through = torch.complex(phase.cos(), phase.sin())  # twice as fast as torch.polar
    return through * torch.exp(-potential.imag) if potential.is_complex() else through


def diffract(
    setup: Setup,
    potential: Shaped[Tensor, "H W"] | Shaped[Tensor, "S H W"],
    positions: Float[Tensor, "K 2"],
    defocus: Float[Tensor, " K"],
    *,
    thickness: float = 0.0,
    source_size: float = 0.0,
    item: int = 0,
) -> Float[Tensor, "K Q Q2"]:
    """Expected diffraction patterns of one specimen, as fractions of the electrons sent (Eq. 1).

    Args:
        setup: geometry and beam.
        potential: sigma V in rad on the object grid; with a leading axis, S slices in beam order (multislice).
        positions: fractions (y, x) of the scan field; sub-pixel exact.
        defocus: underfocus in Å of each pattern.
        thickness: distance between neighbouring slices in Å.
        source_size: rms source radius in Å; the patterns are averaged over a Gaussian by 3 x 3 Gauss-Hermite quadrature.
        item: which measured probe, where the setup has one for each data set.
    """
    if not len(positions):
        return positions.new_zeros(0, *setup.detector)
    slices = transmission(potential if potential.ndim == 3 else potential[None])
    propagator = _propagator(setup, thickness, slices)
    out = []
    chunk = CHUNK if positions.device.type == "cpu" else max(1, DEVICE_CHUNK // math.prod(setup.window.shape))
    for where, focus in zip(positions.split(chunk), defocus.split(chunk), strict=True):
        intensity: Tensor | float = 0.0
        for step, weight in _source_points(source_size, setup):
            waves = _exit_waves(setup, slices, propagator, where + where.new_tensor(step), focus, item)
            intensity = intensity + weight * fft2(waves).abs().square()
        assert isinstance(intensity, Tensor)
        out.append(record(setup, intensity))
    return torch.cat(out)


def record(setup: Setup, intensity: Float[Tensor, "K N N2"]) -> Float[Tensor, "K Q Q2"]:
    """Crops and bins full diffraction patterns to the detector (zero frequency in the corner before and after)."""
    for axis, q in zip((-2, -1), setup.detector, strict=True):
        half = q * setup.binning // 2
        n = intensity.shape[axis]
        if n == q:
            continue
        intensity = torch.cat([intensity.narrow(axis, 0, half), intensity.narrow(axis, n - half, half)], axis)
        intensity = intensity.unflatten(axis, (q, setup.binning)).sum(axis)
    return intensity


def expose(
    setup: Setup,
    potential: Shaped[Tensor, "*slices H W"],
    positions: Float[Tensor, "K 2"],
    dose: Float[Tensor, " K"],
    defocus: Float[Tensor, " K"],
    imperfections: Imperfections,
    *,
    generator: torch.Generator,
    thickness: float = 0.0,
    item: int = 0,
) -> Float[Tensor, "K Q Q2"]:
    """Electrons per detector pixel of one specimen: Eq. 1 with jitter, source size, background and counting noise."""
    if imperfections.jitter:
        size = positions.new_tensor(setup.field)
        kick = torch.randn(positions.shape, generator=generator, dtype=positions.dtype, device=generator.device)
        positions = (positions + imperfections.jitter * kick.to(size) / size).clamp(0, 1)
    if not bool(((dose >= 0) & (dose <= MOST)).all()):
        raise ValueError(f"dose: expected 0 to {MOST:.0e} electrons per position, got {float(dose.min()):g} to {float(dose.max()):g}")
    expected = diffract(setup, potential, positions, defocus, thickness=thickness, source_size=imperfections.source_size, item=item)
    electrons = expected * dose[:, None, None].to(expected.dtype) + imperfections.background
    return counted(electrons, generator=generator) if imperfections.noise else electrons


def _exit_waves(
    setup: Setup, slices: Tensor, propagator: Tensor | None, positions: Tensor, defocus: Tensor, item: int
) -> Complex[Tensor, "K N N"]:
    corner, offset = setup.place(positions)
    values, which = torch.unique(defocus, return_inverse=True)
    spectra = setup.spectra(values)
    spectra = spectra[item if len(spectra) > 1 else 0] if spectra.ndim == 4 else spectra
    wave = setup.shift(spectra.to(slices.dtype)[which], offset)
    ny, nx = setup.window.shape
    rows = corner[:, 0, None] + torch.arange(ny, device=corner.device)
    columns = corner[:, 1, None] + torch.arange(nx, device=corner.device)
    height, width = slices.shape[-2:]
    for i, layer in enumerate(slices):
        if i and propagator is not None:
            wave = ifft2(fft2(wave) * propagator)
        wave = wave * layer[(rows % height)[:, :, None], (columns % width)[:, None, :]]
    return wave


def _propagator(setup: Setup, thickness: float, slices: Tensor) -> Tensor | None:
    if len(slices) == 1:
        return None
    ky, kx = setup.window.frequencies(device=slices.device)
    phase = -math.pi * setup.wavelength * thickness * (ky**2 + kx**2)
    return torch.polar(torch.ones_like(phase), phase).to(slices.dtype)


def _source_points(size: float, setup: Setup) -> list[tuple[tuple[float, float], float]]:
    """Displacements (fractions of the field) and weights of the 3 x 3 Gauss-Hermite rule for a Gaussian of rms `size` Å."""
    if size == 0:
        return [((0.0, 0.0), 1.0)]
    nodes = ((-math.sqrt(3.0), 1 / 6), (0.0, 2 / 3), (math.sqrt(3.0), 1 / 6))
    fy, fx = setup.field
    return [((size * a / fy, size * b / fx), u * v) for a, u in nodes for b, v in nodes]
