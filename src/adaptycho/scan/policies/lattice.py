"""An adaptive scan for crystals: fits the lattice to what was measured, and goes where atoms must be, seen or not.

The lattice is found in the power spectrum, whitened so that noise and amorphous material give exponentially distributed values of mean 1.
The power at all harmonics of a lattice, summed, is then gamma distributed, and minus the logarithm of its tail, less that of the number of
lattices tried, is how many nats the lattice is better than chance. It is believed from `TRUST` nats on; otherwise positions are spread
evenly. The phases of the harmonics give the motif, and so the columns over the whole field, also where nothing was measured. Positions
follow the local amplitude of the lattice, so that an island is sampled rather than the film around it, and a focused beam goes part of the
way to the nearest column, because positions on the atoms no longer overlap.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, optimize, special

from adaptycho.scan import patterns
from adaptycho.scan.place import coverage, place, pulled
from adaptycho.scan.policies.heuristic import FOCUSED
from adaptycho.types import Action, Memory, Observation

Array = NDArray[np.float64]
Background = Callable[[Array], Array]

# One of each pair of opposite harmonics.
ORDERS = np.array([(h, k) for h in range(-2, 3) for k in range(-2, 3) if (h, k) > (0, 0)])
TRUST = 8.0  # nats above chance; of 168 reconstructions of amorphous films the best had 6, of 60 images of noise as well
PART = 3.0  # nats more that are asked of a quarter of the field, because nine are tried
SURE = 30.0  # nats in the whole field from which quarters are not looked at
PERIODS = 2.5  # longest period looked for: this many fit into the shorter side
CAP = 12.0  # whitened power counted at one harmonic, so that no single spot makes a lattice
QUANTILE = 0.4  # of the power at a radius, from which its mean is told: low enough to pass below the spots of a crystal
NEAR, FAR = 1 / 300, 1e-5  # of the brightest spot, at the same radius and at any: side lobes of the window are higher than less
PAD = 3  # finer sampling of the spectrum
BRIGHTEST = 16  # spots of which pairs are tried as bases of a lattice without symmetry
GRAINS = 3  # lattices in one field
ALL = 0.9  # once this much of the field is explained, no other lattice is looked for
NEIGHBOURS = 0.75  # rms radius, in periods of the lattice, of the neighbourhood in which its presence is judged
PRIOR = 0.1  # weight of the mean presence against what was seen, so that places that were not seen are taken as average
TURNS = (10.0, 18.0, 26.0, 34.0, 42.0, 50.0)  # degrees by which a hexagonal or square lattice is turned into one that is not there
FULL = 0.95  # quantile of the presence that counts as 1
CELL = 32  # points along each side of the unit cell where columns are looked for
HEIGHT = 0.3  # of the motif's highest maximum, from which another one is a column: two sulphur count as well as one molybdenum


@dataclass(frozen=True)
class LatticeFit:
    """Fits a lattice after each sub-sequence and sends the beam where it says.

    Attributes:
        pull: fraction of the way each position of a focused beam moves towards the nearest predicted column; a little less than the half
            that is best for true columns, for predicted ones may be wrong.
        floor: part of the positions that is spread evenly, however clear it is where the crystal lies.
        defocus: underfocus in Å for every sub-sequence; None keeps the nominal one.
    """

    pull: float = 0.4
    floor: float = 0.2
    defocus: float | None = None

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """A Halton survey first; then between the positions there are, pulled to the columns. Nothing is random."""
        chosen = [self._choose(u, p, seen) for u, p in zip(seen.potential, seen.positions, strict=True)]
        return Action(torch.stack(chosen).clamp(0, 1).to(seen.potential), defocus=self.defocus), memory

    def _choose(self, potential: torch.Tensor, positions: torch.Tensor, seen: Observation) -> torch.Tensor:
        if not len(positions):
            return patterns.halton(seen.count)
        phase = potential.cpu().double().numpy()
        grains: list[tuple[Lattice, Array]] = []
        if np.isfinite(phase).all():
            # From 0 to 1, two thirds where one beam has been.
            beam = max(seen.probe, seen.resolution / 4) / (np.array(seen.field) / phase.shape)
            known = coverage(positions.cpu().double().numpy(), phase.shape, beam)
            known = known / (known + 0.5)
            grains = find_grains(known * (phase - np.average(phase, weights=known)), known, seen)
        shown = np.max([p for _, p in grains], 0) if grains else np.ones(phase.shape)
        density = torch.from_numpy(self.floor + (1 - self.floor) * shown / shown.mean())
        points = place(density, seen.count, fixed=positions, field=seen.field)
        if seen.probe < FOCUSED * seen.resolution:
            points = pulled(points, torch.from_numpy(_columns(grains, seen)), seen.field, self.pull)
        return points


@dataclass(frozen=True, eq=False)
class Lattice:
    """A crystal lattice and its motif.

    Attributes:
        basis: reciprocal basis vectors in rows, (y, x) in Å⁻¹.
        orders: (n, 2) integers; row times basis is a harmonic. One of each pair of opposite ones.
        coefficients: (n,) complex amplitudes.
        nats: how much better than chance the harmonics stand out.
    """

    basis: Array
    orders: NDArray[np.int64]
    coefficients: NDArray[np.complex128]
    nats: float

    def __call__(self, points: Array) -> Array:
        """The motif at points (..., 2) in Å from the top left corner of the field, zero on average."""
        waves = np.exp(2j * np.pi * (points @ (self.orders @ self.basis).T))
        return np.asarray(2 * (waves @ self.coefficients).real)

    def columns(self, field: tuple[float, float]) -> Array:
        """Atom columns (N, 2) in Å that lie in the field or within one cell of it: the high maxima of the motif."""
        vectors = np.linalg.inv(self.basis).T
        steps = np.stack(np.meshgrid(*[np.arange(CELL) / CELL] * 2, indexing="ij"), -1)
        cell = self(steps @ vectors)
        high = (ndimage.maximum_filter(cell, size=CELL // 8 * 2 + 1, mode="wrap") == cell) & (cell > HEIGHT * cell.max())
        atoms = steps[high] @ vectors
        corners = np.array([[y, x] for y in (0, field[0]) for x in (0, field[1])]) @ self.basis.T
        ranges = [np.arange(np.floor(low) - 1, np.ceil(top) + 2) for low, top in zip(corners.min(0), corners.max(0), strict=True)]
        origins = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 1, 2) @ vectors
        points = (origins + atoms).reshape(-1, 2)
        margin = np.linalg.norm(vectors, axis=1).max()
        return points[((points > -margin) & (points < np.array(field) + margin)).all(1)]


def find_grains(image: Array, known: Array, seen: Observation) -> list[tuple[Lattice, Array]]:
    """Lattices, each with its presence from 0 to 1 at each pixel; the next is looked for where those before it do not show."""
    grains: list[tuple[Lattice, Array]] = []
    rest, explained = image, 0.0
    while len(grains) < GRAINS and explained < ALL and (lattice := fit(rest, seen.field, seen.resolution)) is not None:
        shown = presence(rest, known, lattice, seen)
        grains.append((lattice, shown))
        rest, explained = rest * (1 - shown), explained + float(shown.mean())
    return grains


def _columns(grains: list[tuple[Lattice, Array]], seen: Observation) -> Array:
    """Columns of all grains, fractions of the field, each where its own lattice shows most."""
    found = [np.zeros((0, 2))]
    for i, (lattice, _) in enumerate(grains):
        columns = lattice.columns(seen.field) / seen.field
        where = tuple((columns.clip(0, 1 - 1e-9) * grains[0][1].shape).astype(int).T)
        found.append(columns[np.argmax([p[where] for _, p in grains], 0) == i])
    return np.concatenate(found)


def fit(image: Array, field: tuple[float, float], resolution: float) -> Lattice | None:
    """The lattice of an image of zero mean, or None if there is none to be trusted.

    Looked for in the whole field and, because noise from elsewhere hides a small crystal, in its nine overlapping quarters.
    """
    pixel = np.array(field) / image.shape
    best = _fit_part(image, pixel, np.zeros(2), resolution, TRUST)
    if best is not None and best.nats > SURE:
        return best
    half = [n // 2 for n in image.shape]
    for top, left in product(*[(0, n // 4, n - n // 2) for n in image.shape]):
        part = image[top : top + half[0], left : left + half[1]]
        found = _fit_part(part, pixel, np.array([top, left]) * pixel, resolution, PART + (TRUST if best is None else best.nats))
        best = best if found is None else replace(found, nats=found.nats - PART)
    return best


def _fit_part(image: Array, pixel: Array, corner: Array, resolution: float, least: float) -> Lattice | None:
    """The lattice of a part of the field, if it is worth more than `least` nats.

    Hexagonal and square lattices are tried with every first vector of the spectrum, others with pairs of its brightest spots; the best is
    refined to the largest whitened power.
    """
    short = float((np.array(image.shape) * pixel).min())
    if short * min(2 / resolution, 0.5 / pixel.max()) < 1.5 * PERIODS or not image.any():
        return None
    low, high = PERIODS / short, min(2 / resolution, 0.5 / pixel.max())
    windowed = image * np.sqrt(np.outer(*[np.hanning(n + 2)[1:-1] for n in image.shape]))
    power, ky, kx, background = _spectrum(windowed, pixel, low, high, 2 / short)
    radius = np.hypot(ky[:, None], kx)
    power = np.where((radius < 0.7 * low) | (radius > high), -1.0, power)
    found = [_symmetric(power, ky, kx, low, np.pi / 3), _symmetric(power, ky, kx, low, np.pi / 2), _general(power, ky, kx, low)]
    basis, nats = max(found, key=lambda basis_nats: basis_nats[1])
    return _refine(basis, nats, windowed, pixel, corner, high, background) if nats > least else None


def presence(image: Array, known: Array, lattice: Lattice, seen: Observation) -> Array:
    """How strongly the lattice shows around each pixel, from 0 to 1; its mean over the field where nothing is known.

    The regression of the image on the motif in a Gaussian neighbourhood: linear in the image, so that noise averages out instead of
    adding up, and empty film gives zero. Turned lattices, which are not there, show how much it varies by chance; what is seen is drawn
    towards its mean by as much (James and Stein), to 1 everywhere on a crystal that fills the field.
    """
    pixel = np.array(seen.field) / image.shape
    points = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * p for n, p in zip(image.shape, pixel, strict=True)], indexing="ij"), -1)
    width = NEIGHBOURS * np.linalg.norm(np.linalg.inv(lattice.basis), axis=0).max() / pixel

    def amplitude(angle: float) -> Array:
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        motif = replace(lattice, basis=lattice.basis @ np.array([[cos, sin], [-sin, cos]]))(points)
        found = ndimage.gaussian_filter(image * motif, width, mode="reflect")
        most = ndimage.gaussian_filter(known * motif**2, width, mode="reflect")
        prior = PRIOR * most.mean()
        return np.asarray((found + prior * found.sum() / most.sum()) / (most + prior))

    shown = amplitude(0.0)
    chance = np.mean([amplitude(angle).var() for angle in TURNS])
    shrunk = shown.mean() + max(0.0, 1 - chance / shown.var()) * (shown - shown.mean())
    most = np.quantile(shrunk, FULL)
    return np.asarray((shrunk / most).clip(0, 1) if most > 0 else np.ones_like(shrunk))


def _spectrum(image: Array, pixel: Array, low: float, high: float, step: float) -> tuple[Array, Array, Array, Background]:
    """Whitened power, zero frequency in the middle, its axes in Å⁻¹, and the mean power at a radius without the crystal's spots."""
    n = PAD * max(image.shape)
    power = np.abs(np.fft.fftshift(np.fft.fft2(image, (n, n)))) ** 2
    ky, kx = (np.fft.fftshift(np.fft.fftfreq(n, p)) for p in pixel)
    radius = np.hypot(ky[:, None], kx)
    middles = np.arange(low, high + step, step)
    rings = [np.abs(radius - k) <= step for k in middles]
    # Without noise it is the window's side lobes that would be whitened to 1.
    least = np.array([max(NEAR * power[ring].max(), FAR * power.max()) for ring in rings])
    logarithms = np.zeros(len(middles))

    def background(k: Array) -> Array:
        return np.asarray(np.exp(np.interp(k, middles, logarithms)))

    # Twice, because where the spectrum is steep a quantile of the ring is only right once the slope is gone.
    for _ in range(2):
        flat = power / background(radius)
        # A quantile q of an exponential distribution is -log(1 - q) of its mean.
        found = [np.quantile(flat[ring], QUANTILE) / -np.log(1 - QUANTILE) for ring in rings]
        logarithms = np.log(np.maximum(found * np.exp(logarithms), least))
    return power / background(radius), ky, kx, background


