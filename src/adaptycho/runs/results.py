"""Results of reconstructions on disk, and what a descent goes on from."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from adaptycho.formats import stored
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct import PRIORS, Prior
from adaptycho.reconstruct.reconstruction import Reconstruction
from adaptycho.reconstruct.refine.state import Refined
from adaptycho.runs.journal import read_arrays, write_arrays

FOUND = ("positions", "reported", "intensities", "affine", "defocus", "thickness")  # of what was refined


def units(setup: Setup) -> dict[str, Any]:
    """Of the arrays of a run, as attributes of their file."""
    return {"pixel": setup.object.pixel, "pixel_unit": "Å", "field": np.array(setup.field), "field_unit": "Å (y, x)", "phase_unit": "rad"}


def write_result(path: Path, setup: Setup, result: Reconstruction) -> None:
    """Writes a reconstruction: potential on the object grid, phase inside the field, loss, and the probe (zero position in the centre).

    Of one that was refined also its positions, as they were reported and as they were found, and what else was found; of several slices
    each of them.
    """
    write_arrays(path, _arrays(setup, result), units(setup))


def write_state(path: Path, setup: Setup, result: Reconstruction) -> None:
    """Writes a reconstruction with all that a descent goes on from; that of an object alone to the last bit."""
    state: dict[str, Tensor | None] = {"velocity": result.velocity, "step": result.step, "count": result.count}
    state |= {"coefficients": result.coefficients}
    state |= dict(zip(("held_potential", "held_gradient"), result.held or (None, None), strict=True))
    state |= {"probe_velocity": None if result.refined is None else result.refined.velocity}
    kept = {f"descent/{name}": values for name, values in state.items() if values is not None}
    believed = {"prior": result.prior, "blob": result.blob}
    write_arrays(path, _arrays(setup, result) | kept, units(setup) | believed)


def read_state(path: Path, setup: Setup, positions: int) -> Reconstruction:
    """What `write_state` wrote.

    Args:
        path: of the file.
        setup: geometry and beam of what goes on.
        positions: that it has.

    Raises:
        ValueError: the file is damaged, holds no such thing, or something of another geometry or of other positions.
    """
    with stored.hdf5(path, "the result of a reconstruction") as file:
        there = {*file} | {f"{room}/{name}" for room in ("descent", "refined") if room in file for name in stored.group(file, room, path)}
        prior, blob = file.attrs.get("prior"), file.attrs.get("blob")
        slices = stored.dataset(file, "slices", path).shape[1] if "slices" in there else 1
        modes = stored.dataset(file, "probe", path, "ciuf").shape[1] if "refined/positions" in there else 1
    if "descent/velocity" not in there or prior not in PRIORS or not isinstance(blob, float):
        raise ValueError(f"{path}: expected what `adaptycho reconstruct` wrote, found no state of a descent in it")
    object_, window = setup.object.shape, setup.window.shape
    several = (slices, *object_) if slices > 1 else object_
    shapes: dict[str, tuple[int | None, ...]] = {"potential": (1, *object_), "loss": (1, None), "slices": (1, slices, *object_)}
    shapes |= {"descent/velocity": (1, *several), "descent/step": (1,), "descent/count": (1,), "descent/coefficients": (1, *several)}
    shapes |= {f"descent/{name}": (1, *object_) for name in ("held_potential", "held_gradient")}
    if "refined/positions" in there:
        shapes |= {"refined/positions": (1, positions, 2), "refined/reported": (1, positions, 2), "refined/intensities": (1, positions)}
        shapes |= {"refined/affine": (1, 2, 2), "refined/defocus": (1,), "refined/thickness": (1,)}
        shapes |= {"probe": (1, modes, *window), "descent/probe_velocity": (1, modes, *window)}
    needed = {name: shape for name, shape in shapes.items() if name in there or name.startswith("refined/")}
    found = read_arrays(path, needed, "ciuf", sealed=True)
    held = (found["descent/held_potential"], found["descent/held_gradient"]) if "descent/held_potential" in found else None
    refined = None
    if "refined/positions" in there:
        values = {name: found[f"refined/{name}"] for name in FOUND}
        probe = torch.fft.ifftshift(found["probe"], dim=(-2, -1))
        refined = Refined(probe, velocity=found["descent/probe_velocity"], **values)
    return Reconstruction(
        found["potential"],
        found["loss"],
        found["descent/velocity"],
        found["descent/step"],
        found["descent/count"],
        held,
        found.get("descent/coefficients"),
        next(name for name in get_args(Prior) if name == prior),
        blob,
        found.get("slices"),
        refined,
    )


def _arrays(setup: Setup, result: Reconstruction) -> dict[str, Tensor]:
    probe = torch.fft.fftshift(setup.probe() if result.probe is None else result.probe, dim=(-2, -1))
    arrays = {"potential": result.potential, "phase_in_field": setup.crop(result.phase), "loss": result.loss, "probe": probe}
    if result.slices is not None:
        arrays["slices"] = result.slices
    if result.refined is not None:
        arrays |= {f"refined/{name}": getattr(result.refined, name) for name in FOUND}
    return arrays
