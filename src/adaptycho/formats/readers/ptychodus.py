"""Reads the pairs that ptychodus, pty-chi and fold_slice take: patterns in `name_dp.hdf5`, positions and probe in `name_para.hdf5`.

Axes: `dp` is (N, ky, kx). Positions are of the *probe*, in m, x along columns and y along rows: `probe_position_x_m` and
`probe_position_y_m`, or `ppX` and `ppY` as preprocessing at the APS writes them, with `lambda` and `dx` in m. ptychodus takes the
latter as they are, as is done here; PtyRAD takes them with the opposite sign, which turns the object by 180 degrees. `probe` is
(..., Q, Q), its first axis for modes that vary from position to position, of which the first is kept; its pixel, in m, is an attribute
of `object` or of itself. Both may be in one file. Convergence and defocus are typed; so is the energy where the file has no wavelength.

Source: ptychodus 1.7.0, `api/io.py`, `model/ptycho_fm/reconstructor.py`, `plugins/fold_slice/position_file.py`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np

from adaptycho.formats import stored
from adaptycho.formats.raw import Raw, Said
from adaptycho.formats.readers import calibration, facts

name = "ptychodus"
needs = "an HDF5 file with dp, (N, ky, kx), and the file of positions beside it, name_para.hdf5 for name_dp.hdf5"
POSITIONS = (("probe_position_y_m", "probe_position_x_m"), ("ppY", "ppX"))
LONGEST = 10**8  # positions


def can_read(path: Path) -> bool:
    """Whether there is an array dp, but not as MATLAB writes it."""
    return facts.holds(path, lambda file: facts.array_here(file, "dp", (3, 4)) and facts.attribute(file["dp"], "MATLAB_class") is None)


@contextmanager
def opened(path: Path, key: str | None = None) -> Iterator[Raw]:
    """Patterns, and what the file of positions has, if there is one; there is one array, so that `key` can only be its name, dp.

    Raises:
        ValueError: naming the file; it cannot be read, or there are other positions than patterns.
    """
    with stored.hdf5(path) as file, ExitStack() as files:
        found = facts.patterns(file, facts.choose(path, key, ["dp"]), path)
        about, beside = file, _companion(path)
        if not _named(file) and beside is not None:
            about, path = files.enter_context(stored.hdf5(beside)), beside
        yield Raw(patterns=found, said=_said(about, path, found.shape))


def _companion(path: Path) -> Path | None:
    """The file of positions in the same folder."""
    if not path.stem.endswith("_dp"):
        return None
    beside = path.with_name(f"{path.stem.removesuffix('_dp')}_para{path.suffix}")
    return beside if beside.is_file() and facts.together(path, beside) else None


def _named(file: h5py.File) -> tuple[str, str] | None:
    return next((pair for pair in POSITIONS if all(isinstance(facts.here(file, each), h5py.Dataset) for each in pair)), None)


def _said(file: h5py.File, path: Path, shape: tuple[int, ...]) -> Said:
    metres = calibration.positive(facts.number(facts.here(file, "lambda")))
    volts = facts.attribute(file, "photon_energy_eV")
    volts = facts.number(facts.attribute(file, "probe_energy_eV") if volts is None else volts)
    return Said(
        wavelength=calibration.photon_wavelength(volts) if metres is None else 1e10 * metres,
        pixel=_pixel(file),
        positions=_positions(file, path, int(np.prod(shape[:-2]))),
        probe=_probe(file, path, shape[-2:]),
        title=facts.text(facts.attribute(file, "name")) or path.stem.removesuffix("_para").removesuffix("_dp"),
    )


def _pixel(file: h5py.File) -> calibration.Pair | None:
    for place in ("probe", "object"):
        item = facts.here(file, place)
        sides = [calibration.positive(facts.number(facts.attribute(item, f"pixel_{each}_m"))) for each in ("height", "width")]
        if (pair := calibration.step(sides, ("m", "m"))) is not None:
            return pair
    side = calibration.positive(facts.number(facts.here(file, "dx")))
    return calibration.step((side, side), ("m", "m"))


def _positions(file: h5py.File, path: Path, count: int) -> np.ndarray | None:
    """Positions in the order of the patterns, which an index may give."""
    pair = _named(file)
    if pair is None:
        return None
    y, x = (stored.dataset(file, each, path) for each in pair)
    if any(np.prod(each.shape) != count for each in (y, x)) or count > LONGEST:
        raise ValueError(f"{path}: {pair[0]}: expected {count} positions, one for each pattern, found shapes {y.shape} and {x.shape}")
    where = 1e10 * np.stack([stored.whole(each).ravel() for each in (y, x)], -1).astype(np.float64)
    if isinstance(facts.here(file, "probe_position_indexes"), h5py.Dataset):
        order = stored.dataset(file, "probe_position_indexes", path, "iu")
        numbers = stored.whole(order).ravel() if np.prod(order.shape) == count else np.empty(0)
        if not np.array_equal(np.sort(numbers), np.arange(count)):
            raise ValueError(f"{order.name}: expected each number below {count} once, found others")
        where = where[np.argsort(numbers)]
    return where


def _probe(file: h5py.File, path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    item = facts.here(file, "probe")
    if not isinstance(item, h5py.Dataset) or item.dtype.kind != "c" or item.shape is None or len(set(shape)) != 1:
        return None
    if item.shape[-2:] != shape or len(item.shape) not in (2, 3, 4) or 0 in item.shape:
        return None
    probe = stored.whole(stored.dataset(file, "probe", path, "c"))
    return (probe[0] if probe.ndim == 4 else probe).reshape(-1, *shape)
