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
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.data_sets import DataSet, prepare
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.support.threads import workers
from adaptycho.types import Measurement

PARTS = 3  # that electrons or positions are divided into
SETTLED = 12  # iterations after which a reconstruction with a prior changes little
# Factors of a phase, the most likely of which counts: priors make phases smaller, noise makes them larger.
CONTRASTS = (0.2, 0.3, 0.45, 0.7, 1.0, 1.4, 2.0)
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


@dataclass(frozen=True, eq=False)
class Held:
    """A part of one data set that reconstructions are judged by.

    Attributes:
        data: of the part.
        electrons: in a pattern of it, on average; counts, where those are not electrons.
        empty: loss with nothing there.
        slope: -dL/dV with nothing there, in nats per rad.
        information: F at every pixel.
    """

    data: DataSet
    electrons: float
    empty: float
    slope: Float[Tensor, "H W"]
    information: Float[Tensor, "H W"]

    def likelihood(self, phase: Float[Tensor, "H W"]) -> float:
        """How much more likely the part is with a phase than with nothing there, in nats, at the contrast that suits the phase best."""
        at = CONTRASTS.index(1.0)
        least = self._loss(phase, at)
        for way in (-1, 1):  # as long as it becomes more likely
            next_ = at + way
            while 0 <= next_ < len(CONTRASTS) and (loss := self._loss(phase, next_)) < least:
                least, at, next_ = loss, next_, next_ + way
        return self.electrons * (self.empty - least)

    def _loss(self, phase: Tensor, contrast: int) -> float:
        return self.data.gradient(CONTRASTS[contrast] * phase, map, real=True)[0]

    def agreement(self, phase: Float[Tensor, "H W"]) -> float:
        """How well a phase agrees to first order, in nats; its constant is free."""
        level = phase - (phase * self.information).sum() / self.information.sum()
        power = float((level.square() * self.information).sum())
        return max(0.0, float((level * self.slope).sum())) ** 2 / (2 * power) if power > 0 else 0.0


def choose(descent: Reconstructor, measurement: Measurement, *, seed: int = 0) -> Reconstructor:
    """The reconstructor with the prior that foretells best over all data sets together, or without any.

    Args:
        descent: what is used without a prior. With one it goes by the likelihood of counts, in as many iterations and at least 20.
        measurement: B data sets.
        seed: of the division.
    """
    electrons = descent.counts_per_electron == 1 and bool((measurement.patterns == measurement.patterns.round()).all())
    density = _density(descent.setup, measurement) / descent.counts_per_electron
    without, counted = unregularised(descent)
    if density > MANY or (not electrons and int(measurement.lengths.min()) < PARTS):
        return without
    evidence = foretold(descent, divided(measurement, seed) if electrons else apart(measurement))

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
        held = [parts(descent, part) for _, part in pairs]

    @cache
    def evidence(one: Reconstructor) -> tuple[float, float]:
        quick = one if one.prior == "none" else dataclasses.replace(one, iterations=SETTLED)
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


def divided(measurement: Measurement, seed: int) -> list[tuple[Measurement, Measurement]]:
    """Pairs of measurements of the same specimen: one without a part of the electrons, and that part."""
    counts = measurement.patterns.cpu().numpy().astype(np.int64)
    left, generator, pairs = counts, np.random.default_rng(seed), []
    for i in range(PARTS):
        part = generator.binomial(left, 1 / (PARTS - i))
        left = left - part
        pairs.append((_of(measurement, counts - part, 1 - 1 / PARTS), _of(measurement, part, 1 / PARTS)))
    return pairs


def apart(measurement: Measurement) -> list[tuple[Measurement, Measurement]]:
    """The same with positions: every third, and the others."""
    which = torch.arange(int(measurement.lengths.min()))
    return [(measurement.take(which[which % PARTS != i]), measurement.take(which[which % PARTS == i])) for i in range(PARTS)]


def parts(descent: Reconstructor, measurement: Measurement) -> list[Held]:
    """What reconstructions are judged by, one for each data set."""
    found = []
    for data in prepare(descent.setup, measurement, "poisson", subpixel=descent.subpixel, mask=descent.mask, illuminated=True):
        empty, gradient = data.gradient(torch.zeros_like(data.illumination), map, real=True)
        found.append(Held(data, data.dose, empty, -2 * data.dose * gradient, 4 * data.dose * data.illumination))
    return found


def _of(measurement: Measurement, counts: np.ndarray, fraction: float) -> Measurement:
    patterns = torch.from_numpy(counts).to(measurement.positions)
    return dataclasses.replace(measurement, patterns=patterns, dose=measurement.dose * fraction)
