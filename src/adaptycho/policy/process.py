"""A Gaussian-process scan in the manner of Bayesian optimisation: go where structure is expected and little is known.

Each position taken so far is an observation: the logarithm of how far the phase around it stands above its noise. A Gaussian process with a
Matérn kernel, its length, variance and noise found by marginal likelihood, carries these over to the whole field, as in autonomous
scanning-probe and X-ray experiments (Noack et al., Nat. Rev. Phys. 3, 685, 2021). Its mean and uncertainty give the expected structure s.
The phase itself is then a process with covariance s(x) s(x') k(x - x'), where k reaches about as far as positions are apart, and the beam
goes where its variance is largest. That variance does not depend on what will be measured, so the positions of a sub-sequence are chosen
one after the other, each conditioned on those before (the kriging believer of Ginsbourger et al., 2010). Where all is alike, s is constant
and what remains is an even spread.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from adaptycho import patterns
from adaptycho.policy import Action, Memory, Observation
from adaptycho.policy.reduction import TINY, energy_over_noise, illumination, lattice, mean_spacing, structure

Array = NDArray[np.float64]
NEIGHBOURS = 6  # positions the variance at a place is conditioned on: with a kernel as short as this, those further off tell nothing
OBSERVATIONS = 200  # at most this many positions go into the process of the structure, or it would take longer than a scan
FLOOR = 0.05  # energy over noise below this is taken as this; the logarithm of nothing is no observation
NUGGET = 0.05


@dataclass(frozen=True)
class GaussianProcess:
    contrast: float = 1.0
    explore: float = 1.0
    width: float = 0.6
    reach: float = 1.0
    survey: patterns.Name = "halton"
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
        places, taken = lattice(seen) * size, seen.positions[specimen].cpu().double().numpy() * size
        dose, phase = (v[specimen].cpu().double().numpy() for v in (seen.dose, seen.potential))
        weight = np.log(inside(places, seen))
        if np.isfinite(phase).all():
            values = observations(phase, taken, dose, seen, self.width)
            mean, deviation = regress(values, taken, places, seen)
            weight += self.contrast * (mean + self.explore * deviation)
        final = float(np.sqrt(size.prod() / max(seen.total, len(taken) + seen.count)))
        return spread(places, taken, weight, self.reach * final, seen.count) / size


def observations(phase, taken, dose, seen, width):
    pixel = np.array(seen.field) / phase.shape
    light = illumination(taken, dose, phase.shape, seen)
    signal = energy_over_noise(structure(phase, seen), light, max(0.0, width * mean_spacing(seen)) / pixel)
    rows, columns = (taken / pixel).astype(int).clip(0, np.array(phase.shape) - 1).T
    return np.log(signal[rows, columns] + FLOOR)


def regress(values, taken, places, seen):
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
    few = np.linspace(0, len(taken) - 1, min(len(taken), OBSERVATIONS)).round().astype(int)
    spacing = mean_spacing(seen)
    x, y = taken[few], values[few]
    level, scale = y.mean(), y.std() + 1e-3
    bounds = (0.5 * spacing, max(max(seen.field) / 2, spacing))
    kernel = ConstantKernel(0.5, (1e-2, 4.0)) * Matern(float(np.sqrt(bounds[0] * bounds[1])), bounds, nu=1.5) + WhiteKernel(0.5, (5e-2, 2.0))
    process = GaussianProcessRegressor(kernel, optimizer=None).fit(x, (y - level) / scale)

    def loss(theta):
        value, slope = process.log_marginal_likelihood(theta, eval_gradient=True, clone_kernel=False)
        return -value, -slope

    if len(x) > 3:
        found = minimize(loss, kernel.theta, jac=True, method="L-BFGS-B", bounds=kernel.bounds, options={"maxiter": 15})
        process = GaussianProcessRegressor(kernel.clone_with_theta(found.x), optimizer=None).fit(x, (y - level) / scale)
    ks = process.kernel_.k1
    k = ks(places, x)
    L = process.L_
    mean = k @ process.alpha_.ravel()
    from scipy.linalg import solve_triangular
    v = solve_triangular(L, k.T, lower=True)
    var = ks.diag(places) - (v * v).sum(0)
    return level + scale * mean, scale * np.sqrt(np.maximum(var, 0))


def inside(places, seen):
    size = np.array(seen.field)
    w = 0.5 * np.sqrt(size.prod() / max(seen.total, 1))
    from scipy.special import ndtr
    return (ndtr(places / w) - ndtr((places - size) / w)).prod(1)


def kernel(distance, reach):
    scaled = np.sqrt(3) * distance / reach
    return (1 + scaled) * np.exp(-scaled)


def spread(places, taken, weight, reach, count, nugget=None):
    nugget = NUGGET if nugget is None else nugget
    known = np.concatenate([taken, np.full((1, 2), 1e9)])
    distance, near = cKDTree(taken).query(places, k=range(1, NEIGHBOURS + 1))
    neighbours = known[np.minimum(near, len(taken))]
    far = distance[:, -1]
    far_at = np.full(len(places), NEIGHBOURS - 1)

    def var(which):
        n = neighbours[which]
        k = kernel(np.sqrt(((places[which][:, None] - n) ** 2).sum(-1)), reach)
        K = kernel(np.sqrt(((n[:, :, None] - n[:, None]) ** 2).sum(-1)), reach) + nugget * np.eye(NEIGHBOURS)
        return 1 - (k * np.linalg.solve(K, k[..., None])[..., 0]).sum(1)

    gain = weight + np.log(np.maximum(var(np.arange(len(places))), TINY))
    chosen = []
    for _ in range(count):
        chosen.append(int(gain.argmax()))
        new = places[chosen[-1]]
        d = np.sqrt(((places - new) ** 2).sum(1))
        closer = np.flatnonzero(d < distance.max(1))
        worst = distance[closer].argmax(1)
        distance[closer, worst] = d[closer]
        neighbours[closer, worst] = new
        gain[closer] = weight[closer] + np.log(np.maximum(var(closer), TINY))
        gain[chosen] = -np.inf
    return places[chosen]
