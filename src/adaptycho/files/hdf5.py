"""The project's own file: one HDF5 layout for recorded patterns, positions and geometry.

- root attributes `format` ("adaptycho"), `version` (1), `title`, `source`, `licence`, `counts_per_electron`
- `/patterns` (N, Q, Q), counts in their recorded number type, zero frequency in the centre pixel Q // 2
- `/positions` (N, 2), Å, (y, x) from the top-left corner of the scan field
- `/dose` (N,), counts of each pattern if nothing missed the detector; `/defocus` (N,), Å, positive = underfocus
- `/probe`, optional, complex, window shape, zero position in the centre pixel: a measured probe at the nominal defocus
- `/setup` attributes `energy` (eV) or `wavelength` (Å), `semiangle` (mrad), `field` (y, x; Å), `pixel` (Å), `object_shape`, `window_shape`,
  `detector_pixel` (mrad, along y), `binning`, `rotation` (degrees, detector to scan, counter-clockwise), `aberrations` (JSON)

Inside the package zero frequency and zero position sit in the array corner and positions are fractions of the field.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from adaptycho.files.recording import CHUNK, Recording, check
from adaptycho.forward import Measurement
from adaptycho.grid import Grid
from adaptycho.optics import EDGE, Aberrations, Setup
from adaptycho.store import whole

FORMAT, VERSION = "adaptycho", 1
PIXEL_TOLERANCE = 0.005  # relative, between the stored pixel and the one that the detector implies
PATTERNS_PER_CHUNK = 16


def write(path: str | Path, recording: Recording, *, overwrite: bool = False, compression: int = 4) -> None:
    """Writes a recording; the file appears complete or not at all.

    Args:
        path: the file to write.
        recording: what to write.
        overwrite: whether an existing file may be replaced.
        compression: gzip level, 0 to 9.

    Raises:
        ValueError: the name is that of a folder, the file exists, its folder does not, or the recording fails `check`.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: expected a file name, found a folder")
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: expected a name that is not taken, found a file; say overwrite to replace it")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: expected an existing folder, found none at {path.parent}")
    check(recording.measurement, recording.setup, str(path))
    with whole(path) as part, h5py.File(part, "w") as file:
        _write_root(file, recording)
        _write_patterns(file, recording.measurement, compression)
        _write_positions(file, recording.measurement, recording.setup)
        _write_setup(file.create_group("setup"), recording.setup)
        _write_probe(file, recording.setup, str(path))


