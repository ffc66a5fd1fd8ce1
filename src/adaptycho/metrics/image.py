"""How alike two phase images are: structural similarity, alignment of what ptychography cannot know, correlation, intervals.

Functions take one image "h w" or a batch "*batch h w" of float tensors and work in float64. A reconstruction that has diverged (infinite
or not a number) scores nan, never an error: a table can show it.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from skimage.metrics import structural_similarity
from torch import Tensor

Window = Literal["gaussian", "uniform"]
WINDOWS: dict[Window, dict[str, Any]] = {
    # Wang et al. 2004: Gaussian of 1.5 px, cut off at 3.5 sigma (11 px), population covariance.
    "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    # scikit-image's own default, 7 px, of this project's first measurements.
    "uniform": {"win_size": 7},
}
SMALLEST: dict[Window, int] = {"gaussian": 11, "uniform": 7}


def ssim(image: Float[Tensor, "*batch h w"], reference: Float[Tensor, "..."], *, window: Window = "gaussian") -> Float[Tensor, "*batch"]:
    """Structural similarity of phases as they are; the data range is that of the reference. 1 is the same image, 0 is unrelated.

    Args:
        image: what is judged, in rad.
        reference: what it should be, in rad.
        window: "gaussian" of 1.5 px as in Wang et al. (IEEE Trans. Image Process. 13, 600, 2004), or "uniform" of 7 px.

    Raises:
        ValueError: shapes differ, images are smaller than the window, or a reference is constant.
    """
    images, references = _pairs(image, reference)
    if min(image.shape[-2:]) < SMALLEST[window]:
        raise ValueError(f"image: expected at least {SMALLEST[window]} pixels along each axis, got {tuple(image.shape[-2:])}")
    scores = []
    for x, y in zip(images.numpy(), references.numpy(), strict=True):
        span = float(y.max() - y.min())
        if span == 0:
            raise ValueError("reference: expected an image, got a constant")
        # Infinities would warn on their way to nan.
        scores.append(structural_similarity(y, x, data_range=span, **WINDOWS[window]) if np.isfinite(x).all() else math.nan)
    return torch.tensor(scores, dtype=torch.float64).reshape(image.shape[:-2])


def align(image: Float[Tensor, "*batch h w"], reference: Float[Tensor, "..."]) -> Float[Tensor, "*batch h w"]:
    """The image as `a image + b + c y + d x`, by least squares on the reference.

    Ptychography leaves the constant phase free, and a linear ramp with it where the diffraction patterns may shift; the scale depends on
    how far the reconstruction has converged. A negative scale is not allowed (contrast the wrong way round is an error, not a freedom):
    such an image comes back as the constant and ramp that fit best.

    Raises:
        ValueError: shapes differ.
    """
    images, references = _pairs(image, reference)
    h, w = image.shape[-2:]
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (h, w))
    planes = torch.stack([torch.ones(h, w, dtype=torch.float64), y[:, None].expand(h, w), x[None, :].expand(h, w)])
    # Constant and ramps are orthogonal on this grid; what is left after them decides the scale.
    norms = planes.square().sum((1, 2)).clamp(min=torch.finfo(torch.float64).tiny)

    def plane(v: Tensor) -> Tensor:
        return torch.einsum("bhw,khw,k,kij->bij", v, planes, 1 / norms, planes)

    flat, wanted = images - plane(images), plane(references)
    power = flat.square().sum((1, 2))
    # Rounding leaves about eps of a constant image; that is not contrast.
    real = power > (1e-12 * images).square().sum((1, 2))
    scale = torch.where(real, (flat * references).sum((1, 2)) / torch.where(real, power, 1.0), 0.0).clamp(min=0)
    bad = ~images.isfinite().all(2).all(1)
    fitted = torch.where(bad[:, None, None], math.nan, scale[:, None, None] * flat + wanted)
    return fitted.reshape(image.shape).to(image.device, image.dtype)


def ssim_aligned(
    image: Float[Tensor, "*batch h w"], reference: Float[Tensor, "..."], *, window: Window = "gaussian"
) -> Float[Tensor, "*batch"]:
    """`ssim` after `align`: blind to the constant, a linear ramp and the scale."""
    return ssim(align(image, reference), reference, window=window)


def correlation(image: Float[Tensor, "*batch h w"], reference: Float[Tensor, "..."]) -> Float[Tensor, "*batch"]:
    """Pearson correlation over the pixels; 0 if one of the two is constant, nan if one is not finite.

    Raises:
        ValueError: shapes differ.
    """
    x, y = (v.flatten(1) for v in _pairs(image, reference))
    u, v = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    power = u.square().sum(1) * v.square().sum(1)
    flat = power <= 1e-24 * x.square().sum(1) * y.square().sum(1)
    value = torch.where(flat, 0.0, (u * v).sum(1) / torch.where(flat, 1.0, power).sqrt())
    return value.reshape(image.shape[:-2])


def relative_improvement(a: Float[Tensor, "*batch"] | float, b: Float[Tensor, "*batch"] | float) -> Float[Tensor, "*batch"] | float:
    """`(a - b) / b`: how much better score `a` is than score `b`; Q_SSIM of Schloz et al. when `b` is the random scan's."""
    return (a - b) / b


