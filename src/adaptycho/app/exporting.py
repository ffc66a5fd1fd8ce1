"""What `export` does: says what a file or folder is, and writes it in the format that is asked for."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from adaptycho import formats
from adaptycho.draw import greyscale
from adaptycho.formats import stored
from adaptycho.formats.assemble import SMALLEST
from adaptycho.formats.plausible import LENGTH, within
from adaptycho.formats.readers import facts
from adaptycho.formats.writers import WRITERS, parts, positions, tiff
from adaptycho.runs import patterns, scans
from adaptycho.runs.journal import read_arrays, read_subsequence

TABLES, PICTURES = ("csv", "npy"), ("tif", "png")
Which = Literal["taken", "requested"]


class Image(NamedTuple):
    """A phase (h, w) in rad and its pixel in Å."""

    values: Tensor
    pixel: float


def export(
    source: Path, out: Path, kind: str, given: formats.Given, *, specimen: int = 0, which: Which = "taken", overwrite: bool = False
) -> dict[str, Any]:
    """Writes a recording, a result or a run in a format; returns what is worth printing.

    Args:
        source: a recording in any format that is read, the file of a result, or the folder of a run.
        out: the file to write.
        kind: its format.
        given: what a recording lacks.
        specimen: number of the one, of a run or a result that has several.
        which: of a run, the positions where the beam was or those that were asked for.
        overwrite: whether an existing file may be replaced.

    Raises:
        ValueError: there is no such source, or the format does not take it.
    """
    run = patterns.is_run(source)
    if (run and kind not in (*TABLES, *PICTURES)) or not (run or is_result(source)):
        return _recording(source, out, kind, given, overwrite)
    if typed := given.typed():
        raise ValueError(f"{source}: expected no facts of a recording beside a run or a result, found {', '.join(typed)}")
    if kind in PICTURES:
        image = read_phase(source / "result.h5" if run else source, specimen)
        if kind == "tif":
            tiff.write(out, image.values.numpy(), image.pixel, overwrite=overwrite)
        else:
            greyscale.write(out, image.values, image.pixel, overwrite=overwrite)
        return {"file": str(out), "format": kind, "pixels": list(image.values.shape), "pixel_A": image.pixel}
    if run and kind in TABLES:
        where = read_positions(scans.Run.open(source), specimen, which)
        positions.write(out, where, overwrite=overwrite)
        return {"file": str(out), "format": kind, "positions": len(where)}
    raise ValueError(f"{out}: expected one of {', '.join(PICTURES)} for a result, found {kind}")


def is_result(path: Path) -> bool:
    """Whether a file has a phase that this package reconstructed."""
    return facts.holds(path, lambda file: facts.text(facts.attribute(file, "format")).startswith("adaptycho run") and _phase_in(file))


def read_phase(path: Path, specimen: int) -> Image:
    """The phase of a result inside the scan field.

    Raises:
        ValueError: it is damaged, or has no such specimen.
    """
    found = read_arrays(path, {"phase_in_field": (None, None, None)}, sealed=False)["phase_in_field"]
    if not specimen < len(found) or found[0].numel() == 0:
        raise ValueError(f"{path}: specimen: expected one below {len(found)}, counted from 0, found {specimen}")
    with stored.hdf5(path) as file:
        pixel = facts.number(facts.attribute(file, "pixel"))
    if pixel is None:
        raise ValueError(f"{path}: pixel: expected an attribute with the pixel in Å, found none: only a result has it")
    within(str(path), "pixel", pixel, SMALLEST, LENGTH, "Å")
    return Image(found[specimen], pixel)


def read_positions(run: scans.Run, specimen: int, which: Which) -> np.ndarray:
    """Positions (N, 2) as (y, x) in Å of all sub-sequences on disk.

    Raises:
        ValueError: a sub-sequence is damaged, there is none, or no such specimen.
    """
    if not specimen < run.batch:
        raise ValueError(f"{run.path}: specimen: expected one below {run.batch}, counted from 0, found {specimen}")
    found = []
    for number, count in enumerate(run.lengths[: run.recorded]):
        path = run.path / "subsequences" / f"{number:03d}.h5"
        requested, measurement = read_subsequence(path, run.setup, (run.batch, count), sealed=run.sealed)
        found.append((requested if which == "requested" else measurement.positions)[specimen])
    if not found:
        raise ValueError(f"{run.path}: expected a run with at least one sub-sequence, found none")
    where: np.ndarray = torch.cat(found).double().numpy() * np.array(run.setup.field)
    return where


def _recording(source: Path, out: Path, kind: str, given: formats.Given, overwrite: bool) -> dict[str, Any]:
    if kind not in (*WRITERS, "csv"):
        raise ValueError(f"{out}: expected one of {', '.join((*WRITERS, 'csv'))} for a recording, found {kind}")
    recording = patterns.read(source, given)
    told = {"file": str(out), "format": kind, "patterns": parts.shape(recording)[0]}
    if kind == "csv":
        positions.write(out, parts.positions(recording), overwrite=overwrite)
        return told
    left = WRITERS[kind](out, recording, overwrite=overwrite)
    return {**told, "options": " ".join(left.options), "left_out": list(left.lost)}


def _phase_in(file: h5py.File) -> bool:
    return facts.array_here(file, "phase_in_field", (3,))
