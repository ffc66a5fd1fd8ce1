"""How alike two phase images are: structural similarity, alignment of what ptychography cannot know, correlation.

Functions take one image "h w" or a batch "*batch h w" of float tensors and work in float64. A reconstruction that has diverged (infinite
or not a number) scores nan, never an error: a table can show it.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
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
FEWEST = 16  # pixels of a mask that a score is worth giving for


def ssim(
    image: Float[Tensor, "*batch h w"],
    reference: Float[Tensor, "..."],
    *,
    window: Window = "gaussian",
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "*batch"]:
    """Structural similarity of phases as they are; the data range is that of the reference. 1 is the same image, 0 is unrelated.

    The mean over all pixels, or those of the mask, whose window lies inside the image: nan if a mask leaves fewer than 16.

    Args:
        image: what is judged, in rad.
        reference: what it should be, in rad.
        window: "gaussian" of 1.5 px as in Wang et al. (IEEE Trans. Image Process. 13, 600, 2004), or "uniform" of 7 px.
        mask: pixels that count, "h w" or one for each image; the data range stays that of the whole reference.

    Raises:
        ValueError: shapes differ, images are smaller than the window, or a reference is constant.
    """
    maps = _ssim_maps(image, reference, window)
    edge = SMALLEST[window] // 2
    inside = _masks(mask, image)[:, edge : image.shape[-2] - edge, edge : image.shape[-1] - edge]
    mean = (maps * inside).sum((1, 2)) / inside.sum((1, 2))
    return _unless_few(mean, inside).reshape(image.shape[:-2])


def align(
    image: Float[Tensor, "*batch h w"], reference: Float[Tensor, "..."], *, mask: Bool[Tensor, "..."] | None = None
) -> Float[Tensor, "*batch h w"]:
    """The image as `a image + b + c y + d x`, by least squares on the reference.

    Ptychography leaves the constant phase free, and a linear ramp with it where the diffraction patterns may shift; the scale depends on
    how far the reconstruction has converged. A negative scale is not allowed (contrast the wrong way round is an error, not a freedom):
    such an image comes back as the constant and ramp that fit best.

    Args:
        image: what is judged, in rad.
        reference: what it should be, in rad.
        mask: pixels the fit is made on, "h w" or one for each image; it is applied everywhere. With fewer than 16 the result is nan.

    Raises:
        ValueError: shapes differ.
    """
    images, references = _pairs(image, reference)
    fitted, _ = _fit(images, references, _masks(mask, image))
    return fitted.reshape(image.shape).to(image.device, image.dtype)


def ssim_aligned(
    image: Float[Tensor, "*batch h w"],
    reference: Float[Tensor, "..."],
    *,
    window: Window = "gaussian",
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "*batch"]:
    """`ssim` after `align`, both on the mask: blind to the constant, a linear ramp and the scale."""
    return ssim(align(image, reference, mask=mask), reference, window=window, mask=mask)


def worst(
    image: Float[Tensor, "*batch h w"], reference: Float[Tensor, "..."], *, fraction: float = 0.1, window: Window = "gaussian"
) -> Float[Tensor, "*batch"]:
    """Mean of the lowest values of the map whose mean is `ssim_aligned`: by default its worst decile.

    Raises:
        ValueError: as `ssim`, or a fraction that is not between 0 and 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: expected more than 0 and at most 1, got {fraction}")
    maps = _ssim_maps(align(image, reference), reference, window).flatten(1)
    # Sorting puts nan last; a diverged image is nan throughout.
    lowest = maps.sort(1).values[:, : math.ceil(fraction * maps.shape[1])]
    return lowest.mean(1).reshape(image.shape[:-2])


def correlation(
    image: Float[Tensor, "*batch h w"], reference: Float[Tensor, "..."], *, mask: Bool[Tensor, "..."] | None = None
) -> Float[Tensor, "*batch"]:
    """Pearson correlation over the pixels, or those of the mask; 0 if one of the two is constant there.

    Nan if one is not finite or the mask has fewer than 16 pixels.

    Raises:
        ValueError: shapes differ.
    """
    x, y = (v.flatten(1) for v in _pairs(image, reference))
    inside = _masks(mask, image).flatten(1)
    weight = inside.to(torch.float64)
    number = weight.sum(1, keepdim=True)
    # Times the weight, so that nan outside the mask stays nan: half a diverged image is a diverged image.
    u, v = ((k - (k * weight).sum(1, keepdim=True) / number) * weight for k in (x, y))
    power = u.square().sum(1) * v.square().sum(1)
    flat = power <= 1e-24 * (x * weight).square().sum(1) * (y * weight).square().sum(1)
    value = torch.where(flat, 0.0, (u * v).sum(1) / torch.where(flat, 1.0, power).sqrt())
    return _unless_few(value, inside).reshape(image.shape[:-2])


