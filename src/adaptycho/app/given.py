"""Options for data of one's own on the command line: numbers with units, pairs, and what they say of a file."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptycho.app.options import source

if TYPE_CHECKING:
    from adaptycho.formats import Given

UNITS = {"energy": ("ENERGIES", "keV"), "length": ("LENGTHS", "Å"), "angle": ("ANGLES", "mrad")}


class Quantity(click.ParamType):
    """A number with a unit or without, or two of them (y,x), in the unit of the package.

    Attributes:
        kind: energy, length or angle.
        pairs: whether two may be given.
    """

    def __init__(self, kind: str, *, pairs: bool = False) -> None:
        self.name, self.kind, self.pairs = kind, kind, pairs

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or both."""
        from adaptycho.formats import units

        table, usual = UNITS[self.kind]
        try:
            return _either(value, self.pairs, lambda word: units.typed(word, getattr(units, table), usual))
        except ValueError as error:
            self.fail(f"{self.kind}: {error}", param, ctx)


class DetectorPixel(Quantity):
    """Angle in mrad or 1/Å of a detector pixel: the option of the package that it is, and its value."""

    def __init__(self) -> None:
        super().__init__("angle", pairs=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """`detector_pixel` in mrad or `reciprocal_pixel` in 1/Å, and the number or both."""
        from adaptycho.formats import units

        try:
            per_length = _either(
                value, True, lambda word: units.quantity(word, units.ANGLES | units.PER_LENGTH, "mrad")[1] in units.PER_LENGTH
            )
            table = units.PER_LENGTH if per_length in (True, (True, True)) else units.ANGLES
            return ("reciprocal_pixel" if table is units.PER_LENGTH else "detector_pixel"), _either(
                value, True, lambda word: units.typed(word, table, "mrad")
            )
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Shape(click.ParamType):
    """Rows and columns, such as 24x32."""

    name = "ROWSxCOLUMNS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Both numbers."""
        found = re.fullmatch(r"\s*(\d+)\s*[xX×,]\s*(\d+)\s*", value) if isinstance(value, str) else None
        if found is None:
            self.fail(f"expected rows x columns such as 24x32, found {value!r}", param, ctx)
        return int(found[1]), int(found[2])


class Centre(click.ParamType):
    """A detector pixel (row,column), fractions too, or auto."""

    name = "ROW,COLUMN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Both numbers, or auto."""
        try:
            found = "auto" if value == "auto" else tuple(float(word) for word in str(value).split(","))
        except ValueError:
            found = ()
        if found != "auto" and len(found) != 2:
            self.fail(f"expected a row and a column such as 63.5,64, or auto, found {value!r}", param, ctx)
        return found


class Mask(click.ParamType):
    """A file, or auto."""

    name = "FILE|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or auto."""
        return value if value == "auto" else source.convert(value, param, ctx)


_count = click.IntRange(0)
_some = click.IntRange(1)
OPTIONS = (
    click.option("--energy", type=Quantity("energy"), help="Beam energy in keV, or with its unit (60keV, 60000eV)."),
    click.option("--wavelength", type=Quantity("length"), help="Wavelength in Å, instead of an energy (X-rays, light)."),
    click.option("--semiangle", type=Quantity("angle"), help="Convergence semi-angle in mrad, or with its unit (0.033rad)."),
    click.option("--defocus", type=Quantity("length"), help="Defocus in Å, positive is underfocus, or with its unit (6nm).  [default: 0]"),
    click.option("--detector-pixel", type=DetectorPixel(), help="Of one detector pixel: mrad, or 0.02/Å; y,x if it is not square."),
    click.option("--pixel", type=Quantity("length"), help="Real-space pixel in Å instead, wavelength / (pixels x detector pixel)."),
    click.option(
        "--scan-step", type=Quantity("length", pairs=True), help="Step of a raster scan in Å, or with its unit; y,x if they differ."
    ),
    click.option("--scan-shape", type=Shape(), help="Rows and columns of the scan, without flyback, e.g. 24x32."),
    click.option("--flyback", type=_count, default=0, help="Patterns at the end of each line to leave out."),
    click.option("--skip", type=_count, default=0, help="Patterns at the start to leave out."),
    click.option("--roll", type=int, default=0, help="Places to move the patterns on by against the scan."),
    click.option("--frames", type=source, help="Number of each pattern in the scan, from 0, where some were lost: .npy or text."),
    click.option("--sum-frames", is_flag=True, help="Add up the frames of each position, the axis before the detector's."),
    click.option("--positions", type=source, help="Positions (y, x) in Å: .npy, .csv or .txt; a header may name x, y and their unit."),
    click.option("--position-unit", help="Unit of the positions: px (of the scan), Å, nm, um, m."),
    click.option("--rotation", type=float, help="Degrees, counter-clockwise, from detector to scan axes.  [default: 0]"),
    click.option("--swap", is_flag=True, help="Exchange the detector's rows and columns."),
    click.option("--centre", type=Centre(), help="Detector pixel of zero frequency, or auto: the middle of the bright-field disc."),
    click.option("--bin", type=_some, default=1, help="Detector pixels along each side to add into one."),
    click.option("--crop", type=int, help="Keep the central CROP x CROP detector pixels, after binning."),
    click.option("--pad", type=int, help="Take the detector for PAD x PAD pixels, the new ones being unknown."),
    click.option("--mask", type=Mask(), help="1 for stored detector pixels to believe, else 0 (.npy); auto leaves out hot and dead ones."),
    click.option("--clip", is_flag=True, help="Take negative counts for 0."),
    click.option("--drop", type=click.Choice(["none", "empty", "bad"]), help="Patterns to leave out: empty, or also broken and far out."),
    click.option("--probe", type=source, help="A pattern taken through vacuum, or a complex probe: .npy."),
    click.option("--dose", type=float, help="Counts of a pattern if nothing missed the detector.  [default: their mean sum]"),
    click.option("--counts-per-electron", type=float, help="Detector counts that one electron makes.  [default: 1]"),
    click.option("--key", help="Name of the array in a file that holds several."),
    click.option("--title", default="", help="What was recorded."),
    click.option("--licence", default="", help="The terms the data are under."),
)


def with_given(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options for data of one's own."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def pop_given(options: dict[str, Any]) -> "Given":
    """What the options say of a file; they are taken out of the others."""
    from adaptycho.formats import Given

    found = {field.name: options.pop(field.name) for field in dataclasses.fields(Given) if field.name in options}
    pixel = found.pop("detector_pixel")
    return Given(**found, **({} if pixel is None else {pixel[0]: pixel[1]}))


def inputs(given: "Given") -> list[Path]:
    """Files that they name."""
    return [value for value in (given.positions, given.frames, given.mask, given.probe) if isinstance(value, Path)]


def _either(value: Any, pairs: bool, of: Callable[[str], Any]) -> Any:
    """What is made of a word, or of both of a pair."""
    words = str(value).split(",")
    if len(words) > (2 if pairs else 1):
        raise ValueError(f"expected {'one number or y,x' if pairs else 'one number'}, found {value!r}")
    found = tuple(of(word) for word in words)
    return found[0] if len(found) == 1 else found
