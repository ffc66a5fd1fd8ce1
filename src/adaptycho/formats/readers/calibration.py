"""Steps and angles as other programs write them, a number and a word, in the units of the package: Å, mrad, eV.

Reciprocal lengths are 1/d, not 2 pi/d, in every format that is read here.
"""

import math
import unicodedata
from collections.abc import Sequence

from adaptycho.formats.units import ANGLES, LENGTHS, PER_LENGTH, Units, factor
from adaptycho.physics.optics import wavelength

Pair = tuple[float, float]

PLANCK_C = 12398.419843320026  # h c in eV Å
JOULE = 1 / 1.602176634e-19  # eV


def positive(value: float | None) -> float | None:
    """A number if it is finite and positive: what was never calibrated is 0 or NaN."""
    return value if value is not None and 0 < value < math.inf else None


def step(scales: Sequence[float | None], units: Sequence[str]) -> Pair | None:
    """Distances (y, x) of neighbouring positions in Å, where both axes have one; an axis may run backwards."""
    y, x = (_scaled(scale, unit, LENGTHS) for scale, unit in zip(scales, units, strict=True))
    return None if y is None or x is None else (y, x)


def detector(
    scales: Sequence[float | None], units: Sequence[str], shape: Sequence[int], energy: float | None = None
) -> tuple[Pair | None, Pair | None]:
    """The detector pixel (y, x) in mrad, or, where only 1/length is known and no energy, the real-space pixel (y, x) in Å.

    Args:
        scales: of the detector's rows and columns.
        units: an angle or one over a length.
        shape: pixels (y, x) of the whole pattern.
        energy: of the electrons in eV, which turns 1/length into an angle.
    """
    y, x = (_scaled(scale, unit, ANGLES) for scale, unit in zip(scales, units, strict=True))
    if y is not None and x is not None:
        return (y, x), None
    ky, kx = (_scaled(scale, unit, PER_LENGTH) for scale, unit in zip(scales, units, strict=True))
    if ky is None or kx is None:
        return None, None
    if energy is not None:
        beam = 1e3 * wavelength(energy)
        return (beam * ky, beam * kx), None
    return None, (1 / (shape[0] * ky), 1 / (shape[1] * kx))


def photon_wavelength(energy: float | None) -> float | None:
    """Wavelength in Å of a photon of an energy in eV."""
    return None if energy is None or positive(energy) is None else PLANCK_C / energy


def _scaled(value: float | None, unit: str, units: Units) -> float | None:
    """A positive number in the package's unit; None without one, or in a unit of another kind."""
    spelled = unicodedata.normalize("NFC", unit).replace("\u03bc", "\u00b5").replace(" ", "")  # Å and µ have two letters each
    size = factor(spelled, units)
    return None if value is None or size is None else positive(abs(value) * size)
