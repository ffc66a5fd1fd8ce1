"""Newton steps of what moves patterns without changing them: positions, one affine map for all of them, defocus; and of intensities.

Slopes and curvatures of each pattern's loss (`passes.tangents`) are a quadratic model in its displacement along y and x, a change of
defocus and one of the logarithm of its amplitude. Each parameter goes to the minimum of that model, what is common to all patterns first.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

DAMPING = 0.1  # of the mean curvature, added to that of each pattern: one alone knows little of its place
FARTHEST = 0.5  # object pixels, that a displacement by a common parameter or by a pattern's own may be at one step


@dataclass(frozen=True, eq=False)
class Move:
    """Changes of one data set's geometry.

    Attributes:
        affine: of the matrix that acts on distances from the middle of the field, in pixels.
        free: displacement in pixels of each position beyond that.
        defocus: in Å.
        level: of the logarithm of each amplitude.
        thickness: in Å, from one slice to the next.
    """

    affine: Float[Tensor, "2 2"]
    free: Float[Tensor, "K 2"]
    defocus: float
    level: Float[Tensor, " K"]
    thickness: float


def move(
    slopes: Float[Tensor, "K 5"],
    curvatures: Float[Tensor, "K 5 5"],
    distance: Float[Tensor, "K 2"],
    names: Collection[str],
    deepest: float,
) -> Move:
    """A step of the named parameters.

    Args:
        slopes: along y and x in pixels, defocus and distance of slices in Å, logarithm of amplitude.
        curvatures: the same.
        distance: of each position from the middle of the field, in pixels, as reported.
        names: of the parameters.
        deepest: Å that the defocus or the distance of slices may change by.
    """
    slope, bend = slopes.double(), curvatures.double()
    defocus, thickness, affine = 0.0, 0.0, torch.zeros(2, 2, dtype=torch.float64, device=slope.device)
    free, level = torch.zeros_like(slope[:, :2]), torch.zeros_like(slope[:, 4])
    if "defocus" in names:
        defocus = _one(slope, bend, 2, deepest)
        slope = slope + bend[:, :, 2] * defocus
    if "thickness" in names:
        thickness = _one(slope, bend, 3, deepest)
        slope = slope + bend[:, :, 3] * thickness
    maps = _maps(names).to(slope)
    if len(maps):
        shift = torch.einsum("jab,kb->kja", maps, distance.to(slope))
        curvature = torch.einsum("kja,kab,klb->jl", shift, bend[:, :2, :2], shift)
        affine = torch.einsum("j,jab->ab", _solved(curvature, torch.einsum("kja,ka->j", shift, slope[:, :2])), maps)
        moved = distance.to(slope) @ affine.T
        affine = affine * min(1.0, FARTHEST / max(float(moved.abs().amax()), 1e-12))
        slope = slope + torch.einsum("kab,kb->ka", bend[:, :, :2], distance.to(slope) @ affine.T)
    if "positions" in names:
        damped = bend[:, :2, :2] + DAMPING * bend[:, :2, :2].mean(0)
        free = _solved(damped, slope[:, :2]).clamp(-FARTHEST, FARTHEST)
        free = free - free.mean(0)  # the object moves along with all of them
    if "intensities" in names:
        level = (-slope[:, 4] / bend[:, 4, 4].clamp(min=torch.finfo(torch.float64).tiny)).clamp(-0.3, 0.3)
        level = level - level.mean()  # the probe takes what is common
    return Move(affine, free, defocus, level, thickness)


def _one(slope: Tensor, bend: Tensor, which: int, most: float) -> float:
    """Change of one number that all patterns share."""
    change = -slope[:, which].sum() / bend[:, which, which].sum().clamp(min=torch.finfo(torch.float64).tiny)
    return float(change.clamp(-most, most))


def _maps(names: Collection[str]) -> Tensor:
    """The changes of an affine map that are allowed."""
    if "affine" in names:
        return torch.eye(4).view(4, 2, 2)
    return torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]]) if "rotation" in names else torch.empty(0, 2, 2)


def _solved(curvature: Float[Tensor, "*batch J J"], slope: Float[Tensor, "*batch J"]) -> Float[Tensor, "*batch J"]:
    """Where the quadratic model has its minimum; where it is flat, here."""
    some = torch.finfo(curvature.dtype).eps * curvature.diagonal(dim1=-2, dim2=-1).sum(-1) + torch.finfo(curvature.dtype).tiny
    return -torch.linalg.solve(curvature + some[..., None, None] * torch.eye(curvature.shape[-1]).to(curvature), slope[..., None])[..., 0]