def _symmetric(power: Array, ky: Array, kx: Array, low: float, angle: float) -> tuple[Array, float]:
    """Best lattice with two vectors of equal length at an angle, and its nats."""
    y, x = np.meshgrid(ky, kx, indexing="ij")
    first = np.stack([y, x], -1)[(power >= 0) & (np.hypot(y, x) > low) & (y >= 0)]
    cos, sin = np.cos(angle), np.sin(angle)
    bases = np.stack([first, first @ np.array([[cos, sin], [-sin, cos]])], 1)
    return _best(bases, power, ky, kx, len(first) / PAD**2)


def _general(power: Array, ky: Array, kx: Array, low: float) -> tuple[Array, float]:
    """Best lattice spanned by two of the brightest spots, and its nats."""
    y, x = np.meshgrid(ky, kx, indexing="ij")
    half = (power >= 0) & (np.hypot(y, x) > low) & (y >= 0)
    spots = np.argwhere(half & (ndimage.maximum_filter(power, 2 * PAD - 1) == power))
    spots = spots[np.argsort(-power[tuple(spots.T)])][:BRIGHTEST]
    # Longer or more slanted pairs span lattices that have a shorter, more upright one; two spots side by side span none.
    pairs = [(a, b) for a, b in combinations(np.stack([ky[spots[:, 0]], kx[spots[:, 1]]], 1), 2) if abs(a @ b) <= 0.55 * min(a @ a, b @ b)]
    # The brightest pair of N frequencies is the best of N^2 / 2.
    return _best(np.array(pairs).reshape(-1, 2, 2), power, ky, kx, (half.sum() / PAD**2) ** 2 / 2)


