"""The calibration doctor on the command line: options of `inspect`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from adaptycho.app.cli.output import tell, teller
from adaptycho.support import targets


def with_doctor(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the doctor's options to a command."""
    for option in (
        click.option(
            "--page", type=click.Path(path_type=Path), help="With --doctor: write what was found, with pictures, to PAGE (.html)."
        ),
        click.option("--fix", type=click.Path(path_type=Path), help="With --doctor: write the mended recording to FIX (.h5)."),
        click.option("--doctor", is_flag=True, help="Find out from the patterns what is wrong with the geometry, and what mends it."),
    ):
        command = option(command)
    return command


def wanted(doctor: bool, fix: Path | None, page: Path | None) -> bool:
    """Whether the doctor is to look.

    Raises:
        click.UsageError: something is to be written that only the doctor has.
    """
    for name, value in (("--fix", fix), ("--page", page)):
        if value is not None and not doctor:
            raise click.UsageError(f"{name}: expected --doctor, whose findings it writes, found none")
    return doctor


def examine(recording: Any, fix: Path | None, page: Path | None, as_json: bool) -> None:
    """Looks at a recording, says what is wrong, and writes the page and the mended recording if they are asked for."""
    from adaptycho import formats
    from adaptycho.draw import report
    from adaptycho.samples import doctor
    from adaptycho.samples.doctor.page import page as drawn

    for path in (fix, page):
        if path is not None:
            targets.new_file(path)
    found = doctor.examine(recording, tell=teller())
    facts, text = found.facts(), doctor.lines(found)
    if page is not None:
        report.write(page, drawn(recording, found))
        facts["page"] = str(page)
        text.append(f"wrote {page}")
    if fix is not None:
        formats.write(fix, doctor.corrected(recording, found))
        facts["file"] = str(fix)
        text.append(f"wrote {fix}")
    tell(facts, text, as_json)
