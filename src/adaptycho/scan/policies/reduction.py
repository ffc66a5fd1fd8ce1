"""An expected-error-reduction scan in the manner of SLADS and FAST: go where measuring is expected to lower the error most.

A regression, fitted once (`experiments/reduction_fit.py`) on simulated specimens 1,000 to 1,003 of `evaluate.train` in seven families,
which are neither tuned nor reported on, maps what reconstruction and positions look like around a place to the squared error there; times
the area that a position there would speak for, it is the expected reduction in distortion (Godaliyadda et al., Electronic Imaging 2016, "A
supervised learning approach for dynamic sampling"). The positions of a sub-sequence are chosen one after the other by the largest
reduction, distances being brought up to date after each (Kandel et al., Nat. Commun. 14, 5501, 2023). Unlike there, a measurement is not a
pixel: the phase is the noisier the fewer electrons went there, so structure is judged by how far it stands above that noise, and an error
counts only as far as the phase is believed at all.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from adaptycho.scan import Pattern, patterns
from adaptycho.types import Action, Memory, Observation

Array = NDArray[np.float64]
PITCH = 0.25  # of the lattice of candidates, in units of the mean spacing of the whole scan
SCALES = (0.35, 0.7, 1.4)  # of local features, in units of the mean spacing so far
FINE = 0.6  # what varies more slowly than a Gaussian of this many resolutions is hardly transferred, and not taken for structure
BLURRED = 0.25  # resolutions; finer than this there is only noise
NEAREST = 3  # measured positions whose distances describe the sampling
STILL = (
    *(f"energy over noise, {s} spacings" for s in SCALES),
    *(f"energy, {s} spacings" for s in SCALES),
    "median energy over noise",
    "gradient",
    "deviation from neighbours",
    "illumination",
    "part inside",
    "dose",
    "beam",
    "resolution",
)
MOVING = ("nearest", "third nearest")  # features that change with every position that is chosen
TINY = 1e-12


@dataclass(frozen=True)
class ErrorReduction:
    """Scanner that goes where a trained regression expects to lower the error most.

    Attributes:
        contrast: power of the expected error that positions follow: 1 minimises the squared error of the field, more seeks structure.
        survey: conventional scan of the first sub-sequence.
        defocus: underfocus in Å for every sub-sequence; None keeps the nominal one.
    """

    contrast: float = 1.5
    survey: Pattern = "halton"
    defocus: float | None = None

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """A survey first, then the largest expected reductions. Random only if the survey is."""
        if seen.positions.shape[1] == 0:
            chosen = [patterns.pattern(self.survey, seen.count, seen.field, generator=generator) for _ in seen.potential]
        else:
            chosen = [torch.from_numpy(choose(seen, b, shipped(), self.contrast)) for b in range(len(seen.potential))]
        return Action(torch.stack(chosen).to(seen.potential), defocus=self.defocus), memory


@dataclass(frozen=True, eq=False)
class Regression:
    """Second-order polynomial of standardised features that gives the logarithm of the expected error.

    Attributes:
        mean, std: of each feature in training; features are clipped three standard deviations from the mean.
        constant, linear, quadratic: coefficients; the quadratic ones are an upper triangular matrix.
    """

    mean: Array
    std: Array
    constant: float
    linear: Array
    quadratic: Array

    def standard(self, features: Array, first: int = 0) -> Array:
        """Features (N, F') from number `first` on, standardised and clipped."""
        which = slice(first, first + features.shape[1])
        return np.asarray(((features - self.mean[which]) / self.std[which]).clip(-3, 3))


@cache
def shipped() -> Regression:
    """The regression that comes with the package."""
    card = json.loads((resources.files("adaptycho.scan.policies") / "reduction.json").read_text(encoding="utf-8"))["regression"]
    linear = np.array(card["linear"])
    quadratic = np.zeros((len(linear), len(linear)))
    quadratic[np.triu_indices(len(linear))] = card["quadratic"]
    return Regression(np.array(card["mean"]), np.array(card["std"]), card["constant"], linear, quadratic)


def choose(seen: Observation, specimen: int, model: Regression, contrast: float) -> Array:
    """Positions (K, 2) for one specimen, fractions of the field, largest expected reduction first."""
    size = np.array(seen.field)
    taken = seen.positions[specimen].cpu().double().numpy() * size
    places = candidates(seen, taken)
    dose, phase = (v[specimen].cpu().double().numpy() for v in (seen.dose, seen.potential))
    if not np.isfinite(phase).all():
        phase = np.zeros_like(phase)  # a diverged reconstruction says nothing: spread evenly
    away, spacing, split = nearest(places, taken), mean_spacing(seen, len(taken)), len(STILL)
    # The polynomial in parts, because only the last features change in the loop.
    still = model.standard(still_features(phase, taken, dose, places, seen))
    base = still @ model.linear[:split] + ((still @ model.quadratic[:split, :split]) * still).sum(1)
    slope = model.linear[split:] + still @ model.quadratic[:split, split:]
    curve = model.quadratic[split:, split:]

    def reduction(which: NDArray[np.intp]) -> Array:
        """Logarithm of the expected reduction at some of the candidates, but for a constant."""
        moving = model.standard(moving_features(away[which], spacing), split)
        error = base[which] + (moving * (slope[which] + moving @ curve.T)).sum(1)
        return np.asarray(contrast * error + 2 * np.log(away[which, 0] + TINY))

    gain, chosen = reduction(np.arange(len(places))), []
    for _ in range(seen.count):
        chosen.append(int(gain.argmax()))
        distance = np.sqrt(((places - places[chosen[-1]]) ** 2).sum(1))
        closer = np.flatnonzero(distance < away[:, -1])
        away[closer] = np.sort(np.concatenate([away[closer], distance[closer, None]], 1), 1)[:, :-1]
        gain[closer] = reduction(closer)
        gain[chosen] = -np.inf
    return np.asarray(places[chosen] / size)


def candidates(seen: Observation, taken: Array) -> Array:
    """Places (N, 2) in Å on a lattice much finer than the spacing of the whole scan, without those that were measured."""
    size = np.array(seen.field)
    pitch = PITCH * mean_spacing(seen, max(seen.total, len(taken) + seen.count))
    rows, columns = ((np.arange(n) + 0.5) / n for n in np.ceil(size / pitch).astype(int))
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2) * size
    # Single precision moved them a little.
    return np.asarray(places[cKDTree(taken).query(places)[0] > 1e-3 * pitch])


