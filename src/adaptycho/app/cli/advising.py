"""`adaptycho advise`: whether an adaptive scan will help, from measured tables."""

import re
from pathlib import Path
from typing import Any, get_args

import click

from adaptycho.app.cli.output import tell
from adaptycho.app.options import as_json
from adaptycho.physics import Family
from adaptycho.support import targets

PICTURES = (".png", ".pdf", ".svg")


class Quantity(click.ParamType):
    """A number with an optional unit, or, for a field, two of them: `60`, `60 keV`, `2nm`, `20x30`. The unit of the first name is 1."""

    name = "quantity"

    def __init__(self, units: dict[str, float], sides: int = 1) -> None:
        self.units, self.sides = units, sides

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or for a field both sides, in the unit of factor 1."""
        number = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
        found = re.fullmatch(rf"\s*{number}(?:\s*x\s*{number})?\s*([a-zA-ZÅ]*)\s*", str(value))
        usual = next(iter(self.units))
        if found is None or (found[2] and self.sides == 1) or (found[3] or usual) not in self.units:
            shape = "a number, or two with x between," if self.sides > 1 else "a number"
            self.fail(f"expected {shape} in {' or '.join(self.units)}, found {value!r}", param, ctx)
        factor = self.units[found[3] or usual]
        first, second = float(found[1]) * factor, float(found[2] or found[1]) * factor
        return first if self.sides == 1 else (first, second)


@click.command()
@click.option(
    "--family",
    type=click.Choice(get_args(Family)),
    required=True,
    help="Where there is structure, whatever it is made of: everywhere (crystal, ...), island (flakes), ...",
)
@click.option("--energy", type=Quantity({"keV": 1e3, "eV": 1.0}), required=True, help="Beam energy in keV.")
@click.option("--semiangle", type=Quantity({"mrad": 1.0}), required=True, help="Convergence semi-angle in mrad.")
@click.option("--field", type=Quantity({"Å": 1.0, "A": 1.0, "nm": 10.0}, 2), required=True, help="Scan field in Å, or as 5nm, 20x30.")
@click.option("--dose", type=float, help="Electrons per position.  [default: what the dose limit leaves]")
@click.option("--dose-limit", type=float, help="Most electrons per Å², as a mean over the field.")
@click.option(
    "--limits",
    type=click.Choice(("mean", "local")),
    default="mean",
    show_default=True,
    help="What damages your specimen: the electrons over the whole field (mean), or those that hit the structure (local).",
)
@click.option("--positions", type=int, help="Beam positions you can afford.  [default: a measured density, within the dose limit]")
@click.option("--filling", type=float, help="Fraction of the field with structure, 0 to 1.  [default: unknown]")
@click.option("--counting/--no-counting", default=None, help="Whether the detector counts single electrons.  [default: unknown]")
@click.option("--frame-time", type=Quantity({"ms": 1e-3, "s": 1.0, "us": 1e-6}), help="Shortest time of one position in ms.")
@click.option("--scan-time", type=Quantity({"s": 1.0, "min": 60.0}), help="Longest time of the scan in s.")
@click.option("--defocus/--no-defocus", default=True, show_default=True, help="Whether you can defocus the beam.")
@click.option("--defocus-at", type=Quantity({"Å": 1.0, "A": 1.0, "nm": 10.0}), help="Underfocus that is fixed, in Å.  [default: the best]")
@click.option("--material", help="What the specimen is made of.  [default: what was measured, MoS2]")
@click.option("--picture", "drawing", type=click.Path(path_type=Path), help="Draw what was measured, and your scan in it (.png, .pdf).")
@as_json
def advise(drawing: Path | None, as_json: bool, **options: Any) -> None:
    """Will an adaptive scan help? Answers for your microscope, dose and specimen from measured tables.

    Says which scan to take, how much dose and score it gains with 95 % intervals, and how far your settings are from what was measured
    (simulated MoS2). Give two of --dose, --dose-limit and --positions, or the limit alone.
    """
    from adaptycho.compare import advice

    if drawing is not None and drawing.suffix not in PICTURES:
        raise ValueError(f"--picture: expected a name that ends in {', '.join(PICTURES)}, found {drawing.name}")
    if drawing is not None and not drawing.parent.is_dir():
        raise ValueError(f"--picture: expected a folder that exists, found {drawing.parent}")
    if drawing is not None:
        targets.new_file(drawing)
    question, table = advice.Question(**options), advice.load()
    found, answer = advice.advise(question, table)
    said = advice.lines(answer)
    if drawing is not None:
        from adaptycho.compare.advice.picture import picture

        picture(found, table).savefig(drawing, dpi=200)
        answer["picture"] = str(drawing)
        said.append(f"Picture: {drawing}")
    tell(answer, said, as_json)
