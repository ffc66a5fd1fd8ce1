"""Writes an .npz file of NumPy: patterns, positions and all facts as arrays with their units in the names.

`patterns` (N, ky, kx) in counts, zero frequency in the pixel Q // 2; `positions` (N, 2) as (y, x) in Å, under the name by which the
package reads them again; the others as `named` lists them.
"""

import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from adaptycho.formats.recording import Recording
from adaptycho.formats.writers import parts
from adaptycho.support.atomic import whole


def write(path: Path, recording: Recording, *, overwrite: bool = False) -> parts.Left:
    """Writes any recording; returns what has to be said of the arrays when they are read.

    Raises:
        ValueError: it cannot be written, or the name is taken.
    """
    parts.check(path, recording, overwrite)
    with whole(path, new=not overwrite) as part, zipfile.ZipFile(part, "w", allowZip64=True) as archive:
        with archive.open("patterns.npy", "w", force_zip64=True) as stream:
            write_patterns(stream, recording)
        for name, values in named(recording).items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, values, allow_pickle=False)
    probe = {"probe"} if parts.probe(recording) is not None else set()
    return parts.left_out(recording, frozenset({"doses", "defoci", "mask"} | probe))


def write_patterns(stream: IO[bytes], recording: Recording) -> None:
    """The patterns as an .npy file, a part at a time."""
    header = {"descr": np.lib.format.dtype_to_descr(parts.kind(recording)), "fortran_order": False, "shape": parts.shape(recording)}
    np.lib.format.write_array_header_2_0(stream, header)
    for _, values in parts.patterns(recording):
        stream.write(np.ascontiguousarray(values).tobytes())


def named(recording: Recording) -> dict[str, np.ndarray]:
    """Everything but the patterns."""
    setup, measurement = recording.setup, recording.measurement
    facts = {
        "positions": parts.positions(recording),
        "positions_unit": np.array("A"),
        "detector_pixel_yx_mrad": np.array(parts.angles(recording)),
        "semiangle_mrad": np.array(setup.semiangle),
        "wavelength_A": np.array(setup.wavelength),
        "rotation_degrees": np.array(setup.rotation),
        "defocus_A": measurement.defocus[0].cpu().double().numpy(),
        "dose_counts": measurement.dose[0].cpu().double().numpy(),
        "counts_per_electron": np.array(recording.counts_per_electron),
        "title": np.array(recording.title),
    }
    found = {
        "energy_eV": None if setup.energy is None else np.array(setup.energy),
        "mask": parts.mask(recording),
        "probe": parts.probe(recording),
    }
    return facts | {name: values for name, values in found.items() if values is not None}
