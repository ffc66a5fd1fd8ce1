"""Where structure is, told from what the beam saw: the mask that a microscopist would draw round it after a survey.

Every position has a signal: the electrons that it scattered out of the bright-field disc, for which nothing has to be reconstructed, or
the energy of the phase under the beam. Between positions it is a Gaussian mean, as wide as it takes to hold some electrons, since few say
little. Otsu's threshold (IEEE Trans. Syst. Man Cybern. 9, 62, 1979) parts the field at the square root of the signal, whose Poisson noise
is the same everywhere.

A threshold parts noise as well. So the mean is believed only if it foretells: if the signals are more likely under the means of their
neighbours, each itself left out, than under the mean of the whole field. And what lies outside of the mask has to signal much less, or
with many electrons a film a little thicker here than there would be structure.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import pdist, squareform

from adaptycho.scan import Signal
from adaptycho.scan.policies.gaussian_process import observe
from adaptycho.scan.policies.reduction import mean_spacing
from adaptycho.types import Observation

Array = NDArray[np.float64]
NARROWEST = 0.5  # rms width of the mean in mean distances between positions: narrower, it would follow each of them
ENOUGH = 4.0  # electrons that the mean's neighbourhood is to hold on average
CONTRAST = 0.6  # of the structure's mean signal, which the rest has to be below: islands 0.02, particles on a film 0.4, uniform films 0.7
PRIOR = 0.25  # positions of average signal that every place is taken to have seen: far from all of them nothing is known


def mask(seen: Observation, specimen: int, signal: Signal, margin: float) -> NDArray[np.bool_] | None:
    """Pixels (h, w) of the field where one specimen has structure, or None if nothing stands out or there is no such signal.

    Args:
        seen: after a survey.
        specimen: its number among the B that are scanned.
        signal: what structure is told from, `dark-field` or `phase`.
        margin: what the mask is grown by, in radii of the beam.
    """
    size, shape = np.array(seen.field), tuple(seen.potential.shape[1:])
    taken = seen.positions[specimen].cpu().double().numpy() * size
    signals = _signals(seen, specimen, signal, taken)
    if signals is None or not signals[0].any():
        return None
    amount, weight = signals
    width = mean_spacing(seen, len(taken)) * NARROWEST
    if signal == "dark-field":
        # A Gaussian mean is as noisy as an even one over 4 pi width^2.
        width = min(max(width, float(np.sqrt(ENOUGH / (4 * np.pi) * size.prod() / amount.sum()))), float(size.max()))
    if foretold(taken, amount, weight, width) <= 0:
        return None
    pixel = size / shape
    local = _mean(taken / pixel, amount, weight, width / pixel, shape)
    empty = np.sqrt(local) <= otsu(np.sqrt(local))
    if empty.all() or local[empty].mean() > CONTRAST * local[~empty].mean():
        return None
    return np.asarray(ndimage.distance_transform_edt(empty, sampling=pixel) <= margin * seen.probe)


def foretold(taken: Array, amount: Array, weight: Array, width: float) -> float:
    """How much more likely, in nats, all signals are under the means over their neighbours than under the mean of all.

    Args:
        taken: positions (K, 2) in Å.
        amount: what each signalled.
        weight: out of what, its dose.
        width: rms, in Å, of the Gaussian that neighbours count by.
    """
    near = squareform(np.exp(-((pdist(taken) / width) ** 2) / 2))  # nothing on the diagonal: none foretells itself
    mean, prior = amount.sum() / weight.sum(), PRIOR * weight.mean()
    local = (near @ amount + prior * mean) / (near @ weight + prior)
    # Of Poisson counts, whose factorials cancel.
    return float((amount * np.log(local / mean) - weight * (local - mean)).sum())


def otsu(values: Array) -> float:
    """The threshold that leaves the least variance on its two sides."""
    v = np.sort(values, axis=None)
    below, n = np.arange(1, len(v)), len(v)
    between = (v.cumsum()[:-1] * n - below * v.sum()) ** 2 / (below * (n - below))
    return float(v[[(i := int(between.argmax())), i + 1]].mean())


def _signals(seen: Observation, specimen: int, signal: Signal, taken: Array) -> tuple[Array, Array] | None:
    """What each position signalled, and out of what, both not negative."""
    dose = seen.dose[specimen].cpu().double().numpy()
    if signal == "phase":
        phase = seen.potential[specimen].cpu().double().numpy()
        return (np.exp(observe(phase, taken, dose, seen)), np.ones(len(taken))) if np.isfinite(phase).all() else None
    if seen.scattered is None:
        return None
    return seen.scattered[specimen].cpu().double().numpy().clip(min=0) * dose, dose


def _mean(places: Array, amount: Array, weight: Array, width: Array, shape: tuple[int, ...]) -> Array:
    """Gaussian mean of the signal at every pixel; the places and the rms width in pixels."""

    def spread(values: Array) -> Array:
        hits = np.zeros(shape)
        np.add.at(hits, tuple(places.astype(int).clip(0, np.array(shape) - 1).T), values)
        return np.asarray(ndimage.gaussian_filter(hits, width, mode="constant") * 2 * np.pi * width.prod())

    prior = PRIOR * weight.mean()
    return (spread(amount) + prior * amount.sum() / weight.sum()) / (spread(weight) + prior)