def nrmse(
    image: Float[Tensor, "*batch h w"], reference: Float[Tensor, "..."], *, mask: Bool[Tensor, "..."] | None = None
) -> Float[Tensor, "*batch"]:
    """Root-mean-square error after `align`, over the reference's own rms about its best plane (constant and linear ramp).

    0 is perfect, 1 knows nothing: it is `sqrt(1 - r^2)` of the correlation `r` that is left after constant and ramp are removed from both.
    Nan for a reference that is a plane, an image that is not finite, or a mask of fewer than 16 pixels.

    Raises:
        ValueError: shapes differ.
    """
    images, references = _pairs(image, reference)
    inside = _masks(mask, image)
    fitted, planes = _fit(images, references, inside)
    error, contrast = (((a - references) * inside).square().sum((1, 2)) for a in (fitted, planes))
    plane = contrast <= (1e-12 * references * inside).square().sum((1, 2))
    return torch.where(plane, math.nan, (error / contrast).sqrt()).reshape(image.shape[:-2])


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


def _ssim_maps(image: Tensor, reference: Tensor, window: Window) -> Float[Tensor, "B h2 w2"]:
    """Structural similarity of each pixel whose window lies inside the image."""
    images, references = _pairs(image, reference)
    if min(image.shape[-2:]) < SMALLEST[window]:
        raise ValueError(f"image: expected at least {SMALLEST[window]} pixels along each axis, got {tuple(image.shape[-2:])}")
    edge = SMALLEST[window] // 2
    maps = []
    for x, y in zip(images.numpy(), references.numpy(), strict=True):
        span = float(y.max() - y.min())
        if span == 0:
            raise ValueError("reference: expected an image, got a constant")
        # Infinities would warn on their way to nan.
        if np.isfinite(x).all():
            maps.append(structural_similarity(y, x, data_range=span, full=True, **WINDOWS[window])[1])
        else:
            maps.append(np.full_like(y, math.nan))
    stacked = np.stack(maps) if maps else images.numpy()
    return torch.from_numpy(stacked[:, edge : stacked.shape[1] - edge, edge : stacked.shape[2] - edge])


def _fit(
    images: Float[Tensor, "B h w"], references: Float[Tensor, "B h w"], inside: Bool[Tensor, "B h w"]
) -> tuple[Float[Tensor, "B h w"], Float[Tensor, "B h w"]]:
    """The images aligned with the references inside the mask, and the references' best planes."""
    h, w = images.shape[-2:]
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (h, w))
    planes = torch.stack([torch.ones(h, w, dtype=torch.float64), y[:, None].expand(h, w), x[None, :].expand(h, w)])
    weight = inside.to(torch.float64)
    # A mask along one line leaves the ramp across it open: the pseudo-inverse takes the flattest.
    inverse = torch.linalg.pinv(torch.einsum("khw,lhw,bhw->bkl", planes, planes, weight), rtol=1e-10, hermitian=True)
    own, wanted = (
        torch.einsum("bl,lij->bij", torch.einsum("bhw,khw,bkl->bl", v * weight, planes, inverse), planes) for v in (images, references)
    )
    bad = ~images.isfinite().all(2).all(1)
    flat = images - own
    power = (flat * weight).square().sum((1, 2))
    # Rounding leaves about eps of a constant image; that is not contrast.
    real = power > (1e-12 * images * weight).square().sum((1, 2))
    scale = torch.where(real, (flat * references * weight).sum((1, 2)) / torch.where(real, power, 1.0), 0.0).clamp(min=0)
    fitted = torch.where(bad[:, None, None], math.nan, scale[:, None, None] * flat + wanted)
    return _unless_few(fitted, inside), wanted


def _masks(mask: Tensor | None, image: Tensor) -> Bool[Tensor, "B h w"]:
    """A mask for each image of the batch; all pixels if there is none."""
    shape = tuple(image.shape)
    if mask is None:
        return torch.ones(shape, dtype=torch.bool).reshape(-1, *shape[-2:])
    if tuple(mask.shape) not in (shape, shape[-2:]):
        raise ValueError(f"mask: expected shape {shape} or {shape[-2:]}, got {tuple(mask.shape)}")
    return mask.detach().cpu().expand(shape).reshape(-1, *shape[-2:])


def _unless_few(values: Float[Tensor, "B *rest"], inside: Bool[Tensor, "B *pixels"]) -> Float[Tensor, "B *rest"]:
    """Nan where a mask leaves too few pixels to say anything; an image that is smaller still counts if all of it does."""
    total = inside[:1].numel()
    few = inside.flatten(1).sum(1) < min(FEWEST, total)
    return torch.where(few.reshape(-1, *[1] * (values.ndim - 1)), math.nan, values)


def _pairs(image: Tensor, reference: Tensor) -> tuple[Float[Tensor, "B h w"], Float[Tensor, "B h w"]]:
    """Both as float64 batches on the CPU."""
    if image.ndim < 2 or image.shape != reference.shape:
        raise ValueError(f"image: expected the reference's shape {tuple(reference.shape)}, got {tuple(image.shape)}")
    flat = (v.detach().to("cpu", torch.float64).reshape(-1, *v.shape[-2:]) for v in (image, reference))
    first, second = flat
    return first, second
