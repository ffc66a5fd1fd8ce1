"""Results of reconstructions on disk, and what a descent goes on from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from adaptycho.formats import stored
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.reconstruction import Made, Reconstruction
from adaptycho.reconstruct.refine.state import Refined
from adaptycho.runs.journal import read_arrays, write_arrays
from adaptycho.support import document
from adaptycho.types import Measurement

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


def origin(setup: Setup, measurement: Measurement) -> str:
    """SHA-256 of what a reconstruction is made from: patterns, where and with how many electrons, and the beam."""
    digest = hashlib.sha256(f"{setup.field} {setup.object} {setup.wavelength} {setup.rotation}\n".encode())
    for values in (setup.probe(), setup.mask, measurement.positions, measurement.dose, measurement.defocus):
        digest.update(b"none" if values is None else np.ascontiguousarray(values.cpu().numpy()).view(np.uint8).data)
    for one in measurement.patterns.flatten(0, 1):  # which need not all be in memory
        digest.update(np.ascontiguousarray(one.cpu().numpy()).view(np.uint8).data)
    return digest.hexdigest()


def write_state(path: Path, setup: Setup, result: Reconstruction, source: str, more: Mapping[str, Tensor] | None = None) -> None:
    """Writes a reconstruction with all that a descent goes on from, what it was made from (`origin`), and more arrays by name."""
    state: dict[str, Tensor | None] = {"velocity": result.velocity, "step": result.step, "count": result.count}
    state |= {"coefficients": result.coefficients}
    state |= dict(zip(("held_potential", "held_gradient"), result.held or (None, None), strict=True))
    state |= {"probe_velocity": None if result.refined is None else result.refined.velocity}
    kept = {f"descent/{name}": values for name, values in state.items() if values is not None}
    write_arrays(
        path, _arrays(setup, result) | kept | dict(more or {}), units(setup) | {"made": json.dumps(asdict(result.made)), "origin": source}
    )


def read_made(path: Path) -> Made:
    """How the result in a file was made.

    Raises:
        ValueError: the file holds no result to go on from.
    """
    with stored.hdf5(path, "the result of a reconstruction") as file:
        return _made(file, path)


def read_state(path: Path, setup: Setup, positions: int, source: str) -> Reconstruction:
    """What `write_state` wrote.

    Args:
        path: of the file.
        setup: geometry and beam of what goes on.
        positions: that it has.
        source: what it goes on with (`origin`).

    Raises:
        ValueError: the file is damaged, holds no such thing, or something of another recording.
    """
    with stored.hdf5(path, "the result of a reconstruction") as file:
        there = {*file} | {f"{room}/{name}" for room in ("descent", "refined") if room in file for name in stored.group(file, room, path)}
        made, before = _made(file, path), file.attrs.get("origin")
        slices = stored.dataset(file, "slices", path).shape[1] if "slices" in there else 1
        modes = stored.dataset(file, "probe", path, "ciuf").shape[1] if "refined/positions" in there else 1
    object_, window = setup.object.shape, setup.window.shape
    several = (slices, *object_) if slices > 1 else object_
    shapes: dict[str, tuple[int | None, ...]] = {"potential": (1, *object_), "loss": (1, None), "slices": (1, slices, *object_)}
    shapes |= {"descent/velocity": (1, *several), "descent/step": (1,), "descent/count": (1,), "descent/coefficients": (1, *several)}
    shapes |= {f"descent/{name}": (1, *object_) for name in ("held_potential", "held_gradient")}
    if "refined/positions" in there:
        shapes |= {"refined/positions": (1, positions, 2), "refined/reported": (1, positions, 2), "refined/intensities": (1, positions)}
        shapes |= {"refined/affine": (1, 2, 2), "refined/defocus": (1,), "refined/thickness": (1,)}
        shapes |= {"probe": (1, modes, *window), "descent/probe_velocity": (1, modes, *window)}
    held = ("descent/held_potential", "descent/held_gradient")
    optional = {"slices", "descent/coefficients", *(held if not there & {*held} else ())}
    needed = {name: shape for name, shape in shapes.items() if name in there or name not in optional}
    found = read_arrays(path, needed, "ciuf", sealed=True)
    if before != source:
        raise ValueError(f"{path}: expected the result of the same recording, told the same of it, found that of another one")
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
        (found[held[0]], found[held[1]]) if held[0] in found else None,
        found.get("descent/coefficients"),
        found.get("slices"),
        refined,
        made,
    )


def _made(file: h5py.File, path: Path) -> Made:
    told = file.attrs.get("made")
    if not isinstance(told, str) or "descent/velocity" not in file:
        raise ValueError(f"{path}: expected what `adaptycho reconstruct` wrote, found no state of a descent in it")
    return document.parse(told, Made, f"{path}: made")


def _arrays(setup: Setup, result: Reconstruction) -> dict[str, Tensor]:
    probe = torch.fft.fftshift(setup.probe() if result.probe is None else result.probe, dim=(-2, -1))
    arrays = {"potential": result.potential, "phase_in_field": setup.crop(result.phase), "loss": result.loss, "probe": probe}
    if result.slices is not None:
        arrays["slices"] = result.slices
    if result.refined is not None:
        arrays |= {f"refined/{name}": getattr(result.refined, name) for name in FOUND}
    return arrays
