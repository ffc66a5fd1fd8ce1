"""From atoms to the projected potential `V = sigma * integral of the electrostatic potential along the beam`, in rad.

The potential is the exact structure-factor sum over the frequencies of the object grid,

    `V(r) = sigma h^2 / (2 pi m e A) * sum_k sum_n f_n(k) exp(-2 pi^2 u^2 k^2) exp(2 pi i k.(r - r_n))`,

with the electron scattering factors f of Lobato and Van Dyck, Acta Cryst. A70, 636 (2014), doi:10.1107/S205327331401643X. The exponentials
are separable, so the inner sum is one matrix product for each element. No atom is ever rounded to a pixel.
"""

import json
import math
from functools import cache
from importlib import resources

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Complex, Float, Shaped
from scipy.spatial import cKDTree
from torch import Tensor

from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import COULOMB, Setup, interaction_constant

BOHR = 0.529177210903  # Å
POTENTIAL = 2 * math.pi * BOHR * COULOMB  # V Å^2: h^2 / (2 pi m e), the factor between f_e in Å and the potential
ABSENT = "expected a chemical element with a tabulated scattering factor (hydrogen to lawrencium), got"
RADIUS = 2.0  # Å round an atom that count as structure


def scattering_factor(symbol: str, g: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Electron scattering factor in Å of a neutral atom, `f(g) = sum_i a_i (2 + b_i g^2) / (1 + b_i g^2)^2`.

    Args:
        symbol: of the chemical element.
        g: spatial frequency `2 sin(theta) / lambda` in Å⁻¹.

    Raises:
        ValueError: the element is not in the table.
    """
    if symbol not in _table():
        raise ValueError(f"species: {ABSENT} {symbol!r}")
    factor = torch.zeros_like(g)
    for a, b in zip(*_table()[symbol], strict=True):
        bg2 = b * g.square()
        factor += a * (2 + bg2) / (1 + bg2).square()
    return factor


def potential(
    atoms: Atoms,
    setup: Setup,
    *,
    thermal: float = 0.08,
    absorption: float = 0.0,
    slices: int = 1,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Shaped[Tensor, "*slices H W"]:
    """Projected potential sigma V in rad on the object grid, or one for each of several slices.

    Atoms whose centre lies outside the grid are left out. The sum is periodic: the tail of an atom just inside one edge appears at the
    opposite one, so that the potential of a crystal that fills the grid has no dark rim. The band limit makes it ring (and dip below zero)
    by a few per cent next to atoms.

    Args:
        atoms: x, y in Å from the centre of the grid, x along columns and y down rows; z along the beam.
        setup: gives the object grid and the energy.
        thermal: rms displacement of an atom along one axis in Å (Debye-Waller factor).
        absorption: imaginary part as a fraction of the real one, where that is positive; if not zero, the potential is complex.
        slices: cuts the height of the cell into this many layers, in beam order, `atoms.cell[2, 2] / slices` Å apart.
        dtype: real type of the result.
        device: of the result.

    Returns:
        (H, W), or (S, H, W) for more than one slice.

    Raises:
        ValueError: the setup has no electron energy, an element is unknown, or several slices are asked of a cell without height.
    """
    if setup.energy is None:
        raise ValueError(f"energy: expected a beam energy in eV to turn atoms into a potential, got none (light of {setup.wavelength:g} Å)")
    for name, value in (("thermal", thermal), ("absorption", absorption)):
        if not value >= 0:
            raise ValueError(f"{name}: expected a value of at least 0, got {value}")
    layer = _layers(atoms, slices)
    scale = interaction_constant(setup.energy) * POTENTIAL / setup.object.pixel**2
    values = torch.stack([scale * _structure_factor_sum(atoms[layer == i], setup.object, thermal, dtype, device) for i in range(slices)])
    if absorption:
        # The ringing dips below zero; there nothing is absorbed, for nothing can be emitted.
        values = torch.complex(values, absorption * values.clamp(min=0))
    return values if slices > 1 else values[0]


def contaminate(
    potential: Shaped[Tensor, "*slices H W"],
    grid: Grid,
    *,
    phase: float = 0.1,
    coverage: float = 0.5,
    generator: torch.Generator,
    patch: float = 6.0,
    grain: float = 1.2,
) -> Shaped[Tensor, "*slices H W"]:
    """Adds a random layer of carbonaceous dirt: smooth patches with an amorphous texture, none of it negative.

    The patches are where a Gaussian random field of correlation length `patch` exceeds a threshold; their thickness is the excess, times a
    texture of correlation length `grain`. With several slices the first one, the entrance surface, is dirty.

    Args:
        potential: sigma V in rad on `grid`.
        grid: the object grid.
        phase: rms phase in rad of the layer over the area it covers.
        coverage: fraction of the area that is covered.
        generator: of the random fields.
        patch: rms radius in Å of the Gaussian that smooths the patches.
        grain: the same for the texture.

    Raises:
        ValueError: the phase is negative or the coverage outside 0 to 1.
    """
    if not phase >= 0:
        raise ValueError(f"phase: expected an rms phase of at least 0 rad, got {phase}")
    if not 0 <= coverage <= 1:
        raise ValueError(f"coverage: expected a fraction from 0 to 1, got {coverage}")
    count = round(coverage * grid.shape[0] * grid.shape[1])
    if not phase or not count:
        return potential
    height, texture = (_smooth_field(grid, length, generator) for length in (patch, grain))
    order = height.flatten().sort(descending=True).values
    # Halfway to the next lower value, so that exactly `count` pixels have a positive thickness.
    threshold = (order[count - 1] + order[count]) / 2 if count < len(order) else order[-1] - 1e-3
    layer = (height - threshold).clamp(min=0) * (1 + 0.4 * texture).clamp(min=0.05)
    layer = layer * phase / layer[layer > 0].square().mean().sqrt()
    dirty = potential.clone()
    surface = dirty if dirty.ndim == 2 else dirty[0]
    surface += layer.to(potential.device, potential.real.dtype)
    return dirty


def of_interest(atoms: Atoms) -> Atoms:
    """The atoms whose tag is above zero (a support has tag 0); all of them if none is tagged, as in a structure read from a file."""
    tagged = atoms.get_tags() > 0
    return atoms[tagged] if tagged.any() else atoms


def structure_mask(atoms: Atoms, grid: Grid, radius: float = RADIUS) -> Bool[Tensor, "H W"]:
    """Where the specimen of interest is: pixels within `radius` Å of one of its atoms (`of_interest`)."""
    chosen = of_interest(atoms)
    if not len(chosen):
        return torch.zeros(grid.shape, dtype=torch.bool)
    y, x = ((np.arange(n) - n // 2) * grid.pixel for n in grid.shape)
    pixels = np.stack(np.meshgrid(x, y), -1)
    distance, _ = cKDTree(chosen.positions[:, :2]).query(pixels, distance_upper_bound=radius * (1 + 1e-9))
    return torch.from_numpy(np.isfinite(distance))


@cache
def _table() -> dict[str, list[list[float]]]:
    return json.loads((resources.files("adaptycho.physics.specimen") / "lobato.json").read_text())


def _layers(atoms: Atoms, slices: int) -> np.ndarray:
    """Index of the slice each atom belongs to."""
    if slices < 1:
        raise ValueError(f"slices: expected at least 1, got {slices}")
    if slices == 1:
        return np.zeros(len(atoms), dtype=int)
    height = atoms.cell[2, 2]
    if not height > 0:
        raise ValueError(f"slices: expected atoms in a cell with a height to cut into {slices} slices, got a cell {atoms.cell.lengths()} Å")
    # An atom on the border of two slices belongs to the later one, whatever the rounding.
    return np.clip(np.floor(atoms.positions[:, 2] / height * slices + 1e-6), 0, slices - 1).astype(int)


def _structure_factor_sum(
    atoms: Atoms, grid: Grid, thermal: float, dtype: torch.dtype, device: torch.device | None
) -> Float[Tensor, "H W"]:
    shape = np.array(grid.shape)
    pixels = atoms.positions[:, 1::-1] / grid.pixel + shape // 2  # (row, column)
    inside = ((pixels >= 0) & (pixels < shape)).all(1)
    ky, kx = grid.frequencies(device=device)
    kx = kx[:, : grid.shape[1] // 2 + 1].abs()  # the other half follows, for the potential is real
    k = torch.hypot(ky, kx)
    total = torch.zeros(k.shape, dtype=dtype.to_complex(), device=device)
    symbols = np.array(atoms.get_chemical_symbols(), dtype=object)
    for symbol in sorted(set(symbols[inside])):
        where = torch.from_numpy(pixels[inside & (symbols == symbol)] * grid.pixel).to(device)
        row, column = (_waves(f.flatten(), where[:, i], grid.shape[i], dtype) for i, f in enumerate((ky, kx)))
        factor = scattering_factor(symbol, k) * torch.exp(-2 * math.pi**2 * thermal**2 * k.square())
        total += factor.to(dtype) * (row.T @ column)
    return torch.fft.irfft2(total, s=grid.shape)


def _waves(frequencies: Float[Tensor, " H"], coordinates: Float[Tensor, " n"], pixels: int, dtype: torch.dtype) -> Complex[Tensor, "n H"]:
    # Whole turns are removed in double precision; single precision is then good to 1e-7 of a turn.
    turns = coordinates[:, None] * frequencies
    angle = (-2 * math.pi * (turns - turns.round())).to(dtype)
    waves = torch.polar(torch.ones_like(angle), angle)
    waves.imag[:, pixels // 2] = 0  # the Nyquist frequency stands for both its signs
    return waves


def _smooth_field(grid: Grid, length: float, generator: torch.Generator) -> Float[Tensor, "H W"]:
    """Gaussian random field of unit variance and zero mean: white noise smoothed by a Gaussian of rms `length` Å."""
    noise = torch.randn(grid.shape, generator=generator, dtype=torch.float64, device=generator.device)
    ky, kx = grid.frequencies(device=generator.device)
    spectrum = torch.fft.fft2(noise) * torch.exp(-2 * math.pi**2 * length**2 * (ky**2 + kx**2))
    spectrum[0, 0] = 0
    smooth = torch.fft.ifft2(spectrum).real
    return smooth / smooth.std()
