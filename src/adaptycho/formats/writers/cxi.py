"""Writes CXI files: patterns (N, ky, kx) with a position for each, in SI units.

`translation` is where the *object* was, (x, y, z) in m in the laboratory, y up and x so that the three are right-handed with the beam.
The detector's rows and columns are the default `basis_vectors`, so that the probe's way (y, x) over the object is written as (x, y, 0).
A rotation between scan and detector has no place: positions are turned into the detector's axes. Nor is a camera length known: the
detector is put 1 m away, with pixels whose angles are right. Good pixels of the mask are 0, others 1, "invalid". Energy is that of
electrons in J where `source_1/probe` says so.

Source: CXI file format 1.6 (cxidb.org); conventions as cdtools 0.3.2 has them, `tools/data/data.py`.
"""

from pathlib import Path

import h5py
import numpy as np

from adaptycho.formats.recording import METRE, Recording
from adaptycho.formats.writers import parts
from adaptycho.physics.optics import HC
from adaptycho.support.atomic import whole
from adaptycho.support.reading import printable

VERSION = 160
JOULES = 1.602176634e-19  # in an eV
DISTANCE = 1.0  # m
INVALID = 1
CHUNK = 16  # patterns that are packed together


def write(path: Path, recording: Recording, *, overwrite: bool = False) -> parts.Left:
    """Writes any recording; returns what CXI has no place for.

    Raises:
        ValueError: it cannot be written, or the name is taken.
    """
    parts.check(path, recording, overwrite)
    with whole(path, new=not overwrite) as part, h5py.File(part, "w") as file:
        file["cxi_version"] = VERSION
        entry = file.create_group("entry_1")
        entry["title"] = printable(recording.title)
        _write_source(entry.create_group("instrument_1/source_1"), recording)
        _write_detector(entry.create_group("instrument_1/detector_1"), recording)
        entry["sample_1/geometry_1/translation"] = _translation(recording)
        entry["data_1/data"] = entry["instrument_1/detector_1/data"]  # another name of it, not a copy
        entry["data_1/translation"] = entry["sample_1/geometry_1/translation"]
        entry["instrument_1/detector_1/translation"] = entry["sample_1/geometry_1/translation"]
    probe = {"probe"} if parts.probe(recording) is not None else set()
    return parts.left_out(recording, frozenset({"energy", "detector_pixel", "rotation", "mask"} | probe))


def _translation(recording: Recording) -> np.ndarray:
    """Where the object was, (N, 3) as (x, y, z) in m."""
    setup, where = recording.setup, parts.positions(recording)
    if setup.rotation:
        where = setup.to_pixels(recording.measurement.positions[0].cpu().double()).numpy() * setup.object.pixel
    moved = np.zeros((len(where), 3))
    moved[:, 0], moved[:, 1] = where[:, 1] / METRE, where[:, 0] / METRE
    return moved


def _write_source(source: h5py.Group, recording: Recording) -> None:
    setup = recording.setup
    source["wavelength"] = setup.wavelength / METRE
    source["energy"] = JOULES * (HC / setup.wavelength if setup.energy is None else setup.energy)
    source["probe"] = "photon" if setup.energy is None else "electron"
    if (probe := parts.probe(recording)) is not None:
        source["illumination"] = probe


def _write_detector(detector: h5py.Group, recording: Recording) -> None:
    count, rows, columns = parts.shape(recording)
    data = detector.create_dataset(
        "data",
        (count, rows, columns),
        parts.kind(recording),
        chunks=(min(count, CHUNK), rows, columns),
        compression="gzip",
        compression_opts=4,
        shuffle=True,
    )
    for first, values in parts.patterns(recording):
        data[first : first + len(values)] = values
    y, x = (1e-3 * angle * DISTANCE for angle in parts.angles(recording))
    detector["distance"], detector["y_pixel_size"], detector["x_pixel_size"] = DISTANCE, y, x
    detector["basis_vectors"] = np.array([[0.0, -y, 0.0], [-x, 0.0, 0.0]])
    # The outer corner of the first pixel, where the middle of the pixel Q // 2 is on the axis.
    detector["corner_position"] = np.array([(columns // 2 + 0.5) * x, (rows // 2 + 0.5) * y, DISTANCE])
    if (mask := parts.mask(recording)) is not None:
        detector["mask"] = np.where(mask, 0, INVALID).astype(np.uint32)
