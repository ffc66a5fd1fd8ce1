"""The electrons that each Å² of a specimen receives, from the shape of the beam itself.

A judge of many scans takes a Gaussian for the beam, whose peak may be half of the true one (`adaptycho.metrics.dose`); a limit may not be
missed by that. Here every position adds `dose |probe(r - R)|^2`, at its own defocus, on pixels of a sixteenth of the resolution or finer.

The intensity of a probe has no frequencies above twice the aperture. The sum over positions is therefore made there, exactly and for a few
thousand frequencies: `M(k) = I(k) sum dose exp(-2 pi i k R)`. Between two pixels the map can be higher than on either. A function from 0
to M whose frequencies end at k is at least `M cos^2(pi k d)` at a distance d from its maximum (M. Riesz): with that, `highest` is an upper
bound.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Setup, object_grid

FINE = 16  # pixels to a wavelength over the semi-angle
WIDE = 16  # wavelengths over the semi-angle that the window of a calculated beam spans at least: its skirt is wide
MOST_PIXELS = 1 << 26  # of a map: 512 MiB


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
    ny, nx = fine.object.shape
    frequencies, (rows, columns) = _band(fine)
    pixels = fine.to_pixels(exposure.positions.double().clamp(0, 1).cpu()) * fine.object.pixel
    one = torch.ones((), dtype=torch.float64)
    waves = [torch.polar(one, -2 * math.pi * k * pixels[..., i, None]) for i, k in enumerate(frequencies)]
    spectrum = torch.zeros(len(pixels), ny, nx // 2 + 1, dtype=torch.complex128)
    electrons, defocus = exposure.electrons.double().cpu(), exposure.defocus.double().cpu()
    for focus in defocus.unique().tolist():
        sent = torch.where(defocus == focus, electrons, 0.0)[..., None]
        spectrum[:, rows[:, None] & columns] += (_beam(setup, focus) * ((sent * waves[0]).mT @ waves[1])).flatten(1)
    return torch.fft.irfft2(spectrum, s=(ny, nx))


def grid(setup: Setup) -> Grid:
    """Of the maps: the field in the middle, in the orientation of the detector, and room for the beam around it."""
    return _fine(setup).object


def in_field(setup: Setup, maps: Float[Tensor, "B h w"]) -> Float[Tensor, "B y x"]:
    """The part of maps inside the field, in the scan's own orientation."""
    return _fine(setup).crop(maps)


def highest(setup: Setup, maps: Float[Tensor, "B h w"]) -> Float[Tensor, " B"]:
    """An upper bound of the dose in electrons per Å² anywhere, also between the pixels of a map: at most 9 % above it."""
    fine = _fine(setup)
    away = fine.object.pixel / math.sqrt(2)
    return maps.amax((-2, -1)) / math.cos(min(math.pi * _highest_frequency(fine) * away, math.pi / 4)) ** 2


def _highest_frequency(fine: Setup) -> float:
    """Of a beam's intensity, in Å⁻¹: twice the aperture's, whose edge is soft over a pixel."""
    return 2 * (fine.semiangle * 1e-3 / fine.wavelength + max(fine.window.reciprocal_pixel) / 2)


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


def _band(fine: Setup) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Frequencies (ky, kx) in Å⁻¹ that a beam's intensity has, kx from 0 on; and which of the map's rows and columns they are."""
    (ny, nx), pixel, highest = fine.object.shape, fine.object.pixel, _highest_frequency(fine)
    ky, kx = torch.fft.fftfreq(ny, pixel, dtype=torch.float64), torch.fft.rfftfreq(nx, pixel, dtype=torch.float64)
    rows, columns = ky.abs() <= highest, kx <= highest
    return (ky[rows], kx[columns]), (rows, columns)


@lru_cache(maxsize=16)
def _beam(setup: Setup, defocus: float) -> Complex[Tensor, "b h w"]:
    """Transform of the intensity per Å² where it is not 0, the beam in the corner; several if specimens have their own."""
    fine, focus = _fine(setup), torch.tensor([defocus], dtype=torch.float64)
    spectra = fine.spectra(focus) if setup.measured_probe is None else _measured(setup, fine, focus)
    intensity = torch.fft.fftshift(torch.fft.ifft2(spectra, norm="ortho").abs().square(), dim=(-2, -1))
    (ny, nx), (height, width) = fine.window.shape, fine.object.shape
    room = (0, width - nx, 0, height - ny)
    beam = torch.nn.functional.pad(intensity.reshape(-1, ny, nx), room).roll((-(ny // 2), -(nx // 2)), dims=(-2, -1))
    _, (rows, columns) = _band(fine)
    return torch.fft.rfft2(beam)[:, rows][:, :, columns] / fine.object.pixel**2


def _measured(setup: Setup, fine: Setup, defocus: Float[Tensor, " U"]) -> Complex[Tensor, "*items U M M2"]:
    """Spectra of a measured beam among zeros at higher frequencies: the same probes on finer pixels."""
    spectra = setup.spectra(defocus)
    pairs = zip(reversed(spectra.shape[-2:]), reversed(fine.window.shape), strict=True)
    edges = [edge for n, m in pairs for edge in (m // 2 - n // 2, m - m // 2 - n + n // 2)]
    padded = torch.nn.functional.pad(torch.fft.fftshift(spectra, dim=(-2, -1)), edges)
    return torch.fft.ifftshift(padded, dim=(-2, -1))
