"""How fine an image is: Fourier ring correlation with a reference, and the finest lattice spots of its diffractogram.

Both look at the image under a Hann window: its opposite edges do not match, and the step between them would be a bright cross through the
origin of every Fourier transform, alike in any two images. A reconstruction that has diverged has the resolution nan, never an error.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy import fft, ndimage
from torch import Tensor

Threshold = Literal["half-bit", "one-seventh"]
Array = NDArray[Any]
ONE_SEVENTH = 1 / 7
FEWEST = 4.0  # independent coefficients of a ring that a correlation can be read from
GAP = 0.1  # a ring with less than this part of the power of some finer ring lies between the spots of a crystal

PADDING = 2  # pixels of a diffractogram per element of resolution, 1 / (shorter edge of the image)
COARSE = 3.5  # elements: a Hann window's main lobe reaches 2, spots that are nearer are not seen apart
BESIDE = 2.75  # elements from the middle of a spot to what is certainly beside it
FALSE = 0.01  # chance that an image of noise shows a resolution at all
LEAK = 1e-8  # of the brightest power
EULER = float(np.euler_gamma)  # noise power is distributed exponentially: its mean logarithm is that of its mean, less this
# Of the search for a lattice: peaks it starts from, what a node's evidence is capped at and costs, the evidence a lattice needs (noise
# reaches 15 in a thousand images, the poorest image of a crystal had 20), and how much fainter than the third brightest a spot may be.
PEAKS, CAP, COST, EVIDENCE, FAINT = 12, 8.0, 0.5, 18.0, 20.0
# Bases of lattices of which the present one is a part of a half or a third.
DENSER = np.array(
    [[[3, 0], [0, 6]], [[6, 0], [0, 3]], [[3, 3], [0, 6]], [[2, 0], [0, 6]], [[6, 0], [0, 2]], [[2, 2], [0, 6]], [[2, 4], [0, 6]]]
)


@dataclass(frozen=True, eq=False)
class Rings:
    """Fourier ring correlation.

    Attributes:
        frequency: middle of each ring in Å⁻¹; a ring is one pixel of the shorter side's transform wide.
        correlation: of the two images in each ring, -1 to 1.
        count: independent Fourier coefficients in each ring, see `frc`.
        power: mean power of the reference in each ring.
    """

    frequency: Float[Tensor, " R"]
    correlation: Float[Tensor, "*batch R"]
    count: Float[Tensor, " R"]
    power: Float[Tensor, "*batch R"]


@dataclass(frozen=True, eq=False)
class Spots:
    """What stands above the background of a diffractogram, one of each Friedel pair, from coarse to fine.

    Attributes:
        frequencies: (ky, kx) in Å⁻¹.
        d: spacing 1 / |k| in Å.
        strength: power over the mean of the background at the same |k|.
        finest: which belong to the finest ring that is resolved; none if nothing is.
        resolution: spacing of that ring in Å, nan if nothing is resolved.
        lattice: reciprocal basis in Å⁻¹, (ky, kx) in each row; None if none was given or found.
    """

    frequencies: Float[Tensor, "n 2"]
    d: Float[Tensor, " n"]
    strength: Float[Tensor, " n"]
    finest: Bool[Tensor, " n"]
    resolution: float
    lattice: Float[Tensor, "2 2"] | None


def frc(image: Float[Tensor, "*batch h w"], reference: Float[Tensor, "..."], pixel: float) -> Rings:
    """Fourier ring correlation, `Re sum F G* / sqrt(sum |F|^2 sum |G|^2)` (Saxton and Baumeister, J. Microsc. 127, 127, 1982).

    `count` is the number of independent complex coefficients: half of a ring's N pixels are conjugates of the others, as images are real,
    and the window makes near ones alike with the correlation `rho`, so it is `N^2 / sum_kl |rho_kl|^2 / 2`. Between unrelated images the
    correlation scatters about 0 with the variance `1 / (2 count)`.

    Raises:
        ValueError: shapes differ, fewer than 16 pixels along an axis, or a pixel that is not positive.
    """
    if image.shape != reference.shape:
        raise ValueError(f"image: expected the reference's shape {tuple(reference.shape)}, got {tuple(image.shape)}")
    f, g = (torch.fft.fft2(_windowed(v, pixel)) for v in (image, reference))
    index, pixels, count = _rings(*image.shape[-2:])

    def sums(v: Tensor) -> Tensor:
        return v.new_zeros(len(v), len(pixels) + 1).index_add_(1, index, v.flatten(1))[:, 1:]

    cross, first, second = sums((f * g.conj()).real), sums(f.abs().square()), sums(g.abs().square())
    norm = (first * second).sqrt()
    correlation = torch.where(norm == 0, 0.0, cross / norm)
    frequency = torch.arange(1, len(pixels) + 1, dtype=torch.float64) / (min(image.shape[-2:]) * pixel)
    shape = (*image.shape[:-2], len(pixels))
    return Rings(frequency, correlation.reshape(shape), count, (second / pixels).reshape(shape))


def half_bit(count: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    """Correlation of half data sets that together hold half a bit per coefficient, `(0.2071 + 1.9102 s) / (1.2071 + 0.9102 s)`.

    `s = 1 / sqrt(count)` with independent coefficients, Friedel mates once (van Heel and Schatz, J. Struct. Biol. 151, 250, 2005, Eq. 17).
    """
    scatter = 1 / count.sqrt()
    return (0.2071 + 1.9102 * scatter) / (1.2071 + 0.9102 * scatter)


def frc_resolution(
    image: Float[Tensor, "*batch h w"], reference: Float[Tensor, "..."], pixel: float, *, threshold: Threshold = "half-bit"
) -> Float[Tensor, "*batch"]:
    """Spacing in Å at which the Fourier ring correlation first falls below the threshold, linear between rings.

    Two pixels (Nyquist) if it never does, the coarsest ring that is asked if that is below already. Not asked are rings of fewer than four
    independent coefficients, and rings in which the reference has less than a tenth of the power of some finer ring: between the spots of a
    crystal there is nothing to correlate.
    """
    if threshold not in ("half-bit", "one-seventh"):
        raise ValueError(f"threshold: expected half-bit or one-seventh, got {threshold}")
    rings = frc(image, reference, pixel)
    limit = half_bit(rings.count) if threshold == "half-bit" else torch.full_like(rings.count, ONE_SEVENTH)
    excess = (rings.correlation - limit).reshape(-1, len(limit))
    power = rings.power.reshape(excess.shape)
    asked = (rings.count >= FEWEST) & (power >= GAP * power.flip(1).cummax(1).values.flip(1))
    found = [_crossing(rings.frequency[a], e[a], 0.5 / pixel) for a, e in zip(asked, excess, strict=True)]
    return torch.tensor(found, dtype=torch.float64).reshape(image.shape[:-2])


def _crossing(frequency: Float[Tensor, " n"], excess: Float[Tensor, " n"], nyquist: float) -> float:
    if not bool(excess.isfinite().all()) or not len(excess):
        return math.nan
    below = (excess < 0).nonzero()
    if not len(below):
        return 1 / nyquist
    i = int(below[0])
    if i == 0:
        return float(1 / frequency[0])
    part = excess[i - 1] / (excess[i - 1] - excess[i])
    return float(1 / (frequency[i - 1] + part * (frequency[i] - frequency[i - 1])))


def diffractogram(image: Float[Tensor, "*batch h w"], pixel: float) -> tuple[Float[Tensor, "*batch h2 w2"], tuple[float, float]]:
    """Power spectrum under a Hann window, mean removed, padded to (2 h, 2 w) with zero frequency at (h, w); and its pixel (ky, kx) in Å⁻¹.

    Raises:
        ValueError: fewer than 16 pixels along an axis, or a pixel that is not positive.
    """
    h, w = image.shape[-2:]
    wave = torch.fft.fft2(_windowed(image, pixel), s=(PADDING * h, PADDING * w))
    power = torch.fft.fftshift(wave.abs().square(), dim=(-2, -1))
    return power.reshape(*image.shape[:-2], *power.shape[-2:]), (1 / (PADDING * h * pixel), 1 / (PADDING * w * pixel))


def spots(image: Float[Tensor, "h w"], pixel: float, *, lattice: Float[Tensor, "2 2"] | None = None) -> Spots:
    """The lattice spots that stand above the background, and the finest ring of which two do (Schloz et al. 2022, Fig. 4).

    The background is the mean power at the same |k|, away from the lattice's spots. The power of noise is distributed exponentially about
    it, so the factor by which two independent spots of one ring (one element, 1 / field) have to exceed it follows from the chance, 1 %,
    that noise does so in any ring. Scan artefacts and the streaks of edges have a heavier tail than noise: the factor grows with the
    background's brightest hundredth.

    Without a lattice, the one that gathers most of the outstanding peaks is sought, in any orientation; if there is none, single peaks
    count that noise shows with a chance of 1 %. Spacings above field / 3.5 are not looked at.

    Args:
        image: phase in rad.
        pixel: its pixel in Å.
        lattice: reciprocal basis in Å⁻¹, (ky, kx) in each row, if it is known.

    Raises:
        ValueError: fewer than 16 pixels along an axis, a pixel that is not positive, or two rows that are no basis.
    """
    element = 1 / (min(image.shape) * pixel)
    power = diffractogram(image, pixel)[0].numpy()
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
    # Rounding; and a ring is one element wide.
    ring = (k >= finest * element * (1 - 1e-9)) & (k <= (finest + 1) * element)
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
        return _Spectrum(np.log(power + floor), _frame(h, w)[0], (PADDING * h / n, PADDING * w / n), n / PADDING / 2)

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
    ratio = np.maximum(ratio / max(1.0, *ratio[y[2:3], x[2:3]] / FAINT), 1)
    evidence = np.minimum(ratio - 1 - np.log(ratio), CAP) - COST
    peaks = s.summit(y, x)
    reach = min(s.nyquist, 1.2 * float(np.hypot(*peaks.T).max(initial=0)))
    i, j = np.triu_indices(len(peaks), 1)
    candidates, best, value = _open(np.stack([peaks[i], peaks[j]], 1)), None, -math.inf
    while len(candidates):
        values = _gathered(s, evidence, candidates, reach)
        if values.max() <= value:
            break
        best, value = _fitted(s, ratio, candidates[values.argmax()], reach), float(values.max())
        value = max(value, float(_gathered(s, evidence, best[None], reach)[0]))
        candidates = _open(DENSER / 6 @ best)
    return best if value > EVIDENCE else None


def _gathered(s: _Spectrum, evidence: Array, bases: Array, reach: float) -> Array:
    """Evidence summed over the nodes of each basis."""
    f = _nodes(reach) @ bases
    k = np.hypot(f[..., 0], f[..., 1])
    total: Array = (evidence[s.pixel(f)] * (k < reach)).sum(1)
    return total


def _open(bases: Array) -> Array:
    """Reduced bases of those lattices whose spots can be told apart."""
    bases = _reduced(bases)
    return bases[np.square(bases[:, 0]).sum(1) > COARSE**2]


def _fitted(s: _Spectrum, ratio: Array, basis: Array, reach: float) -> Array:
    """The basis by least squares on the peaks near its nodes, from the innermost outwards."""
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
    f, k = f[(k > 0.95 * COARSE) & (k < s.nyquist)], k[(k > 0.95 * COARSE) & (k < s.nyquist)]
    # Spots are a main lobe wide; where they are dense, at most 40 % of the plane are kept from the background.
    away = np.ones(s.logs.shape, dtype=bool)
    y, x = s.pixel(np.concatenate([f, -f]))
    away[y, x] = False
    away = ndimage.distance_transform_edt(away, sampling=[1 / v for v in s.scale]) > min(2.0, float(np.hypot(*basis[0])) / 3)
    excess = s.logs - _background(s, away)
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
    # As many coefficients as there are elements in the disc: about what the maxima between independent ones amount to.
    limit = math.log(math.pi * s.nyquist**2 / FALSE) * _tail(s, np.log(ratio), np.ones(ratio.shape, dtype=bool))
    y, x = y[ratio[y, x] > limit], x[ratio[y, x] > limit]
    f = s.summit(y, x)
    return f, ratio[y, x], float(np.hypot(*f.T).max()) if len(f) else math.nan


def _tail(s: _Spectrum, excess: Array, away: Array) -> float:
    """How much heavier than that of noise, 1, the tail of the background is: its brightest hundredth."""
    return max(1.0, math.exp(float(np.quantile(excess[away & (s.k > COARSE) & (s.k < s.nyquist)], 0.99))) / math.log(100))


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
    # The brightest of twelve places round about: in noise some three times the mean, along a streak as bright as the peak itself.
    smooth, beside = ndimage.uniform_filter(np.exp(s.logs), 3, mode="wrap"), np.zeros(s.logs.shape)
    for angle in np.arange(12) * math.pi / 6:
        y, x = round(BESIDE * s.scale[0] * math.sin(angle)), round(BESIDE * s.scale[1] * math.cos(angle))
        np.maximum(beside, np.roll(smooth, (y, x), (0, 1)), out=beside)
    return np.exp(s.logs - np.maximum(ring, np.log(beside / 3)))


def _peaks(s: _Spectrum, ratio: Array) -> tuple[Array, Array]:
    """Pixels of the most outstanding maxima, brightest first, one of each Friedel pair."""
    middle = (ratio.shape[0] // 2, ratio.shape[1] // 2)
    lower = ratio[middle[0] - 1 :]
    top = (lower == ndimage.maximum_filter(lower, 3)) & (s.k[middle[0] - 1 :] > COARSE) & (s.k[middle[0] - 1 :] < s.nyquist)
    top[[0, -1]], top[:, [0, -1]], top[1, : middle[1]] = False, False, False
    y, x = top.nonzero()
    y = y + middle[0] - 1
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
def _frame(h: int, w: int) -> tuple[Array, Array]:
    """|k| of a diffractogram's pixels, in elements, and the transform of the ring, 2 to 3.5 elements, about a peak."""
    n = min(h, w)
    y, x = (np.arange(m) - m // 2 for m in (h, w))
    k = np.hypot(y[:, None] * n / h, x * n / w) / PADDING
    near = np.fft.ifftshift((k >= 2) & (k <= 3.5))
    return k, fft.rfft2(near / near.sum())


@lru_cache(maxsize=16)
def _rings(h: int, w: int) -> tuple[Int[Tensor, " hw"], Float[Tensor, " R"], Float[Tensor, " R"]]:
    """Ring of each Fourier pixel (0: none), and for each ring the number of pixels and of independent coefficients."""
    n = min(h, w)
    y, x = (np.fft.fftfreq(m, 1 / m) * n / m for m in (h, w))
    index = np.rint(np.hypot(y[:, None], x)).astype(int)
    last = (n - 1) // 2
    index[index > last] = 0
    pixels = np.bincount(index.ravel())
    # A squared Hann window has five Fourier coefficients.
    alike = [np.abs(np.fft.fft(np.square(_hann(m).numpy()))) for m in (h, w)]
    pairs = np.zeros(last + 1)
    for a in range(-2, 3):
        for b in range(-2, 3):
            same = index[index == np.roll(index, (a, b), (0, 1))]
            pairs += np.bincount(same, minlength=last + 1) * (alike[0][a] / alike[0][0] * alike[1][b] / alike[1][0]) ** 2
    number, count = (torch.from_numpy(v[1:].astype(float)) for v in (pixels, pixels**2 / pairs / 2))
    return torch.from_numpy(index.ravel()), number, count


def _hann(n: int) -> Float[Tensor, " n"]:
    """Without the zeros at its ends, so that every pixel counts."""
    return torch.hann_window(n + 2, periodic=False, dtype=torch.float64)[1:-1]


def _windowed(image: Tensor, pixel: float) -> Float[Tensor, "B h w"]:
    """Under a Hann window, less the plane that fits best there: constant and ramp are free in ptychography, and a ramp has steep edges."""
    if image.ndim < 2 or min(image.shape[-2:]) < 16:
        raise ValueError(f"image: expected at least 16 pixels along each axis, got {tuple(image.shape[-2:])}")
    if not pixel > 0:
        raise ValueError(f"pixel: expected a positive length in Å, got {pixel}")
    values = image.detach().to("cpu", torch.float64).reshape(-1, *image.shape[-2:])
    h, w = values.shape[1:]
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (h, w))
    window = _hann(h)[:, None] * _hann(w)
    # Orthogonal under the window, which is even along both axes.
    for plane in (torch.ones(h, w, dtype=torch.float64), y[:, None].expand(h, w), x.expand(h, w)):
        seen = window * plane
        values = values - (values * seen).sum((1, 2), keepdim=True) / (seen * plane).sum() * plane
    return values * window
