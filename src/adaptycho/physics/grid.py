"""Pixels, coordinates and frequencies, and the one place where the Fourier convention lives.

All transforms are orthonormal: the summed intensity is the same on both sides, so a probe whose `|.|^2` sums to one gives a diffraction
pattern that sums to one. Inside the package zero frequency sits in the array corner; files and pictures have it in the centre.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """A rectangle of square pixels.

    Attributes:
        shape: number of pixels (y, x).
        pixel: edge of one pixel in Å.
    """

    shape: tuple[int, int]
    pixel: float

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 2 or any(n % 2 for n in self.shape):
            raise ValueError(f"grid.shape: expected two even pixel numbers of at least 2, got {self.shape}")
        if not self.pixel > 0:
            raise ValueError(f"grid.pixel: expected a positive length in Å, got {self.pixel}")

    @property
    def extent(self) -> tuple[float, float]:
        """Size (y, x) in Å."""
        return self.shape[0] * self.pixel, self.shape[1] * self.pixel

    @property
    def reciprocal_pixel(self) -> tuple[float, float]:
        """Pixel (ky, kx) of the Fourier transform in Å⁻¹: `dk = 1 / (N dx)`."""
        return 1 / self.extent[0], 1 / self.extent[1]

    def frequencies(
        self, *, dtype: torch.dtype = torch.float64, device: torch.device | None = None
    ) -> tuple[Float[Tensor, "H 1"], Float[Tensor, "1 W"]]:
        """Spatial frequencies (ky, kx) in Å⁻¹, zero in the corner, shaped to broadcast over the grid."""
        ky, kx = (torch.fft.fftfreq(n, self.pixel, dtype=dtype, device=device) for n in self.shape)
        return ky[:, None], kx[None, :]


def fft2(wave: Shaped[Tensor, "*batch H W"]) -> Complex[Tensor, "*batch H W"]:
    """Orthonormal two-dimensional Fourier transform, zero frequency in the corner."""
    return torch.fft.fft2(wave, norm="ortho")


def ifft2(wave: Shaped[Tensor, "*batch H W"]) -> Complex[Tensor, "*batch H W"]:
    """Inverse of `fft2`."""
    return torch.fft.ifft2(wave, norm="ortho")
