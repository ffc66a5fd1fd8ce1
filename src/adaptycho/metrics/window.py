"""Images as Fourier transforms should see them: under a Hann window, without constant and ramp."""

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST = 11  # pixels along an axis


def windowed(image: Tensor, pixel: float) -> Float[Tensor, "B h w"]:
    """Under a Hann window, less the plane that fits best there: constant and ramp are free in ptychography, and a ramp has steep edges."""
    if image.ndim < 2 or min(image.shape[-2:]) < SMALLEST:
        raise ValueError(f"image: expected at least {SMALLEST} pixels along each axis, got {tuple(image.shape[-2:])}")
    if not pixel > 0:
        raise ValueError(f"pixel: expected a positive length in Å, got {pixel}")
    values = image.detach().to("cpu", torch.float64).reshape(-1, *image.shape[-2:])
    h, w = values.shape[1:]
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (h, w))
    window = hann(h)[:, None] * hann(w)
    # Orthogonal under the window, which is even along both axes.
    for plane in (torch.ones(h, w, dtype=torch.float64), y[:, None].expand(h, w), x.expand(h, w)):
        seen = window * plane
        values = values - (values * seen).sum((1, 2), keepdim=True) / (seen * plane).sum() * plane
    return values * window


def hann(n: int) -> Float[Tensor, " n"]:
    """Without the zeros at its ends, so that every pixel counts."""
    return torch.hann_window(n + 2, periodic=False, dtype=torch.float64)[1:-1]
