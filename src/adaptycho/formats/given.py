"""What a person says of a file: facts that it lacks or has wrong, and what is to be done with its patterns."""

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from adaptycho.formats.raw import Said

Pair = float | tuple[float, float]
Table = str | Path | np.ndarray
AGREE = 0.01  # relative, between what is typed and what the file says


class Contradiction(UserWarning):
    """What was typed is not what the file says; what was typed is taken."""


class Doubt(UserWarning):
    """Something in the data looks wrong, and an option may mend it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Given:
    """Options of an import; what is None is taken from the file. Of a pair (y, x) one number may stand for both.

    Attributes:
        energy: electrons' beam energy in eV; or give `wavelength`.
        wavelength: in Å, of X-rays or light.
        semiangle: convergence semi-angle in mrad; that of the probe if nobody says.
        defocus: in Å, positive = underfocus; 0 if nobody says.
        detector_pixel: angle in mrad of one detector pixel, or (y, x) if it is not square; or give `reciprocal_pixel` or `pixel`.
        reciprocal_pixel: the same in 1/Å.
        pixel: real-space pixel in Å, wavelength / (Q x detector pixel), Q being counted after crop, pad and bin.
        scan_step: in Å, one number or (y, x), of a raster; the length of a scan pixel where positions are in those.
        positions: (N, 2) as (y, x), or a file with a table of them.
        position_unit: px (of the scan), Å, nm, um or m; that of the table's header by default, else Å.
        scan_shape: rows and columns of a raster without its flyback.
        flyback: patterns at the end of each line that are none of the scan.
        skip: patterns at the start that are none of the scan.
        roll: places that the patterns are to be moved on by, against a detector that started late or early; those of the end come first.
        frames: number of each pattern in the scan, counted from 0, where some were lost; or a file with them.
        sum_frames: whether to add up the frames of each position, the axis before the detector's.
        rotation: degrees, counter-clockwise, that turn detector (row, column) into scan (row, column); 0 if nobody says.
        swap: exchange the detector's rows and columns.
        centre: stored detector pixel (row, column) of zero frequency, fractions too, or "auto" for the middle of the bright-field disc;
            Q // 2 by default.
        bin: detector pixels along each side that are added into one.
        crop: keep the central crop x crop detector pixels, counted after binning; no more than these are read of an .npy or HDF5 file.
        pad: take the detector for one of pad x pad pixels, those outside of the real one being left out of account.
        mask: stored detector pixels to believe, 1 or 0, or a file with them, or "auto" to leave out what is dead, hot or stuck.
        clip: take negative counts, as a subtracted background leaves them, for none.
        drop: "empty" to leave out patterns without counts, "bad" also those with NaN or far too many or too few counts, "none" to keep all.
        probe: the probe, complex (Q, Q) in real space with its centre in pixel Q // 2, or a pattern taken through vacuum, real, as the
            patterns lie; or a file with it.
        dose: counts of a pattern if nothing missed the detector; by default the mean of the patterns' sums.
        counts_per_electron: detector counts that one electron makes; 1 if nobody says.
        key: name of the array in a file that holds several.
        title: what was recorded.
        source: where it comes from.
        licence: the terms it is under.
    """

    energy: float | None = None
    wavelength: float | None = None
    semiangle: float | None = None
    defocus: float | None = None
    detector_pixel: Pair | None = None
    reciprocal_pixel: Pair | None = None
    pixel: float | None = None
    scan_step: Pair | None = None
    positions: Table | None = None
    position_unit: str | None = None
    scan_shape: tuple[int, int] | None = None
    flyback: int = 0
    skip: int = 0
    roll: int = 0
    frames: Table | None = None
    sum_frames: bool = False
    rotation: float | None = None
    swap: bool = False
    centre: tuple[float, float] | Literal["auto"] | None = None
    bin: int = 1
    crop: int | None = None
    pad: int | None = None
    mask: Table | None = None
    clip: bool = False
    drop: Literal["none", "empty", "bad"] | None = None
    probe: Table | None = None
    dose: float | None = None
    counts_per_electron: float | None = None
    key: str | None = None
    title: str = ""
    source: str = ""
    licence: str = ""

    def typed(self) -> dict[str, Any]:
        """Those that are not as they are by default."""
        usual = {f.name: f.default for f in dataclasses.fields(self)}
        found = {name: getattr(self, name) for name in usual}
        return {name: value for name, value in found.items() if isinstance(value, np.ndarray) or value != usual[name]}


@overload
def pair(value: Pair) -> tuple[float, float]: ...
@overload
def pair(value: None) -> None: ...
def pair(value: Pair | None) -> tuple[float, float] | None:
    """Both values of a pair that one number may stand for."""
    return value if value is None or isinstance(value, tuple) else (value, value)


def settled(given: Given, said: Said, name: str) -> Said:
    """Facts of a recording: what is typed, else what the file says; a contradiction is warned of."""
    typed = [key for key in ("energy", "wavelength") if getattr(given, key) is not None]
    beam = {"energy": None, "wavelength": None} if len(typed) == 1 else {}  # a beam that is typed goes before both of the file
    facts: dict[str, Any] = {}
    for key, unit in (("energy", "eV"), ("wavelength", "Å"), ("semiangle", "mrad"), ("defocus", "Å"), ("rotation", "degrees"),
                      ("scan_step", "Å"), ("scan_shape", "positions"), ("counts_per_electron", "counts")):  # fmt: skip
        mine, theirs = getattr(given, key), getattr(said, key)
        mine = pair(mine) if key == "scan_step" else mine
        facts[key] = theirs if mine is None else mine
        if mine is not None and theirs is not None:
            contradicted(name, key, mine, theirs, unit)
    for key in ("title", "source", "licence"):
        facts[key] = getattr(given, key) or getattr(said, key)
    return dataclasses.replace(said, **(facts | beam | {key: getattr(given, key) for key in typed}))


def contradicted(name: str, key: str, mine: Any, theirs: Any, unit: str) -> None:
    """Warns where what is typed is not what the file says."""
    if not np.allclose(mine, theirs, rtol=AGREE, atol=0):
        typed, found = (" x ".join(f"{v:.6g}" for v in np.atleast_1d(value)) for value in (mine, theirs))
        warnings.warn(
            f"{name}: {key}: {typed} {unit} typed, {found} {unit} in the file; what is typed is taken", Contradiction, stacklevel=2
        )
