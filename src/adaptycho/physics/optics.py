"""The beam and the geometry: wavelength, aberrations, the probe, and how scan positions map to object pixels.

Four extents are kept apart because the paper's Table II only makes sense that way (docs/decisions/0003): the scan *field* the beam may be
sent to, the *object* that is reconstructed, the *window* one probe lives in, and the *detector* that records its diffraction pattern.
"""

import dataclasses
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from adaptycho.physics.grid import Grid, fft2, ifft2

# CODATA 2018; the electron's rest energy in eV, hc in eV Å, and e / (4 pi eps0) in V Å.
REST_ENERGY = 510998.95
HC = 12398.419843320026
COULOMB = 14.399645478425668
MARGIN = 4  # object pixels left on each side of the outermost window, for rounding and for refined positions
EDGE = 1e-5  # fraction of the field that a position may lie outside by rounding (single precision)


def wavelength(energy: float) -> float:
    """Relativistic electron wavelength in Å for a kinetic energy in eV, `hc / sqrt(E (E + 2 m c^2))`.

    Raises:
        ValueError: the energy is not positive.
    """
    if not energy > 0:
        raise ValueError(f"energy: expected a positive beam energy in eV, got {energy}")
    return HC / math.sqrt(energy * (energy + 2 * REST_ENERGY))


def interaction_constant(energy: float) -> float:
    """Interaction constant sigma in rad/(V Å): phase per projected potential, `2 pi m e lambda / h^2` with the relativistic mass."""
    return 2 * math.pi * (energy + REST_ENERGY) / (wavelength(energy) * energy * (energy + 2 * REST_ENERGY))


