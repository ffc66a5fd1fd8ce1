"""What a phase image says about atoms: where their columns are, and which columns miss some of theirs.

Images are phases in rad inside the scan field, positions (y, x) in Å from its top-left corner, so that pixel i is centred at
`(i + 0.5) * pixel`. Constant, slow variations and scale of the phase, which ptychography does not fix, change nothing. A reconstruction
that has diverged (not finite somewhere) scores nan.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max
from torch import Tensor

FAINT = 0.05  # threshold of columns that a standard error decides about
FEWEST = 4  # sites of a kind, below which nobody can say what is normal
SURROUNDINGS = 2.0  # sigma in Å of the Gaussian that averages them
MAD = 1.4826  # standard deviations of a normal distribution in its median absolute deviation


@dataclass(frozen=True)
class Columns:
    """Atoms as a beam sees them.

    Attributes:
        positions: (y, x) in Å, the mean of each column's atoms.
        kind: equal for columns of the same atoms, numbered from 0.
        count: number of atoms in each.
    """

    positions: Float[Tensor, "m 2"]
    kind: Int[Tensor, " m"]
    count: Int[Tensor, " m"]


@dataclass(frozen=True)
class ColumnError:
    """How well the columns of an image match the true ones.

    Attributes:
        rms: distance in Å over the matched ones; flatters an image in which only the clearest are found.
        found: fraction of the true ones that are matched; 1 if there are none.
        false: fraction of the image's that are not; 0 if it has none.
        error: the number to compare, in Å: `rms` with every miss and every false column at the full reach.
    """

    rms: float
    found: float
    false: float
    error: float


@dataclass(frozen=True)
class Detection:
    """How well defective columns are told from complete ones.

    Attributes:
        f1: harmonic mean of precision and recall; 1 where nothing is missing and nothing called.
        precision: fraction of the called ones that are defective; 1 if none is called.
        recall: fraction of the defective ones that are called; 1 if there are none.
        hits: defective and called.
        false: complete and called.
        missed: defective and not called.
    """

    f1: float
    precision: float
    recall: float
    hits: int
    false: int
    missed: int


def columns_of(positions: Float[np.ndarray, "n 2"], numbers: Int[np.ndarray, " n"], *, within: float = 0.3) -> Columns:
    """Columns of the atoms that project onto the same place.

    Args:
        positions: of atoms, (y, x) in Å.
        numbers: atomic numbers.
        within: atoms nearer than this in Å share a column, also by way of a third.
    """
    pairs = cKDTree(positions).query_pairs(within, output_type="ndarray") if len(positions) else np.zeros((0, 2), dtype=int)
    links = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(positions),) * 2)
    size, column = connected_components(links, directed=False) if len(positions) else (0, np.zeros(0, dtype=int))
    count = np.bincount(column, minlength=size)
    centres = np.stack([np.bincount(column, positions[:, i], minlength=size) for i in (0, 1)], 1) / np.maximum(count, 1)[:, None]
    contents = [tuple(sorted(numbers[column == i].tolist())) for i in range(size)]
    order = {content: i for i, content in enumerate(sorted(set(contents)))}
    kind = torch.tensor([order[c] for c in contents], dtype=torch.long)
    return Columns(torch.from_numpy(centres), kind, torch.from_numpy(count))


def occupancy_of(columns: Columns, positions: Float[np.ndarray, "n 2"], *, within: float = 0.3) -> Float[Tensor, " m"]:
    """Fraction of each column's atoms that are there: `columns` are the ideal crystal's, `positions` (y, x) in Å the specimen's atoms."""
    if not len(columns.count) or not len(positions):
        return torch.zeros(len(columns.count), dtype=torch.float64)
    distance, nearest = cKDTree(columns.positions.numpy()).query(positions)
    present = np.bincount(nearest[distance <= within], minlength=len(columns.count))
    return torch.from_numpy(present / columns.count.numpy())


def evident_columns(
    image: Float[Tensor, "h w"], error: Float[Tensor, "h w"], pixel: float, *, above: float = 3.0, separation: float = 1.0
) -> Float[Tensor, "n 2"]:
    """Those of `find_columns`, the faint ones too, whose phase is higher than the median by so many standard errors.

    Args:
        image: phase in rad.
        error: its standard error in rad (`adaptycho.reconstruct.uncertainty`).
        pixel: edge of a pixel in Å.
        above: standard errors. Two let one in thirteen be an accident on islands at 300 electrons, three one in a hundred.
        separation: shortest distance in Å between two columns.
    """
    found = find_columns(image, pixel, separation=separation, threshold=FAINT)
    values, spread, at = _array(image), _array(error), found.numpy().T / pixel - 0.5
    if not len(found):
        return found
    height, wide = (map_coordinates(some, at, order=1, mode="nearest") for some in (values - np.median(values), spread))
    return found[torch.from_numpy(height > above * wide)]


