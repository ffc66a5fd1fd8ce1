"""Virtual images: one for each (super-)pixel of the bright-field disc, as their Fourier transforms over the scan positions.

The transform is summed directly at chosen frequencies, so that positions need not lie on a raster.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Complex, Float
from scipy.spatial import cKDTree
from torch import Tensor

from adaptycho.formats.recording import CHUNK, Recording
from adaptycho.samples.doctor.disc import Disc

ACROSS = 12  # superpixels across the disc
RIM = 0.97  # of the radius: what lies outside is half in the dark
MOST = 1500  # scan frequencies kept
FRACTION = 1.5  # periods that a frequency has at least in the shorter side of the field: less is drift, and the taper


@dataclass(frozen=True, eq=False)
class Virtual:
    """Spectra of the virtual images.

    Attributes:
        spectra: of each image over its mean, less one.
        frequencies: (y, x) in the scan frame, Å⁻¹; of each pair q, -q one.
        angles: of each image, (y, x) in the detector frame, as spatial frequency in Å⁻¹ from the disc's centre.
        cutoff: semi-angle over wavelength in Å⁻¹: the disc's radius.
        wavelength: in Å.
        width: of a superpixel in Å⁻¹.
        step: nearest neighbours' distance in the scan in Å, the median.
        field: (y, x) in Å.
        images: the virtual images themselves, (N, K), over their mean, less one.
        positions: (N, 2) in Å.
        total: counts of each pattern within the disc.
    """

    spectra: Complex[Tensor, "F K"]
    frequencies: Float[Tensor, "F 2"]
    angles: Float[Tensor, "K 2"]
    cutoff: float
    wavelength: float
    width: float
    step: float
    field: tuple[float, float]
    images: Float[Tensor, "N K"]
    positions: Float[Tensor, "N 2"]
    total: Float[Tensor, " N"]

    def only(self, which: Tensor) -> "Virtual":
        """The same at some of the frequencies."""
        return replace(self, spectra=self.spectra[which], frequencies=self.frequencies[which])

    def double(self) -> "Virtual":
        """The same in double precision."""
        return replace(self, spectra=self.spectra.to(torch.complex128), frequencies=self.frequencies.double(), angles=self.angles.double())


def virtual(recording: Recording, disc: Disc, good: Bool[Tensor, "Q Q2"], kept: Bool[Tensor, " N"]) -> Virtual:
    """Virtual images of a recording.

    Args:
        recording: what was recorded.
        disc: in its mean pattern, with the radius that belongs to the semi-angle.
        good: detector pixels to believe, zero frequency in the centre pixel.
        kept: patterns to believe.
    """
    setup, data = recording.setup, recording.measurement
    patterns, where = data.patterns[0][kept].cpu(), data.positions[0][kept].cpu().double()
    size = max(1.0, 2 * disc.radius / ACROSS)
    count = math.ceil(2 * disc.radius / size / 2)
    offsets = size * torch.arange(-count, count + 1, dtype=torch.float64)
    rows, columns = (_overlap(q, c, offsets, size) for q, c in zip(setup.detector, disc.centre, strict=True))
    index = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), -1).reshape(-1, 2)
    lit = (rows @ good.float() @ columns.T).reshape(-1)
    inside = (index.norm(dim=-1) < RIM * disc.radius - 0.25 * (size - 1)) & (lit > 0.3 * lit.max())
    images = torch.cat([
        ((rows @ (torch.fft.fftshift(part.float(), (-2, -1)) * good)) @ columns.T).reshape(len(part), -1)[:, inside]
        for part in patterns.split(CHUNK)
    ])  # fmt: skip
    cutoff = setup.semiangle * 1e-3 / setup.wavelength
    angles = (index[inside] / disc.radius * cutoff).float()
    total, mean = images.sum(1), images.mean(0)
    bright = mean > 0.05 * mean.max()
    images, angles = images[:, bright] / mean[bright] - 1, angles[bright]
    positions = where * torch.tensor(setup.field, dtype=torch.float64)
    step = float(torch.as_tensor(cKDTree(positions.numpy()).query(positions.numpy(), k=2)[0][:, 1]).median())
    span = tuple(float(v) for v in (positions.amax(0) - positions.amin(0)).clamp(min=step))
    frequencies = _frequencies(span, min(0.5 / step, 2 * cutoff))
    spectra = transform(images, positions, (span[0], span[1]), frequencies)
    strongest = spectra.abs().square().sum(1).topk(min(MOST, len(spectra))).indices.sort().values
    return Virtual(
        spectra[strongest], frequencies[strongest].float(), angles, cutoff, setup.wavelength, size / disc.radius * cutoff, step,
        (span[0], span[1]), images, positions, total,
    )  # fmt: skip


def transform(
    values: Float[Tensor, "N K"], positions: Float[Tensor, "N 2"], field: tuple[float, float], frequencies: Float[Tensor, "F 2"]
) -> Complex[Tensor, "F K"]:
    """Fourier transform over positions in Å at frequencies in Å⁻¹; values fade towards the edges of the field."""
    unit = (positions - positions.amin(0)) / torch.tensor(field, dtype=torch.float64)
    taper = torch.sin(math.pi * (0.02 + 0.96 * unit)).prod(-1)
    taper = taper * (len(taper) ** 0.5 / taper.norm())
    parts = []
    for some in frequencies.double().split(512):
        waves = torch.polar(taper[:, None].expand(-1, len(some)), -2 * math.pi * positions @ some.T)
        parts.append(torch.complex(waves.real.float().T @ values, waves.imag.float().T @ values))
    return torch.cat(parts)


def _overlap(count: int, centre: float, offsets: Tensor, size: float) -> Tensor:
    """How much of each pixel along an axis belongs to the superpixel at each offset from the centre, (S, Q)."""
    pixel = torch.arange(count, dtype=torch.float64) - count // 2 - centre
    distance = (pixel[None] - offsets[:, None]).abs()
    return ((size + 1) / 2 - distance).clamp(0, 1).float()


def _frequencies(span: tuple[float, ...], highest: float) -> Tensor:
    """Half of the frequencies that the field tells apart, up to the highest."""
    ny, nx = (max(1, math.floor(highest * s)) for s in span)
    y, x = torch.arange(ny + 1, dtype=torch.float64) / span[0], torch.arange(-nx, nx + 1, dtype=torch.float64) / span[1]
    found = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
    length = found.norm(dim=-1)
    half = (found[:, 0] > 0) | (found[:, 1] > 0)
    return found[half & (length <= highest) & (length * min(span) >= min(FRACTION, highest * min(span) / 2))]
