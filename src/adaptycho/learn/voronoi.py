"""Voronoi cells of scan positions by jump flooding: which position is nearest to each pixel, for a whole batch at once.

Jump flooding (Rong and Tan, Proc. I3D 2006, 109) asks, in rounds of steps ..., 8, 4, 2, 1, eight pixels that are one step away for the
position they know, and keeps the nearest heard of: a number of rounds that grows with the logarithm of the image, whatever the number of
positions. Two more rounds (JFA+2 of the same authors) leave fewer than one pixel in ten thousand wrong where pixels are about square, at
the tips of cells thinner than a pixel, and what is found there is hardly further than the nearest. Positions along a line much thinner
than a pixel are told apart only roughly.

As published each seed starts from a pixel of its own. Scan positions are not on pixels and several may share one, so here every position
starts from the 5 x 5 pixels round it, each of which keeps the nearest.
"""

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor

NEAR = 2  # pixels to each side that a position starts from


def cells(positions: Float[Tensor, "B P 2"], shape: tuple[int, int], field: tuple[float, float]) -> Int[Tensor, "B h w"]:
    """Index of the position nearest to each pixel's centre.

    Pixel `i` of `h` has its centre at the fraction `(i + 1/2) / h`. Of positions at the same place the one with the lowest index gets the
    cell. The result is approximate: see the module.

    Args:
        positions: fractions (y, x) of the field. Those outside have what of their cell reaches into the field, more roughly the further out
            they are.
        shape: pixels (y, x) of the field.
        field: size (y, x) in Å, in which distances are measured.

    Raises:
        ValueError: there is no position, or one is not finite.
    """
    if positions.shape[1] == 0 or not bool(positions.isfinite().all()):
        raise ValueError(f"positions: expected at least one, all finite, got shape {tuple(positions.shape)}")
    # In pixels, from the first pixel's centre; a position that does not exist is infinitely far away.
    places = positions * positions.new_tensor(shape) - 0.5
    places = torch.cat([places, torch.full_like(places[:, :1], torch.inf)], 1)
    pixel = positions.new_tensor([field[0] / shape[0], field[1] / shape[1]])
    nearest = _start(places, shape, pixel)
    step = 1 << max(0, (max(shape) - 1).bit_length() - 1)
    while step:
        nearest = _jump(nearest, places, pixel, step)
        step //= 2
    for step in (2, 1):
        nearest = _jump(nearest, places, pixel, step)
    return nearest


def _start(places: Float[Tensor, "B P1 2"], shape: tuple[int, int], pixel: Float[Tensor, " 2"]) -> Int[Tensor, "B h w"]:
    """For each pixel the nearest of the positions that have it among their 5 x 5, or else the one that does not exist."""
    batch, none = places.shape[0], places.shape[1] - 1
    seeds = places[:, :-1, None]
    around = torch.tensor(list(itertools.product(range(-NEAR, NEAR + 1), repeat=2)), device=places.device)
    first, last = places.new_zeros(2), places.new_tensor(shape) - 1
    # Clamped twice: a position outside starts from the edge, and what sticks out of the image falls on its edge.
    asked = (seeds.round().clamp(first, last) + around).clamp(first, last)
    distance = ((asked - seeds) * pixel).square().sum(-1).flatten(1)
    index = (asked[..., 0] * shape[1] + asked[..., 1]).long().flatten(1)
    least = torch.full((batch, shape[0] * shape[1]), torch.inf, dtype=places.dtype, device=places.device)
    least.scatter_reduce_(1, index, distance, "amin")
    number = torch.arange(none, device=places.device).repeat_interleave(len(around)).expand_as(index)
    number = torch.where(distance == least.gather(1, index), number, none)
    nearest = torch.full_like(least, none, dtype=torch.long)
    return nearest.scatter_reduce_(1, index, number, "amin").view(batch, *shape)


def _jump(nearest: Int[Tensor, "B h w"], places: Float[Tensor, "B P1 2"], pixel: Float[Tensor, " 2"], step: int) -> Int[Tensor, "B h w"]:
    """One round: each pixel asks the eight that are `step` away along rows, columns and diagonals."""
    h, w = nearest.shape[1:]
    y, x = (torch.arange(n, dtype=places.dtype, device=places.device) * p for n, p in zip((h, w), pixel, strict=True))
    down, across = (t.gather(1, nearest.flatten(1)).view(nearest.shape) for t in (places * pixel).unbind(-1))
    best, found = (down - y[:, None]).square() + (across - x).square(), nearest.clone()
    for dy, dx in itertools.product((-step, 0, step), repeat=2):
        if (dy, dx) == (0, 0) or abs(dy) >= h or abs(dx) >= w:
            continue
        # Pixels that have such a neighbour inside the image, and those neighbours.
        rows, columns = slice(max(0, -dy), h - max(0, dy)), slice(max(0, -dx), w - max(0, dx))
        asked = (slice(None), slice(max(0, dy), h + min(0, dy)), slice(max(0, dx), w + min(0, dx)))
        far = (down[asked] - y[rows, None]).square() + (across[asked] - x[columns]).square()
        known, current = best[:, rows, columns], found[:, rows, columns]
        current.copy_(torch.where(far < known, nearest[asked], current))
        known.copy_(torch.minimum(far, known))
    return found
