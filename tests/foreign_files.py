"""Files in other programs' formats, written by hand from the published layouts: 3 x 5 positions of 6 x 8 pixels, no two numbers alike."""

import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from adaptycho.formats.readers import cxi as cxi_reader
from adaptycho.formats.readers import dectris as dectris_reader
from adaptycho.formats.readers import emd as emd_reader
from adaptycho.formats.readers import hspy as hspy_reader
from adaptycho.formats.readers import matlab, nion
from adaptycho.formats.readers import ptychodus as ptychodus_reader

SCAN = (3, 5)
COUNTS = np.arange(3 * 5 * 6 * 8, dtype=np.uint16).reshape(*SCAN, 6, 8)
STACK = COUNTS.reshape(15, 6, 8)
SQUARE = np.arange(15 * 8 * 8, dtype=np.float32).reshape(15, 8, 8)
PROBE = (np.arange(2 * 8 * 8) + 1j).reshape(2, 8, 8).astype(np.complex64)
YX = np.random.default_rng(4).normal(size=(15, 2))  # Å
WAVE = 12398.419843320026 / 1e4  # Å, of photons of 10 keV
NION = {
    "title": "island",
    "collection_dimension_count": 2,
    "datum_dimension_count": 2,
    "dimensional_calibrations": [
        {"offset": 0.0, "scale": scale, "units": unit} for scale, unit in ((0.05, "nm"), (0.0625, "nm"), (0.0015, "rad"), (0.002, "rad"))
    ],
    "metadata": {
        "instrument": {"high_tension": 60000, "defocus": -6e-9, "convergence_angle": 0.033},
        "hardware_source": {"counts_per_electron": 37.0},
        "scan": {"rotation": 0.3},
    },
}
AXES = [
    {"name": name, "navigate": k < 2, "scale": scale, "units": unit, "size": COUNTS.shape[k], "offset": 0.0, "_type": "UniformDataAxis"}
    for k, (name, scale, unit) in enumerate((("y", 0.05, "nm"), ("x", 0.0625, "nm"), ("ky", 1.5, "mrad"), ("kx", 2.0, "mrad")))
]
TEM = {"beam_energy": 60.0, "convergence_angle": 33.0, "camera_length": 100.0}


def emd(folder: Path, flip: bool = False, name: str = "emd.h5") -> Path:
    """EMD 1.0, as emdfile writes a data cube of py4DSTEM."""
    with h5py.File(folder / name, "w") as file:
        file.attrs.update({"emd_group_type": "file", "version_major": 1, "version_minor": 0, "authoring_program": "emdfile"})
        root = file.create_group("datacube_root")
        root.attrs.update({"emd_group_type": "root", "python_class": "Root"})
        cube = root.create_group("datacube")
        cube.attrs.update({"emd_group_type": "array", "python_class": "DataCube"})
        cube["data"] = COUNTS
        for axis, (step, unit) in enumerate(((0.5, "A"), (0.625, "A"), (0.03, "A^-1"), (0.04, "A^-1"))):
            cube[f"dim{axis}"] = np.array([0.0, step])
            cube[f"dim{axis}"].attrs.update({"name": ("Rx", "Ry", "Qx", "Qy")[axis], "units": unit})
        picture = root.create_group("haadf")
        picture.attrs["emd_group_type"] = "array"
        picture["data"] = np.ones(SCAN)
        made = root.create_group("metadatabundle/calibration")
        for key, value in {"QR_flip": flip, "QR_rotation_degrees": 30.0, "Q_pixel_units": "pixels", "R_pixel_units": "A"}.items():
            made[key] = value
        if flip:
            made["Q_pixel_size"], made["R_pixel_size"] = 1.0, 0.7
    return folder / name


def nion_zip(folder: Path, packed: bool = False) -> Path:
    path = folder / "nion.ndata"
    np.save(folder / "data.npy", COUNTS)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.write(folder / "data.npy", "data.npy")
        archive.writestr("metadata.json", json.dumps(NION))
    (folder / "data.npy").unlink()
    return path


def nion_ndata1(folder: Path) -> Path:
    path = folder / "nion.ndata1"
    said = {**NION, "spatial_calibrations": NION["dimensional_calibrations"]}
    del said["dimensional_calibrations"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps(said))
        with archive.open("data.npy", "w") as stream:
            np.lib.format.write_array(stream, COUNTS)
    return path


