"""The electrons that each Å² of a specimen receives, from the shape of the beam itself.

A judge of many scans takes a Gaussian for the beam, whose peak may be half of the true one (`adaptycho.metrics.dose`); a limit may not be
missed by that. Here every position adds `dose |probe(r - R)|^2`, at its own defocus, on pixels of a sixteenth of the resolution or finer.

Between two pixels the map can be higher than on either. A function from 0 to M whose frequencies end at k is at least `M cos^2(pi k d)`
at a distance d from its maximum (M. Riesz), and a probe's intensity ends at twice the aperture: with that, `highest` is an upper bound.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Setup

FINE = 16  # pixels to a wavelength over the semi-angle
MOST_PIXELS = 1 << 26  # of a map: 512 MiB
CHUNK = 1 << 22  # pixels of probes in work at a time


@dataclass(frozen=True, eq=False)
class Exposure:
    """Where electrons are sent, whether or not a pattern comes of it.

    Attributes:
        positions: fractions (y, x) of the scan field.
        electrons: sent to each.
        defocus: underfocus in Å.
    """

    positions: Float[Tensor, "B K 2"]
    electrons: Float[Tensor, "B K"]
    defocus: Float[Tensor, "B K"]

    @property
    def total(self) -> Float[Tensor, " B"]:
        """Electrons that each specimen receives."""
        return self.electrons.double().sum(1)


def local_dose(setup: Setup, exposure: Exposure) -> Float[Tensor, "B h w"]:
    """Electrons per Å² on a fine grid over the object. Positions outside the field count at its edge, where microscopes stop the beam.

    Raises:
        ValueError: the map would be too large.
    """
    fine, times = _fine(setup)
    maps = torch.zeros(len(exposure.positions), *fine.object.shape, dtype=torch.float64)
    positions = exposure.positions.double().clamp(0, 1).cpu()
    for b, where in enumerate(maps):
        _add(where, setup, fine, times, positions[b], exposure.electrons[b].double().cpu(), exposure.defocus[b].double().cpu(), b)
    return maps


def highest(setup: Setup, maps: Float[Tensor, "B h w"]) -> Float[Tensor, " B"]:
    """An upper bound of the dose in electrons per Å² anywhere, also between the pixels of a map: at most 9 % above it."""
    fine, _ = _fine(setup)
    frequency = 2 * (setup.semiangle * 1e-3 / setup.wavelength + max(setup.window.reciprocal_pixel) / 2)
    away = fine.object.pixel / math.sqrt(2)
    return maps.amax((-2, -1)) / math.cos(min(math.pi * frequency * away, math.pi / 4)) ** 2


def _fine(setup: Setup) -> tuple[Setup, int]:
    """The same setup on so many times finer pixels."""
    times = max(1, math.ceil(FINE * setup.object.pixel / setup.resolution))
    (h, w), (ny, nx), pixel = setup.object.shape, setup.window.shape, setup.object.pixel / times
    if (size := h * w * times**2) > MOST_PIXELS:
        raise ValueError(f"safety.local: expected a field whose dose fits on {MOST_PIXELS:.2g} pixels, found one that takes {size:.2g}")
    window = Grid((ny * times, nx * times), pixel)
    return replace(setup, object=Grid((h * times, w * times), pixel), window=window, measured_probe=None), times


def _add(where: Tensor, setup: Setup, fine: Setup, times: int, positions: Tensor, electrons: Tensor, defocus: Tensor, b: int) -> None:
    ny, nx = fine.window.shape
    corners, offsets = fine.place(positions)
    for chunk in torch.arange(len(positions)).split(max(1, CHUNK // (ny * nx))):
        focus, which = defocus[chunk].unique(return_inverse=True)
        spectra = setup.spectra(focus)
        spectra = _padded(spectra[b % len(spectra)] if spectra.ndim == 4 else spectra, times)
        density = fine.shift(spectra[which], offsets[chunk]).abs().square() * electrons[chunk, None, None] / fine.object.pixel**2
        for (top, left), spot in zip(corners[chunk].tolist(), density, strict=True):
            where[top : top + ny, left : left + nx] += spot


def _padded(spectra: Complex[Tensor, "U N N2"], times: int) -> Complex[Tensor, "U M M2"]:
    """Spectra among zeros at higher frequencies: the same probes on finer pixels."""
    ny, nx = spectra.shape[-2:]
    edges = [(n * times // 2 - n // 2, n * times - n * times // 2 - n + n // 2) for n in (nx, ny)]
    padded = torch.nn.functional.pad(torch.fft.fftshift(spectra, dim=(-2, -1)), [edge for pair in edges for edge in pair])
    return torch.fft.ifftshift(padded, dim=(-2, -1))