def read(path: str | Path) -> Recording:
    """Reads a recording and checks everything in it.

    Raises:
        ValueError: one sentence `{file}: {key}: expected ..., found ...`: no such file, not HDF5 or truncated, another layout or version, a
            missing key, a wrong number type or shape, values that make no sense, or a pixel that contradicts the detector.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected an adaptycho HDF5 file, found {'a folder' if path.is_dir() else 'no such file'}")
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: expected a complete HDF5 file, found one that cannot be read ({error})") from error


def _write_root(file: h5py.File, recording: Recording) -> None:
    file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
    for key in ("title", "source", "licence", "counts_per_electron"):
        file.attrs[key] = getattr(recording, key)


def _write_patterns(file: h5py.File, measurement: Measurement, compression: int) -> None:
    patterns = measurement.patterns[0].cpu()
    n, qy, qx = patterns.shape
    kind = patterns[:0].numpy().dtype
    chunks = (min(n, PATTERNS_PER_CHUNK), qy, qx)
    data = file.create_dataset("patterns", (n, qy, qx), kind, chunks=chunks, compression="gzip", compression_opts=compression, shuffle=True)
    data.attrs["units"], data.attrs["zero_frequency"] = "counts", "centre"
    for first in range(0, n, CHUNK):
        data[first : first + CHUNK] = torch.fft.fftshift(patterns[first : first + CHUNK], (-2, -1)).numpy()


def _write_positions(file: h5py.File, measurement: Measurement, setup: Setup) -> None:
    file["positions"] = measurement.positions[0].cpu().double().numpy() * np.array(setup.field)
    file["positions"].attrs["units"], file["positions"].attrs["axes"] = "Å", "y, x"
    for key, units in (("dose", "counts"), ("defocus", "Å")):
        file[key] = getattr(measurement, key)[0].cpu().double().numpy()
        file[key].attrs["units"] = units


def _write_setup(group: h5py.Group, setup: Setup) -> None:
    if setup.energy is None:
        group.attrs["wavelength"] = setup.wavelength
    else:
        group.attrs["energy"] = setup.energy
    group.attrs["semiangle"], group.attrs["rotation"] = setup.semiangle, setup.rotation
    group.attrs["field"], group.attrs["pixel"] = setup.field, setup.window.pixel
    group.attrs["object_shape"], group.attrs["window_shape"] = setup.object.shape, setup.window.shape
    group.attrs["detector_pixel"], group.attrs["binning"] = setup.detector_pixel, setup.binning
    group.attrs["aberrations"] = json.dumps({k: v for k, v in asdict(setup.aberrations).items() if v})
    group.attrs["units"] = "energy eV; wavelength, field, pixel Å; semiangle, detector_pixel mrad; rotation degrees; aberrations Å and rad"


def _write_probe(file: h5py.File, setup: Setup, name: str) -> None:
    if setup.measured_probe is None:
        return
    probe = setup.measured_probe.reshape(-1, *setup.window.shape)
    if len(probe) != 1:
        raise ValueError(f"{name}: probe: expected one measured probe, found {len(probe)}")
    file["probe"] = torch.fft.fftshift(probe[0].cpu().to(torch.complex64), (-2, -1)).numpy()
    file["probe"].attrs["zero_position"] = "centre"


def _read(file: h5py.File, path: Path) -> Recording:
    _check_root(file, path)
    setup = _read_setup(file, path)
    count = len(file["patterns"])
    for key, shape in (("positions", (count, 2)), ("dose", (count,)), ("defocus", (count,))):
        if (found := _dataset(file, key, path, "iuf").shape) != shape:
            raise ValueError(f"{path}: {key}: expected shape {shape} for {count} patterns, found {found}")
    positions = torch.from_numpy(file["positions"][...].astype(np.float64)) / torch.tensor(setup.field, dtype=torch.float64)
    # Rounding may put a corner position a hair outside; anything further out is left for `check` to refuse.
    positions = torch.where((positions - 0.5).abs() <= 0.5 + EDGE, positions.clamp(0, 1), positions)
    dose, defocus = (torch.from_numpy(file[key][...].astype(np.float32))[None] for key in ("dose", "defocus"))
    measurement = Measurement(positions.float()[None], _read_patterns(file["patterns"])[None], dose, defocus)
    check(measurement, setup, str(path))
    texts = {key: str(file.attrs.get(key, "")) for key in ("title", "source", "licence")}
    counts = float(_values(file, "counts_per_electron", path))
    if counts <= 0:
        raise ValueError(f"{path}: counts_per_electron: expected a positive number, found {counts:g}")
    return Recording(setup, measurement, **texts, counts_per_electron=counts, path=path)


def _check_root(file: h5py.File, path: Path) -> None:
    if (found := file.attrs.get("format")) != FORMAT:
        other = "no such attribute" if found is None else repr(found)
        raise ValueError(f"{path}: format: expected {FORMAT!r}, found {other}; import the file first")
    if (found := file.attrs.get("version")) != VERSION:
        raise ValueError(f"{path}: version: expected {VERSION}, found {found}")


def _dataset(file: h5py.File, key: str, path: Path, kinds: str) -> h5py.Dataset:
    data = file.get(key)
    if not isinstance(data, h5py.Dataset):
        raise ValueError(f"{path}: {key}: expected an array of that name, found {'none' if data is None else 'a group'}")
    if data.dtype.kind not in kinds or data.dtype.itemsize > (16 if kinds == "c" else 8):
        raise ValueError(f"{path}: {key}: expected {'complex' if kinds == 'c' else 'integer or real'} numbers, found {data.dtype}")
    return data


def _read_patterns(data: h5py.Dataset) -> torch.Tensor:
    patterns = np.empty(data.shape, data.dtype.newbyteorder("="))
    for first in range(0, len(data), CHUNK):
        patterns[first : first + CHUNK] = np.fft.ifftshift(data[first : first + CHUNK], (-2, -1))
    return torch.from_numpy(patterns)


def _read_setup(file: h5py.File, path: Path) -> Setup:
    group = file.get("setup")
    if not isinstance(group, h5py.Group):
        raise ValueError(f"{path}: setup: expected a group of that name, found none")
    patterns = _dataset(file, "patterns", path, "iuf")
    if patterns.ndim != 3:
        raise ValueError(f"{path}: patterns: expected shape (N, Q, Q), found {patterns.shape}")
    pixel, step = float(_values(group, "pixel", path)), float(_values(group, "detector_pixel", path))
    shape, held = (tuple(int(n) for n in _values(group, key, path, "iu", (2,))) for key in ("window_shape", "object_shape"))
    fy, fx = (float(v) for v in _values(group, "field", path, shape=(2,)))
    beam = "energy" if "energy" in group.attrs else "wavelength"
    try:
        window = Grid((shape[0], shape[1]), pixel)
        setup = Setup(
            field=(fy, fx),
            object=Grid((held[0], held[1]), pixel),
            window=window,
            detector=(int(patterns.shape[1]), int(patterns.shape[2])),
            semiangle=float(_values(group, "semiangle", path)),
            aberrations=_aberrations(group, path),
            binning=int(_values(group, "binning", path, "iu")),
            rotation=float(_values(group, "rotation", path)),
            measured_probe=_read_probe(file, window, path),
            **{beam: float(_values(group, beam, path))},
        )
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: setup/{str(error).replace(', got ', ', found ')}") from error
    implied = 1e3 * setup.wavelength * setup.binning / (shape[0] * step)
    if not abs(implied / pixel - 1) <= PIXEL_TOLERANCE:
        raise ValueError(
            f"{path}: setup/pixel: expected {implied:.5g} Å, the wavelength over {shape[0]} / {setup.binning} pixels of {step:.5g} mrad, "
            f"found {pixel:.5g} Å"
        )
    return setup


def _read_probe(file: h5py.File, window: Grid, path: Path) -> torch.Tensor | None:
    if "probe" not in file:
        return None
    data = _dataset(file, "probe", path, "c")
    if data.shape != window.shape:
        raise ValueError(f"{path}: probe: expected the window's shape {window.shape}, found {data.shape}")
    probe = torch.from_numpy(np.fft.ifftshift(data[...].astype(np.complex64)))
    if not bool(torch.isfinite(probe.abs()).all() and probe.abs().max() > 0):
        raise ValueError(f"{path}: probe: expected finite values that are not all zero, found others")
    return probe


def _attribute(group: h5py.Group, key: str, path: Path) -> Any:
    if key not in group.attrs:
        raise ValueError(f"{path}: {_named(group, key)}: expected an attribute of that name, found none")
    return group.attrs[key]


def _values(group: h5py.Group, key: str, path: Path, kinds: str = "iuf", shape: tuple[int, ...] = ()) -> np.ndarray:
    value = np.asarray(_attribute(group, key, path))
    if value.shape != shape or value.dtype.kind not in kinds or not np.isfinite(value).all():
        wanted = f"{'two' if shape else 'one'} {'whole' if kinds == 'iu' else 'finite'} number{'s (y, x)' if shape else ''}"
        raise ValueError(f"{path}: {_named(group, key)}: expected {wanted}, found {value}")
    return value


def _named(group: h5py.Group, key: str) -> str:
    return f"{group.name}/{key}".lstrip("/")


def _aberrations(group: h5py.Group, path: Path) -> Aberrations:
    text = str(_attribute(group, "aberrations", path))
    try:
        return Aberrations(**{str(k): float(v) for k, v in json.loads(text).items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f'{path}: setup/aberrations: expected coefficients such as {{"C10": -100.0}}, found {text!r}') from error
