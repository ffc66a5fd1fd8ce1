"""On the command line: what is found out with the object."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptycho.reconstruct.refine import PARAMETERS

if TYPE_CHECKING:
    from adaptycho.reconstruct.refine.state import Refined

ITERATIONS = {"reconstruct.iterations": "100"}  # instead of twenty for the object alone


def with_refinement(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --refine and --modes, short for `reconstruct.refine` and `reconstruct.modes`."""
    text = (
        f"Find out with the object, with commas between: {', '.join(PARAMETERS)}; or none, or auto: probe and defocus, if that "
        "foretells patterns better. Takes 100 iterations unless told otherwise.  [default: auto]"
    )
    modes = click.option("--modes", type=click.IntRange(1), metavar="N", help="Modes of a probe that is refined.  [default: 1]")
    return click.option("--refine", metavar="NAMES", help=text)(modes(function))


def pop_refinement(options: dict[str, Any]) -> dict[str, str]:
    """Takes the two out of a command's options, and returns the settings that go with them, to begin with."""
    names, modes = options.pop("refine"), options.pop("modes")
    if names is not None and options["reconstruct__refine"] is None:
        named = [name.strip() for name in names.split(",") if name.strip() not in ("", "none")]
        options["reconstruct__refine"] = "auto" if named == ["auto"] else json.dumps(named)
    if modes is not None and options["reconstruct__modes"] is None:
        options["reconstruct__modes"] = str(modes)
    chosen = options["reconstruct__refine"]
    if chosen is None:
        return {"reconstruct.refine": "auto"}
    return ITERATIONS if chosen not in ("auto", "[]") else {}


def as_before(start: Path) -> dict[str, str]:
    """The settings that a result was made with, which a command goes on with unless it is told others.

    Raises:
        ValueError: it is no result to go on from.
    """
    from adaptycho.runs import results

    made = dataclasses.asdict(results.read_made(start))
    known = made if made["prior"] != "none" else {name: value for name, value in made.items() if name not in ("strength", "blob")}
    iterations = ITERATIONS if made["refine"] else {}
    return iterations | {f"reconstruct.{name}": json.dumps(value) for name, value in known.items()}


def told(found: "Refined", field: tuple[float, float]) -> dict[str, Any]:
    """What was found out of one data set, to print.

    Args:
        found: out.
        field: size (y, x) of the scan field in Å.
    """
    moved = (found.positions[0] - found.reported[0]) * found.positions.new_tensor(field)
    return {
        "moved_angstrom": round(float(moved.square().sum(-1).mean().sqrt()), 4),
        "rotation_degrees": round(float(found.rotation[0]), 4),
        "defocus_angstrom": round(float(found.defocus[0]), 3),
        **({"slices_apart_angstrom": round(float(found.thickness[0]), 3)} if bool(found.thickness.any()) else {}),
        "modes": [round(v, 4) for v in found.powers[0].tolist()],
    }


def spelled(found: dict[str, Any]) -> str:
    """The same on one line."""
    modes = ", ".join(f"{v:.1%}" for v in found["modes"])
    where = f"positions moved by {found['moved_angstrom']:g} Å (rms), axes by {found['rotation_degrees']:g} degrees"
    where += f", slices {found['slices_apart_angstrom']:g} Å apart" if "slices_apart_angstrom" in found else ""
    return f"refined: {where}, defocus by {found['defocus_angstrom']:g} Å; intensity in the probe's modes {modes}"