def find_columns(
    image: Float[Tensor, "h w"], pixel: float, *, separation: float = 1.0, smooth: float | None = None, threshold: float = 0.2
) -> Float[Tensor, "n 2"]:
    """Sub-pixel positions of the bright spots of an image, in Å from its top-left corner; none if the image is not finite.

    Spots are maxima of the difference of two Gaussian smoothings that rise above a fraction of the highest ones; a paraboloid through the
    3 x 3 pixels around each gives its place. Against white noise, a smoothing as wide as the spots is the best there is.

    Args:
        image: phase in rad.
        pixel: edge of a pixel in Å.
        separation: shortest distance in Å between two columns.
        smooth: width (sigma) in Å of the narrower smoothing, a third of the separation by default.
        threshold: height of the lowest spot that counts, as a fraction of the third-highest.
    """
    values = _array(image)
    if not np.isfinite(values).all() or min(values.shape) < 3:
        return torch.zeros(0, 2, dtype=torch.float64)
    sigma = separation / 3 if smooth is None else smooth
    response = _band(values, sigma / pixel, 2 * separation / pixel)
    peaks = peak_local_max(response, min_distance=max(1, math.floor(separation / pixel / 2)), exclude_border=1)
    heights = np.sort(response[tuple(peaks.T)])
    # The third-highest: one hot pixel does not hide the columns.
    level = threshold * heights[-min(3, len(heights))] if len(heights) else 0.0
    chosen = peaks[response[tuple(peaks.T)] > max(level, 1e-9 * np.abs(values).max())]
    return torch.from_numpy((chosen + _summit(response, chosen) + 0.5) * pixel)


def column_error(
    image: Float[Tensor, "h w"],
    columns: Float[Tensor, "n 2"],
    pixel: float,
    *,
    reach: float = 0.8,
    margin: float = 1.0,
    separation: float = 1.0,
    smooth: float | None = None,
    threshold: float = 0.2,
    seen: Float[Tensor, "m 2"] | None = None,
) -> ColumnError:
    """Distance between true columns and those found in the image, matched one to one.

    `error` is the optimal sub-pattern assignment of order 2 (Schuhmacher et al., IEEE Trans. Signal Process. 56, 3447, 2008) with cut-off
    `reach`: the root of the mean of `min(distance, reach)^2` over the best matching, in which what has no partner counts `reach^2`.

    Args:
        image: phase in rad.
        columns: true ones, (y, x) in Å, those outside the field too.
        pixel: edge of a pixel in Å.
        reach: distance in Å beyond which nothing matches.
        margin: columns nearer to the edge of the field than this in Å match but do not count.
        separation, smooth, threshold: see `find_columns`.
        seen: the image's columns, where somebody else has found them, as `evident_columns`.
    """
    if not bool(image.isfinite().all()):
        return ColumnError(math.nan, math.nan, math.nan, math.nan)
    size = np.array(image.shape) * pixel
    there = find_columns(image, pixel, separation=separation, smooth=smooth, threshold=threshold) if seen is None else seen
    true, spots = _array(columns), _array(there)
    true = true[_within(true, size, -reach)]
    distance = np.linalg.norm(true[:, None] - spots[None], axis=2)
    rows, partners = linear_sum_assignment(np.minimum(distance, reach) ** 2)
    close = distance[rows, partners] < reach
    rows, partners = rows[close], partners[close]
    inner, inner_spots = (_within(p, size, margin) for p in (true, spots))
    counted = distance[rows, partners][inner[rows]]
    missed = int(inner.sum()) - len(counted)
    false = int(np.delete(inner_spots, partners).sum())
    squares = float((counted**2).sum())
    return ColumnError(
        rms=math.sqrt(squares / len(counted)) if len(counted) else math.nan,
        found=len(counted) / (len(counted) + missed) if len(counted) + missed else 1.0,
        false=false / (len(counted) + false) if false else 0.0,
        error=math.sqrt((squares + reach**2 * max(missed, false)) / max(1, len(counted) + max(missed, false))),
    )


