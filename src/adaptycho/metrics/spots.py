"""The finest lattice spots of a diffractogram that stand above its background, as in Fig. 4 of Schloz et al. 2022.

The image is seen under a Hann window, or its edges would be a bright cross. A reconstruction that has diverged has the resolution nan,
never an error.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from adaptycho.metrics.spectrum import COARSE, PADDING, Array, Spectrum, background, beside, maxima, prominence, tail
from adaptycho.metrics.window import windowed

FALSE = 0.01  # chance that an image of noise shows a resolution at all
# Of the search for a lattice: what a node's evidence is capped at and costs, the evidence a lattice needs (noise reaches 16 in a thousand
# images, the poorest image of a crystal had 25), and how much fainter than the third brightest a spot may be.
CAP, COST, EVIDENCE, FAINT = 8.0, 0.5, 20.0, 20.0
# Bases of lattices of which the present one is a part of a half or a third.
DENSER = np.array(
    [[[3, 0], [0, 6]], [[6, 0], [0, 3]], [[3, 3], [0, 6]], [[2, 0], [0, 6]], [[6, 0], [0, 2]], [[2, 2], [0, 6]], [[2, 4], [0, 6]]]
)


@dataclass(frozen=True, eq=False)
class Spots:
    """What stands above the background of a diffractogram, one of each Friedel pair, from coarse to fine.

    Attributes:
        frequencies: (ky, kx) in Å⁻¹.
        d: spacing 1 / |k| in Å.
        strength: power over the mean of the background at the same |k|.
        finest: which lie in the finest ring that is resolved, half an element to either side; none if nothing is.
        resolution: spacing in Å that two of one ring reach, nan if nothing is resolved.
        lattice: reciprocal basis in Å⁻¹, (ky, kx) in each row; None if none was given or found.
    """

    frequencies: Float[Tensor, "n 2"]
    d: Float[Tensor, " n"]
    strength: Float[Tensor, " n"]
    finest: Bool[Tensor, " n"]
    resolution: float
    lattice: Float[Tensor, "2 2"] | None


def diffractogram(image: Float[Tensor, "*batch h w"], pixel: float) -> tuple[Float[Tensor, "*batch h2 w2"], tuple[float, float]]:
    """Power spectrum under a Hann window, less a plane, padded to (2 h, 2 w) with zero frequency at (h, w); and its pixel (ky, kx) in Å⁻¹.

    Raises:
        ValueError: fewer than 11 pixels along an axis, or a pixel that is not positive.
    """
    h, w = image.shape[-2:]
    wave = torch.fft.fft2(windowed(image, pixel), s=(PADDING * h, PADDING * w))
    power = torch.fft.fftshift(wave.abs().square(), dim=(-2, -1))
    return power.reshape(*image.shape[:-2], *power.shape[-2:]), (1 / (PADDING * h * pixel), 1 / (PADDING * w * pixel))


def spots(image: Float[Tensor, "h w"], pixel: float, *, lattice: Float[Tensor, "2 2"] | None = None) -> Spots:
    """The lattice spots that stand above the background, and the finest ring of which two do (Schloz et al. 2022, Fig. 4).

    The background is the mean power at the same |k|, away from the lattice's spots. The power of noise is distributed exponentially about
    it, so the factor by which two independent spots of one ring (as wide as 1 / field) have to exceed it follows from the chance, some 1 %,
    that noise does so in any ring. Scan artefacts and the streaks of edges have a heavier tail than noise: the factor grows with the
    background's brightest hundredth, and a spot has to stand out of its surroundings too. (Given a lattice that it does not have, a flat
    island with straight edges still shows a resolution in 3 % of cases.)

    Without a lattice, the one that gathers most of the outstanding peaks is sought, in any orientation; if there is none, single peaks
    count that noise shows with the same chance. Spacings above field / 3.5 are not looked at.

    Args:
        image: phase in rad.
        pixel: its pixel in Å.
        lattice: reciprocal basis in Å⁻¹, (ky, kx) in each row, if it is known.

    Raises:
        ValueError: fewer than 11 pixels along an axis, a pixel that is not positive, or two rows that are no basis.
    """
    power = diffractogram(image, pixel)[0].numpy()
    element = 1 / (min(image.shape) * pixel)
    given = None if lattice is None else lattice.detach().to("cpu", torch.float64).numpy() / element
    if given is not None and not abs(np.linalg.det(given)) > 1e-6 * np.square(given).sum():
        raise ValueError(f"lattice: expected two independent rows (ky, kx) in Å⁻¹, got {given * element}")
    if np.isfinite(power).all():
        spectrum = Spectrum.of(power)
        basis = _find(spectrum) if given is None else _reduced(given[None])[0]
        places, strength, finest = _singles(spectrum) if basis is None else _shells(spectrum, basis)
    else:
        basis, places, strength, finest = given, np.zeros((0, 2)), np.zeros(0), math.nan
    order = np.argsort(np.hypot(*places.T))
    f = torch.from_numpy(places[order] * element)
    k = f.norm(dim=1)
    ring = (k - finest * element).abs() <= 0.5 * element
    basis = None if basis is None else torch.from_numpy(basis * element)
    return Spots(f, 1 / k, torch.from_numpy(strength[order]), ring, 1 / (finest * element), basis)


def diffractogram_resolution(
    image: Float[Tensor, "*batch h w"], pixel: float, *, lattice: Float[Tensor, "2 2"] | None = None, coarsest: float | None = None
) -> Float[Tensor, "*batch"]:
    """Spacing in Å of the finest ring of lattice spots in each image's diffractogram, see `spots`.

    Where nothing stands out it is `coarsest`, by default the largest spacing that is looked at, shorter edge / 3.5. Nan for an image that
    diverged.
    """
    h, w = image.shape[-2:]
    worst = min(h, w) * pixel / COARSE if coarsest is None else coarsest
    found = []
    for one in image.reshape(-1, h, w):
        value = spots(one, pixel, lattice=lattice).resolution if bool(one.isfinite().all()) else None
        found.append(math.nan if value is None else worst if math.isnan(value) else value)
    return torch.tensor(found, dtype=torch.float64).reshape(image.shape[:-2])


def _find(s: Spectrum) -> Array | None:
    """Reciprocal basis, in elements, of the lattice that gathers most of the outstanding peaks; None if noise might gather as much."""
    ratio = prominence(s)
    y, x = maxima(s, ratio)
    # What is much fainter than three peaks, such as a beat of the scan with the crystal, is not what a lattice is fitted to.
    ratio = np.maximum(ratio / max([1.0, *ratio[y[2:3], x[2:3]] / FAINT]), 1)
    evidence = np.minimum(ratio - 1 - np.log(ratio), CAP) - COST
    peaks = s.summit(y, x)
    i, j = np.triu_indices(len(peaks), 1)
    candidates, best, value = _open(np.stack([peaks[i], peaks[j]], 1)), None, -math.inf
    while len(candidates):
        values, reach = _gathered(s, evidence, candidates)
        top = values.argmax()
        if values[top] <= value:
            break
        best = _fitted(s, ratio, candidates[top], reach[top])
        value = max(float(values[top]), float(_gathered(s, evidence, best[None])[0][0]))
        candidates = _open(DENSER / 6 @ best)
    return best if value > EVIDENCE else None


def _gathered(s: Spectrum, evidence: Array, bases: Array) -> tuple[Array, Array]:
    """Evidence summed over the nodes of each basis as far out as it pays, and how far that is."""
    f = _nodes(s.nyquist) @ bases
    k = np.hypot(f[..., 0], f[..., 1])
    each = evidence[s.pixel(f)]
    reach = np.array([0.25, 0.5, 0.75, 1.0]) * s.nyquist
    sums = np.stack([(each * (k < r)).sum(1) for r in reach])
    return sums.max(0), reach[sums.argmax(0)]


def _open(bases: Array) -> Array:
    """Reduced bases of those lattices whose spots can be told apart."""
    bases = _reduced(bases)
    return bases[np.square(bases[:, 0]).sum(1) > COARSE**2]


def _fitted(s: Spectrum, ratio: Array, basis: Array, reach: float) -> Array:
    """The basis by least squares on the peaks near its nodes, from the inner ones outwards."""
    indices = _nodes(reach)
    for part in (0.6, 0.8, 1.0):
        f = indices @ basis
        inner = np.hypot(*f.T) < part * reach
        y, x = s.pixel(f[inner])
        for _ in range(PADDING):
            steps = np.stack([ratio[y + a, x + b] for a in (-1, 0, 1) for b in (-1, 0, 1)]).argmax(0)
            y, x = (y + steps // 3 - 1).clip(1, ratio.shape[0] - 2), (x + steps % 3 - 1).clip(1, ratio.shape[1] - 2)
        weight = np.sqrt(np.where(ratio[y, x] > 4, np.minimum(ratio[y, x], 30), 0))
        left = indices[inner] * weight[:, None]
        if np.linalg.det(left.T @ left) > 1e-6:
            basis = np.linalg.solve(left.T @ left, left.T @ (s.summit(y, x) * weight[:, None]))
    return _reduced(basis[None])[0]


def _shells(s: Spectrum, basis: Array) -> tuple[Array, Array, float]:
    """Nodes of the lattice that stand out, their strength, and the finest |k| that two of one ring reach."""
    f = _nodes(s.nyquist, float(np.hypot(*basis[0]))) @ basis
    k = np.hypot(*f.T)
    seen = (k > COARSE) & (k < s.nyquist)
    f, k = f[seen], k[seen]
    # Spots are a main lobe wide; where they are dense, at most 40 % of the plane are kept from the background.
    away = np.ones(s.logs.shape, dtype=bool)
    y, x = s.pixel(np.concatenate([f, -f]))
    away[y, x] = False
    away = ndimage.distance_transform_edt(away, sampling=[1 / v for v in s.scale]) > min(2.0, float(np.hypot(*basis[0])) / 3)
    # A node has to stand out of its surroundings too, but where a lattice is known twice the noise about it is let pass.
    excess = s.logs - np.maximum(background(s, away), beside(s) - math.log(6))
    strength = np.exp(excess[s.pixel(f)])
    i, j = np.triu_indices(len(f), 1)
    same = abs(k[i] - k[j]) <= 1
    i, j = i[same], j[same]
    limit = 0.5 * math.log(max(len(i), 1) / FALSE) * tail(s, excess, away)
    stands = strength > limit
    both = stands[i] & stands[j]
    return f[stands], strength[stands], float(np.minimum(k[i], k[j])[both].max()) if both.any() else math.nan


def _singles(s: Spectrum) -> tuple[Array, Array, float]:
    """Peaks that stand out by themselves, their strength, and the |k| of the finest."""
    ratio = prominence(s)
    y, x = maxima(s, ratio)
    # The disc's unpadded pixels: twice the Friedel pairs, fewer of which are independent, but maxima lie between pixels too.
    limit = math.log((s.k < s.nyquist).sum() / PADDING**2 / FALSE) * tail(s, np.log(ratio), np.ones(ratio.shape, dtype=bool))
    y, x = y[ratio[y, x] > limit], x[ratio[y, x] > limit]
    f = s.summit(y, x)
    return f, ratio[y, x], float(np.hypot(*f.T).max()) if len(f) else math.nan


def _reduced(bases: Array) -> Array:
    """Shortest vectors of the same lattices (Gauss), shortest first."""
    a, b = bases[:, 0], bases[:, 1]
    for _ in range(32):
        swap = (np.square(a).sum(1) > np.square(b).sum(1))[:, None]
        a, b = np.where(swap, b, a), np.where(swap, a, b)
        length = np.square(a).sum(1)
        # Of parallel vectors one shrinks to nothing.
        steps = np.where(length > 1e-6, np.rint((a * b).sum(1) / np.maximum(length, 1e-6)), 0)
        if not steps.any():
            break
        b = b - steps[:, None] * a
    return np.stack([a, b], 1)


def _nodes(reach: float, shortest: float = COARSE) -> Array:
    """Indices of all nodes within reach of a reduced basis, one of each Friedel pair."""
    # The vectors of a reduced basis are at least 60 degrees apart.
    i = np.arange(-math.ceil(1.16 * reach / shortest), math.ceil(1.16 * reach / shortest) + 1)
    a = np.stack(np.meshgrid(i, i, indexing="ij"), -1).reshape(-1, 2)
    return a[len(a) // 2 + 1 :]
