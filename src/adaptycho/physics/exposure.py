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
from adaptycho.physics.optics import Setup, object_grid

FINE = 16  # pixels to a wavelength over the semi-angle
WIDE = 16  # wavelengths over the semi-angle that the window of a calculated beam spans at least: its skirt is wide
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
    """Electrons per Å² on the fine `grid`. Positions outside the field count at its edge, where microscopes stop the beam.

    Raises:
        ValueError: the map would be too large.
    """
    fine = _fine(setup)
    maps = torch.zeros(len(exposure.positions), *fine.object.shape, dtype=torch.float64)
    positions = exposure.positions.double().clamp(0, 1).cpu()
    for b, where in enumerate(maps):
        _add(where, setup, fine, positions[b], exposure.electrons[b].double().cpu(), exposure.defocus[b].double().cpu(), b)
    return maps


def grid(setup: Setup) -> Grid:
    """Of the maps: the field in the middle, in the orientation of the detector, and room for the beam around it."""
    return _fine(setup).object


def highest(setup: Setup, maps: Float[Tensor, "B h w"]) -> Float[Tensor, " B"]:
    """An upper bound of the dose in electrons per Å² anywhere, also between the pixels of a map: at most 9 % above it."""
    fine = _fine(setup)
    frequency = 2 * (setup.semiangle * 1e-3 / setup.wavelength + max(fine.window.reciprocal_pixel) / 2)
    away = fine.object.pixel / math.sqrt(2)
    return maps.amax((-2, -1)) / math.cos(min(math.pi * frequency * away, math.pi / 4)) ** 2


def _fine(setup: Setup) -> Setup:
    """The same setup on finer pixels, with a calculated beam in a window wide enough for its skirt."""
    times = max(1, math.ceil(FINE * setup.object.pixel / setup.resolution))
    pixel = setup.object.pixel / times
    least = 0 if setup.measured_probe is not None else 16 * math.ceil(WIDE * setup.resolution / pixel / 16)
    ny, nx = setup.window.shape
    window = Grid((max(ny * times, least), max(nx * times, least)), pixel)
    fine = object_grid(setup.field, window, setup.rotation)
    if (size := math.prod(fine.shape)) > MOST_PIXELS:
        raise ValueError(f"safety.local: expected a field whose dose fits on {MOST_PIXELS:.2g} pixels, found one that takes {size:.2g}")
    return replace(setup, object=fine, window=window, measured_probe=None)


def _add(where: Tensor, setup: Setup, fine: Setup, positions: Tensor, electrons: Tensor, defocus: Tensor, b: int) -> None:
    ny, nx = fine.window.shape
    corners, offsets = fine.place(positions)
    for chunk in torch.arange(len(positions)).split(max(1, CHUNK // (ny * nx))):
        focus, which = defocus[chunk].unique(return_inverse=True)
        spectra = fine.spectra(focus) if setup.measured_probe is None else _measured(setup, fine, focus, b)
        density = fine.shift(spectra[which], offsets[chunk]).abs().square() * electrons[chunk, None, None] / fine.object.pixel**2
        for (top, left), spot in zip(corners[chunk].tolist(), density, strict=True):
            where[top : top + ny, left : left + nx] += spot


def _measured(setup: Setup, fine: Setup, defocus: Float[Tensor, " U"], b: int) -> Complex[Tensor, "U M M2"]:
    """Spectra of a measured beam among zeros at higher frequencies: the same probes on finer pixels."""
    spectra = setup.spectra(defocus)
    spectra = spectra[b % len(spectra)] if spectra.ndim == 4 else spectra
    pairs = zip(reversed(spectra.shape[-2:]), reversed(fine.window.shape), strict=True)
    edges = [edge for n, m in pairs for edge in (m // 2 - n // 2, m - m // 2 - n + n // 2)]
    padded = torch.nn.functional.pad(torch.fft.fftshift(spectra, dim=(-2, -1)), edges)
    return torch.fft.ifftshift(padded, dim=(-2, -1))