def vacancy_detection(
    image: Float[Tensor, "h w"],
    sites: Float[Tensor, "n 2"],
    occupancy: Float[Tensor, " n"],
    kind: Int[Tensor, " n"],
    pixel: float,
    *,
    radius: float = 0.6,
    depth: float = 0.3,
    spreads: float = 2.5,
    margin: float = 1.0,
) -> Detection:
    """Finds columns with missing atoms among sites that are known, as from a lattice fit, and counts how often that is right.

    The phase is integrated over a Gaussian disk at each site, less its mean over the surroundings. A column is called defective if it is
    weaker than the median of its kind by `spreads` standard deviations (from the median absolute deviation) and by the fraction `depth` of
    that median: noise decides in a noisy image, and in a clear one half of what an atom out of two would take away.

    Args:
        image: phase in rad.
        sites: all columns of the ideal structure, (y, x) in Å.
        occupancy: fraction of each column's atoms that is present; below 1 is a defect.
        kind: the same number for like columns. Of fewer than four in the field none is called.
        pixel: edge of a pixel in Å.
        radius: of the disk in Å, twice the Gaussian's sigma.
        depth: smallest relative loss of contrast that is called.
        spreads: smallest loss in standard deviations of the kind.
        margin: sites nearer to the edge of the field than this in Å do not count.
    """
    values, place = _array(image), _array(sites)
    inner = _within(place, np.array(values.shape) * pixel, margin)
    defective, kinds = _array(occupancy)[inner] < 1 - 1e-6, kind.cpu().numpy()[inner]
    if not np.isfinite(values).all():
        return Detection(math.nan, math.nan, math.nan, 0, 0, int(defective.sum()))
    signal = _contrast(values, place[inner] / pixel - 0.5, radius / 2 / pixel, SURROUNDINGS / pixel)
    called = np.zeros(len(signal), dtype=bool)
    for like in (kinds == k for k in np.unique(kinds)):
        if like.sum() >= FEWEST:
            centre = np.median(signal[like])
            spread = MAD * np.median(abs(signal[like] - centre))
            called[like] = signal[like] < centre - max(spreads * spread, depth * centre)
    hits, false, missed = (int(v.sum()) for v in (defective & called, ~defective & called, defective & ~called))
    if not hits + false + missed:
        return Detection(1.0, 1.0, 1.0, 0, 0, 0)
    return Detection(
        f1=2 * hits / (2 * hits + false + missed),
        precision=hits / (hits + false) if hits + false else 1.0,
        recall=hits / (hits + missed) if hits + missed else 1.0,
        hits=hits,
        false=false,
        missed=missed,
    )


def _contrast(values: np.ndarray, at: np.ndarray, sigma: float, background: float) -> Float[np.ndarray, " n"]:
    """Phase over a Gaussian disk at sub-pixel places (row, column), less its mean over the surroundings; widths in pixels."""
    difference = _band(values, sigma, background)
    return np.asarray(map_coordinates(difference, at.T, order=3, mode="nearest"))


def _band(values: np.ndarray, narrow: float, wide: float) -> Float[np.ndarray, "h w"]:
    """Difference of two Gaussian smoothings, of widths in pixels, of the image without its best-fitting plane.

    A ramp would not average out at the edges of the image, where the smoothings see only one side.
    """
    y, x = (np.linspace(-1, 1, n) for n in values.shape)
    slope_y = values.mean(1) @ y / (y @ y)
    slope_x = values.mean(0) @ x / (x @ x)
    flat = values - values.mean() - slope_y * y[:, None] - slope_x * x[None, :]
    return gaussian_filter(flat, narrow) - gaussian_filter(flat, wide)


def _summit(response: np.ndarray, peaks: np.ndarray) -> Float[np.ndarray, "n 2"]:
    """Offset in pixels (row, column) of the top of the least-squares paraboloid through the 3 x 3 values around each peak."""
    row, column = peaks.T
    near = np.stack([[response[row + i, column + j] for j in (-1, 0, 1)] for i in (-1, 0, 1)])
    slopes = np.stack([(near[2] - near[0]).sum(0), (near[:, 2] - near[:, 0]).sum(0)], -1) / 6
    yy = (near[0] + near[2] - 2 * near[1]).sum(0) / 3
    xx = (near[:, 0] + near[:, 2] - 2 * near[:, 1]).sum(0) / 3
    xy = (near[0, 0] + near[2, 2] - near[0, 2] - near[2, 0]) / 4
    # A peak's curvatures are negative; a ridge has hardly any along itself, and is left where it is along that.
    determinant = yy * xx - xy**2
    real = (yy < 0) & (xx < 0) & (determinant > 1e-6 * yy * xx)
    offset = np.stack([xy * slopes[:, 1] - xx * slopes[:, 0], xy * slopes[:, 0] - yy * slopes[:, 1]], -1)
    offset = np.divide(offset, determinant[:, None], out=np.zeros_like(offset), where=real[:, None])
    return offset.clip(-1, 1)


def _within(places: np.ndarray, size: np.ndarray, margin: float) -> Bool[np.ndarray, " n"]:
    """Whether each place is in the field and at least `margin` from its edge."""
    return np.minimum(places, size - places).min(axis=1) >= margin


def _array(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()
