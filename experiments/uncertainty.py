"""How far from the truth a phase is, against how uncertain it says it is: one JSON line for each case.

`python experiments/uncertainty.py [--first 2040000] [--specimens 6]`

Hexagonal scans of the whole field and of half of it, the prior that the patterns choose. `within_1` and `within_2` are the fractions of
pixels whose error is below one and two standard errors (0.68 and 0.95 of a normal distribution), `rms` the root of the mean square of their
quotient, for the whole field and for the fourth of it that is farthest from all positions (`dark`, of half scans), where `known` is the
standard error over the spread of the true phase. Mean and 95 % interval over specimens. Nothing else looks at numbers 2,040,000 and up.
"""

import argparse
import json
import math
import os
import statistics
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from stopping import specimen

from adaptycho.reconstruct.choice import choose
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.uncertainty import uncertainty
from adaptycho.scan import patterns
from adaptycho.types import Action

FAMILIES = ("crystal", "island", "particles", "amorphous", "vacancies", "boundary")
DOSES = ((300.0, 64), (1000.0, 144), (1e4, 144))  # electrons in a pattern, positions


def tried(family: str, number: int, dose: float, positions: int, *, half: bool) -> dict[str, float]:
    """Quotients of error and standard error, of one specimen."""
    found = specimen(family, number)
    where = patterns.hexagonal(positions, found.setup.field)[None].float()
    seen = found.microscope.acquire(Action(where, 90.0, dose), generator=torch.Generator().manual_seed(number))
    if half:
        seen = seen.take((where[0, :, 1] < 0.5).nonzero()[:, 0])
    how = choose(Reconstructor.best(found.setup, prior="auto"), seen)
    if how.prior == "none":
        return {}
    error, phase = (found.setup.crop(x)[0] for x in (uncertainty(how, seen), how(seen).phase))
    columns = phase.shape[1]
    lit = slice(0, columns // 2) if half else slice(None)
    off = phase - found.truth[0]
    away = (off - off[:, lit].mean()).abs() / error  # the constant is free, and told by what was seen
    told = {"within_1": away < 1, "within_2": away < 2}
    scores = {name: float(some.float().mean()) for name, some in told.items()} | {"rms": float(away.square().mean().sqrt())}
    if half:
        dark = slice(columns - columns // 4, None)
        scores |= {"dark_" + name: float(some[:, dark].float().mean()) for name, some in told.items()}
        scores["dark_known"] = float(error[:, dark].mean() / found.truth[0].std())
    return scores


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=2_040_000)
    parser.add_argument("--specimens", type=int, default=6)
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    for family in FAMILIES:
        for dose, positions in DOSES:
            for half in (False, True):
                numbers = range(asked.first, asked.first + asked.specimens)
                every = [tried(family, number, dose, positions, half=half) for number in numbers]
                known = [scores for scores in every if scores]
                told: dict[str, Any] = {"family": family, "dose": dose, "positions": positions, "half": half, "with_prior": len(known)}
                print(json.dumps(told | {name: _spread([one[name] for one in known]) for name in (known[0] if known else ())}), flush=True)


def _spread(values: list[float]) -> list[float]:
    """Mean and half of its 95 % interval (normal)."""
    wide = 1.96 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return [round(statistics.fmean(values), 3), round(wide, 3)]


if __name__ == "__main__":
    main()
