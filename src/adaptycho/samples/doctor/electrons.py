"""How many counts one electron makes, from the scatter of counts that no specimen explains.

Electrons come at random, so that the variance of their number is the number; counts have the variance of the mean times the counts of one.
A detector that spreads an electron over several pixels shares that out among them: the covariances of neighbours are added. What is left of
the specimen in the differences is smooth over pixels and is taken off, by the level around.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree
from torch import Tensor

from adaptycho.formats.recording import Recording
from adaptycho.physics.forward import diffract
from adaptycho.samples.doctor.disc import Disc
from adaptycho.samples.doctor.trial import Trial

SPREAD = 2  # pixels on each side over which an electron may be spread
SOME = 1500  # patterns looked at
RIM = 0.9  # of the disc's radius: inside, the mean is even
FEWEST = 20  # pixels of the disc that it takes
MANY = 64  # patterns that it takes: a reconstruction of fewer fits their noise
EXACT = 0.2  # relative error, as estimates from parts of recorded data and at other reaches differ


def counts_per_electron(
    recording: Recording, trial: Trial, good: Bool[Tensor, "Q Q2"], kept: Bool[Tensor, " N"], disc: Disc, shift: tuple[int, int]
) -> tuple[float, float] | None:
    """Counts that one electron makes and their standard error, roughly; None if the disc is too small or patterns are too few.

    Two estimates are made, from differences of patterns at neighbouring positions and from what a reconstruction leaves. Specimen and
    misfit can only add to either, so that the smaller one counts.

    Args:
        recording: what was recorded.
        trial: the best reconstruction of a part of it.
        good: detector pixels to believe, zero frequency in the centre pixel.
        kept: patterns to believe.
        disc: in the mean pattern.
        shift: pixels that patterns were moved by for the trial.
    """
    data = recording.measurement
    inside = _inside(data.patterns.shape[-2:], disc.centre, disc.radius) & good
    if int(inside.sum()) < FEWEST or int(kept.sum()) < MANY:
        return None
    lit = inside.double().numpy()
    numbers = kept.nonzero()[:, 0]
    where = (data.positions[0].cpu().double() * torch.tensor(recording.setup.field, dtype=torch.float64))[numbers].numpy()
    chosen = np.random.default_rng(0).permutation(len(numbers))[:SOME]
    near = cKDTree(where).query(where[chosen], k=2)[1][:, 1]
    one, other = (_centred(data.patterns[0][numbers[torch.from_numpy(i)]]) for i in (chosen, near))
    level = float(((one + other) / 2)[:, inside.numpy()].mean())
    estimates = [_summed((one - other) / math.sqrt(2), lit) / level]
    tried, setup = trial.part.measurement, trial.part.setup
    model = diffract(setup, trial.potential[0], tried.positions[0], tried.defocus[0]) * tried.dose[0][:, None, None]
    left = _centred(tried.patterns[0]) - _centred(model)
    moved = tuple(c + s for c, s in zip(disc.centre, shift, strict=True))
    back = _inside(left.shape[-2:], moved[::-1] if trial.way.mirrored else moved, disc.radius)
    if setup.mask is not None:
        back &= torch.fft.fftshift(setup.mask.cpu() > 0)
    if int(back.sum()) >= FEWEST:
        estimates.append(_summed(left, back.double().numpy()) / float(_centred(tried.patterns[0])[:, back.numpy()].mean()))
    found = min(estimates)
    return (found, EXACT * found) if found > 0 else None


def _summed(differences: Float[np.ndarray, "N Q Q2"], lit: Float[np.ndarray, "Q Q2"]) -> float:
    """Covariances with the neighbours within `SPREAD` pixels, less the level further out, added up."""
    differences = (differences - differences.mean(0)) * lit
    twice = tuple(2 * n for n in lit.shape)
    power = np.zeros((twice[0], twice[1] // 2 + 1))
    for first in range(0, len(differences), 256):
        power += (np.abs(np.fft.rfft2(differences[first : first + 256], s=twice, axes=(-2, -1))) ** 2).sum(0)
    pairs = np.fft.irfft2(np.abs(np.fft.rfft2(lit, s=twice)) ** 2, s=twice)
    covariance = np.fft.irfft2(power / len(differences), s=twice) / np.maximum(pairs, 0.5)
    away = np.arange(-SPREAD - 1, SPREAD + 2)
    ring = np.maximum(np.abs(away)[:, None], np.abs(away)[None])
    near = covariance[np.ix_(away, away)]
    return float((near[ring <= SPREAD] - near[ring > SPREAD].mean()).sum())


def _inside(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> Tensor:
    y, x = (torch.arange(n, dtype=torch.float64) - n // 2 - c for n, c in zip(shape, centre, strict=True))
    return torch.hypot(y[:, None], x[None]) < RIM * radius


def _centred(patterns: Tensor) -> Float[np.ndarray, "N Q Q2"]:
    return torch.fft.fftshift(patterns.to("cpu", torch.float64), (-2, -1)).numpy()