def bootstrap_interval(
    values: Float[Tensor, " N"], *, generator: torch.Generator, level: float = 0.95, samples: int = 10_000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean. With fewer than about ten values it is too narrow; with one it has no width.

    Raises:
        ValueError: no values, or a level that is not between 0 and 1.
    """
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values: expected at least one value along one axis, got shape {tuple(values.shape)}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a probability between 0 and 1, got {level}")
    drawn = torch.randint(len(values), (samples, len(values)), generator=generator, device=generator.device).to(values.device)
    means = values.to(torch.float64)[drawn].mean(1)
    low, high = torch.quantile(means, means.new_tensor([(1 - level) / 2, (1 + level) / 2])).tolist()
    return low, high


def band_limit(image: Float[Tensor, "*batch h w"], pixel: float, cutoff: float, *, softness: float = 0.0) -> Float[Tensor, "*batch h w"]:
    """Low-pass filter, to compare a reconstruction with a truth that is no sharper than it can be.

    The image is taken as periodic: filter the whole object, then crop.

    Args:
        image: phase in rad.
        pixel: edge of a pixel in Å.
        cutoff: highest spatial frequency kept in Å⁻¹; half transmission if the edge is soft.
        softness: width of the raised-cosine edge as a fraction of the cutoff, 0 (sharp) to 2.

    Raises:
        ValueError: pixel or cutoff not positive, softness out of range.
    """
    if not (pixel > 0 and cutoff > 0):
        raise ValueError(f"cutoff: expected a positive frequency in Å⁻¹ and pixel in Å, got {cutoff} and {pixel}")
    if not 0 <= softness <= 2:
        raise ValueError(f"softness: expected a fraction of the cutoff between 0 and 2, got {softness}")
    h, w = image.shape[-2:]
    ky = torch.fft.fftfreq(h, pixel, dtype=torch.float64, device=image.device)[:, None]
    kx = torch.fft.rfftfreq(w, pixel, dtype=torch.float64, device=image.device)[None, :]
    k = torch.hypot(ky, kx) / cutoff
    if softness == 0:
        # A frequency that equals the cutoff up to rounding is kept.
        weight = (k <= 1 + 1e-9).to(torch.float64)
    else:
        weight = 0.5 + 0.5 * torch.cos(math.pi * ((k - 1) / softness + 0.5).clamp(0, 1))
    return torch.fft.irfft2(torch.fft.rfft2(image.to(torch.float64)) * weight, s=(h, w)).to(image.dtype)


def _pairs(image: Tensor, reference: Tensor) -> tuple[Float[Tensor, "B h w"], Float[Tensor, "B h w"]]:
    """Both as float64 batches on the CPU."""
    if image.ndim < 2 or image.shape != reference.shape:
        raise ValueError(f"image: expected the reference's shape {tuple(reference.shape)}, got {tuple(image.shape)}")
    flat = (v.detach().to("cpu", torch.float64).reshape(-1, *v.shape[-2:]) for v in (image, reference))
    first, second = flat
    return first, second
