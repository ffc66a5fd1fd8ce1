"""The conventional scans: where a beam goes when nobody looks at the specimen.

Every scan has exactly as many positions as it is asked for, because strategies are only comparable at the same dose. Positions are
fractions (y, x) of the scan field; the field's size in Å matters only through its aspect ratio, so that a raster has square cells and a
Poisson disk is round on the specimen. A scan listed here is used defocused by giving the action a defocus.
"""

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from adaptycho.scan import Pattern

GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
DARTS = 40  # random places tried per Poisson-disk position; more of them pack a little closer
NEVER = -1e9  # a class of distances below all that there are


def pattern(name: Pattern | str, count: int, field: tuple[float, float], *, generator: torch.Generator) -> Float[Tensor, "P 2"]:
    """A conventional scan by name.

    Args:
        name: which scan.
        count: number of positions P; the scan has exactly this many.
        field: size (y, x) of the scan field in Å.
        generator: used by `random`, `poisson-disk` and `jittered`; the others are fixed.

    Raises:
        ValueError: an unknown name, no positions or an empty field.
    """
    match name:
        case "raster":
            return raster(count, field)
        case "hexagonal":
            return hexagonal(count, field)
        case "random":
            return uniform_random(count, field, generator=generator)
        case "halton":
            _check(count, field)
            return halton(count)
        case "poisson-disk":
            return poisson_disk(count, field, generator=generator)
        case "jittered":
            return jittered(count, field, generator=generator)
        case "spiral":
            return spiral(count, field)
        case _:
            raise ValueError(f"pattern: expected one of {', '.join(get_args(Pattern))}, got {name!r}")


def raster(count: int, field: tuple[float, float]) -> Float[Tensor, "P 2"]:
    """Rows from left to right, top to bottom, one position in the centre of each cell; no serpentine.

    Cells are as square as the number allows. Where it does not divide into equal rows, the upper rows hold one more position and are
    taller accordingly, so that every cell has the same area.
    """
    _check(count, field)
    middle = torch.full((count, 2), 0.5, dtype=torch.float64)
    return _in_cells(middle, _rows(count, field[0] / field[1]))


def hexagonal(count: int, field: tuple[float, float]) -> Float[Tensor, "P 2"]:
    """Rows shifted by half a pitch against each other, `sqrt(3)/2` pitches apart."""
    _check(count, field)
    rows = _rows(count, field[0] / field[1] * 2 / math.sqrt(3))
    odd = (torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows)) % 2).to(torch.float64)
    # A quarter to either side instead of a half to one: rows of equal length stay clear of both edges.
    return _in_cells(torch.stack([torch.full_like(odd, 0.5), 0.25 + 0.5 * odd], 1), rows)


def jittered(count: int, field: tuple[float, float], *, generator: torch.Generator) -> Float[Tensor, "P 2"]:
    """A raster with each position moved to a random place inside its own cell (stratified sampling)."""
    _check(count, field)
    return _in_cells(torch.rand(count, 2, generator=generator, dtype=torch.float64), _rows(count, field[0] / field[1]))


def uniform_random(count: int, field: tuple[float, float], *, generator: torch.Generator) -> Float[Tensor, "P 2"]:
    """Independent positions, uniform over the field."""
    _check(count, field)
    return torch.rand(count, 2, generator=generator, dtype=torch.float64)


def halton(count: int) -> Float[Tensor, "P 2"]:
    """The Halton sequence, base 2 down and base 3 across, without its leading (0, 0).

    Not scrambled: the first K points of a longer scan are the scan of K points, which is what sub-sequences need.
    """
    if count < 1:
        raise ValueError(f"count: expected at least one position, got {count}")
    from scipy.stats import qmc  # here, since it takes half a second to load

    return torch.from_numpy(qmc.Halton(2, scramble=False).fast_forward(1).random(count))


def poisson_disk(count: int, field: tuple[float, float], *, generator: torch.Generator) -> Float[Tensor, "P 2"]:
    """Random positions that keep a minimal distance in Å from each other, about as large as the number allows.

    Dart throwing: of many random places, each in turn is kept if it is no closer than the distance to those kept before. The distance is
    bisected until the right number is left, or a few too many, which go where the crowd is thickest. The order stays random.
    """
    _check(count, field)
    size = np.array(field)
    darts = torch.rand(DARTS * count, 2, generator=generator, dtype=torch.float64).numpy() * size
    tree, best = cKDTree(darts), np.arange(len(darts))
    low, high = 0.0, 2 * (math.sqrt(size.prod() / count) + size.max() / count)
    while len(best) > count and high > 1.001 * low:
        radius = (low + high) / 2
        kept = _throw(tree, radius)
        if len(kept) >= count:
            low, best = radius, kept
        else:
            high = radius
    return torch.from_numpy(_thin(darts[best], count) / size)


