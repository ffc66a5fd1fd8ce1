"""Imports the open rotavirus cryo-ptychography data: compressed blocks of scan rows, a JSON file of numbers, a refined probe.

The scan frame stays as recorded. The source turns scan (row, column) into detector (row, column) by the angle t; `Setup.rotation` is the
angle of the opposite turn, so it is -t.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptycho.formats import frames, stored
from adaptycho.formats.assemble import mean_counts
from adaptycho.formats.detector import detector
from adaptycho.formats.given import Given
from adaptycho.formats.raw import Raw
from adaptycho.formats.recording import Recording, check_probe, check_recording
from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Aberrations, Setup, object_grid
from adaptycho.support.reading import reading, regular
from adaptycho.types import Measurement

TITLE = "Rotavirus double-layered particles in ice, gold beads and a carbon film"
SOURCE = "github.com/SeanXPWu/Ptycho.jl, commit 5ffb9f3a762c9760a87c9b2b211edc4778e88922, test_data; detector cropped and binned 2 x 2"
LICENCE = "MIT, Copyright (c) 2023 Xiaopeng Wu, Yu Lei"
COUNTS_PER_ELECTRON = 5.0  # one 300 keV electron triggers several pixels: 4 to 6.5 by the noise of blocks of pixels

BLOCKS = "counts_rows_*.npz"

name = "rotavirus"
needs = f"a folder with {BLOCKS}, metadata.json and probe_start.npz"


def can_read(path: Path) -> bool:
    """Whether a folder has blocks of scan rows; what else may be missing, `read` says."""
    return path.is_dir() and any(True for _ in path.glob(BLOCKS))


def read(path: Path) -> Recording:
    """Reads the whole scan.

    Raises:
        ValueError: as `from_rotavirus`.
    """
    return from_rotavirus(path)


def from_rotavirus(folder: str | Path, *, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Recording:
    """Reads a part of the scan.

    The beam current was not recorded. The dose of a pattern is the mean number of counts in the patterns kept, which agrees with the
    intensity of the refined probe within 7 %, so that patterns divided by their dose sum to one on average.

    Args:
        folder: with `counts_rows_*.npz`, `metadata.json` and `probe_start.npz`.
        rows: first scan row to keep and the one after the last; by default all.
        columns: likewise.

    Raises:
        ValueError: a file or key is missing, or the range keeps fewer than two rows or columns.
    """
    folder = Path(folder)
    facts = _facts(folder / "metadata.json")
    counts, scan = _blocks(folder, rows, columns)
    scan = scan - scan.min(0)
    field_y, field_x = (float(n) * facts["scan_step_angstrom"] for n in scan.max(0))
    if min(field_y, field_x) <= 0:
        raise ValueError(f"{folder}: rows, columns: expected a range of at least two scan rows and columns, found {rows}, {columns}")
    patterns = _patterns(counts, folder)
    window = Grid((patterns.shape[-2], patterns.shape[-1]), facts["real_space_pixel_angstrom"])
    rotation, c10 = -facts["scan_rotation_deg_fitted"], facts["defocus_angstrom_fitted"]
    setup = Setup(
        field=(field_y, field_x),
        object=object_grid((field_y, field_x), window, rotation),
        window=window,
        detector=window.shape,
        semiangle=facts["convergence_semiangle_mrad_nominal"],
        energy=1e3 * facts["energy_kev"],
        # Their probe is IFFT[aperture exp(-i pi lambda df k^2)], ours exp(-i chi) with chi = pi lambda C10 k^2: df is C10.
        aberrations=Aberrations(C10=c10),
        rotation=rotation,
        measured_probe=_probe(folder / "probe_start.npz"),
    )
    dose = mean_counts(patterns)
    measurement = Measurement(
        torch.from_numpy(scan / scan.max(0)).float()[None],
        patterns[None],
        torch.full((1, len(patterns)), dose),
        torch.full((1, len(patterns)), -c10),
    )
    recording = Recording(setup, measurement, TITLE, SOURCE, LICENCE, COUNTS_PER_ELECTRON, folder)
    check_recording(recording, str(folder))
    return recording


def _blocks(folder: Path, rows: tuple[int, int] | None, columns: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    files = sorted(folder.glob(BLOCKS))
    if not files:
        raise ValueError(f"{folder}: expected files {BLOCKS}, found none")
    counts, scan = [], []
    for file in files:
        block = _arrays(file, ("counts", "scan_row", "scan_col"))
        shapes = [array.shape for array in block.values()]
        if (
            len(shapes[0]) != 4
            or any(shape != shapes[0][:2] for shape in shapes[1:])
            or any(block[k].dtype.kind not in "iu" for k in block)
        ):
            raise ValueError(f"{file}: counts: expected whole numbers (row, column, ky, kx) and the place of each, found shapes {shapes}")
        where = np.stack([block["scan_row"], block["scan_col"]], -1).astype(np.int64)
        keep = np.ones(where.shape[:-1], bool)
        for axis, limits in enumerate((rows, columns)):
            if limits is not None:
                keep &= (where[..., axis] >= limits[0]) & (where[..., axis] < limits[1])
        counts.append(block["counts"][keep])
        scan.append(where[keep])
        if counts[-1].shape[1:] != counts[0].shape[1:]:
            raise ValueError(f"{file}: counts: expected patterns of {counts[0].shape[1:]} pixels, found {counts[-1].shape[1:]}")
    if not sum(len(part) for part in scan):
        raise ValueError(f"{folder}: rows, columns: expected a range inside the scan, found {rows}, {columns}")
    return np.concatenate(counts), np.concatenate(scan)


def _patterns(counts: np.ndarray, folder: Path) -> torch.Tensor:
    """Patterns (N, Q, Q), zero frequency in the corner."""
    source = frames.Frames(raw=Raw(patterns=stored.Stored.of(counts, str(folder))), name=str(folder))
    made = detector(str(folder), source.shape, Given(), None, (1.0, 1.0))
    return torch.from_numpy(frames.read(source, np.arange(len(counts)), made, "none")[0])


def _probe(path: Path) -> torch.Tensor:
    with np.errstate(over="ignore"):  # what leaves single precision is infinite, and refused
        probe = torch.from_numpy(np.fft.ifftshift(_arrays(path, ("probe",))["probe"]).astype(np.complex64))
    check_probe(probe, str(path))
    return probe


def _arrays(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    regular(path, "an .npz file")
    with reading(path, "a complete .npz file"):
        known = stored.members(path)
        for key in keys:
            if key not in known:
                raise ValueError(f"{path}: {key}: expected an array of that name, found {', '.join(known) or 'none'}")
        return {key: stored.member(path, key).values for key in keys}


def _facts(path: Path) -> dict[str, Any]:
    regular(path, "a JSON file")
    with reading(path, "a JSON file"):
        facts = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(facts, dict):
        raise ValueError(f"{path}: expected names and numbers in JSON, found {type(facts).__name__}")
    for key in (
        "energy_kev", "convergence_semiangle_mrad_nominal", "scan_step_angstrom", "scan_rotation_deg_fitted", "defocus_angstrom_fitted",
        "real_space_pixel_angstrom", "detector_pixel_mrad",
    ):  # fmt: skip
        if not isinstance(facts.get(key), int | float) or isinstance(facts[key], bool):
            raise ValueError(f"{path}: {key}: expected a number, found {facts.get(key)!r:.80}")
        signed = key in ("scan_rotation_deg_fitted", "defocus_angstrom_fitted")
        if not (-math.inf if signed else 0) < facts[key] < math.inf:
            raise ValueError(f"{path}: {key}: expected a {'finite' if signed else 'positive'} number, found {facts[key]}")
    return facts
