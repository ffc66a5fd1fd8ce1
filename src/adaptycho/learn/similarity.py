"""Structural similarity and contrast round each pixel of an image."""

import torch
from jaxtyping import Float
from torch import Tensor

# Wang et al., IEEE Trans. Image Process. 13, 600 (2004): Gaussian of 1.5 px cut off to 11 px, and the two constants that keep 0 / 0 away.
SIGMA, REACH = 1.5, 5
K1, K2 = 0.01, 0.03


def local_ssim(image: Float[Tensor, "B h w"], reference: Float[Tensor, "B h w"]) -> Float[Tensor, "B h w"]:
    """Structural similarity round each pixel: the map whose mean is `adaptycho.metrics.ssim`, in the image's type and on its device.

    Gaussian window, population covariance, data range of the reference. At the edges, which `metrics.ssim` leaves out, both images are
    mirrored (the last pixel twice).

    Raises:
        ValueError: a reference is constant.
    """
    span = (reference.amax((1, 2)) - reference.amin((1, 2)))[:, None, None]
    if not bool((span > 0).all()):
        raise ValueError("reference: expected images, got a constant")
    c1, c2 = (K1 * span).square(), (K2 * span).square()
    # Second moments of images without their mean: float32 would not survive the difference of large squares.
    middle_x, middle_y = (v.mean((1, 2), keepdim=True) for v in (image, reference))
    x, y = image - middle_x, reference - middle_y
    low_x, low_y, xx, yy, xy = _blur(torch.stack([x, y, x * x, y * y, x * y])).unbind(0)
    variances, covariance = xx + yy - low_x.square() - low_y.square(), xy - low_x * low_y
    low_x, low_y = low_x + middle_x, low_y + middle_y
    luminance = (2 * low_x * low_y + c1) / (low_x.square() + low_y.square() + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def local_deviation(image: Float[Tensor, "B h w"]) -> Float[Tensor, "B h w"]:
    """Standard deviation round each pixel, in the same window."""
    flat = image - image.mean((1, 2), keepdim=True)
    return (_blur(flat.square()) - _blur(flat).square()).clamp(min=0).sqrt()


def _blur(images: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch h w"]:
    """Gaussian of the similarity window along both axes, as two products with small matrices."""
    down, across = (_smoothing(n).to(images) for n in images.shape[-2:])
    return down @ images @ across.T


def _smoothing(n: int) -> Float[Tensor, "n n"]:
    """Matrix that smooths `n` pixels, mirrored beyond their ends."""
    offset = torch.arange(-REACH, REACH + 1)
    weight = torch.exp(-offset.double().square() / (2 * SIGMA**2))
    source = (torch.arange(n)[:, None] + offset) % (2 * n)
    source = torch.minimum(source, 2 * n - 1 - source)
    return torch.zeros(n, n, dtype=torch.float64).scatter_add_(1, source, (weight / weight.sum()).expand(n, -1).contiguous())