def spiral(count: int, field: tuple[float, float]) -> Float[Tensor, "P 2"]:
    """Fermat's spiral from the centre outwards, `r = c sqrt(k + 1/2)` at steps of the golden angle, cut to the field."""
    _check(count, field)
    size = torch.tensor(field, dtype=torch.float64)
    # Twice as many as the circle round the field holds at the wanted density, so that no point of the result is missed.
    longest = 16 + math.ceil(2 * count * math.pi * float(size.square().sum()) / (4 * math.prod(field)))
    k = torch.arange(longest, dtype=torch.float64)
    arm = (k + 0.5).sqrt()[:, None] * torch.stack([torch.sin(k * GOLDEN_ANGLE), torch.cos(k * GOLDEN_ANGLE)], 1)
    # Each point leaves the field at its own c and does not come back: between two neighbours in that order exactly `count` are inside.
    leaves = (size / 2 / arm.abs()).amin(1)
    last, first = leaves.sort(descending=True).values[count - 1 : count + 1].tolist()
    even = math.sqrt(math.prod(field) / (math.pi * count))
    c = min(max(even, first + 1e-3 * (last - first)), last - 1e-3 * (last - first))
    return 0.5 + c * arm[leaves > c] / size


def subsequences(positions: Float[Tensor, "P 2"], lengths: Sequence[int]) -> tuple[Float[Tensor, "K 2"], ...]:
    """Splits a scan into sub-sequences of the given lengths.

    Raises:
        ValueError: the lengths do not add up to the number of positions.
    """
    if sum(lengths) != len(positions) or min(lengths, default=0) < 0:
        raise ValueError(f"lengths: expected sub-sequences that add up to {len(positions)} positions, got {list(lengths)}")
    return positions.split(list(lengths))


def spread(positions: Float[Tensor, "P 2"], field: tuple[float, float]) -> Float[Tensor, "P 2"]:
    """The same scan in another order: the first K positions cover the field evenly, whatever K.

    Starts next to the centre and goes on with a position that is about as far as can be from all those visited (farthest-point ordering,
    distances told apart by factors of sqrt(2)). A raster in this order can be split into sub-sequences that each see the whole field.
    """
    # On a lattice many positions are equally far and the first of them is taken. So they are looked at in the order of multiples of the
    # golden ratio, which jumps about the rows, and distances are classed, or the last bits and a slightly taller row would decide.
    jump = torch.argsort(torch.arange(len(positions), dtype=torch.float64) * GOLDEN_RATIO % 1)
    places = (positions[jump].double() - 0.5) * positions.new_tensor(field, dtype=torch.float64)
    cell = math.prod(field) / max(1, len(positions))
    y, x = places.T.contiguous()
    rank, nearest, order = -places.square().sum(1), torch.full_like(y, math.inf), []
    for _ in range(len(positions)):
        order.append(int(rank.argmax()))
        squared = (y - y[order[-1]]).square() + (x - x[order[-1]]).square()
        closer = (squared < nearest).nonzero()[:, 0]  # soon only those round the new place
        nearest[closer] = squared[closer]
        # Clamped, so that a place that is there twice comes again after all others.
        rank[closer] = (squared[closer] / cell).log2().round().clamp(min=NEVER)
        rank[order[-1]] = -math.inf
    return positions[jump[order]]


def _check(count: int, field: tuple[float, float]) -> None:
    if count < 1:
        raise ValueError(f"count: expected at least one position, got {count}")
    if not (len(field) == 2 and all(math.isfinite(f) and f > 0 for f in field)):
        raise ValueError(f"field: expected a positive scan field (y, x) in Å, got {field}")


def _rows(count: int, aspect: float) -> list[int]:
    """Number of positions in each row; `aspect` is height over width of the field in units of the wanted cell's."""
    number = min(max(1, round(math.sqrt(count * aspect))), count)
    short, longer = divmod(count, number)
    # Longer rows together at the top: where two lengths meet the columns go out of step, and so that happens only once.
    return [short + 1] * longer + [short] * (number - longer)


def _in_cells(within: Float[Tensor, "P 2"], rows: list[int]) -> Float[Tensor, "P 2"]:
    """Places fractions of a cell (y, x) into cells of equal area, row by row."""
    lengths = torch.tensor(rows)
    n = torch.repeat_interleave(lengths, lengths).to(torch.float64)
    start = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths).to(torch.float64)
    column = torch.arange(len(within), dtype=torch.float64) - start
    return torch.stack([(start + within[:, 0] * n) / len(within), (column + within[:, 1]) / n], 1)


def _throw(tree: cKDTree, radius: float) -> np.ndarray:
    """Indices of the points kept when each, in order, forbids the circle round it to all that follow."""
    free, kept, i = np.ones(tree.n, dtype=bool), [], 0
    while free[i]:
        kept.append(i)
        free[tree.query_ball_point(tree.data[i], radius)] = False
        i += int(free[i:].argmax())
    return np.array(kept)


def _thin(points: np.ndarray, count: int) -> np.ndarray:
    """Leaves out, one after the other, the point with the nearest neighbour."""
    while len(points) > count:
        nearest = cKDTree(points).query(points, k=2)[0][:, 1]
        points = np.delete(points, int(nearest.argmin()), axis=0)
    return points
