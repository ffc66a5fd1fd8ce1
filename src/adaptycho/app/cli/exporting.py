"""The command that gives data away: `export` writes recordings, phases and positions in the formats that others read."""

from pathlib import Path
from typing import Any, Literal

import click

from adaptycho.app.cli.output import tell
from adaptycho.app.given import inputs, pop_given, with_given
from adaptycho.app.options import as_json, source
from adaptycho.support import targets

ENDINGS = {".emd": "emd", ".cxi": "cxi", ".npz": "npz", ".npy": "npy", ".csv": "csv", ".tif": "tif", ".tiff": "tif", ".png": "png"}
KINDS = tuple(dict.fromkeys(ENDINGS.values()))


@click.command()
@click.argument("source", type=source)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(KINDS), help="Format of OUT.  [default: by its ending]")
@click.option("--which", type=click.Choice(["taken", "requested"]), default="taken", show_default=True, help="Positions of a run to write.")
@click.option("--specimen", type=click.IntRange(0), default=0, show_default=True, help="Which, of a run or a result with several.")
@with_given
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@as_json
def export(
    source: Path,
    out: Path,
    kind: str | None,
    which: Literal["taken", "requested"],
    specimen: int,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write SOURCE to OUT in a format that others read.

    A recording: .emd (py4DSTEM; rasters only), .cxi (CXI; any positions), .npz, .npy (arrays), .csv (its positions). A result of
    `reconstruct`: its phase as .tif (single precision, with pixel size) or .png (16 bits, with scale bar). The folder of a run: its
    positions as .csv or .npy, its phase as .tif or .png, its patterns as .cxi or .npz. A recording that lacks facts is told them by the
    options of `import`.
    """
    if kind is None and (kind := ENDINGS.get(out.suffix.lower())) is None:
        raise ValueError(f"{out}: expected a name that ends in {', '.join(ENDINGS)}, or --format, found {out.suffix or 'no ending'}")
    given = pop_given(options)
    targets.new_file(out, overwrite=overwrite, inputs=[source, *inputs(given)])
    from adaptycho.app import exporting

    found = exporting.export(source, out, kind, given, specimen=specimen, which=which, overwrite=overwrite)
    text = [f"wrote {out}"]
    if found.get("options"):
        text.append(f"to read it again, say: {found['options']}")
    if found.get("left_out"):
        text.append(f"not in it: {', '.join(found['left_out'])}")
    tell(found, text, as_json)
