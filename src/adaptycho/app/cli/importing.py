"""The commands that take data of one's own: `import` makes a recording of them, `inspect` says what is in them."""

from pathlib import Path
from typing import Any

import click

from adaptycho.app.cli import doctor as clinic
from adaptycho.app.cli.output import tell
from adaptycho.app.given import inputs, pop_given, with_given
from adaptycho.app.options import as_json, source
from adaptycho.support import targets


@click.command(name="import")
@click.argument("source", type=source)
@click.argument("out", type=click.Path(path_type=Path))
@with_given
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@as_json
def import_(source: Path, out: Path, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Make a recording OUT (.h5) from SOURCE, a file or folder in any format that is known, or the folder of a run.

    What the file says of beam and geometry is read; what is typed goes before it. Lengths may be typed with a unit: 0.2nm, 6 Å.
    """
    from adaptycho import formats
    from adaptycho.runs import patterns

    given = pop_given(options)
    targets.new_file(out, overwrite=overwrite, inputs=[source, *inputs(given)])
    recording = patterns.read(source, given)
    formats.write(out, recording, overwrite=overwrite)
    count = recording.measurement.positions.shape[1]
    tell({"file": str(out), "patterns": count}, [f"wrote {out}: {count} patterns"], as_json)


@click.command()
@click.argument("file", type=source, required=False)
@with_given
@clinic.with_doctor
@as_json
def inspect(file: Path | None, doctor: bool, fix: Path | None, page: Path | None, as_json: bool, **options: Any) -> None:
    """What is in a recording: sizes, pixel, field, bright-field disc, overlap, dose; the shipped one if no FILE is given.

    A FILE that lacks facts is told them by the options of `import`.
    """
    from adaptycho import formats
    from adaptycho.formats.inspect import describe, lines
    from adaptycho.runs import patterns

    recording = patterns.read(file or formats.example(), pop_given(options))
    if clinic.wanted(doctor, fix, page):
        clinic.examine(recording, fix, page, as_json)
        return
    found = describe(recording)
    tell(found, lines(found), as_json)
