"""`adaptycho evaluate` and `figures`: strategies compared, and what came of it drawn."""

from pathlib import Path
from typing import Any

import click

from adaptycho import settings as tree
from adaptycho.cli.output import patient_progress, tell, teller
from adaptycho.options import Listing, as_json, collect, scheduler, with_settings, workers


@click.command(cls=Listing)
@click.option(
    "--protocol", type=click.Choice(["paper", "best"]), default="best", show_default=True, help="The rules (docs/decisions/0010)."
)
@click.option("--family", multiple=True, metavar="FAMILY...", help="Specimens: one or more families.  [default: that of the settings]")
@click.option("--positions", multiple=True, type=click.IntRange(1), metavar="N...", help="Numbers of positions.")
@click.option("--dose", multiple=True, type=click.FloatRange(0, min_open=True), metavar="ELECTRONS...", help="Electrons per position.")
@click.option("--strategies", multiple=True, metavar="NAME...", help="Strategies; `raster:focused` may not defocus.  [default: all]")
@click.option("--specimens", type=click.IntRange(1), help="Test specimens.  [default: 12; paper: 25]")
@click.option("--seed", type=click.IntRange(0), help="Of noise and random scans.")
@click.option("--microscope", type=click.Choice(["simulated", "recorded"]), help="Recorded: windows of a recording, in split halves.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("adaptycho-evaluation"), show_default=True, help="Folder for results.")
@workers
@scheduler
@with_settings()
@as_json
def evaluate(out: Path, workers: int | None, scheduler: str | None, as_json: bool, **options: Any) -> None:
    """Compare scan strategies at equal dose on specimens that nothing was tuned on.

    Every result is kept in OUT/results.jsonl: the same command goes on where it was interrupted, and another measures only what is not
    there. OUT/cells.json and tables.json are those of the last command.
    """
    from adaptycho import produce

    rules = options.pop("protocol")
    usual = {"scan.subsequences": "5", "evaluate.specimens": "25"} if rules == "paper" else {"scan.subsequences": "4"}
    chosen = collect(options, usual, rules)
    for name, field in (("specimens", "evaluate.specimens"), ("seed", "scan.seed"), ("microscope", "scan.microscope")):
        chosen = tree.override(chosen, {field: str(options[name])}) if options[name] is not None else chosen
    if chosen.scan.microscope == "recorded" and (options["family"] or options["dose"]):
        raise click.UsageError("--family, --dose: expected none with a recording, which has its own")
    cells = produce.cells(chosen, options["family"], options["positions"], options["dose"])
    found = produce.evaluate(out, cells, rules, options["strategies"], patient_progress, workers=workers, scheduler=scheduler)
    tell(found if len(cells) > 1 else found["cells"][0], produce.evaluation_lines(found), as_json)


@click.command(cls=Listing)
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("adaptycho-figures"), show_default=True, help="Folder for the figures."
)
@click.option("--strategies", multiple=True, metavar="NAME...", help="Strategies in curves and overlays.  [default: a choice]")
@as_json
def figures(results: Path, out: Path, strategies: tuple[str, ...], as_json: bool) -> None:
    """Draw the RESULTS of `evaluate`: a folder, or its cells.json.

    Quality against positions, dose and time, gains over the best conventional scan, time by task, positions over the specimen, and
    reconstructions with their diffractograms.
    """
    from adaptycho import gallery

    written = gallery.draw(results, out, strategies, teller())
    tell({"figures": [str(path) for path in written]}, [f"wrote {path}" for path in written], as_json)