def _best(bases: Array, power: Array, ky: Array, kx: Array, trials: float) -> tuple[Array, float]:
    """The lattice of which the harmonics hold the most improbable power."""
    if not len(bases):
        return np.eye(2), 0.0
    harmonics = ORDERS.astype(float) @ bases
    where = [(harmonics[..., i] - k[0]) / (k[1] - k[0]) for i, k in enumerate((ky, kx))]
    values = ndimage.map_coordinates(power, where, order=1, cval=-1.0)
    # Beyond twice the longer vector there are more harmonics than power in them.
    reach = 2.01 * np.linalg.norm(bases, axis=-1).max(1)[:, None]
    used = (values >= 0) & (np.hypot(*harmonics.transpose(2, 0, 1)) < reach)
    number, total = used.sum(1), np.where(used, values.clip(max=CAP), 0).sum(1)
    nats = np.where(number > 2, -np.log(special.gammaincc(np.maximum(number, 1), total)), 0) - np.log(max(trials, 1))
    return bases[nats.argmax()], float(nats.max())


def _refine(basis: Array, nats: float, image: Array, pixel: Array, corner: Array, high: float, background: Background) -> Lattice:
    """Moves the basis to the largest power and reads the harmonics there."""
    y, x = (start + (np.arange(n) + 0.5) * p for n, p, start in zip(image.shape, pixel, corner, strict=True))
    orders = ORDERS[np.linalg.norm(ORDERS @ basis, axis=1) < high]

    def amplitudes(vectors: Array) -> NDArray[np.complex128]:
        q = orders @ vectors
        rows, columns = np.exp(-2j * np.pi * q[:, :1] * y), np.exp(-2j * np.pi * q[:, 1:] * x)
        return np.asarray((rows @ image * columns).sum(1))

    def power(vectors: Array) -> Array:
        return np.asarray(np.abs(amplitudes(vectors)) ** 2 / background(np.linalg.norm(orders @ vectors, axis=1)))

    def lost(change: Array) -> float:
        # No further than half a resolution element from where it was found, or another lattice is fitted.
        return float(-power(basis + change.reshape(2, 2)).sum()) if np.abs(change).max() < 2 * step else 0.0

    step = 0.25 / (np.array(image.shape) * pixel).max()
    simplex = step * np.concatenate([np.zeros((1, 4)), np.eye(4)])
    found = optimize.minimize(lost, np.zeros(4), method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": 200})
    vectors = basis + found.x.reshape(2, 2)
    # What is expected of noise alone is taken off (Wiener).
    trusted = (1 - 1 / np.maximum(power(vectors), 1e-9)).clip(min=0)
    return Lattice(vectors, orders, trusted * amplitudes(vectors), nats)
