"""The finest lattice spots of a diffractogram that stand above its background, as in Fig. 4 of Schloz et al. 2022.

The image is seen under a Hann window, or its edges would be a bright cross. A reconstruction that has diverged has the resolution nan,
never an error.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from adaptycho.metrics.window import windowed

Array = NDArray[Any]
PADDING = 2  # pixels of a diffractogram per element of resolution, 1 / (shorter edge of the image)
COARSE = 3.5  # elements: a Hann window's main lobe reaches 2, spots that are nearer are not seen apart
BESIDE = 2.75  # elements of each axis from the middle of a spot to what is certainly beside it
FALSE = 0.01  # chance that an image of noise shows a resolution at all
LEAK = 1e-8  # of the brightest power
EULER = float(np.euler_gamma)  # noise power is distributed exponentially: its mean logarithm is that of its mean, less this
# Of the search for a lattice: peaks it starts from, what a node's evidence is capped at and costs, the evidence a lattice needs (noise
# reaches 16 in a thousand images, the poorest image of a crystal had 25), and how much fainter than the third brightest a spot may be.
PEAKS, CAP, COST, EVIDENCE, FAINT = 12, 8.0, 0.5, 20.0, 20.0
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
        spectrum = _Spectrum.of(power)
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


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """A diffractogram by numbers: logarithms of power; |k| in elements; pixels per element (y, x); Nyquist's frequency in elements."""

    logs: Array
    k: Array
    scale: tuple[float, float]
    nyquist: float

    @staticmethod
    def of(power: Array) -> "_Spectrum":
        h, w = power.shape
        n = min(h, w)
        # Less than this is not the image's but leaks through the window.
        floor = LEAK * float(power.max()) + 1e-300
        return _Spectrum(np.log(power + floor), _moduli(h, w), (PADDING * h / n, PADDING * w / n), n / PADDING / 2)

    def pixel(self, f: Array) -> tuple[Array, Array]:
        """Nearest pixels of frequencies in elements; those outside come back to the edge."""
        y, x = (np.rint(f[..., i] * self.scale[i]).astype(int) + n // 2 for i, n in enumerate(self.logs.shape))
        return y.clip(1, self.logs.shape[0] - 2), x.clip(1, self.logs.shape[1] - 2)

    def summit(self, y: Array, x: Array) -> Array:
        """Frequencies of peaks, between pixels: the parabola through the logarithms of three."""
        out = []
        for below, above, i, at in ((self.logs[y - 1, x], self.logs[y + 1, x], 0, y), (self.logs[y, x - 1], self.logs[y, x + 1], 1, x)):
            bend = 2 * self.logs[y, x] - below - above
            shift = np.where(bend > 0, 0.5 * (above - below) / np.where(bend > 0, bend, 1), 0).clip(-0.6, 0.6)
            out.append((at - self.logs.shape[i] // 2 + shift) / self.scale[i])
        return np.stack(out, -1)


def _find(s: _Spectrum) -> Array | None:
    """Reciprocal basis, in elements, of the lattice that gathers most of the outstanding peaks; None if noise might gather as much."""
    ratio = _prominence(s)
    y, x = _peaks(s, ratio)
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


def _gathered(s: _Spectrum, evidence: Array, bases: Array) -> tuple[Array, Array]:
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


def _fitted(s: _Spectrum, ratio: Array, basis: Array, reach: float) -> Array:
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


def _shells(s: _Spectrum, basis: Array) -> tuple[Array, Array, float]:
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
    excess = s.logs - np.maximum(_background(s, away), _beside(s) - math.log(6))
    strength = np.exp(excess[s.pixel(f)])
    i, j = np.triu_indices(len(f), 1)
    same = abs(k[i] - k[j]) <= 1
    i, j = i[same], j[same]
    limit = 0.5 * math.log(max(len(i), 1) / FALSE) * _tail(s, excess, away)
    stands = strength > limit
    both = stands[i] & stands[j]
    return f[stands], strength[stands], float(np.minimum(k[i], k[j])[both].max()) if both.any() else math.nan


def _singles(s: _Spectrum) -> tuple[Array, Array, float]:
    """Peaks that stand out by themselves, their strength, and the |k| of the finest."""
    ratio = _prominence(s)
    y, x = _peaks(s, ratio)
    # The disc's unpadded pixels: twice the Friedel pairs, fewer of which are independent, but maxima lie between pixels too.
    limit = math.log((s.k < s.nyquist).sum() / PADDING**2 / FALSE) * _tail(s, np.log(ratio), np.ones(ratio.shape, dtype=bool))
    y, x = y[ratio[y, x] > limit], x[ratio[y, x] > limit]
    f = s.summit(y, x)
    return f, ratio[y, x], float(np.hypot(*f.T).max()) if len(f) else math.nan


def _tail(s: _Spectrum, excess: Array, away: Array) -> float:
    """How much heavier than that of noise, 1, the tail of the background is: its brightest hundredth."""
    background = excess[away & (s.k > COARSE) & (s.k < s.nyquist)]
    return max(1.0, math.exp(float(np.quantile(background, 0.99))) / math.log(100)) if len(background) else 1.0


def _background(s: _Spectrum, use: Array) -> Array:
    """Logarithm of the mean power of noise at each |k|: a local line through the mean logarithms of half-element rings."""
    rings = int(2 * s.nyquist) + 2
    use = use & (s.k > 1.75) & (s.k < s.nyquist + 0.25)
    ring = np.rint(2 * s.k[use]).astype(int)
    number, total = np.bincount(ring, minlength=rings), np.bincount(ring, s.logs[use], minlength=rings)
    i = np.arange(rings)
    # Outer rings hold more coefficients, so fewer of them are enough.
    width = (28 / np.maximum(i, 1)).clip(1, 6)
    offset = i - i[:, None]
    weight = np.exp(-0.5 * (offset / width[:, None]) ** 2)
    n0, n1, n2 = (weight * offset**p @ number + (p != 1) * 1e-9 for p in range(3))
    t0, t1 = (weight * offset**p @ total for p in range(2))
    level = np.where(n0 * n2 - n1**2 > 1e-3 * n0**2, (n2 * t0 - n1 * t1) / np.maximum(n0 * n2 - n1**2, 1e-12), t0 / n0)
    return np.interp(s.k, i / 2, level + EULER)


def _prominence(s: _Spectrum) -> Array:
    """Power over the background, or over that of a peak's surroundings where these are brighter."""
    ring = _background(s, np.ones(s.logs.shape, dtype=bool))
    # Spots are many times brighter than noise gets; without them the background is lower, and more of them show.
    for _ in range(2):
        ring = _background(s, s.logs - ring < math.log(8))
    return np.exp(s.logs - np.maximum(ring, _beside(s) - math.log(3)))


def _beside(s: _Spectrum) -> Array:
    """Logarithm of the brightest of twelve places round about: in noise 3 times the mean, along a streak as bright as the middle."""
    smooth, brightest = ndimage.uniform_filter(np.exp(s.logs), 3, mode="wrap"), np.zeros(s.logs.shape)
    for angle in np.arange(12) * math.pi / 6:
        y, x = round(BESIDE * PADDING * math.sin(angle)), round(BESIDE * PADDING * math.cos(angle))
        np.maximum(brightest, np.roll(smooth, (y, x), (0, 1)), out=brightest)
    return np.log(brightest)


def _peaks(s: _Spectrum, ratio: Array) -> tuple[Array, Array]:
    """Pixels of the most outstanding maxima, brightest first, one of each Friedel pair."""
    middle = (ratio.shape[0] // 2, ratio.shape[1] // 2)
    lower = ratio[middle[0] - 1 :]
    top = (lower == ndimage.maximum_filter(lower, 3)) & (s.k[middle[0] - 1 :] > COARSE) & (s.k[middle[0] - 1 :] < s.nyquist)
    top[[0, -1]], top[:, [0, -1]], top[1, : middle[1]] = False, False, False
    y, x = top.nonzero()
    y += middle[0] - 1
    order = np.argsort(-ratio[y, x])[:PEAKS]
    return y[order], x[order]


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


@lru_cache(maxsize=16)
def _moduli(h: int, w: int) -> Array:
    """|k| of a diffractogram's pixels, in elements."""
    n = min(h, w)
    y, x = (np.arange(m) - m // 2 for m in (h, w))
    return np.hypot(y[:, None] * n / h, x * n / w) / PADDING
