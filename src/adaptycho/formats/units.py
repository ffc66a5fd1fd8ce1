"""Units that people type and files say, and what they are in those of the package: Å, eV, mrad, 1/Å."""

import re

Units = dict[str, float]
LENGTHS: Units = {
    "Å": 1.0, "A": 1.0, "angstrom": 1.0, "nm": 10.0, "pm": 0.01, "um": 1e4, "µm": 1e4, "μm": 1e4, "micron": 1e4, "mm": 1e7, "m": 1e10,
}  # fmt: skip
ENERGIES: Units = {"eV": 1.0, "keV": 1e3, "MeV": 1e6, "V": 1.0, "kV": 1e3}
ANGLES: Units = {"mrad": 1.0, "rad": 1e3, "µrad": 1e-3, "urad": 1e-3, "deg": 17.453292519943295, "°": 17.453292519943295}
PER_LENGTH: Units = {form.format(name): 1 / size for name, size in LENGTHS.items() for form in ("1/{}", "/{}", "{}^-1", "{}⁻¹")}
PIXELS = ("px", "pixel", "pixels")

_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*$")


def factor(unit: str, units: Units) -> float | None:
    """What one of a unit is, by its name as people write it; None if it is no unit of these."""
    if unit in units:
        return units[unit]
    found = {size for name, size in units.items() if name.lower() == unit.lower()}
    return found.pop() if len(found) == 1 else None


def quantity(text: str, units: Units, usual: str) -> tuple[float, str]:
    """A number with its unit, or with the usual one if it has none.

    Returns:
        The number as it is typed, and the name of its unit among `units`.

    Raises:
        ValueError: it is no number, or in another unit.
    """
    found = _NUMBER.match(text)
    unit = (found[2] or usual) if found else ""
    if found is None or factor(unit, units) is None:
        raise ValueError(f"expected a number, in {usual} or with one of the units {', '.join(units)}, found {text!r}")
    return float(found[1]), unit


def typed(text: str, units: Units, usual: str) -> float:
    """A number with its unit in the unit of the package.

    Raises:
        ValueError: as `quantity`.
    """
    number, unit = quantity(text, units, usual)
    size = factor(unit, units)
    assert size is not None
    return number * size