@dataclass(frozen=True)
class Aberrations:
    """Coefficients of the aberration function in Krivanek's polar notation, lengths in Å and angles in rad.

    `chi(k, phi) = 2 pi / lambda * sum_nm (lambda k)^(n+1) / (n+1) * C_nm cos(m (phi - phi_nm))`; the probe is the inverse transform of
    `aperture * exp(-i chi)`. Positive `defocus` means underfocus: `C10 = -defocus`.
    """

    C10: float = 0.0
    C12: float = 0.0
    phi12: float = 0.0
    C21: float = 0.0
    phi21: float = 0.0
    C23: float = 0.0
    phi23: float = 0.0
    C30: float = 0.0
    C32: float = 0.0
    phi32: float = 0.0
    C34: float = 0.0
    phi34: float = 0.0
    C50: float = 0.0

    @property
    def defocus(self) -> float:
        """Underfocus in Å."""
        return -self.C10

    def chi(self, ky: Float[Tensor, "H 1"], kx: Float[Tensor, "1 W"], wavelength: float) -> Float[Tensor, "H W"]:
        """Aberration phase in rad at spatial frequencies in Å⁻¹."""
        alpha, phi = wavelength * torch.hypot(ky, kx), torch.atan2(ky, kx)
        chi = torch.zeros_like(alpha)
        for name in ("C10", "C12", "C21", "C23", "C30", "C32", "C34", "C50"):
            n, m, coefficient = int(name[1]), int(name[2]), getattr(self, name)
            if coefficient:
                chi += coefficient * alpha ** (n + 1) / (n + 1) * torch.cos(m * (phi - getattr(self, f"phi{n}{m}", 0.0)))
        return 2 * math.pi / wavelength * chi


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything physical that is fixed during a scan. Give `energy` for electrons or `wavelength` for X-rays and light.

    Attributes:
        field: the area (y, x) in Å that the beam may be sent to.
        object: grid of the potential that is reconstructed.
        window: grid of the box one probe lives in; its Fourier transform is the full diffraction pattern.
        detector: recorded pixels (Qy, Qx), the centre of that transform after binning.
        semiangle: convergence semi-angle in mrad.
        energy: beam energy in eV.
        wavelength: in Å; derived from the energy if not given.
        aberrations: of the probe-forming lens; `aberrations.defocus` is the nominal defocus.
        binning: window frequencies summed into one detector pixel, along each axis.
        rotation: degrees, counter-clockwise, that turn detector (row, column) into scan (row, column).
        measured_probe: a known probe, zero position in the corner, at the nominal defocus; replaces the calculated one. (N, N), or
            (B, N, N) for one of each data set.
        mask: detector pixels to believe, (Qy, Qx), zero frequency in the corner; all if None.
    """

    field: tuple[float, float]
    object: Grid
    window: Grid
    detector: tuple[int, int]
    semiangle: float
    energy: float | None = None
    wavelength: float = 0.0
    aberrations: Aberrations = dataclasses.field(default_factory=Aberrations)
    binning: int = 1
    rotation: float = 0.0
    measured_probe: Tensor | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.energy is not None:
            derived = wavelength(self.energy)
            if self.wavelength and not math.isclose(self.wavelength, derived, rel_tol=1e-3):
                raise ValueError(
                    f"wavelength: expected {derived:.6g} Å at {self.energy:g} eV, got {self.wavelength:g} Å; give one of the two"
                )
            object.__setattr__(self, "wavelength", derived)
        if not self.wavelength > 0:
            raise ValueError("energy: expected a beam energy in eV or a wavelength in Å, got neither")
        if not self.semiangle > 0:
            raise ValueError(f"semiangle: expected a positive convergence semi-angle in mrad, got {self.semiangle}")
        if min(self.field) <= 0:
            raise ValueError(f"field: expected a positive scan field (y, x) in Å, got {self.field}")
        if self.binning < 1 or any(q < 2 or q % 2 or q * self.binning > n for q, n in zip(self.detector, self.window.shape, strict=True)):
            raise ValueError(
                f"detector: expected even pixel numbers with detector x binning inside the window {self.window.shape}, "
                f"got {self.detector} x {self.binning}"
            )
        if not math.isclose(self.object.pixel, self.window.pixel, rel_tol=1e-6):
            raise ValueError(f"window.pixel: expected the object's pixel {self.object.pixel:g} Å, got {self.window.pixel:g} Å")
        if self.measured_probe is not None and tuple(self.measured_probe.shape[-2:]) != self.window.shape:
            raise ValueError(f"measured_probe: expected the window's shape {self.window.shape}, got {tuple(self.measured_probe.shape)}")
        if self.mask is not None and (tuple(self.mask.shape) != self.detector or not bool(self.mask.any())):
            raise ValueError(f"mask: expected pixels to believe, of the detector's shape {self.detector}, got {tuple(self.mask.shape)}")
        corners = self.to_pixels(torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64))
        room = torch.tensor(self.object.shape) - torch.tensor(self.window.shape)
        first = (corners.round() - torch.tensor(self.window.shape) / 2).amin(0)
        last = (corners.round() - torch.tensor(self.window.shape) / 2).amax(0)
        if bool((first < 0).any() or (last > room).any()):
            raise ValueError(
                f"object: expected a grid that holds the field {self.field} Å plus one window {self.window.extent} Å, "
                f"got {self.object.extent} Å (rotation {self.rotation:g} degrees)"
            )

    @property
    def detector_pixel(self) -> float:
        """Angle in mrad that one detector pixel spans along y: `dtheta = lambda binning / (N dx)`."""
        return 1e3 * self.wavelength * self.binning * self.window.reciprocal_pixel[0]

    @property
    def resolution(self) -> float:
        """Wavelength over convergence semi-angle in Å, the finest period that the probe-forming aperture passes in amplitude."""
        return self.wavelength / (self.semiangle * 1e-3)

    @property
    def field_shape(self) -> tuple[int, int]:
        """Pixels (y, x) of the scan field at the object's pixel size."""
        return max(1, round(self.field[0] / self.object.pixel)), max(1, round(self.field[1] / self.object.pixel))

    def to_pixels(self, positions: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Object pixel coordinates (row, column) of positions given as fractions (y, x) of the scan field."""
        size, shape = positions.new_tensor(self.field), positions.new_tensor(self.object.shape)
        # Scan frame to detector frame: the inverse of the counter-clockwise `rotation` in (row, column).
        cos, sin = math.cos(math.radians(self.rotation)), math.sin(math.radians(self.rotation))
        turn = positions.new_tensor([[cos, sin], [-sin, cos]])
        return ((positions - 0.5) * size) @ turn.T / self.object.pixel + shape / 2

    def crop(self, image: Float[Tensor, "*batch H W"]) -> Float[Tensor, "*batch h w"]:
        """The part of an object image inside the scan field, in the scan's own orientation, on `field_shape` pixels.

        Without rotation this is a slice; with it, the field is resampled (bicubic).
        """
        h, w = self.field_shape
        rows, columns = ((torch.arange(n, dtype=image.dtype, device=image.device) + 0.5) / n for n in (h, w))
        if self.rotation == 0:
            top, left = (math.floor(v + 0.5) for v in self.to_pixels(torch.stack([rows[0], columns[0]])).tolist())
            return image[..., top : top + h, left : left + w]
        pixels = self.to_pixels(torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1))
        # grid_sample wants (x, y) in -1..1 between the centres of the outermost pixels.
        where = (pixels / (pixels.new_tensor(self.object.shape) - 1) * 2 - 1).flip(-1)
        flat = image.reshape(-1, 1, *image.shape[-2:])
        sampled = torch.nn.functional.grid_sample(flat, where.expand(len(flat), -1, -1, -1), mode="bicubic", align_corners=True)
        return sampled.reshape(*image.shape[:-2], h, w)

    def with_defocus(self, defocus: float) -> "Setup":
        """The same setup at another nominal defocus in Å (positive = underfocus), a measured probe propagated accordingly."""
        probe = self.measured_probe
        if probe is not None:
            probe = ifft2(self.spectra(torch.tensor([defocus], dtype=torch.float64, device=probe.device))[..., 0, :, :])
        return replace(self, aberrations=replace(self.aberrations, C10=-defocus), measured_probe=probe)

    def spectra(self, defocus: Float[Tensor, " U"]) -> Complex[Tensor, "*items U N N2"]:
        """Fourier transforms of the centred unit-sum probes at each defocus in Å, zero frequency in the corner.

        A measured probe is propagated from its nominal defocus; one per data set gives a leading axis of that length.
        """
        real = torch.float64
        ky, kx = self.window.frequencies(device=defocus.device)
        shift = (defocus.to(real) - self.aberrations.defocus)[:, None, None]
        # exp(-i chi) with C10 = -defocus, and chi = pi lambda k^2 C10.
        change = torch.polar(torch.ones((), dtype=real, device=defocus.device), math.pi * self.wavelength * (ky**2 + kx**2) * shift)
        if self.measured_probe is not None:
            base = fft2(self.measured_probe.to(defocus.device, torch.complex128))[..., None, :, :]
        else:
            base = torch.polar(self.aperture(ky, kx), -self.aberrations.chi(ky, kx, self.wavelength))
        spectrum = base * change
        return spectrum / spectrum.abs().square().sum((-2, -1), keepdim=True).sqrt()

    def aperture(self, ky: Float[Tensor, "H 1"], kx: Float[Tensor, "1 W"]) -> Float[Tensor, "H W"]:
        """Transmission of the probe-forming aperture, with an edge that is soft over one pixel so that it does not jump with the grid."""
        radius = self.semiangle * 1e-3 / self.wavelength
        dk = max(self.window.reciprocal_pixel)
        return ((radius - torch.hypot(ky, kx)) / dk + 0.5).clamp(0, 1)

    def dark_field(self, *, device: torch.device | None = None) -> Float[Tensor, "Q Q2"]:
        """1 for detector pixels that lie wholly outside the bright-field disc, else 0; zero frequency in the corner, as in patterns."""
        axes = []
        for q, step in zip(self.detector, self.window.reciprocal_pixel, strict=True):
            index = torch.fft.fftfreq(q, 1 / q, dtype=torch.float64, device=device)
            # A binned pixel holds the window frequencies from `binning` times its index on.
            axes.append((self.binning * index + (self.binning - 1) / 2) * step)
        reach = self.semiangle * 1e-3 / self.wavelength + (self.binning + 1) / 2 * max(self.window.reciprocal_pixel)
        return (torch.hypot(axes[0][:, None], axes[1][None, :]) >= reach).to(torch.float32)

    def probe(self, defocus: float | None = None) -> Complex[Tensor, "*items N N2"]:
        """The centred unit-sum probe (zero position in the corner) at a defocus in Å, by default the nominal one."""
        value = self.aberrations.defocus if defocus is None else defocus
        return ifft2(self.spectra(torch.tensor([value], dtype=torch.float64))[..., 0, :, :])

    def probe_radius(self, fraction: float = 0.5, *, defocus: float | None = None) -> float:
        """Radius in Å around its centre of mass that holds a fraction of the intensity, at a defocus in Å (by default the nominal)."""
        probe = self.probe(defocus)
        intensity = torch.fft.fftshift((probe[0] if probe.ndim == 3 else probe).abs().square())
        intensity = intensity / intensity.sum()
        y, x = (torch.arange(n, dtype=torch.float64) for n in intensity.shape)
        radius = torch.hypot(y[:, None] - (y[:, None] * intensity).sum(), x[None, :] - (x[None, :] * intensity).sum()).flatten()
        # Each pixel is spread over the annulus it covers, from half a pixel inside its radius to half outside, so that a beam of a few
        # pixels has a radius between them: intensity per radius rises at one end of the annulus and falls at the other.
        fine = 20  # steps per pixel
        bins, weight = int(fine * (float(radius.max()) + 2)), intensity.flatten()
        rise, fall = ((fine * (radius + d).clamp(min=0)).round().long() for d in (-0.5, 0.5))
        held = (torch.bincount(rise, weight, bins) - torch.bincount(fall, weight, bins)).cumsum(0).cumsum(0)
        return float(torch.searchsorted(held / held[-1], fraction)) / fine * self.window.pixel

    def place(self, positions: Float[Tensor, "K 2"]) -> tuple[Int[Tensor, "K 2"], Float[Tensor, "K 2"]]:
        """Where each window lies: its top-left object pixel, and the sub-pixel rest (-0.5 to 0.5) the probe is shifted by."""
        pixels = self.to_pixels(positions)
        centre = pixels.round()
        corner = centre.long() - torch.tensor(self.window.shape, device=positions.device) // 2
        return corner, pixels - centre

    def shift(self, spectra: Complex[Tensor, "K N N2"], offset: Float[Tensor, "K 2"]) -> Complex[Tensor, "K N N2"]:
        """Probes of the given spectra, shifted by sub-pixel offsets (y, x) and centred in the window."""
        ny, nx = self.window.shape
        phases = [
            -2 * math.pi * torch.fft.fftfreq(n, dtype=offset.dtype, device=offset.device) * (offset[:, i, None] + n // 2)
            for i, n in enumerate((ny, nx))
        ]
        one = torch.ones((), dtype=offset.dtype, device=offset.device)
        ramp_y, ramp_x = (torch.polar(one, p).to(spectra.dtype) for p in phases)
        return ifft2(spectra * ramp_y[:, :, None] * ramp_x[:, None, :])


def object_grid(field: tuple[float, float], window: Grid, rotation: float = 0.0) -> Grid:
    """The smallest object grid that holds a scan field turned by `rotation` degrees, one probe window, and a margin of 4 pixels a side."""
    cos, sin = abs(math.cos(math.radians(rotation))), abs(math.sin(math.radians(rotation)))
    box = field[0] * cos + field[1] * sin, field[0] * sin + field[1] * cos
    ny, nx = (2 * math.ceil((b / window.pixel + n + 2 * MARGIN) / 2 - 1e-6) for b, n in zip(box, window.shape, strict=True))
    return Grid((ny, nx), window.pixel)
