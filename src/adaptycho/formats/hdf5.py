"""The project's own file: one HDF5 layout for recorded patterns, positions and geometry.

- root attributes `format` ("adaptycho"), `version` (1), `title`, `source`, `licence`, `counts_per_electron`; `sha256`, optional, of
  everything that is read: take it away after changing a file by hand
- `/patterns` (N, Q, Q), counts in their recorded number type, zero frequency in the centre pixel Q // 2
- `/positions` (N, 2), Å, (y, x) from the top-left corner of the scan field
- `/dose` (N,), counts of each pattern if nothing missed the detector; `/defocus` (N,), Å, positive = underfocus
- `/probe`, optional, complex, window shape, zero position in the centre pixel: a measured probe at the nominal defocus
- `/mask`, optional, (Q, Q), zero frequency in the centre pixel: 1 for detector pixels to believe, else 0
- `/setup` attributes `energy` (eV) or `wavelength` (Å), `semiangle` (mrad), `field` (y, x; Å), `pixel` (Å), `object_shape`, `window_shape`,
  `detector_pixel` (mrad, along y), `binning`, `rotation` (degrees, detector to scan, counter-clockwise), `aberrations` (JSON)

Inside the package zero frequency and zero position sit in the array corner and positions are fractions of the field.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from adaptycho.formats import seal, stored
from adaptycho.formats.plausible import plausible
from adaptycho.formats.recording import CHUNK, Recording, check_finite, check_probe, check_recording
from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import EDGE, Aberrations, Setup
from adaptycho.support.atomic import whole
from adaptycho.support.reading import printable, regular
from adaptycho.types import Measurement

FORMAT, VERSION = "adaptycho", 1
PIXEL_TOLERANCE = 0.005  # relative, between the stored pixel and the one that the detector implies
PATTERNS_PER_CHUNK = 16
LONGEST = 16  # values of an attribute

name = FORMAT
needs = f"an HDF5 file whose attribute format is {FORMAT!r}"


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
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: expected a file name, found something else of that name")
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: expected a name that is not taken, found a file; say overwrite to replace it")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: expected an existing folder, found none at {path.parent}")
    check_recording(recording, str(path))
    with whole(path, new=not overwrite) as part, h5py.File(part, "w") as file:
        _write_root(file, recording)
        digest = _write_patterns(file, recording.measurement, compression)
        _write_positions(file, recording.measurement, recording.setup)
        _write_setup(file.create_group("setup"), recording.setup)
        _write_probe(file, recording.setup, str(path))
        if recording.mask is not None:
            file["mask"] = torch.fft.fftshift(recording.mask.cpu()).to(torch.uint8).numpy()
        file.attrs["sha256"] = seal.close(digest, file)


def can_read(path: Path) -> bool:
    """Whether a file says that it is of this format.

    Raises:
        ValueError: it is HDF5, but damaged.
    """
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with stored.hdf5(path) as file:
        return str(file.attrs.get("format")) == FORMAT


def read(path: str | Path) -> Recording:
    """Reads a recording and checks everything in it.

    Raises:
        ValueError: one sentence `{file}: {key}: expected ..., found ...`: no such file, not HDF5 or truncated, another layout or version, a
            missing key, a wrong number type or shape, values that make no sense or are not those that were written, a pixel that
            contradicts the detector, values that are in another file, or more of them than memory takes.
    """
    path = Path(path)
    regular(path, "an adaptycho HDF5 file")
    with stored.hdf5(path) as file:
        return _read(file, path)


def _write_root(file: h5py.File, recording: Recording) -> None:
    file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
    for key in ("title", "source", "licence", "counts_per_electron"):
        file.attrs[key] = getattr(recording, key)


def _write_patterns(file: h5py.File, measurement: Measurement, compression: int) -> Any:
    """Writes them and returns the digest that they begin."""
    patterns = measurement.patterns[0].cpu()
    n, qy, qx = patterns.shape
    kind = patterns[:0].numpy().dtype
    chunks = (min(n, PATTERNS_PER_CHUNK), qy, qx)
    data = file.create_dataset("patterns", (n, qy, qx), kind, chunks=chunks, compression="gzip", compression_opts=compression, shuffle=True)
    data.attrs["units"], data.attrs["zero_frequency"] = "counts", "centre"
    digest = seal.begin()
    for first in range(0, n, CHUNK):
        part = torch.fft.fftshift(patterns[first : first + CHUNK], (-2, -1)).numpy()
        data[first : first + CHUNK] = part
        seal.feed(digest, "patterns", part)
    return digest


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
    counts = stored.dataset(file, "patterns", path)
    counts.check_size(counts.shape)
    n = counts.shape[0]
    arrays = {}
    for key, shape in (("positions", (n, 2)), ("dose", (n,)), ("defocus", (n,))):
        found = stored.dataset(file, key, path)
        if found.shape != shape:
            raise ValueError(f"{path}: {key}: expected shape {shape} for {n} patterns, found {found.shape}")
        arrays[key] = torch.from_numpy(stored.whole(found).astype(np.float64))
        check_finite(arrays[key], str(path), key)
    positions = arrays["positions"] / torch.tensor(setup.field, dtype=torch.float64)
    # Rounding may put a corner position a hair outside; anything further out is left for `check` to refuse.
    positions = torch.where((positions - 0.5).abs() <= 0.5 + EDGE, positions.clamp(0, 1), positions)
    patterns, digest = _read_patterns(counts)
    measurement = Measurement(positions.float()[None], patterns[None], arrays["dose"].float()[None], arrays["defocus"].float()[None])
    each = float(_values(file, "counts_per_electron", path))
    if each <= 0:
        raise ValueError(f"{path}: counts_per_electron: expected a positive number, found {each:g}")
    texts = {key: printable(_text(file, key, path)) if key in file.attrs else "" for key in seal.TEXTS}
    recording = Recording(setup, measurement, **texts, counts_per_electron=each, path=path)
    check_recording(recording, str(path))
    if "sha256" in file.attrs and (told := _text(file, "sha256", path)) != (made := seal.close(digest, file)):
        raise ValueError(
            f"{path}: sha256: expected {told[:8]}... of what was written, found {made[:8]}... of what is there: the file is damaged or was "
            "changed by hand (then take this attribute away)"
        )
    return recording


def _check_root(file: h5py.File, path: Path) -> None:
    if (found := file.attrs.get("format")) != FORMAT:
        other = "no such attribute" if found is None else repr(found)
        raise ValueError(f"{path}: format: expected {FORMAT!r}, found {other}; import the file first")
    if (version := _values(file, "version", path, "iu")) != VERSION:
        raise ValueError(f"{path}: version: expected {VERSION}, found {version}")


def _read_patterns(data: stored.Stored) -> tuple[torch.Tensor, Any]:
    """Patterns with zero frequency in the corner, and the digest that they begin."""
    patterns, digest = np.empty(data.shape, stored.native(data.values.dtype)), seal.begin()
    for first in range(0, len(patterns), CHUNK):
        part = data.values[first : first + CHUNK]
        patterns[first : first + CHUNK] = np.fft.ifftshift(part, (-2, -1))
        seal.feed(digest, "patterns", part)
    return torch.from_numpy(patterns), digest


def _read_setup(file: h5py.File, path: Path) -> Setup:
    group = stored.group(file, "setup", path)
    patterns = stored.dataset(file, "patterns", path)
    if len(patterns.shape) != 3 or 0 in patterns.shape:
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
            mask=_read_mask(file, path),
            **{beam: float(_values(group, beam, path))},
        )
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: setup/{str(error).replace(', got ', ', found ')}") from error
    plausible(setup, str(path))
    implied = 1e3 * setup.wavelength * setup.binning / (shape[0] * step) if step else math.nan
    if not abs(implied / pixel - 1) <= PIXEL_TOLERANCE:
        raise ValueError(
            f"{path}: setup/pixel: expected {implied:.5g} Å, the wavelength over {shape[0]} / {setup.binning} pixels of {step:.5g} mrad, "
            f"found {pixel:.5g} Å"
        )
    return setup


def _read_probe(file: h5py.File, window: Grid, path: Path) -> torch.Tensor | None:
    if stored.absent(file, "probe"):
        return None
    data = stored.dataset(file, "probe", path, "c")
    if data.shape != window.shape:
        raise ValueError(f"{path}: probe: expected the window's shape {window.shape}, found {data.shape}")
    with np.errstate(over="ignore"):  # what leaves single precision is infinite, and refused
        probe = torch.from_numpy(np.fft.ifftshift(stored.whole(data).astype(np.complex64)))
    check_probe(probe, str(path))
    return probe


def _read_mask(file: h5py.File, path: Path) -> torch.Tensor | None:
    if stored.absent(file, "mask"):
        return None
    data, shape = stored.dataset(file, "mask", path, "iu"), file["patterns"].shape[1:]
    if data.shape != shape or not np.isin(mask := stored.whole(data), (0, 1)).all() or not mask.any():
        raise ValueError(f"{path}: mask: expected ones and zeros for {shape} pixels, some to believe, found others of shape {data.shape}")
    return torch.from_numpy(np.fft.ifftshift(mask.astype(bool)))


def _attribute(group: h5py.Group, key: str, path: Path) -> Any:
    if key not in group.attrs:
        raise ValueError(f"{path}: {_named(group, key)}: expected an attribute of that name, found none")
    if (size := math.prod(group.attrs.get_id(key).shape)) > LONGEST:
        raise ValueError(f"{path}: {_named(group, key)}: expected at most {LONGEST} values, found {size}")
    return group.attrs[key]


def _text(group: h5py.Group, key: str, path: Path) -> str:
    value = _attribute(group, key, path)
    if not isinstance(value, str | bytes):
        raise ValueError(f"{path}: {_named(group, key)}: expected a text, found {str(value)[:80]!r}")
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _values(group: h5py.Group, key: str, path: Path, kinds: str = "iuf", shape: tuple[int, ...] = ()) -> np.ndarray:
    value = np.asarray(_attribute(group, key, path))
    if value.shape != shape or value.dtype.kind not in kinds or not np.isfinite(value).all():
        wanted = f"{'two' if shape else 'one'} {'whole' if kinds == 'iu' else 'finite'} number{'s (y, x)' if shape else ''}"
        raise ValueError(f"{path}: {_named(group, key)}: expected {wanted}, found {value}")
    return value


def _named(group: h5py.Group, key: str) -> str:
    return f"{group.name}/{key}".lstrip("/")


def _aberrations(group: h5py.Group, path: Path) -> Aberrations:
    text = _text(group, "aberrations", path)
    try:
        return Aberrations(**{str(k): float(v) for k, v in json.loads(text).items()})
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f'{path}: setup/aberrations: expected coefficients such as {{"C10": -100.0}}, found {text[:80]!r}') from error
