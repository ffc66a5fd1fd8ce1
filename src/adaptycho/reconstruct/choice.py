"""Which prior, and how strong, from the measurement alone: the one whose reconstruction foretells electrons that it was not shown.

The electrons are divided at random into parts, and each part is foretold from a reconstruction of the others: divided like that, Poisson
counts give independent measurements of the same specimen. Where counts are not electrons, positions are divided instead.

Two things are asked of a phase V. How much more likely is the part with it than with nothing there? That is the whole likelihood, but with
few electrons it is more of a verdict on noise, which scatters electrons into the dark field by its square, than on structure. And how well
does V agree with what the part says of structure to first order, -dL/dV at V = 0? With the Fisher information F = 4 N of N electrons on a
pixel that is `(V . dL/dV)^2 / (2 V . F V)`, in nats, and does not depend on the contrast of V. So of the priors about as likely as the best
one, that is taken which agrees best. Where none makes the electrons clearly more likely than the same loss does without, as where they
are many, there is nothing to be gained, and it is done without.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.reconstruct import Prior
from adaptycho.reconstruct.data_sets import DataSet, prepare
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.support.threads import workers
from adaptycho.types import Measurement

PARTS = 3  # that electrons or positions are divided into
SETTLED = 12  # iterations after which a reconstruction with a prior changes little
CONTRASTS = (0.7, 1.0, 1.4, 2.0)  # factors of a phase, the most likely of which counts: priors make phases smaller
NEAR = 10.0, 2e-3  # nats, and fraction of the best likelihood, by which others are about as likely
# Where positions were held back: how likely patterns are where nobody looked says little, for what lies between positions is not known.
ANY = math.inf, 0.0
CLEARLY = 0.01  # of the likelihood, that a prior has to add
# Prior, strength, and the radius of blobs in units of the wavelength over the convergence semi-angle.
CANDIDATES: tuple[tuple[Prior, float, float], ...] = (
    *(("atoms", strength, 0.17) for strength in (0.06, 0.12, 0.25, 0.5, 1.0)),
    *(("atoms", strength, 0.08) for strength in (0.06, 0.25)),
    *(("edges", strength, 0.0) for strength in (0.06, 0.25)),
)


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
        return self.electrons * (self.empty - min(self.data.gradient(c * phase, map, real=True)[0] for c in CONTRASTS))

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
    plain = dataclasses.replace(descent, prior="none")
    counted = dataclasses.replace(
        plain, loss="poisson", step="auto", momentum=max(descent.momentum, 0.7), iterations=max(descent.iterations, 20)
    )
    unit = descent.setup.wavelength / (1e-3 * descent.setup.semiangle)
    tried = [counted, *(dataclasses.replace(counted, prior=p, strength=s, blob=b * unit) for p, s, b in CANDIDATES)]
    electrons = descent.counts_per_electron == 1 and bool((measurement.patterns == measurement.patterns.round()).all())
    if not electrons and int(measurement.lengths.min()) < PARTS:
        return plain
    pairs = divided(measurement, seed) if electrons else apart(measurement)
    with workers():
        held = [parts(descent, part) for _, part in pairs]
    found = []
    for one in tried:
        quick = one if one.prior == "none" else dataclasses.replace(one, iterations=SETTLED)
        phases = [quick(shown).phase for shown, _ in pairs]
        judged = [(h, v) for some, images in zip(held, phases, strict=True) for h, v in zip(some, images, strict=True)]
        with workers():  # sums are the same whatever the number of threads
            found.append((sum(h.likelihood(v) for h, v in judged), sum(h.agreement(v) for h, v in judged)))
    return tried[number] if (number := best(found, NEAR if electrons else ANY)) else plain


def best(found: Sequence[tuple[float, float]], slack: tuple[float, float]) -> int:
    """Number of the prior that agrees best among those about as likely as the most likely one; 0 if none is worth it.

    Args:
        found: likelihood and agreement in nats, without a prior and then with each.
        slack: nats, and fraction of the best likelihood, by which others are about as likely.
    """
    without, top = found[0][0], max(likelihood for likelihood, _ in found[1:])
    if not top > without + CLEARLY * abs(without):
        return 0
    near = [i for i, (likelihood, _) in enumerate(found) if i and likelihood >= top - slack[0] - slack[1] * abs(top)]
    return max(near, key=lambda i: found[i][1])


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
    sets = prepare(descent.setup, measurement, "poisson", subpixel=descent.subpixel, mask=descent.mask, illuminated=True)
    for b, data in enumerate(sets):
        electrons = float(measurement.dose[b, : len(data)].mean())
        empty, gradient = data.gradient(torch.zeros_like(data.illumination), map, real=True)
        found.append(Held(data, electrons, empty, -2 * electrons * gradient, 4 * electrons * data.illumination))
    return found


def _of(measurement: Measurement, counts: np.ndarray, fraction: float) -> Measurement:
    patterns = torch.from_numpy(counts).to(measurement.positions)
    return dataclasses.replace(measurement, patterns=patterns, dose=measurement.dose * fraction)
