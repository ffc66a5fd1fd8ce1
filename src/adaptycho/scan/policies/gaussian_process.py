"""A Gaussian-process scan in the manner of Bayesian optimisation: go where structure is expected and little is known.

Each position so far is an observation, the logarithm of the energy of the phase under the beam. A Gaussian process with a Matérn kernel,
its variance, length and noise found by marginal likelihood, carries these over to the whole field, as in autonomous X-ray and
scanning-probe experiments (Noack et al., Nat. Rev. Phys. 3, 685, 2021). An upper confidence bound of it is the structure s to be expected.
The phase itself is then a process with covariance s(x) s(x') k(x - x'), where k reaches about as far as positions are apart, and the beam
goes where its variance is largest. That variance does not depend on what will be measured, so the positions of a sub-sequence are chosen
one after the other, each conditioned on those before (the kriging believer of Ginsbourger et al., 2010); this also keeps them apart. Where
all is alike, s is constant and what remains is an even spread.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial import cKDTree
from scipy.special import ndtr

from adaptycho.scan import Pattern, patterns
from adaptycho.scan.policies.reduction import TINY, blur, candidates, illumination, mean_spacing, structure
from adaptycho.types import Action, Memory, Observation

Array = NDArray[np.float64]
OBSERVATIONS = 128  # at most this many positions are observed, in even steps through the scan; the time taken goes with their cube
ITERATIONS = 12  # of the fit of the kernel; it need not be exact
SHORTEST = 2.0  # length of the structure's kernel in mean spacings; a shorter one would follow noise that neighbours have in common
FLOOR = 0.05  # added to the energies, in units of their mean, because the logarithm of noise has no lower end
NEIGHBOURS = 6  # positions the phase's variance is conditioned on (Vecchia, 1988); its kernel is so short that others tell nothing
NOISE = 0.05  # variance of one measurement of the phase, in units of the phase's own


@dataclass(frozen=True)
class GaussianProcess:
    """Scanner that goes where a Gaussian process of the phase has the largest variance.

    Attributes:
        contrast: power of the expected structure energy that the variance follows; 0 spreads positions evenly.
        explore: standard deviations that are added to the expected logarithm of that energy.
        reach: length of the phase's kernel in units of the mean spacing of the whole scan.
        survey: conventional scan of the first sub-sequence.
        defocus: underfocus in Å for every sub-sequence; None keeps the nominal one.
    """

    contrast: float = 1.0
    explore: float = 1.0
    reach: float = 0.7
    survey: Pattern = "halton"
    defocus: float | None = None

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """A survey first, then the largest variances. Random only if the survey is."""
        if seen.positions.shape[1] == 0:
            chosen = [patterns.pattern(self.survey, seen.count, seen.field, generator=generator) for _ in seen.potential]
        else:
            chosen = [torch.from_numpy(self._choose(seen, b)) for b in range(len(seen.potential))]
        return Action(torch.stack(chosen).to(seen.potential), defocus=self.defocus), memory

    def _choose(self, seen: Observation, specimen: int) -> Array:
        size = np.array(seen.field)
        taken = seen.positions[specimen].cpu().double().numpy() * size
        places = candidates(seen, taken)
        dose, phase = (v[specimen].cpu().double().numpy() for v in (seen.dose, seen.potential))
        spacing = mean_spacing(seen, max(seen.total, len(taken) + seen.count))
        # What the beam would measure beyond the edge of the field is lost.
        weight = np.log(part_inside(places, size, spacing / 2))
        if self.contrast and np.isfinite(phase).all():  # a diverged reconstruction says nothing: spread evenly
            mean, deviation = expect(observe(phase, taken, dose, seen), taken, places, seen)
            weight += self.contrast * (mean + self.explore * deviation)
        return np.asarray(largest_variances(places, taken, weight, self.reach * spacing, seen.count) / size)


def observe(phase: Array, taken: Array, dose: Array, seen: Observation) -> Array:
    """Logarithm of the energy of the phase under the beam at each position (K,), relative to their mean.

    The mean over the beam's neighbourhood trusts pixels as far as they were illuminated. Noise goes with 1/illumination, so where that was
    low the energy is taken back as by a Wiener filter, or gaps of the scan, where the noise is highest, would count as structure.
    """
    shape = np.array(phase.shape)
    pixel = np.array(seen.field) / shape
    light, width = illumination(taken, dose, phase.shape, seen), seen.probe / pixel
    energy = blur(light**2 * structure(phase, seen) ** 2, width)
    energy /= blur(light**2, width) + 2 * light.mean() * blur(light, width) + TINY
    values = energy[tuple((taken / pixel).astype(int).clip(0, shape - 1).T)]
    return np.asarray(np.log(values / (values.mean() + TINY) + FLOOR))


def expect(values: Array, taken: Array, places: Array, seen: Observation) -> tuple[Array, Array]:
    """Mean and standard deviation (N,) of a Gaussian process through noisy values at some positions (K, 2) in Å."""
    # Imported here because it takes a second.
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    def optimise(loss, start, bounds):  # type: ignore[no-untyped-def]
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS})
        return found.x, found.fun

    few = np.linspace(0, len(taken) - 1, min(len(taken), OBSERVATIONS)).round().astype(int)
    shortest = SHORTEST * mean_spacing(seen, len(taken))
    longest = max(max(seen.field) / 2, 1.1 * shortest)
    # Values have unit variance, of which at least a twentieth is noise.
    smooth = ConstantKernel(0.5, (0.01, 4.0)) * Matern(np.sqrt(shortest * longest), (shortest, longest), nu=1.5)
    process = GaussianProcessRegressor(smooth + WhiteKernel(0.5, (0.05, 2.0)), optimizer=optimise, normalize_y=True)
    with warnings.catch_warnings():  # a length at its bound is an answer, not a failure
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(taken[few], values[few])
    mean, deviation = process.predict(places, return_std=True)
    # The deviation is that of an observation; what is asked for is that of what is observed.
    noise = process.kernel_.k2.noise_level * float(values[few].std()) ** 2
    return mean, np.sqrt(np.maximum(deviation**2 - noise, 0))


def part_inside(places: Array, size: Array, width: float) -> Array:
    """Part of a Gaussian of a width in Å round each place (N,) that lies inside the field."""
    return np.asarray((ndtr(places / width) - ndtr((places - size) / width)).prod(1))


def largest_variances(places: Array, taken: Array, weight: Array, reach: float, count: int) -> Array:
    """The places (K, 2), one after the other, where exp(weight) times the variance is largest once all before are measured.

    Args:
        places: candidates (N, 2) in Å.
        taken: measured positions in Å.
        weight: logarithm of the variance (N,) before any measurement.
        reach: length of the kernel in Å.
        count: how many, K.
    """
    distance, which = cKDTree(taken).query(places, k=range(1, NEIGHBOURS + 1))
    last = distance[:, -1].copy()
    # Where there are fewer positions, the rest is so far away that it tells nothing.
    near = np.concatenate([taken, np.full((1, 2), 1e6 * (reach + np.abs(places).max()))])[which]

    def acquisition(where: NDArray[np.intp]) -> Array:
        among = np.linalg.norm(near[where, :, None] - near[where, None], axis=-1)
        covariance = matern(distance[where], reach)
        matrix = matern(among, reach) + NOISE * np.eye(NEIGHBOURS)
        known = (covariance * np.linalg.solve(matrix, covariance[..., None])[..., 0]).sum(1)
        return np.asarray(weight[where] + np.log(np.maximum(1 - known, TINY)))

    gain, chosen = acquisition(np.arange(len(places))), []
    for _ in range(count):
        chosen.append(int(gain.argmax()))
        away = np.linalg.norm(places - places[chosen[-1]], axis=1)
        closer = np.flatnonzero(away < last)
        farthest = distance[closer].argmax(1)
        distance[closer, farthest], near[closer, farthest] = away[closer], places[chosen[-1]]
        last[closer] = distance[closer].max(1)
        gain[closer] = acquisition(closer)
        gain[chosen] = -np.inf
    return np.asarray(places[chosen])


def matern(distance: Array, reach: float) -> Array:
    """Matérn kernel of order 3/2 and unit variance."""
    scaled = np.sqrt(3) * np.minimum(distance / reach, 1e3)  # exp(-inf) times inf is not a number
    return np.asarray((1 + scaled) * np.exp(-scaled))
