"""Which pattern belongs where: rasters with flyback, lost and superfluous patterns, tables of positions."""

import math
import warnings
from typing import NamedTuple

import numpy as np

from adaptycho.formats import tables
from adaptycho.formats.given import Doubt, Given, contradicted, pair
from adaptycho.formats.plausible import LENGTH
from adaptycho.formats.raw import Said

TOGETHER = 0.25  # pixels that neighbouring positions are at least apart, unless their unit was said
MANY = 16  # positions from which on their distance tells something


class Scan(NamedTuple):
    """Patterns of a scan in the order in which they are kept.

    Attributes:
        kept: number of each in the file.
        where: (K, 2), Å, (y, x).
    """

    kept: np.ndarray
    where: np.ndarray


def scan(name: str, shape: tuple[int, ...], given: Given, said: Said) -> Scan:
    """The patterns that belong to the scan, and where.

    Args:
        name: of the file, to open sentences with.
        shape: of what comes before the detector's axes: (rows, columns) or (N,).
        given: how the patterns lie.
        said: facts of the recording, those that were given among them.

    Raises:
        ValueError: patterns and positions do not match, or something is missing.
    """
    total = math.prod(shape)
    kept, number = _numbered(name, total, given)
    raster = _raster(name, shape, given, said)
    places = _places(name, shape, raster, len(number), given, said)
    at = number
    if raster is not None:
        rows, columns = raster
        _check_lines(name, raster, number, given)
        line, column = np.divmod(number, columns + given.flyback)
        inside = (column < columns) & (line < rows)
        kept, number, at = kept[inside], number[inside], (line * columns + column)[inside]
        if given.frames is None and (lost := rows * columns - len(kept)):
            warnings.warn(
                f"{name}: scan_shape: the last {lost} positions have no pattern, as if the scan ended early; if patterns were lost in "
                "between, frames (--frames) says which are there",
                Doubt,
                stacklevel=2,
            )
    if _tabled(raster, given, said) and given.frames is None and len(places) == total > len(at):
        at = number + given.skip  # patterns that are left out have positions too
    if len(at) == 0:
        raise ValueError(f"{name}: frames: expected patterns inside the scan, found none")
    if at.max() >= len(places):
        raise ValueError(f"{name}: frames: expected numbers below {len(places)}, counted from 0, found {at.max()}")
    return Scan(kept, places[at])


def check_unit(name: str, where: np.ndarray, pixel: float, given: Given) -> None:
    """Refuses positions that lie so close together that they must be in another unit, if nobody said theirs; warns of such a step."""
    if len(where) < MANY or given.position_unit is not None:
        return
    span = np.maximum(np.ptp(where, 0), 1e-30)
    apart = float(math.sqrt(span.prod() / len(where)) if span.min() > 0.01 * span.max() else span.max() / len(where))
    if apart >= TOGETHER * pixel or span.max() < 0.1 * pixel:  # closer still is refused with the recording
        return
    found = f"{apart:.2g} Å ({10 * apart:.2g} Å if they are in nm)"
    expected = f"neighbours at least {TOGETHER:g} pixels of {pixel:.3g} Å apart"
    if given.positions is not None:
        raise ValueError(
            f"{name}: positions: expected {expected}, found {found}: position_unit says theirs (--position-unit nm, or Å if that is meant)"
        )
    if given.scan_step is not None:
        warnings.warn(f"{name}: scan_step: {found} are typed, where one expects {expected}", Doubt, stacklevel=2)


def _numbered(name: str, total: int, given: Given) -> tuple[np.ndarray, np.ndarray]:
    """Patterns that are left, and the number of each in the order of the scan."""
    for key in ("skip", "flyback"):
        if not 0 <= getattr(given, key) < total:
            raise ValueError(f"{name}: {key}: expected 0 to {total - 1} of the {total} patterns, found {getattr(given, key)}")
    kept = np.arange(given.skip, total)
    if given.frames is None:
        return kept, (np.arange(len(kept)) + given.roll) % len(kept)
    if given.skip or given.roll:
        raise ValueError(f"{name}: frames: expected no skip and roll beside, since the numbers say which patterns are which, found one")
    number = tables.numbers(given.frames, name)
    if len(number) != total or len(np.unique(number)) != total or number.min() < 0:
        raise ValueError(
            f"{name}: frames: expected {total} different numbers from 0 on, one for each pattern, found {len(number)}, "
            f"{len(np.unique(number))} of them different, from {number.min(initial=0)} on"
        )
    return kept, number