def nion_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "nion.h5", "w") as file:
        file["data"] = COUNTS
        file["data"].attrs["properties"] = json.dumps(NION)
    return folder / "nion.h5"


def hspy(folder: Path, order: tuple[int, ...] = (0, 1, 2, 3)) -> Path:
    with h5py.File(folder / "signal.hspy", "w") as file:
        file.attrs.update({"file_format": "HyperSpy", "file_format_version": "3.3"})
        signal = file.create_group("Experiments/__unnamed__")
        signal["data"] = COUNTS.transpose(order)
        for place, axis in enumerate(order):
            signal.create_group(f"axis-{place}").attrs.update(AXES[axis])
        signal.create_group("metadata/Acquisition_instrument/TEM").attrs.update(TEM)
        signal.create_group("metadata/General").attrs["title"] = "island"
    return folder / "signal.hspy"


def zspy(folder: Path) -> Path:
    """Zarr's format 2, chunks of 2 x 2 patterns packed by zlib in folders of their numbers."""
    signal = folder / "signal.zspy" / "Experiments" / "__unnamed__"
    for path, said in {
        **{f"axis-{k}": axis for k, axis in enumerate(AXES)},
        "metadata/Acquisition_instrument/TEM": TEM,
        "metadata/General": {"title": "island"},
    }.items():
        (signal / path).mkdir(parents=True)
        (signal / path / ".zattrs").write_text(json.dumps(said))
    data, chunks = signal / "data", (2, 2, 6, 8)
    data.mkdir()
    about = {"zarr_format": 2, "shape": COUNTS.shape, "chunks": chunks, "dtype": "<u2", "order": "C", "fill_value": 0, "filters": None}
    (data / ".zarray").write_text(json.dumps({**about, "compressor": {"id": "zlib", "level": 1}, "dimension_separator": "/"}))
    padded = np.zeros((4, 6, 6, 8), "<u2")
    padded[:3, :5] = COUNTS
    for y in range(2):
        for x in range(3):
            (data / f"{y}" / f"{x}" / "0").mkdir(parents=True)
            (data / f"{y}" / f"{x}" / "0" / "0").write_bytes(zlib.compress(padded[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].tobytes()))
    return folder / "signal.zspy"


def dectris(folder: Path) -> Path:
    """A master, two files of frames, and the side file of a scan."""
    with h5py.File(folder / "run_master.h5", "w") as file:
        for number, (first, end) in enumerate(((0, 9), (9, 15)), 1):
            with h5py.File(folder / f"run_data_{number:06d}.h5", "w") as other:
                other["entry/data/data"] = STACK[first:end].astype(np.uint32)
                other["entry/data/data"].attrs.update({"image_nr_low": first + 1, "image_nr_high": end})
            place = f"entry/data/data_{number:06d}"
            file[place] = h5py.ExternalLink(f"run_data_{number:06d}.h5", "/entry/data/data")
        special = file.create_group("entry/instrument/detector/detectorSpecific")
        special["nimages"], special["ntrigger"] = 1, 15
        special["pixel_mask"] = np.zeros((6, 8), np.uint32)
        special["pixel_mask"][1, 2] = 1
    with h5py.File(folder / "run.h5", "w") as side:
        said = {"Pixel Size": [0.0625], "High Tension": [60.0], "NumPixelsX": [5], "NumPixelsY": [3]}
        side.create_group("STEM Metadata").attrs.update(said)
    return folder / "run_master.h5"


def dectris_frames(folder: Path) -> Path:
    dectris(folder)
    return folder / "run_data_000002.h5"


