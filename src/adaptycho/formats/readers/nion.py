"""Reads Nion Swift data items: `.ndata` and `.ndata1` (a zip of data.npy and metadata.json) and `.h5` (the same JSON in an attribute).

Axes: first the dimensions of the collection, (scan_y, scan_x), slow first, then those of the datum, (ky, kx), all as NumPy has them.
`dimensional_calibrations` (`spatial_calibrations` in `.ndata1`) is a list in that order of scale and unit, nm for the scan and rad for the
detector. `instrument.high_tension` is in V, `convergence_angle` in rad. `instrument.defocus` is the control C10 in m, whose sign is the
opposite of ours: positive is overfocus. `scan.rotation` turns the scan and not the detector, and is not read.

Source: nionswift 16.16.2, `model/NDataHandler.py`, `HDF5Handler.py` and `Metadata.py`; nionswift-instrumentation 23.6.2,
`device_kit/InstrumentDevice.py`.
"""

import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from adaptycho.formats import stored
from adaptycho.formats.raw import Raw, Said
from adaptycho.formats.readers import calibration, facts
from adaptycho.formats.stored import Stored
from adaptycho.support.reading import reading, regular

name = "Nion Swift"
needs = "a zip of data.npy and metadata.json, or an HDF5 file whose array data has an attribute properties"
LOCAL = 30  # bytes of a zip's local header before the file name
PARTS = {"data.npy", "metadata.json"}


def can_read(path: Path) -> bool:
    """Whether it is one of the three."""
    with suppress(Exception):
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return set(archive.namelist()) == PARTS
    return facts.holds(
        path, lambda file: facts.array_here(file, "data", (3, 4)) and facts.attribute(file["data"], "properties") is not None
    )


@contextmanager
def opened(path: Path, key: str | None = None) -> Iterator[Raw]:
    """Patterns and what the microscope reported; there is one array, so that `key` can only be its name, data.

    Raises:
        ValueError: naming the file; there are no patterns, or they cannot be read.
    """
    regular(path, "a Nion Swift file")
    facts.choose(path, key, ["data"])
    if h5py.is_hdf5(path):
        with stored.hdf5(path) as file:
            found = facts.patterns(file, "data", path)
            properties = facts.document(facts.text_whole(facts.attribute(file["data"], "properties")), f"{path}: properties")
            yield Raw(patterns=found, said=_said(properties, found.shape))
        return
    with reading(path, "a complete Nion Swift file"), zipfile.ZipFile(path) as archive:
        info = archive.getinfo("metadata.json")
        if info.file_size > facts.LONGEST_JSON:
            raise ValueError(f"{path}: metadata.json: expected at most {facts.LONGEST_JSON} bytes, found {info.file_size}")
        with archive.open(info) as stream:
            words = stream.read(facts.LONGEST_JSON)
        properties = facts.document(words, f"{path}: metadata.json")
        found = _member(path, archive.getinfo("data.npy"))
        if len(found.shape) not in (3, 4) or 0 in found.shape:
            raise ValueError(f"{path}: data.npy: expected patterns with 3 or 4 axes, none of them empty, found shape {found.shape}")
        yield Raw(patterns=found, said=_said(properties, found.shape))


def _member(path: Path, info: zipfile.ZipInfo) -> Stored:
    """The array, mapped where it lies; unpacked into memory if another program has packed it."""
    label = f"{path}: data.npy"
    if info.compress_type != zipfile.ZIP_STORED:
        return stored.member(path, "data", "data.npy")
    with path.open("rb") as stream:
        stream.seek(info.header_offset)
        local = stream.read(LOCAL)
        if local[:4] != b"PK\x03\x04" or len(local) != LOCAL:
            raise ValueError(f"{label}: expected the header of a file in a zip, found none")
        start = info.header_offset + LOCAL + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
        stream.seek(start)
        with warnings.catch_warnings(action="ignore"):  # headers may be old or odd: said by an error, if at all
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        stored.check_numbers(dtype, label)
        begin = stream.tell()
    size, held = math.prod(shape) * dtype.itemsize, min(info.file_size, path.stat().st_size) - (begin - start)
    if any(n < 0 for n in shape) or size > held or begin + size > path.stat().st_size:
        raise ValueError(f"{label}: expected {size} bytes for an array {shape} of {dtype}, found {max(held, 0)}")
    if size == 0:
        return Stored(np.empty(shape, dtype), 0, label)
    return Stored(np.memmap(path, dtype, "r", begin, shape, "F" if fortran else "C"), size, label)


def _said(properties: dict[str, Any], shape: tuple[int, ...]) -> Said:
    source = properties
    if isinstance(inner := properties.get("data_source"), dict):  # how older versions nest them
        source = {**properties, **inner}
    elif isinstance(several := properties.get("data_sources"), list) and several and isinstance(several[0], dict):
        source = {**properties, **several[0]}
    made = source.get("dimensional_calibrations", source.get("spatial_calibrations"))
    made = made if isinstance(made, list) and len(made) == len(shape) else [{}] * len(shape)
    scales = [facts.number(facts.at(each, "scale")) for each in made]
    spelled = [facts.text(facts.at(each, "units")) for each in made]
    seen = source.get("metadata")
    energy = calibration.positive(facts.number(_either(seen, "high_tension", "autostem", "high_tension_v")))
    angle, pixel = calibration.detector(scales[-2:], spelled[-2:], shape[-2:], energy)
    aperture = calibration.positive(facts.number(_either(seen, "convergence_angle", "convergence_angle_rad")))
    c10 = facts.number(_either(seen, "defocus", "defocus_m"))
    return Said(
        energy=energy,
        semiangle=None if aperture is None else 1e3 * aperture,
        defocus=None if c10 is None else 0.0 - 1e10 * c10,
        detector_pixel=angle,
        pixel=pixel,
        scan_step=calibration.step(scales[:2], spelled[:2]) if len(shape) == 4 else None,
        counts_per_electron=calibration.positive(facts.number(facts.at(seen, "hardware_source", "counts_per_electron"))),
        title=facts.text(properties.get("title")),
    )


def _either(seen: object, modern: str, *older: str) -> object:
    """A value of the instrument, where today's Swift has it or where older ones had it."""
    found = facts.at(seen, "instrument", modern)
    return facts.at(seen, "hardware_source", *older) if found is None else found
