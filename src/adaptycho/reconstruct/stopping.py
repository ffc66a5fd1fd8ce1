"""When to stop: after as many iterations as foretell best what the reconstruction was not shown.

A descent first finds the specimen and then the noise. A fifth of the electrons is held back, or of the positions where counts are not
electrons (`adaptycho.reconstruct.held_out`); the rest is reconstructed until it has foretold that fifth less well for long enough.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

from adaptycho.reconstruct import held_out
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.reconstruction import Reconstruction
from adaptycho.support.threads import workers
from adaptycho.types import Measurement

PARTS = 5  # that electrons or positions are divided into; one is held back
PATIENCE = 10  # iterations without a better one, or half as many as the best had, after which none is expected


def stop(descent: Reconstructor, measurement: Measurement, *, seed: int = 0) -> Reconstructor:
    """The reconstructor with the number of iterations, at most its own, that foretells best over all data sets together.

    Args:
        descent: what reconstructs.
        measurement: B data sets.
        seed: of the division.
    """
    *_, found = stopping(descent, measurement, seed=seed)
    return found


def stopping(descent: Reconstructor, measurement: Measurement, *, seed: int = 0) -> Iterator[Reconstructor]:
    """The same, yielding the best so far after every iteration.

    Raises:
        ValueError: it is to be decided first what is refined, or by which prior (`seek` and `choose`).
    """
    for name in ("refine", "prior"):
        if getattr(descent, name) == "auto":
            raise ValueError(f"{name}: expected it to be decided before iterations are counted, got 'auto'")
    plain, best, least = dataclasses.replace(descent, stop="iterations"), 1, math.inf
    electrons = held_out.counted(measurement, descent.counts_per_electron)
    if not electrons and int(measurement.lengths.min()) < PARTS:  # too few to hold any back
        yield plain
        return
    shown, held = next(held_out.divided(measurement, PARTS, seed) if electrons else held_out.apart(measurement, PARTS))
    worse = surprise(plain, held, electrons=electrons)
    for number, found in enumerate(plain.steps(shown), 1):
        if (now := worse(found)) < least:
            best, least = number, now
        yield dataclasses.replace(plain, iterations=best)
        if number >= best + max(PATIENCE, best / 2):
            return


def surprise(descent: Reconstructor, held: Measurement, *, electrons: bool) -> Callable[[Reconstruction], float]:
    """What says how little a reconstruction that was not shown a measurement foretells of it, summed over data sets.

    It goes by the likelihood of counts whatever loss the descent makes smaller: the amplitudes of few electrons are smaller on average
    than the amplitude of their mean, and a loss of them prefers what is too dark. For electrons it is that at the contrast that suits the
    phase best, which has too much of it where electrons are few; otherwise as it is, per position. What was refined for all patterns
    together is taken from the reconstruction, and what was for each if the measurement has as many.
    """
    if not descent.known:
        from adaptycho.reconstruct.refine.descent import foretold  # which compiles

        return foretold(dataclasses.replace(descent, loss="poisson"), held)
    if electrons and descent.kind == "potential":
        with workers():
            judges = held_out.judges(descent, held)

        def unlikely(found: Reconstruction) -> float:
            with workers():
                return -sum(judge.likelihood(v) for judge, v in zip(judges, found.potential, strict=True))

        return unlikely
    with workers():
        sets = descent.prepared(held, "poisson")

    def loss(found: Reconstruction) -> float:
        real = not found.potential.is_complex()
        with workers() as lanes:
            return sum(data.gradient(v, lanes, real=real)[0] / len(data) for data, v in zip(sets, found.potential, strict=True))

    return loss