def cxi(folder: Path, basis: np.ndarray | None = None) -> Path:
    """CXI 1.6; the object moved by (x, y, z) m, x to the left and y up as one looks along the beam."""
    with h5py.File(folder / "object.cxi", "w") as file:
        file["cxi_version"] = 160
        entry = file.create_group("entry_1")
        entry["title"] = np.bytes_("island")
        detector, source = entry.create_group("instrument_1/detector_1"), entry.create_group("instrument_1/source_1")
        detector["data"] = SQUARE
        detector["distance"], detector["x_pixel_size"], detector["y_pixel_size"] = 2.0, 50e-6, 55e-6
        if basis is not None:
            detector["basis_vectors"] = basis
        detector["mask"] = np.zeros((8, 8), np.uint32)
        detector["mask"][2, 3], detector["mask"][4, 4] = 1, 0x1000
        source["energy"] = 1e4 * 1.602176634e-19
        source["illumination"] = PROBE
        y, x = 1e-10 * YX.T
        entry["sample_1/geometry_1/translation"] = np.stack([x, y, np.zeros(15)], -1)
        entry["data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        entry["data_1/translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
    return folder / "object.cxi"


def ptychodus(folder: Path) -> Path:
    with h5py.File(folder / "scan_dp.hdf5", "w") as file:
        file["dp"] = SQUARE
    order = np.random.default_rng(5).permutation(15)
    with h5py.File(folder / "scan_para.hdf5", "w") as file:
        file.attrs.update({"name": "island", "photon_energy_eV": 1e4, "detector_object_distance_m": 2.0})
        file["probe_position_y_m"], file["probe_position_x_m"] = 1e-10 * YX[order].T
        file["probe_position_indexes"] = order
        file["probe"] = PROBE[None]
        file["probe"].attrs.update({"pixel_height_m": 3e-8, "pixel_width_m": 2e-8})
    return folder / "scan_dp.hdf5"


def fold_slice(folder: Path) -> Path:
    with h5py.File(folder / "aps_dp.hdf5", "w") as file:
        file["dp"] = SQUARE
    with h5py.File(folder / "aps_para.hdf5", "w") as file:
        file["ppY"], file["ppX"] = (1e-10 * each[None] for each in YX.T)
        file["lambda"], file["dx"] = np.array([[1e-10 * WAVE]]), np.array([[2e-8]])
    return folder / "aps_dp.hdf5"


def matlab_new(folder: Path) -> Path:
    """v7.3 of dp(ky, kx, N): HDF5 has the axes the other way round, and a block of text before it."""
    path = folder / "new.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["dp"] = STACK.transpose(0, 2, 1).astype(np.float32)
        file["dp"].attrs["MATLAB_class"] = np.bytes_("single")
        file["note"] = np.ones((2, 2))
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def matlab_old(folder: Path) -> Path:
    scipy.io.savemat(folder / "old.mat", {"dp": COUNTS.transpose(2, 3, 1, 0), "note": np.ones((2, 2))}, do_compression=True)
    return folder / "old.mat"


def empad(folder: Path) -> Path:
    frames = np.full((15, 130, 128), -7, "<f4")
    frames[:, :128] = 0
    frames[:, :6, :8] = STACK
    frames.tofile(folder / "scan_x5_y3.raw")
    return folder / "scan_x5_y3.raw"


def empad_xml(folder: Path) -> Path:
    empad(folder).rename(folder / "own.raw")
    field = "<full_scan_field_of_view><x>3.6e-9</x><y>3.6e-9</y><scale_factor>0.72</scale_factor></full_scan_field_of_view>"
    words = (
        f'<root><raw_file filename="C:\\data\\own.raw"/><pix_x>5</pix_x><pix_y>3</pix_y><iom_measurements>{field}</iom_measurements></root>'
    )
    (folder / "own.xml").write_text(words)
    return folder / "own.xml"


WRITERS: dict[str, Callable[[Path], Path]] = {
    **{each.__name__: each for each in (emd, nion_zip, nion_ndata1, nion_hdf5, hspy, zspy, dectris, dectris_frames, cxi)},
    **{each.__name__: each for each in (ptychodus, fold_slice, matlab_new, matlab_old, empad, empad_xml)},
}
# Where those that are one HDF5 file have their patterns, and who reads them.
HDF5 = {"emd": "datacube_root/datacube/data", "nion_hdf5": "data", "hspy": "Experiments/__unnamed__/data"}
HDF5 |= {"cxi": "entry_1/instrument_1/detector_1/data", "ptychodus": "dp", "matlab_new": "dp", "dectris_frames": "entry/data/data"}
READERS = {"emd": emd_reader, "nion_hdf5": nion, "hspy": hspy_reader, "cxi": cxi_reader, "ptychodus": ptychodus_reader}
READERS |= {"matlab_new": matlab, "dectris_frames": dectris_reader}


def refused(reader: object, path: Path, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught, reader.opened(path) as raw:  # type: ignore[attr-defined]
        raw.patterns.check_size(raw.patterns.shape)
        np.asarray(raw.patterns.values[tuple(slice(None) for _ in raw.patterns.shape)])
    sentence = str(caught.value)
    assert sentence.isprintable() and sentence.startswith(str(path.parent)) and ": expected " in sentence
