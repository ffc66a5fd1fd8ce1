"""Whether probe and defocus are refined, from the measurement alone: if that foretells patterns better that were held back.

A calculated probe is seldom the real one, and a wrong one looks like structure. A measured or simulated one is better left alone where
electrons are few. Both ways are tried on a part of the patterns (`adaptycho.reconstruct.held_out`), as near to the middle of the field and
as many as are worth the time.
"""

import dataclasses
from typing import Any

import torch

from adaptycho.reconstruct import held_out
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.refine import Parameter
from adaptycho.reconstruct.stopping import surprise
from adaptycho.types import Measurement

# A wrong defocus is one number, which a free probe has to find in thousands: sought as one, the same loss is reached with an object nearer
# to the truth (a correlation of 0.984 instead of 0.965 for 20 Å on a sparse raster, `benchmarks/peers`).
SOUGHT: tuple[Parameter, ...] = ("probe", "defocus")
PARTS = 5  # that electrons or positions are divided into; one is held back
MOST, PIXELS = 1000, 8e6  # patterns that are looked at, and their pixels: several copies of them are made
TRIED = (20, 40)  # iterations with the probe as it is, whichever foretell better; the latter with it refined
REFINED = 100  # iterations that it then takes at least
CLEARLY = 0.002  # of the loss, that a refined probe has to gain


def seek(descent: Reconstructor, measurement: Measurement, *, seed: int = 0) -> Reconstructor:
    """The reconstructor with its probe refined, or with nothing but the object sought, whatever foretells better.

    Args:
        descent: whose `refine` is `auto`. A prior that is to be chosen is left out where the probe is refined.
        measurement: B data sets.
        seed: of the division.
    """
    known = 1 if descent.probe is None or descent.probe.ndim == 2 else len(descent.probe)
    plain = dataclasses.replace(descent, refine=(), modes=min(descent.modes, known))
    prior = "none" if plain.prior == "auto" else plain.prior
    count = max(descent.iterations, REFINED)
    refined = dataclasses.replace(descent, refine=SOUGHT, prior=prior, method="momentum", iterations=count)
    some = _middle(measurement)
    electrons = held_out.counted(some, descent.counts_per_electron)
    if not electrons and int(some.lengths.min()) < PARTS:
        return plain
    shown, held = next(held_out.divided(some, PARTS, seed) if electrons else held_out.apart(some, PARTS))
    # Both by steps that adapt, as a refinement takes them; without it as many of them as suit it better.
    steps: dict[str, Any] = {"step": "auto", "scaling": "illumination", "momentum": max(plain.momentum, 0.7)}
    base = dataclasses.replace(plain, prior="none", stop="iterations", method="momentum", iterations=TRIED[-1], **steps)
    foretold, descent_ = surprise(base, held, electrons=False), base.steps(shown)
    without = min(foretold(found) for number, found in enumerate(descent_, 1) if number in TRIED)
    probe = dataclasses.replace(base, refine=SOUGHT, modes=descent.modes)
    with_ = surprise(probe, held, electrons=False)(probe(shown))
    return refined if with_ < (1 - CLEARLY) * without else plain


def _middle(measurement: Measurement) -> Measurement:
    """Of each data set the patterns nearest to the middle of the field."""
    most = min(MOST, int(PIXELS / measurement.patterns[0, 0].numel()))
    if measurement.positions.shape[1] <= most:
        return measurement

    def nearest(one: Measurement) -> Measurement:
        distance = (one.positions[0] - 0.5).square().sum(-1)
        return one.take(torch.sort(distance.topk(min(most, len(distance)), largest=False).indices).values)

    return Measurement.stack([nearest(one) for one in measurement.split()])
