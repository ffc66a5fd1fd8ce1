"""What lies in a file, before anything is decided: the patterns as they are stored, and what the file says of how they were recorded."""

from dataclasses import dataclass, field

import numpy as np

from adaptycho.formats.stored import Stored


@dataclass(frozen=True, eq=False, kw_only=True)
class Said:
    """What a file says of how it was recorded, in the units of the package; None for what it does not say.

    Attributes:
        energy: of the electrons, in eV.
        wavelength: in Å, of X-rays or light.
        semiangle: convergence semi-angle in mrad.
        defocus: in Å, positive = underfocus.
        detector_pixel: angle in mrad of one detector pixel along rows and along columns (y, x).
        pixel: real-space pixel (y, x) in Å, 1 / (n x reciprocal pixel), where the file gives that instead.
        scan_step: distance (y, x) of neighbouring positions in Å.
        scan_shape: rows and columns of the scan, where the patterns are (N, ky, kx) and the file says so.
        positions: (N, 2) as (y, x) in Å, in the order of the patterns.
        rotation: degrees, counter-clockwise, that turn detector (row, column) into scan (row, column).
        counts_per_electron: detector counts that one electron makes.
        mask: (ky, kx), true for detector pixels that can be believed; in the orientation and with the centre of the patterns.
        probe: complex (modes, Q, Q) in real space, centre in pixel Q // 2, on pixels of `pixel`.
        title: what was recorded.
        source: where it comes from.
        licence: the terms it is under.
    """

    energy: float | None = None
    wavelength: float | None = None
    semiangle: float | None = None
    defocus: float | None = None
    detector_pixel: tuple[float, float] | None = None
    pixel: tuple[float, float] | None = None
    scan_step: tuple[float, float] | None = None
    scan_shape: tuple[int, int] | None = None
    positions: np.ndarray | None = None
    rotation: float | None = None
    counts_per_electron: float | None = None
    mask: np.ndarray | None = None
    probe: np.ndarray | None = None
    title: str = ""
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Raw:
    """Patterns as they are stored, read a part at a time, and what is said of them.

    Attributes:
        patterns: (scan_y, scan_x, ky, kx) or (N, ky, kx); `values` can be sliced as an array can while the reader that gave it is open.
        corner: whether zero frequency lies in the corner and not in the centre pixel Q // 2.
        said: by the file.
    """

    patterns: Stored
    corner: bool = False
    said: Said = field(default_factory=Said)
