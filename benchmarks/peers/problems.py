"""The problems: MoS2 in the geometry of the paper, a regular raster, known truths. `python problems.py folder --side 16`."""

import argparse
from pathlib import Path

import numpy as np
import torch
from exchange import Problem, write

from adaptycho import settings
from adaptycho.physics.forward import Imperfections, expose
from adaptycho.settings import build

BLUR = 20.0  # Å of underfocus that the probe guess does not know of where the probe is refined


def make(side: int, electrons: float, refine: bool, specimens: int, first: int = 0) -> list[tuple[Problem, np.ndarray]]:
    """Problems and true phases on their object grid; the first specimen is the one to tune on.

    Args:
        side: positions along each side of the raster, which has a position in the middle of each of its cells.
        electrons: sent to each position.
        refine: whether the beam is out of focus by `BLUR`, which the guess of the probe does not know.
        specimens: how many.
        first: number of the first.
    """
    microscope = build.simulated(settings.update(settings.preset("paper"), {"specimen": {"count": specimens, "first": first}}, "peers"))
    setup = microscope.setup
    assert setup.energy is not None  # the preset has electrons
    axis = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    where = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    dose = torch.full((side**2,), electrons)
    focus = torch.full_like(dose, BLUR if refine else 0.0)
    field = np.array(setup.field)
    found = []
    for number, potential in enumerate(microscope.potential):
        generator = torch.Generator().manual_seed(1000 + first + number)
        patterns = expose(setup, potential, where, dose, focus, Imperfections(), generator=generator)
        problem = Problem(
            patterns=patterns.numpy().astype(np.float32),
            positions=where.numpy().astype(np.float64) * field,
            raster=np.array([side, side]),
            step=field / side,
            probe=setup.probe().numpy().astype(np.complex64),
            shape=np.array(setup.object.shape),
            corner=setup.to_pixels(torch.zeros(2, dtype=torch.float64)).numpy(),
            pixel=setup.object.pixel,
            energy=setup.energy,
            semiangle=setup.semiangle,
            refine=refine,
        )
        found.append((problem, potential.numpy()))
    return found


def save(folder: Path, side: int, electrons: float, refine: bool, specimens: int, first: int = 0) -> list[tuple[Path, np.ndarray]]:
    """Writes the problems and returns their paths, and the truths, which no package is given."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, (problem, truth) in enumerate(make(side, electrons, refine, specimens, first), first):
        path = folder / f"{side**2}-{electrons:g}-{'refined' if refine else 'fixed'}-{number}.npz"
        write(path, problem)
        found.append((path, truth))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--electrons", type=float, default=2e5)
    parser.add_argument("--refine", action="store_true")
    parser.add_argument("--specimens", type=int, default=4)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    save(given.folder, given.side, given.electrons, given.refine, given.specimens, given.first)
