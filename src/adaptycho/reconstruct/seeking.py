"""Whether the probe is refined, from the measurement alone: if it foretells patterns better that were held back.

A calculated probe is seldom the real one, and a wrong one looks like structure. A measured or simulated one is better left alone where
electrons are few. Both ways are tried on a part of the patterns (`adaptycho.reconstruct.held_out`), as near to the middle of the field and
as many as are worth the time.
"""

import dataclasses

import torch

from adaptycho.reconstruct import held_out
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.stopping import surprise
from adaptycho.types import Measurement

PARTS = 5  # that electrons or positions are divided into; one is held back
MOST = 1000  # patterns that are looked at
TRIED = (20, 40)  # iterations with the probe as it is, and refined
REFINED = 100  # iterations that it then takes at least
CLEARLY = 0.002  # of the loss, that a refined probe has to gain


def seek(descent: Reconstructor, measurement: Measurement, *, seed: int = 0) -> Reconstructor:
    """The reconstructor with its probe refined, or with nothing but the object sought, whatever foretells better.

    Args:
        descent: whose `refine` is `auto`. A prior that is to be chosen is left out where the probe is refined.
        measurement: B data sets.
        seed: of the division.
    """
    plain = dataclasses.replace(descent, refine=())
    prior = "none" if plain.prior == "auto" else plain.prior
    count = max(descent.iterations, REFINED)
    refined = dataclasses.replace(plain, refine=("probe",), prior=prior, method="momentum", iterations=count)
    some = _middle(measurement)
    electrons = held_out.counted(some, descent.counts_per_electron)
    if not electrons and int(some.lengths.min()) < PARTS:
        return plain
    shown, held = (held_out.divided(some, PARTS, seed) if electrons else held_out.apart(some, PARTS))[0]
    base = dataclasses.replace(plain, prior="none", stop="iterations", method="momentum", iterations=TRIED[0])
    tried = (base, dataclasses.replace(base, refine=("probe",), iterations=TRIED[1]))
    without, with_ = (surprise(one, held, electrons=False)(one(shown)) for one in tried)
    return refined if with_ < (1 - CLEARLY) * without else plain


def _middle(measurement: Measurement) -> Measurement:
    """The patterns nearest to the middle of the field."""
    if measurement.positions.shape[1] <= MOST:
        return measurement
    distance = (measurement.positions[0] - 0.5).square().sum(-1)
    return measurement.take(torch.sort(distance.topk(MOST, largest=False).indices).values)