def _raster(name: str, shape: tuple[int, ...], given: Given, said: Said) -> tuple[int, int] | None:
    """Rows and columns that are scanned line by line; None where positions say where each pattern belongs."""
    if given.scan_shape is not None:
        if min(given.scan_shape) < 1:
            raise ValueError(f"{name}: scan_shape: expected rows and columns, found {given.scan_shape}")
        return given.scan_shape
    if not given.flyback and (given.positions is not None or (said.positions is not None and given.scan_step is None)):
        return None
    if len(shape) == 2:
        if given.flyback >= shape[1]:
            raise ValueError(f"{name}: flyback: expected fewer than the {shape[1]} patterns of a line, found {given.flyback}")
        return shape[0], shape[1] - given.flyback
    if given.flyback and said.scan_shape is None:
        raise ValueError(f"{name}: flyback: expected scan_shape (--scan-shape ROWSxCOLUMNS) beside, found none")
    return said.scan_shape


def _tabled(raster: tuple[int, int] | None, given: Given, said: Said) -> bool:
    """Whether positions come from a table, typed or in the file, and not from a step."""
    return given.positions is not None or (said.positions is not None and (given.scan_step is None or raster is None))


def _check_lines(name: str, raster: tuple[int, int], number: np.ndarray, given: Given) -> None:
    rows, columns = raster
    most = rows * (columns + given.flyback)
    fly = f" and {given.flyback} of flyback in each line" if given.flyback else ""
    if given.frames is not None and number.max() >= most:
        raise ValueError(f"{name}: frames: expected numbers below {most}, counted from 0, found {number.max()}")
    if given.frames is None and not most - columns - given.flyback < len(number) <= most:
        raise ValueError(
            f"{name}: scan_shape: expected {most} patterns for {rows} x {columns} positions{fly}, found {len(number)}: "
            "scan_shape, skip, flyback or frames (--scan-shape and so on) say how they lie, and which are none of the scan or were lost"
        )


def _places(name: str, shape: tuple[int, ...], raster: tuple[int, int] | None, number: int, given: Given, said: Said) -> np.ndarray:
    """Positions (P, 2) in Å of all places of the scan."""
    total = math.prod(shape)
    if given.positions is not None:
        file = str(given.positions) if not isinstance(given.positions, np.ndarray) else name
        where = tables.positions(given.positions, name, given.position_unit, said.scan_step)
        wanted = number if raster is None else math.prod(raster)
        finite = bool(np.isfinite(where).all())
        if where.ndim != 2 or where.shape[1:] != (2,) or not finite or (given.frames is None and len(where) not in (wanted, total)):
            found = f"shape {where.shape}" + ("" if finite else " with NaN or infinity")
            hint = "; where some were lost, frames (--frames) says which are there" if where.ndim == 2 and len(where) > wanted else ""
            raise ValueError(f"{file}: positions: expected {wanted} finite pairs (y, x) in Å, found {found}{hint}")
        if said.positions is not None and said.positions.shape == where.shape:
            contradicted(name, "positions", np.ptp(where, 0), np.ptp(said.positions, 0), "Å across")
        return where
    if said.positions is not None and _tabled(raster, given, said):
        where = np.asarray(said.positions, np.float64)
        if where.ndim != 2 or where.shape[1] != 2 or not np.isfinite(where).all() or len(where) not in (number, total):
            raise ValueError(f"{name}: positions: expected {number} finite pairs (y, x) in the file, found shape {where.shape}")
        return where
    if raster is None:
        raise ValueError(
            f"{name}: positions: expected positions in Å, because the patterns are (N, ky, kx), found none "
            "(--positions FILE, or --scan-shape ROWSxCOLUMNS and --scan-step of a raster)"
        )
    step = pair(said.scan_step)
    if step is None:
        raise ValueError(f"{name}: scan_step: expected the distance of neighbouring positions in Å (or positions), found none")
    if not all(0 < length < math.inf for length in step):
        typed = given.scan_step if given.scan_step is not None else step
        raise ValueError(f"{name}: scan_step: expected a positive length in Å, found {typed}")
    if max(raster[0] * step[0], raster[1] * step[1]) > LENGTH:
        raise ValueError(f"{name}: scan_step: expected a scan within {LENGTH:g} Å, found steps of {step[0]:g} x {step[1]:g} Å")
    if len(shape) == 2 and given.scan_shape is None and min(raster) == 1 and max(raster) >= MANY:
        warnings.warn(
            f"{name}: scan_step: {max(raster)} patterns are taken for a line; positions (--positions) or --scan-shape say otherwise",
            Doubt,
            stacklevel=2,
        )
    return np.indices(raster).reshape(2, -1).T * np.array(step)