def mean_spacing(seen: Observation, count: int) -> float:
    """Side in Å of the square that each of so many positions has to itself."""
    return float(np.sqrt(seen.field[0] * seen.field[1] / count))


def nearest(places: Array, taken: Array) -> Array:
    """Distances in Å (N, 3) from places to the nearest positions, in order; infinite where there are not so many."""
    return np.asarray(cKDTree(taken).query(places, k=range(1, NEAREST + 1))[0])


def moving_features(away: Array, spacing: float) -> Array:
    """What distances (N, 3) say about the sampling at each place, (N, 2); see `MOVING`."""
    return np.asarray(np.log(np.minimum(away[:, [0, -1]] / spacing, 10) + 0.03))


def still_features(phase: Array, taken: Array, dose: Array, places: Array, seen: Observation) -> Array:
    """What is known around each place before a sub-sequence begins, (N, F), all without units; see `STILL`.

    Args:
        phase: reconstruction inside the field in rad.
        taken: positions so far in Å.
        dose: counts sent to each.
        places: where, in Å.
        seen: for field, beam and resolution.
    """
    shape, size = np.array(phase.shape), np.array(seen.field)
    pixel, spacing = size / shape, mean_spacing(seen, len(taken))
    light = illumination(taken, dose, phase.shape, seen)
    fine = structure(phase, seen)
    slope = ndimage.gaussian_gradient_magnitude(phase, BLURRED * seen.resolution / pixel) ** 2
    energy = float(np.median(fine**2)) + TINY
    widths = [scale * spacing / pixel for scale in SCALES]
    above = [np.log(energy_over_noise(fine, light, w) + 1e-6) for w in widths]
    maps = [
        *above,
        *(np.log(blur(fine**2, w) / energy + TINY) for w in widths),
        np.full_like(phase, np.median(above[1])),
        np.log(blur(slope, widths[0]) / (np.median(slope) + TINY) + TINY),
        blur(fine, BLURRED * seen.resolution / pixel) / np.sqrt(energy),
        np.log(light / (light.mean() + TINY) + 0.01),
        np.log(ndimage.gaussian_filter(np.ones_like(phase), widths[1], mode="constant")),
    ]
    for value in (dose.sum() * seen.resolution**2 / size.prod(), seen.probe / spacing, seen.resolution / spacing):
        maps.append(np.full_like(phase, np.log(value + TINY)))
    rows, columns = np.minimum(places / pixel, shape - 1).astype(int).T
    return np.asarray(np.stack(maps)[:, rows, columns].T)


def structure(phase: Array, seen: Observation) -> Array:
    """The part of the phase that is fine enough to be transferred."""
    pixel = np.array(seen.field) / phase.shape
    return np.asarray(phase - ndimage.gaussian_filter(phase, FINE * seen.resolution / pixel))


def illumination(taken: Array, dose: Array, shape: tuple[int, ...], seen: Observation) -> Array:
    """Electrons on each pixel per square of the resolution, the beam taken as a Gaussian of the same half-intensity radius."""
    pixel, hits = np.array(seen.field) / shape, np.zeros(shape)
    np.add.at(hits, tuple((taken / pixel).astype(int).clip(0, np.array(shape) - 1).T), dose)
    width = seen.probe / np.sqrt(2 * np.log(2))
    return np.asarray(ndimage.gaussian_filter(hits, width / pixel, mode="constant") * seen.resolution**2 / pixel.prod())


def energy_over_noise(fine: Array, light: Array, width: Array) -> Array:
    """Local mean of light x phase^2, whose noise is the same everywhere; pixels count as far as they were illuminated."""
    return np.asarray(blur(light**2 * fine**2, width) / (blur(light, width) + TINY))


def blur(image: Array, width: Array) -> Array:
    """Gaussian mean over that part of the neighbourhood which lies inside the field."""
    inside = ndimage.gaussian_filter(np.ones_like(image), width, mode="constant")
    return np.asarray(ndimage.gaussian_filter(image, width, mode="constant") / inside)
