"""Descent on loss plus prior: accelerated proximal gradient steps in the metric of the illumination (Beck and Teboulle 2009).

The potential is made of coefficients x, which the prior is about: V = B x, where B puts a Gaussian blob of sum 1 at every pixel, or nothing
(`Penalty.blobs`). With the Wirtinger gradient g of the loss L, which is half the derivative by V, a step is

    y = x + v,    x <- prox_t(y - s B^T g(B y) / D),    v <- momentum (x - x before),    t = s mu / (2 D),

where D is the illumination seen through B, which bounds the curvature of L up to a constant, and mu the weight of the penalty. Momentum is
dropped where it leads uphill (O'Donoghue and Candes, Found. Comput. Math. 15, 715, 2015), and the step halved where a step without does.

The weight is given in units of the counting noise: a `strength` of 1 sets to zero what does not stand out of sqrt(F), F = 4 N sum B^2 for N
electrons on a pixel. F is the Fisher information of a coefficient if every electron told of it, so sqrt(F) is the most that the derivative
of the log-likelihood can scatter. In vacuum it scatters by half of that for blobs of 0.25 Å in a defocused beam of 33 mrad, and by a third
in focus, whatever the dose, the coverage and the size of pixels.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.reconstruct.data_sets import DataSet
from adaptycho.reconstruct.priors.penalty import Penalty
from adaptycho.support.threads import Map

FLOOR = 0.02  # the metric is at least this fraction of its maximum
GROWTH = 1.05  # of a step that led downhill
SLACK = 1e-6  # of loss plus penalty, that rounding may add


@dataclass(frozen=True)
class Problem:
    """What stays the same in every step.

    Attributes:
        data: that is reconstructed.
        penalty: of the prior.
        weight: mu, of the penalty against the loss summed over positions.
        metric: D at every pixel.
        blob: rms radius of a blob in pixels; 0 for none.
        momentum: fraction of the last move that is carried on.
    """

    data: DataSet
    penalty: Penalty
    weight: float
    metric: Float[Tensor, "H W"]
    blob: float
    momentum: float

    def potential(self, coefficients: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
        """V = B x."""
        return blurred(coefficients, self.blob)


@dataclass
class Point:
    """Where the descent stands.

    Attributes:
        coefficients: x.
        velocity: v.
        step: s.
        total: loss plus penalty where the gradient was last taken; infinite before.
        held: that place and its gradient.
    """

    coefficients: Float[Tensor, "H W"]
    velocity: Float[Tensor, "H W"]
    step: float
    total: float = math.inf
    held: tuple[Tensor, Tensor] | None = None


def advance(problem: Problem, point: Point, lanes: Map) -> float:
    """One step, or one look at a place that turned out to be uphill; returns the loss there, summed over positions."""
    ahead = point.coefficients + point.velocity
    loss, gradient = problem.data.gradient(problem.potential(ahead), lanes, real=True)
    total = loss + problem.weight * float(problem.penalty.value(ahead).sum())
    if point.held is not None and not total <= point.total + SLACK * abs(point.total):
        if bool(point.velocity.any()):
            point.velocity = torch.zeros_like(point.velocity)
            return loss
        ahead, gradient = point.held
        point.step /= 2
    else:
        point.step *= GROWTH if point.held is not None else 1.0
        gradient = blurred(gradient, problem.blob) / problem.metric
        point.held, point.total = (ahead, gradient), total
    reached = problem.penalty.proximal(ahead - point.step * gradient, point.step * problem.weight / 2 / problem.metric)
    move = reached - point.coefficients
    uphill = float(((ahead - reached) * move * problem.metric).sum()) > 0
    point.velocity = torch.zeros_like(move) if uphill else problem.momentum * move
    point.coefficients = reached
    return loss


def weight(penalty: Penalty, strength: float, illumination: Float[Tensor, "H W"], dose: float, nats: float, blob: float) -> float:
    """Mu: the weight of a penalty of some strength, against a loss of patterns of sum 1.

    Args:
        penalty: of the prior.
        strength: in units of the counting noise, to the penalty's power.
        illumination: summed probe intensity at each pixel.
        dose: electrons in a pattern.
        nats: of the log-likelihood in one unit of the loss, for one electron in a pattern.
        blob: rms radius of a blob in pixels.
    """
    seen = float(illumination.square().sum() / illumination.sum())
    energy = float(blurred(_delta(illumination), blob).square().sum())
    return strength * (4 * dose * seen * energy) ** (penalty.power / 2) / (nats * dose)


def metric(illumination: Float[Tensor, "H W"], blob: float) -> Float[Tensor, "H W"]:
    """D: the illumination through the blobs, nowhere much less than at its brightest."""
    seen = blurred(illumination, blob)
    return seen.clamp(min=FLOOR * float(seen.amax()))


def blurred(image: Float[Tensor, "*slices H W"], radius: float) -> Float[Tensor, "*slices H W"]:
    """Convolved with a Gaussian of sum 1 and of some rms radius in pixels; its own transpose."""
    if radius == 0:
        return image
    h, w = image.shape[-2:]
    y, x = (f(n, device=image.device, dtype=image.dtype) for f, n in ((torch.fft.fftfreq, h), (torch.fft.rfftfreq, w)))
    transfer = torch.exp(-2 * (math.pi * radius) ** 2 * (y[:, None].square() + x.square()))
    return torch.fft.irfft2(torch.fft.rfft2(image) * transfer, s=(h, w))


def _delta(like: Tensor) -> Tensor:
    one = torch.zeros_like(like)
    one[like.shape[0] // 2, like.shape[1] // 2] = 1
    return one
