"""What each position of a scan was worth: one reward for every agent, from shared by all to its own (section II D).

Every position is an agent, and what is good for the scan has to be told apart into what each of them did. Credits differ in two things: a
quantity that is known at every pixel, and the part of the field, the support, over which an agent collects it.

An agent that chooses its support can game the sum over it without making the picture better. It owns its Voronoi cell: a positive quantity
summed over cells pays for standing apart, a negative one (an error) for crowding together. Averages in fixed windows round the places where
an even scan would have gone cannot be moved, only improved. They need a reference: the reconstruction of a full scan, or the truth.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.learn.voronoi import cells

Name = Literal["shared", "voronoi", "window", "error", "structure", "scattered"]
# Wang et al., IEEE Trans. Image Process. 13, 600 (2004): Gaussian of 1.5 px cut off to 11 px, and the two constants that keep 0 / 0 away.
SIGMA, REACH = 1.5, 5
K1, K2 = 0.01, 0.03


@dataclass(frozen=True, eq=False)
class Result:
    """What an episode came to; B specimens, P positions.

    Attributes:
        potential: phase of the last reconstruction in rad inside the scan field.
        positions: where the beam was reported, fractions (y, x) of the field.
        field: size (y, x) in Å.
        scattered: fraction of the dose that each position sent outside the bright-field disc.
        reference: phase in rad from the full scan, or the true one.
        base: where an even scan would have gone, fractions of the field; fixed supports are centred there.
    """

    potential: Float[Tensor, "B h w"]
    positions: Float[Tensor, "B P 2"]
    field: tuple[float, float]
    scattered: Float[Tensor, "B P"]
    reference: Float[Tensor, "B h w"] | None = None
    base: Float[Tensor, "B P 2"] | None = None


def reward(name: Name, result: Result, *, width: float = 1.2) -> Float[Tensor, "B P"]:
    """The reward of each position. What a diverged reconstruction (infinite or not a number) earns is not finite either.

    - `shared`: the phase summed over the field, over P, the same for all (the paper's first formula). Cannot be gamed by one at another's
      cost, but says nothing about who earned it; and brightness is not likeness.
    - `voronoi`: the phase summed over the position's Voronoi cell, over P (the paper). Gameable: a larger cell collects more phase, so an
      agent gains by keeping away from others and taking an atom alone, and the sum goes on rising when the likeness no longer does.
    - `window`: local structural similarity with the reference (`local_ssim`), averaged in the window of the position's base point. The
      support is fixed: not gameable.
    - `error`: squared error removed, in rad²: the reference's square less that of the difference, each image less its mean, averaged in the
      same windows. 0 for an empty reconstruction. Not gameable by moving, but rewards a reconstruction that is far along: the reference
      has to be the one that is aimed at.
    - `structure`: as `window`, each pixel weighted with the reference's local standard deviation over its mean: atoms count, vacuum does
      not. Not gameable.
    - `scattered`: the fraction of the dose scattered outside the bright-field disc (what the paper proposes for future work). Needs no
      reconstruction. Gameable: all agents earn most on the same heaviest column, and nothing pays for covering the field.

    Args:
        name: which of them.
        result: of the episode.
        width: standard deviation in Å of the Gaussian windows. They are centred on the base points, or on the reported positions if there
            are none, which an agent can move: then it gains by going where the image is good anyway.

    Raises:
        ValueError: no such reward, no reference where one is needed, a width that is not positive, or see `local_ssim` and `cells`.
    """
    if name == "shared":
        count = result.positions.shape[1]
        return (result.potential.sum((1, 2))[:, None] / count).expand(-1, count)
    if name == "voronoi":
        return _in_cells(result.potential, result)
    if name == "scattered":
        return result.scattered
    if name not in get_args(Name):
        raise ValueError(f"reward: expected one of {', '.join(get_args(Name))}, got {name!r}")
    if result.reference is None:
        raise ValueError(f"reference: expected the phase of a full scan or the truth for reward {name}, got none")
    reference = result.reference
    if name == "error":
        image, aim = (v - v.mean((1, 2), keepdim=True) for v in (result.potential, reference))
        return _in_windows(aim.square() - (image - aim).square(), result, width)
    likeness = local_ssim(result.potential, reference)
    if name == "structure":
        spread = _variance(reference).clamp(min=0).sqrt()
        likeness = likeness * spread / spread.mean((1, 2), keepdim=True)
    return _in_windows(likeness, result, width)


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


def _in_cells(quantity: Float[Tensor, "B h w"], result: Result) -> Float[Tensor, "B P"]:
    """The quantity summed over each reported position's Voronoi cell, over the number of positions."""
    count = result.positions.shape[1]
    owner = cells(result.positions, (quantity.shape[1], quantity.shape[2]), result.field).flatten(1)
    return quantity.new_zeros(len(quantity), count).scatter_add_(1, owner, quantity.flatten(1)) / count


def _in_windows(quantity: Float[Tensor, "B h w"], result: Result, width: float) -> Float[Tensor, "B P"]:
    """The quantity averaged under a Gaussian round each base point, over the part of it that lies in the field."""
    if not width > 0:
        raise ValueError(f"width: expected a positive length in Å, got {width}")
    centres = (result.positions if result.base is None else result.base).to(quantity).clamp(0, 1)
    weights = []
    for axis, n in enumerate(quantity.shape[1:]):
        pixels = (torch.arange(n, dtype=quantity.dtype, device=quantity.device) + 0.5) / n
        distance = (centres[:, :, axis, None] - pixels) * (result.field[axis] / width)
        # A normalised Gaussian, whatever is cut off at the edge and however narrow it is.
        weights.append(torch.softmax(-distance.square() / 2, -1))
    return ((weights[0] @ quantity) * weights[1]).sum(-1)


def _variance(image: Float[Tensor, "B h w"]) -> Float[Tensor, "B h w"]:
    flat = image - image.mean((1, 2), keepdim=True)
    return _blur(flat.square()) - _blur(flat).square()


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
