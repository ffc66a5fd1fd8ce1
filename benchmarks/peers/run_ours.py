"""adaptycho on a problem file; see `exchange.main` for the arguments."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import exchange
import torch

from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.seeking import SOUGHT
from adaptycho.types import Measurement


def descend(problem: exchange.Problem, settings: dict[str, Any]) -> Iterator[exchange.Image]:
    """`Reconstructor.best` with changes, one iteration after the other; what it refines by itself where the probe is wrong."""
    n, field = problem.patterns.shape[1], problem.step * problem.raster
    setup = Setup(
        field=(float(field[0]), float(field[1])),
        object=Grid(shape=tuple(problem.shape.tolist()), pixel=problem.pixel),
        window=Grid(shape=(n, n), pixel=problem.pixel),
        detector=(n, n),
        semiangle=problem.semiangle,
        energy=problem.energy,
    )
    where = torch.from_numpy(problem.positions / field).float()[None]
    patterns = torch.from_numpy(problem.patterns)[None]
    dose = torch.full(where.shape[:2], problem.electrons)
    refine: dict[str, Any] = {"refine": SOUGHT} if problem.refine else {}
    method = Reconstructor.best(setup, iterations=1000, **refine, **settings)
    for state in method.steps(Measurement(where, patterns, dose, torch.zeros_like(dose))):
        yield exchange.Image(state.phase[0].numpy(), problem.corner)


if __name__ == "__main__":
    torch.set_num_threads(1)
    exchange.main(f"adaptycho {version('adaptycho')}", descend)
