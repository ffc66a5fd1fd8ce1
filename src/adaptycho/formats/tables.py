"""Tables of positions: text with or without a header, or an array in a file, in any unit; and lists of frame numbers."""

import re
import warnings
from pathlib import Path

import numpy as np

from adaptycho.formats import stored
from adaptycho.formats.given import Table
from adaptycho.formats.units import LENGTHS, PIXELS, factor
from adaptycho.support.reading import check_size, reading, regular

# Names of columns, such as y, x_nm, "Y (m)", pos_x [um] and row.
_COLUMN = re.compile(
    r"(?:pos(?:ition)?s?[ _]*)?(y|x|rows?|col(?:umn)?s?)(?:[ _]*pos(?:ition)?s?)?(?:(?:[ _]*[(\[/]|[ _]+)\s*([^\s()\[\]]+)\s*[)\]]?)?", re.I
)
_FILES = (".npy", ".npz", ".h5", ".hdf5")


def positions(given: Table, name: str, unit: str | None, step: tuple[float, float] | None) -> np.ndarray:
    """Positions (P, 2) as (y, x) in Å.

    Args:
        given: a table, or the name of a file with one.
        name: of the file of the patterns, to open sentences with if there is no other.
        unit: of the numbers; by default that of the table's header, else Å.
        step: length (y, x) in Å of a scan pixel, for positions in those.

    Raises:
        ValueError: the file cannot be read, the unit is unknown, or that of scan pixels without their length.
    """
    name = str(given) if isinstance(given, str | Path) else name
    values, said = _table(Path(given)) if isinstance(given, str | Path) else (np.asarray(given), None)
    stored.check_numbers(values.dtype, f"{name}: positions")
    values = values.reshape(-1, 2) if values.ndim == 3 and values.shape[-1] == 2 else values
    scale = _scale(unit or said or "Å", f"{name}: position_unit", step)
    if values.shape[-1:] != (2,):
        raise ValueError(f"{name}: positions: expected finite pairs (y, x) in Å, found shape {values.shape}")
    return values.astype(np.float64) * scale


def numbers(given: Table, name: str) -> np.ndarray:
    """Whole numbers (N,) of an array or of a file.

    Raises:
        ValueError: the file cannot be read, or holds others.
    """
    if isinstance(given, str | Path):
        name, path = str(given), Path(given)
        with reading(f"{path}: frames", "whole numbers, one in each line"):
            values = _array(path, (1, 2), "frames") if path.suffix in _FILES else np.loadtxt(_lines(path, "frames"), ndmin=1)
    else:
        values = np.atleast_1d(given)
    if values.dtype.kind not in "iuf" or values.size != len(values) or not (np.isfinite(values).all() and (values % 1 == 0).all()):
        raise ValueError(f"{name}: frames: expected whole numbers of patterns, one for each, found {values.dtype} of shape {values.shape}")
    return values.reshape(-1).astype(np.int64)


def _scale(unit: str, name: str, step: tuple[float, float] | None) -> np.ndarray:
    if unit.lower() in PIXELS:
        if step is None:
            raise ValueError(
                f"{name}: expected the length of a scan pixel as scan_step (--scan-step in Å) for positions in pixels, found none"
            )
        return np.array(step)
    if (size := factor(unit, LENGTHS)) is None:
        raise ValueError(f"{name}: expected px or a length ({', '.join(LENGTHS)}), found {unit!r}")
    return np.array([size, size])


def _table(path: Path) -> tuple[np.ndarray, str | None]:
    """Two columns (y, x), and the unit that the header says."""
    if path.suffix in _FILES:
        return _array(path, (2,), "positions"), None
    lines = _lines(path, "positions")
    # An empty table is said by its shape.
    with reading(f"{path}: positions", "two columns of numbers (y, x) in Å"), warnings.catch_warnings(action="ignore"):
        header = lines[0] if lines and any(c.isalpha() and c not in "eE" for c in lines[0]) else None
        columns, unit = (None, None) if header is None else _columns(header, f"{path}: positions")
        body = [re.sub("[,;]", " ", line) for line in lines[0 if header is None else 1 :]]
        values = np.loadtxt(body, ndmin=2)
        if columns is not None:
            return values[:, columns], unit
    if values.ndim == 2 and values.shape[1] > 2:
        raise ValueError(
            f"{path}: positions: expected two columns (y, x), or a header that says which of the {values.shape[1]} are y and x, found none"
        )
    return values, None


def _columns(header: str, name: str) -> tuple[list[int] | None, str | None]:
    """Which columns are y and x, and their unit; None if they have other names."""
    text = header.lstrip("#").strip()
    words = re.split(r"\s*[,;\t]\s*", text) if re.search(r"[,;\t]", text) else re.sub(r"\s+(?=[(\[])", "", text).split()
    found: dict[str, tuple[int, str]] = {}
    for column, word in enumerate(words):
        if match := _COLUMN.fullmatch(word.strip().strip("\"'")):
            axis, unit = "y" if match[1][0].lower() in "yr" else "x", match[2] or ""
            if axis in found:
                raise ValueError(f"{name}: expected one column {axis}, found two in {text[:80]!r}")
            found[axis] = column, unit
    if set(found) != {"y", "x"}:
        return None, None
    (y, unit), (x, other) = found["y"], found["x"]
    if unit != other:
        raise ValueError(f"{name}: expected y and x in one unit, found {unit or 'none'} and {other or 'none'}")
    return [y, x], unit or None


def _array(path: Path, axes: tuple[int, ...], what: str) -> np.ndarray:
    with stored.array(path, axes=axes, what=what) as found:
        return stored.whole(found)


def _lines(path: Path, what: str) -> list[str]:
    regular(path, f"a file of {what}")
    size = path.stat().st_size
    check_size(f"{path}: {what}", 16 * size, size)  # strings and numbers take more than their digits
    with reading(f"{path}: {what}", "text with numbers"):
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
