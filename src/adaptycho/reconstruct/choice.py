"""Which prior, and how strong, from the measurement alone: the one whose reconstruction foretells electrons that it was not shown.

The electrons are divided at random into parts, and each part is foretold from a reconstruction of the others: divided like that, Poisson
counts give independent measurements of the same specimen. Where counts are not electrons, positions are divided instead.

Two things are asked of a phase V. How much more likely is the part with it than with nothing there? That is the whole likelihood, but with
few electrons it is more of a verdict on noise, which scatters electrons into the dark field by its square, than on structure. And how well
does V agree with what the part says of structure to first order, -dL/dV at V = 0? With the Fisher information F = 4 N of N electrons on a
pixel that is `(V . dL/dV)^2 / (2 V . F V)`, in nats, and does not depend on the contrast of V. Both are added.

Few electrons say little: the evidence then differs by a few nats, and as much by chance. So every prior has odds beforehand, by how far it
is from what suits such a dose on average, and the search climbs from there to the best of its neighbours until there is none. Only where
the odds are outweighed, or electrons are many, it is done without a prior.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch

from adaptycho.physics.optics import Setup
from adaptycho.reconstruct import held_out
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.support.threads import workers
from adaptycho.types import Measurement

PARTS = 3  # that electrons or positions are divided into
SETTLED = 12  # iterations after which a reconstruction with a prior changes little
CLEARLY = 0.01  # of the likelihood, that a prior has to add where positions were held back
STRENGTHS = (0.06, 0.12, 0.25, 0.5, 1.0)
BLOBS = (0.08, 0.12, 0.17, 0.25)  # radii, in units of the wavelength over the convergence semi-angle
# What suits a dose on average, and the odds against everything else in nats: found on three training specimens of five families at 100 to
# 30,000 electrons in a pattern, where what was chosen was 0.009 of the correlation behind what was best in hindsight.
ATOMS, EDGES = 0.4, 0.25  # strengths
BLOB, FINER = 0.2, 0.1  # radius at 100 electrons for each square of wavelength over semi-angle, and the power of these it falls with
OFF_STRENGTH, OFF_BLOB = 2.0, 10.0  # times the squared logarithm of the ratio to what suits
OTHER = 30.0  # for another prior than atoms, or none
# Electrons for each square of wavelength over semi-angle from where nothing is chosen: what is left then is mostly errors of the model, as
# of probes on a lattice, to which counts in the dark field are more sensitive than amplitudes. At 2e5 electrons in a pattern, in focus, a
# prior that foretold more was 0.016 of the correlation behind none on films and particles.
MANY = 1e5


def choose(descent: Reconstructor, measurement: Measurement, *, seed: int = 0) -> Reconstructor:
    """The reconstructor with the prior that foretells best over all data sets together, or without any.

    Args:
        descent: what is used without a prior. With one it goes by the likelihood of counts, in as many iterations and at least 20.
        measurement: B data sets.
        seed: of the division.
    """
    electrons = held_out.counted(measurement, descent.counts_per_electron)
    density = _density(descent.setup, measurement) / descent.counts_per_electron
    without, counted = unregularised(descent)
    if density > MANY or (not electrons and int(measurement.lengths.min()) < PARTS):
        return without
    evidence = foretold(descent, [*(held_out.divided(measurement, PARTS, seed) if electrons else held_out.apart(measurement, PARTS))])

    @cache
    def worth(one: Reconstructor) -> float:
        likelihood, agreement = evidence(one)
        found = agreement + likelihood if electrons else agreement / descent.counts_per_electron
        return found - _odds(one, density)

    chosen = max(climbed(descent, density, worth), without, counted, key=worth)
    if not electrons and chosen.prior != "none":
        # How likely patterns are where nobody looked says little, for what lies between positions is not known: but it has to grow.
        known, empty = evidence(chosen)[0], evidence(counted)[0]
        return chosen if known > empty + CLEARLY * abs(empty) else without
    return chosen


def candidates(descent: Reconstructor) -> dict[str, Reconstructor]:
    """Everything that may be chosen, by a name for it."""
    without, counted = unregularised(descent)
    atoms = {f"atoms, strength {s:g}, blob {b:g}": _atoms(counted, i, j) for i, b in enumerate(BLOBS) for j, s in enumerate(STRENGTHS)}
    edges = {f"edges, strength {s:g}": _edges(counted, j) for j, s in enumerate(STRENGTHS)}
    return {**atoms, **edges, "none": without, "none, by the likelihood of counts": counted}


def unregularised(descent: Reconstructor) -> tuple[Reconstructor, Reconstructor]:
    """As it is without a prior, and the same by the likelihood of counts."""
    plain, momentum = dataclasses.replace(descent, prior="none"), max(descent.momentum, 0.7)
    return plain, dataclasses.replace(plain, loss="poisson", step="auto", momentum=momentum, iterations=max(descent.iterations, 20))


def climbed(descent: Reconstructor, density: float, worth: Callable[[Reconstructor], float]) -> Reconstructor:
    """The best prior that is reached, step by step, from what suits so many electrons for each square of wavelength over semi-angle."""
    counted, suits = unregularised(descent)[1], _blob(density)
    blob, strength = _nearest(BLOBS, suits), _nearest(STRENGTHS, ATOMS)

    def near(i: int, j: int) -> Iterator[tuple[int, int]]:
        for m, n in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)):
            if 0 <= i + m < len(BLOBS) and 0 <= j + n < len(STRENGTHS):
                yield i + m, j + n

    while (best := max(near(blob, strength), key=lambda at: worth(_atoms(counted, *at)))) != (blob, strength):
        blob, strength = best
    atoms, edge = _atoms(counted, blob, strength), _nearest(STRENGTHS, EDGES)
    if worth(_edges(counted, edge)) < worth(atoms) - OTHER:
        return atoms
    while (other := max(range(max(0, edge - 1), min(len(STRENGTHS), edge + 2)), key=lambda j: worth(_edges(counted, j)))) != edge:
        edge = other
    return max(atoms, _edges(counted, edge), key=worth)


def foretold(descent: Reconstructor, pairs: Sequence[tuple[Measurement, Measurement]]) -> Callable[[Reconstructor], tuple[float, float]]:
    """What gives likelihood and agreement, in nats, of the second measurements of some pairs with what is made of the first ones."""
    with workers():
        held = [held_out.judges(descent, part) for _, part in pairs]

    @cache
    def evidence(one: Reconstructor) -> tuple[float, float]:
        quick = dataclasses.replace(one, stop="iterations", iterations=one.iterations if one.prior == "none" else SETTLED)
        phases = [quick(shown).phase for shown, _ in pairs]
        judged = [(h, v) for some, images in zip(held, phases, strict=True) for h, v in zip(some, images, strict=True)]
        with workers():  # sums are the same whatever the number of threads
            return sum(h.likelihood(v) for h, v in judged), sum(h.agreement(v) for h, v in judged)

    return evidence


def _atoms(counted: Reconstructor, blob: int, strength: int) -> Reconstructor:
    return dataclasses.replace(counted, prior="atoms", strength=STRENGTHS[strength], blob=BLOBS[blob] * counted.setup.resolution)


def _edges(counted: Reconstructor, strength: int) -> Reconstructor:
    return dataclasses.replace(counted, prior="edges", strength=STRENGTHS[strength])


def _odds(one: Reconstructor, density: float) -> float:
    """Nats by which something is less likely than what suits so many electrons."""
    match one.prior:
        case "atoms":
            off = OFF_BLOB * math.log(one.blob / one.setup.resolution / _blob(density)) ** 2
            return off + OFF_STRENGTH * math.log(one.strength / ATOMS) ** 2
        case "edges":
            return OTHER + OFF_STRENGTH * math.log(one.strength / EDGES) ** 2
        case _:
            return OTHER


def _blob(density: float) -> float:
    return min(max(BLOB * (density / 100) ** -FINER, BLOBS[0]), BLOBS[-1])


def _nearest(values: Sequence[float], wanted: float) -> int:
    return min(range(len(values)), key=lambda i: abs(math.log(values[i] / wanted)))


def _density(setup: Setup, measurement: Measurement) -> float:
    """Counts sent for each square of wavelength over semi-angle, over the field."""
    sent = float(measurement.dose.sum(dtype=torch.float64)) / len(measurement)
    return sent * setup.resolution**2 / (setup.field[0] * setup.field[1])
