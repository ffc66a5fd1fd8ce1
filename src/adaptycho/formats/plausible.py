"""What a microscope can be: ranges that no electron, X-ray or light microscope leaves, so that a number outside is a wrong unit."""

import math
from dataclasses import asdict

from adaptycho.physics.optics import Setup

ENERGY = (1e3, 3e6)  # eV: from low-voltage to ultra-high-voltage electron microscopes
WAVELENGTH = (1e-3, 1e8)  # Å: from relativistic electrons to terahertz waves
LENGTH = 1e10  # Å: a metre, the largest defocus, field or pixel
COEFFICIENT = 1e12  # Å, of any aberration
COUNTS_PER_ELECTRON = (1e-12, 1e12)  # patterns may be normalised, or in units of a converter
ELECTRON_ANGLE, ANGLE = 500.0, 1571.0  # mrad, largest angle of electrons; of anything else, pi/2
WINDOWS = 10.0  # windows that a defocused beam may be wide; one is room for it without wrapping round
COVER = 16  # object pixels for each pixel of all the windows together: beyond, most of the object is never lit
OBJECT = 2**25  # pixels that an object may always have, 5792 x 5792
WINDOW = 2**24  # pixels that a window may have
FACTOR = 8  # window pixels for each pixel of the detector before binning, along an axis


def plausible(setup: Setup, name: str) -> None:
    """Refuses a beam and a geometry that no microscope has.

    Args:
        setup: beam and geometry.
        name: a file name, to open the sentence with.

    Raises:
        ValueError: `{name}: {key}: expected ..., found ...`, with the likely intention where there is one.
    """
    _beam(setup, name)
    _lens(setup, name)
    _grids(setup, name)


def coverable(setup: Setup, patterns: int, name: str) -> None:
    """Refuses an object that is far larger than what so many patterns can light, before memory is taken for it."""
    lit, most = setup.object.shape, max(OBJECT, COVER * patterns * math.prod(setup.window.shape))
    if math.prod(lit) > most:
        raise ValueError(
            f"{name}: object: expected at most {most} pixels for {patterns} patterns, found {lit[0]} x {lit[1]} pixels of "
            f"{setup.object.pixel:g} Å for a field of {setup.field[0]:g} x {setup.field[1]:g} Å; lengths are in Å"
        )


def within(name: str, key: str, value: float, low: float, high: float, unit: str) -> None:
    """Refuses a number outside of a range, NaN among them."""
    if not low <= value <= high:
        raise ValueError(f"{name}: {key}: expected {low:g} to {high:g} {unit}, found {value:g}")


def check_energy(name: str, energy: float) -> None:
    """Refuses an energy in eV that no electron microscope has."""
    if ENERGY[0] <= energy <= ENERGY[1]:
        return
    low, high = (e / 1e3 for e in ENERGY)
    meant = next((e for e in (energy / 1e3, energy * 1e3) if ENERGY[0] <= e <= ENERGY[1]), None)
    hint = "" if meant is None else f"; {meant / 1e3:g} keV is --energy {meant / 1e3:g}, or {meant:g} eV in Python and in files"
    raise ValueError(f"{name}: energy: expected {low:g} to {high:g} keV, found {energy / 1e3:g} keV{hint}")


def _beam(setup: Setup, name: str) -> None:
    if setup.energy is not None:
        check_energy(name, setup.energy)
    within(name, "wavelength", setup.wavelength, *WAVELENGTH, "Å")
    most = ANGLE if setup.energy is None else ELECTRON_ANGLE
    within(name, "semiangle", setup.semiangle, 1e-6, most, "mrad")
    seen = 1e3 * setup.wavelength / (2 * setup.window.pixel)
    if not 1e-6 <= seen <= most:
        raise ValueError(
            f"{name}: pixel: expected one whose patterns end between 1e-06 and {most:g} mrad, found {setup.window.pixel:g} Å, "
            f"with which they end at {seen:g} mrad; lengths are in Å and angles in mrad"
        )
    within(name, "rotation", setup.rotation, -360, 360, "degrees")


def _lens(setup: Setup, name: str) -> None:
    focus, window = setup.aberrations.defocus, max(setup.window.extent)
    within(name, "defocus", focus, -LENGTH, LENGTH, "Å")
    for key, value in asdict(setup.aberrations).items():
        most, unit = (COEFFICIENT, "Å") if key.startswith("C") else (1e3, "rad")
        within(name, f"aberrations: {key}", value, -most, most, unit)
    if (wide := 2e-3 * abs(focus) * setup.semiangle) > WINDOWS * window:
        raise ValueError(
            f"{name}: defocus: expected a beam of at most {WINDOWS:g} times its window of {window:.4g} Å, found {focus:g} Å, "
            f"which makes it {wide:.4g} Å wide"
        )


def _grids(setup: Setup, name: str) -> None:
    for length in setup.field:
        within(name, "field", length, 0, LENGTH, "Å")
    window = setup.window.shape
    if math.prod(window) > WINDOW or any(n > FACTOR * q * setup.binning for n, q in zip(window, setup.detector, strict=True)):
        raise ValueError(
            f"{name}: window: expected at most {WINDOW} pixels and {FACTOR} times the detector's {setup.detector} x {setup.binning}, "
            f"found {window}"
        )
