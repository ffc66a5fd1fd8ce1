"""Parts of a measurement that a reconstruction is not shown, to judge it by.

Poisson counts that are divided at random are independent measurements of the same specimen. Where counts are not electrons, positions are
divided instead.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.reconstruct.data_sets import DataSet
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.types import Measurement

# Factors of a phase, the most likely of which counts: priors make phases smaller, noise makes them larger.
CONTRASTS = (0.2, 0.3, 0.45, 0.7, 1.0, 1.4, 2.0)


ROWS = 1 << 12  # detector rows that are divided at a time


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


def counted(measurement: Measurement, counts_per_electron: float) -> bool:
    """Whether what was counted are electrons."""
    return counts_per_electron == 1 and bool((measurement.patterns == measurement.patterns.round()).all())


def thinned(electrons: Float[Tensor, "*shape"], share: float, seed: int) -> Float[Tensor, "*shape"]:
    """Each electron kept with some probability: counts as of a share of the dose, exactly."""
    counts = electrons.cpu().numpy().astype(np.int64)
    return torch.from_numpy(np.random.default_rng(seed).binomial(counts, share)).to(electrons)


def divided(measurement: Measurement, parts: int, seed: int) -> Iterator[tuple[Measurement, Measurement]]:
    """Pairs of measurements of the same specimen: one without a part of the electrons, and that part."""
    counts = measurement.patterns.cpu().numpy()
    small = (
        counts.dtype if counts.dtype.kind in "iu" else np.dtype(np.int64 if counts.max(initial=0) > np.iinfo(np.int32).max else np.int32)
    )
    counts = counts.astype(small)
    left, part, generator = counts.copy(), np.empty_like(counts), np.random.default_rng(seed)
    flat, chosen = left.reshape(-1, left.shape[-1]), part.reshape(-1, part.shape[-1])
    for i in range(parts):
        for first in range(0, len(flat), ROWS):  # or twice eight bytes would be needed for every count
            some = slice(first, first + ROWS)
            chosen[some] = generator.binomial(flat[some].astype(np.int64), 1 / (parts - i))
        left -= part
        yield _of(measurement, counts - part, 1 - 1 / parts), _of(measurement, part, 1 / parts)


def apart(measurement: Measurement, parts: int) -> Iterator[tuple[Measurement, Measurement]]:
    """The same with positions: all but every so manieth, and those."""
    which = torch.arange(int(measurement.lengths.min()))
    for i in range(parts):
        yield measurement.take(which[which % parts != i]), measurement.take(which[which % parts == i])


def judges(descent: Reconstructor, measurement: Measurement) -> list[Held]:
    """What reconstructions are judged by, one for each data set."""
    found = []
    for data in descent.prepared(measurement, "poisson"):
        empty, gradient = data.gradient(torch.zeros_like(data.illumination), map, real=True)
        found.append(Held(data, data.dose, empty, -2 * data.dose * gradient, 4 * data.dose * data.illumination))
    return found


def _of(measurement: Measurement, counts: np.ndarray, fraction: float) -> Measurement:
    patterns = torch.from_numpy(counts).to(measurement.positions)
    return dataclasses.replace(measurement, patterns=patterns, dose=measurement.dose * fraction)
