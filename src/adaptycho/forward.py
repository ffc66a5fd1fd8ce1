"""Eq. 1: the beam at each position, through the specimen, to electrons on the detector.

`I_p = |F[psi_in(r - R_p) t(r)]|^2` with `t = exp(iV)`, and what a real instrument adds: electron noise, a finite source, a background,
a beam that misses its mark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Complex, Float, Int, Shaped
from torch import Tensor

from adaptycho.grid import fft2, ifft2
from adaptycho.noise import counted
from adaptycho.optics import Setup

# Number types that patterns may have: no complex numbers, truth values or half precision.
COUNTS = (
    torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64, torch.float32, torch.float64,
)  # fmt: skip
MOST = 2.0**53  # electrons of a pattern: beyond, numbers of double precision no longer count them
CHUNK = 64  # patterns in work at a time: memory never grows with the number of positions


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a microscope recorded: a data set and a sub-sequence are the same thing. `a + b` joins along K.

    Attributes:
        positions: where the beam is reported to have been, fractions (y, x) of the scan field.
        patterns: counts, zero frequency in the corner, any number type.
        dose: counts that a pattern would hold if nothing missed the detector (electrons sent, times the counts one electron makes).
        defocus: underfocus in Å each pattern was taken with.
        lengths: number of patterns of each data set that count; the rest of its row is padding.
    """

    positions: Float[Tensor, "B K 2"]
    patterns: Shaped[Tensor, "B K Q Q2"]
    dose: Float[Tensor, "B K"]
    defocus: Float[Tensor, "B K"]
    lengths: Int[Tensor, " B"] = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        b, k = self.positions.shape[:2]
        for name, wanted in (("positions", (b, k, 2)), ("dose", (b, k)), ("defocus", (b, k))):
            if tuple(getattr(self, name).shape) != wanted:
                raise ValueError(f"{name}: expected shape {wanted}, got {tuple(getattr(self, name).shape)}")
        if self.patterns.ndim != 4 or tuple(self.patterns.shape[:2]) != (b, k):
            raise ValueError(f"patterns: expected shape ({b}, {k}, Q, Q), as many as there are positions, got {tuple(self.patterns.shape)}")
        if self.patterns.dtype not in COUNTS:
            raise ValueError(f"patterns: expected integer or real counts in single or double precision, got {self.patterns.dtype}")
        for name in ("positions", "dose", "defocus"):
            values = getattr(self, name)
            if not values.is_floating_point() or not bool(torch.isfinite(values).all()):
                raise ValueError(f"{name}: expected finite real numbers, got others ({values.dtype})")
        if self.lengths is None:
            object.__setattr__(self, "lengths", torch.full((b,), k, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.positions)

    def __add__(self, other: "Measurement") -> "Measurement":
        if len(self) != len(other):
            raise ValueError(f"measurement: expected {len(self)} data sets to add, got {len(other)}")
        if self.positions.shape[1] == 0:
            return other
        if bool((self.lengths == self.positions.shape[1]).all() and (other.lengths == other.positions.shape[1]).all()):
            return Measurement(*(torch.cat([getattr(self, n), getattr(other, n)], 1) for n in ("positions", "patterns", "dose", "defocus")))
        parts = zip(self.split(), other.split(), strict=True)
        return Measurement.stack([a + b for a, b in parts])

    def split(self) -> list["Measurement"]:
        """The B data sets one by one, each with its own number of positions."""
        return [self[b] for b in range(len(self))]

    def __getitem__(self, item: int) -> "Measurement":
        if not -len(self) <= item < len(self):
            raise IndexError(item)
        item, k = item % len(self), int(self.lengths[item])
        return Measurement(*(getattr(self, n)[item : item + 1, :k] for n in ("positions", "patterns", "dose", "defocus")))

    def take(self, which: Int[Tensor, " K"]) -> "Measurement":
        """The same chosen patterns of every data set."""
        if bool((self.lengths <= which.max()).any()):
            raise ValueError(f"take: expected indices below {int(self.lengths.min())}, got {int(which.max())}")
        return Measurement(*(getattr(self, n)[:, which] for n in ("positions", "patterns", "dose", "defocus")))

    @staticmethod
    def stack(parts: Sequence["Measurement"]) -> "Measurement":
        """Joins data sets with different numbers of positions into one batch, padded with zeros at the end."""
        lengths = torch.cat([p.lengths for p in parts])
        longest = int(lengths.max())

        def pad(x: Tensor) -> Tensor:
            return torch.cat([x, x.new_zeros(x.shape[0], longest - x.shape[1], *x.shape[2:])], 1)

        positions, patterns, dose, defocus = (
            torch.cat([pad(getattr(p, n)) for p in parts]) for n in ("positions", "patterns", "dose", "defocus")
        )
        return Measurement(positions, patterns, dose, defocus, lengths)


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
    for where, focus in zip(positions.split(CHUNK), defocus.split(CHUNK), strict=True):
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
        kick = torch.randn(positions.shape, generator=generator, dtype=positions.dtype, device=positions.device)
        positions = (positions + imperfections.jitter * kick / size).clamp(0, 1)
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
