"""Writes EMD 1.0 data cubes, as py4DSTEM and emdfile read them. A cube is a raster; scans of other kinds have no place in it.

Axes are (Rx, Ry, Qx, Qy), whose x are the *rows*: (scan_y, scan_x, ky, kx). Calibration is that of py4DSTEM: `R_pixel_size` in "A",
`Q_pixel_size` in "mrad", `probe_semiangle` in detector pixels, `QR_rotation` counter-clockwise from detector to scan. It has one size for
both axes; of pixels that are not square, the sizes are in `dim0` to `dim3` only.

Source: py4DSTEM 0.14.18, `data/calibration.py`; emdfile 0.0.16, `write.py`, `classes/array.py`, `classes/metadata.py`.
"""

import math
import uuid
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from adaptycho.formats.recording import Recording
from adaptycho.formats.writers import parts
from adaptycho.support.atomic import whole
from adaptycho.support.reading import printable

OFF = 1e-3  # steps that a position of a raster may lie beside its place
CHUNK = 16  # patterns of a line that are packed together
Fact = str | float | bool


class Raster(NamedTuple):
    """How patterns lie in rows and columns.

    Attributes:
        shape: rows and columns.
        step: distances (y, x) of neighbours in Å.
        order: numbers of the patterns, row by row.
    """

    shape: tuple[int, int]
    step: tuple[float, float]
    order: np.ndarray


def write(path: Path, recording: Recording, *, overwrite: bool = False) -> parts.Left:
    """Writes a raster; returns what EMD has no place for.

    Raises:
        ValueError: it cannot be written, the name is taken, or the positions are no raster.
    """
    parts.check(path, recording, overwrite)
    found = raster(parts.positions(recording), str(path))
    angle = parts.angles(recording)
    with whole(path, new=not overwrite) as part, h5py.File(part, "w") as file:
        file.attrs.update({"emd_group_type": "file", "version_major": 1, "version_minor": 0, "authoring_program": "adaptycho"})
        file.attrs.update({"authoring_user": "", "UUID": str(uuid.uuid4())})
        root = file.create_group("datacube_root")
        root.attrs.update({"emd_group_type": "root", "python_class": "Root"})
        _write_cube(root.create_group("datacube"), recording, found, angle)
        _write_calibration(root.create_group("metadatabundle"), recording, found.step, angle)
    kept = {"detector_pixel", "rotation"} | ({"semiangle"} if parts.alike(np.array(angle)) else set())
    return parts.left_out(recording, frozenset(kept))


def raster(where: np.ndarray, name: str) -> Raster:
    """Rows and columns of positions (N, 2) in Å, in whatever order they were taken.

    Raises:
        ValueError: they are no full raster of rows and columns in equal steps.
    """
    places, steps, sizes = [], [], []
    for values in (where - where.min(0)).T:
        levels = np.sort(values)
        count = 1 + int((np.diff(levels) > OFF * max(levels[-1], 1e-9) / math.sqrt(len(levels))).sum())
        step = levels[-1] / (count - 1) if count > 1 else 0.0
        index = np.rint(values / step) if step else np.zeros(len(values))
        if not np.abs(values - index * step).max() <= OFF * (step or 1.0):
            count = 0
        places.append(index.astype(np.int64))
        steps.append(step)
        sizes.append(count)
    (rows, columns), (y, x) = sizes, steps
    number = places[0] * columns + places[1]
    if rows * columns != len(where) or len(np.unique(number)) != len(where) or len(where) < 2:
        raise ValueError(
            f"{name}: positions: expected a full raster of rows and columns for EMD, found {len(where)} positions that are none; "
            "CXI takes free positions (OUT.cxi), and so do arrays (OUT.npz)"
        )
    return Raster((rows, columns), (y or x, x or y), np.argsort(number))


def _write_cube(cube: h5py.Group, recording: Recording, found: Raster, angle: tuple[float, float]) -> None:
    rows, columns = found.shape
    _, height, width = parts.shape(recording)
    cube.attrs.update({"emd_group_type": "array", "python_class": "DataCube"})
    chunk = (1, min(columns, CHUNK), height, width)
    data = cube.create_dataset(
        "data", (rows, columns, height, width), parts.kind(recording), chunks=chunk, compression="gzip", compression_opts=4, shuffle=True
    )
    data.attrs["units"] = "counts"
    for first, values in parts.patterns(recording, found.order):
        done = 0
        while done < len(values):  # the rest of a line, or of the part
            row, column = divmod(first + done, columns)
            more = min(columns - column, len(values) - done)
            data[row, column : column + more] = values[done : done + more]
            done += more
    for axis, (label, step, unit) in enumerate(
        (("Rx", found.step[0], "A"), ("Ry", found.step[1], "A"), ("Qx", angle[0], "mrad"), ("Qy", angle[1], "mrad"))
    ):
        cube[f"dim{axis}"] = step * np.arange(data.shape[axis])
        cube[f"dim{axis}"].attrs.update({"name": label, "units": unit})


def _write_calibration(bundle: h5py.Group, recording: Recording, step: tuple[float, float], angle: tuple[float, float]) -> None:
    setup, semiangle = recording.setup, recording.setup.semiangle
    bundle.attrs["emd_group_type"] = "metadatabundle"
    made: dict[str, Fact] = {"QR_rotation": math.radians(setup.rotation), "QR_rotation_degrees": setup.rotation, "QR_flip": False}
    made |= {"convergence_semiangle_mrad": semiangle}
    if parts.alike(np.array(angle)):
        made |= {"Q_pixel_size": angle[0], "Q_pixel_units": "mrad", "probe_semiangle": semiangle / angle[0]}
    if parts.alike(np.array(step)):
        made |= {"R_pixel_size": step[0], "R_pixel_units": "A"}
    calibration = _write_facts(bundle, "calibration", "Calibration", {**made, "_root_treepath": ""})
    targets = calibration.create_group("_target_paths")  # without which py4DSTEM leaves the cube in pixels
    targets["0"] = np.bytes_("/datacube")
    targets.attrs.update({"type": "list_of_strings", "length": 1})
    facts: dict[str, Fact] = {key: printable(getattr(recording, key)) for key in ("title", "source", "licence")}
    facts |= {"wavelength_A": setup.wavelength, "defocus_A": setup.aberrations.defocus}
    if setup.energy is not None:
        facts["energy_eV"] = setup.energy
    _write_facts(bundle, "recording", "Metadata", facts)


def _write_facts(bundle: h5py.Group, name: str, python_class: str, facts: dict[str, Fact]) -> h5py.Group:
    group = bundle.create_group(name)
    group.attrs.update({"emd_group_type": "metadata", "python_class": python_class})
    for key, value in facts.items():
        group[key] = value
        # As bytes, which emdfile decodes.
        group[key].attrs["type"] = np.bytes_("string" if isinstance(value, str) else "bool" if isinstance(value, bool) else "number")
    return group
