"""What values a setting may have.

Bounds are generous: they leave room for X-rays and light, and find a slip of the unit or of the exponent before anything is worked out.
"""

import math
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

STRICT = ConfigDict(extra="forbid")


def _number(given: Any) -> Any:
    if isinstance(given, bool):  # which Python counts among the integers
        raise ValueError("a number")
    return given


Real = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_number)]
Whole = Annotated[int, BeforeValidator(_number)]
Positive = Annotated[Real, Field(gt=0)]
Fraction = Annotated[Real, Field(ge=0, le=1)]
Rate = Annotated[Real, Field(gt=0, le=1e3)]
Count = Annotated[Whole, Field(ge=1, le=100_000)]
Steps = Annotated[Whole, Field(ge=0, le=1_000_000_000)]
Seed = Annotated[Whole, Field(ge=0, lt=1 << 63)]
Pixels = Annotated[Whole, Field(ge=2, le=1 << 16, multiple_of=2)]
Positions = Annotated[Whole, Field(ge=1, le=10_000_000)]
Width = Annotated[Whole, Field(ge=1, le=1 << 16)]
Energy = Annotated[Real, Field(ge=1e3, le=3e6)]  # eV: from scanning microscopes to the largest that were built
Wavelength = Annotated[Real, Field(ge=1e-3, le=1e5)]  # Å: from gamma rays to the infrared
Semiangle = Annotated[Real, Field(ge=1e-3, le=1.5e3)]  # mrad
Defocus = Annotated[Real, Field(ge=-1e8, le=1e8)]  # Å, up to a centimetre
Aberration = Annotated[Real, Field(ge=-1e12, le=1e12)]  # Å or rad
Pixel = Annotated[Real, Field(ge=1e-3, le=1e5)]  # Å
Side = Annotated[Real, Field(ge=0.1, le=1e8)]  # Å, from a fraction of a bond to a centimetre
Length = Annotated[Real, Field(ge=0, le=1e6)]  # Å
Thermal = Annotated[Real, Field(ge=0, le=3)]  # Å, a bond: more is a liquid
Phase = Annotated[Real, Field(ge=0, le=100)]  # rad
Dose = Annotated[Real, Field(ge=1e-3, le=1e12)]  # electrons: sums of a scan's counts stay far inside 64 bits
Background = Annotated[Real, Field(ge=0, le=1e9)]  # electrons
Current = Annotated[Real, Field(ge=1e-6, le=1e9)]  # pA
Seconds = Annotated[Real, Field(ge=0, le=1e6)]

MOST_POTENTIAL = 1 << 31  # pixels of all slices of all specimens: 8 GiB
MOST_COUNTS = 1 << 34  # detector pixels of all patterns of a scan: 64 GiB


def limits(kind: Any) -> tuple[float, float]:
    """Least and greatest value of one of the kinds of numbers above that have both."""
    told = [limit for part in get_args(kind) for limit in getattr(part, "metadata", ())]
    return max(limit.ge for limit in told if hasattr(limit, "ge")), min(limit.le for limit in told if hasattr(limit, "le"))


def _name(text: str) -> str:
    if not text or "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("a name in UTF-8, which TOML can hold")
    return text


def _options(given: dict[str, Any]) -> dict[str, Any]:
    for value in given.values():
        for item in value if isinstance(value, list | tuple) else (value,):
            if not isinstance(item, str | int | float) or (isinstance(item, float) and not math.isfinite(item)):
                raise ValueError("finite numbers, words, or lists of them")
    return given


Name = Annotated[str, AfterValidator(_name)]  # of a file, or of a structure
Options = Annotated[dict[str, Any], AfterValidator(_options)]
