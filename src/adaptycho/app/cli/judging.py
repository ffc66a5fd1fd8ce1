"""`adaptycho evaluate` and `figures`: strategies compared, and what came of it drawn."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from adaptycho import settings as tree
from adaptycho.app.cli.output import patient_progress, tell, teller
from adaptycho.app.options import Listing, as_json, collect, scheduler, source, with_settings, workers
from adaptycho.settings import Settings, microscopes
from adaptycho.support import targets


@click.command(cls=Listing)
@click.option(
    "--protocol",
    type=click.Choice(["paper", "best", "regularised"]),
    default="best",
    show_default=True,
    help="The rules (docs/decisions/0010).",
)
@click.option("--family", multiple=True, metavar="FAMILY...", help="Specimens: one or more families.  [default: that of the settings]")
@click.option("--positions", multiple=True, type=click.IntRange(1), metavar="N...", help="Numbers of positions.")
@click.option("--dose", multiple=True, type=click.FloatRange(0, min_open=True), metavar="ELECTRONS...", help="Electrons per position.")
@click.option("--strategies", multiple=True, metavar="NAME...", help="Strategies; `raster:focused` may not defocus.  [default: all]")
@click.option("--specimens", type=click.IntRange(1), help="Test specimens.  [default: 12; paper: 25]")
@click.option("--seed", type=click.IntRange(0), help="Of noise and random scans.")
@click.option(
    "--microscope",
    type=click.Choice([kind.name for kind in microscopes.BUILT_IN if kind.samples]),
    help="Recorded: windows of a recording, in split halves.",
)
@click.option("--table1", is_flag=True, help="Table I of the paper instead: learned policies against a random scan, protocol paper.")
@click.option("--rows", multiple=True, metavar="ROW...", help="Of Table I, such as 250x5.  [default: all that fit the settings]")
@click.option("--weights", multiple=True, type=source, metavar="FILE...", help="Policies for it.  [default: shipped]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("adaptycho-evaluation"), show_default=True, help="Folder for results.")
@workers
@scheduler
@with_settings()
@as_json
def evaluate(out: Path, workers: int | None, scheduler: str | None, as_json: bool, table1: bool, **options: Any) -> None:
    """Compare scan strategies at equal dose on specimens that nothing was tuned on.

    Every result is kept in OUT/results.jsonl: the same command goes on where it was interrupted, and another measures only what is not
    there. OUT/cells.json and tables.json are those of the last command.

    With --table1 every row is measured with each policy of --weights that fits it: field policies any row, recurrent ones the row that they
    were trained for. Several are trainings of one policy, and a specimen's score is the mean over them. Of the seven rows, settings that
    name scan.positions or scan.subsequences, in a file or as options, leave those that fit. Figures are in per cent; OUT/table1.json has
    them too.
    """
    targets.folder(out)
    from adaptycho.app import tasks

    how: dict[str, Any] = {"workers": workers, "scheduler": scheduler}
    if table1:
        _first_table(out, options, as_json, how)
        return
    for name in ("rows", "weights"):
        if options[name]:
            instead = " (--scan.weights FILE for a comparison)" if name == "weights" else ""
            raise click.UsageError(f"--{name}: expected with --table1 only{instead}")
    rules = options["protocol"]
    chosen = _chosen(options, rules)
    kind = microscopes.of(chosen)
    if not kind.capabilities.specimens and (options["family"] or options["dose"]):
        raise click.UsageError(f"--family, --dose: expected none with {kind.noun}, which has its own")
    cells = tasks.cells(chosen, options["family"], options["positions"], options["dose"])
    found = tasks.evaluate(out, cells, rules, options["strategies"], patient_progress, **how)
    tell(found if len(cells) > 1 else found["cells"][0], tasks.evaluation_lines(found), as_json)


def _first_table(out: Path, options: dict[str, Any], as_json: bool, how: dict[str, Any]) -> None:
    """Table I, or some of its rows."""
    from adaptycho.app import tasks
    from adaptycho.compare import table1

    asked = click.get_current_context().get_parameter_source("protocol") is not ParameterSource.DEFAULT
    if asked and options["protocol"] != "paper":
        raise click.UsageError(f"--protocol: expected paper with --table1, found {options['protocol']}")
    if options["strategies"]:
        raise click.UsageError("--strategies: expected none with --table1, which compares the policies of --weights with a random scan")
    if options["rows"] and options["positions"]:
        raise click.UsageError("--rows, --positions: expected one of the two, found both")
    chosen = _chosen(options, "paper")
    cells = tasks.cells(chosen, options["family"], (), options["dose"])
    if len(cells) > 1:
        raise click.UsageError("--family, --dose: expected one of each with --table1, found more")
    # What somebody said is the same whatever it is laid on.
    some, other = (collect(options, {"scan.positions": str(n), "scan.subsequences": str(n)}, "paper").scan for n in (1, 2))
    positions = options["positions"] or tuple({some.positions} & {other.positions})
    rows = table1.choose(options["rows"], positions, tuple({some.subsequences} & {other.subsequences}))
    weights = options["weights"] or [Path(file) for file in (chosen.scan.weights,) if file]
    found = tasks.first_table(out, cells[0], rows, weights, patient_progress, **how)
    tell(found, table1.text(found), as_json)


def _chosen(options: dict[str, Any], rules: str) -> Settings:
    """The settings of a comparison, but for what there are several of."""
    usual = {"scan.subsequences": "5", "evaluate.specimens": "25"} if rules == "paper" else {"scan.subsequences": "4"}
    # Of a scan that is looked at with a prior in the end, decisions are made from reconstructions without.
    chosen = collect(options, usual, "best" if rules == "regularised" else rules)
    for name, field in (("specimens", "evaluate.specimens"), ("seed", "scan.seed"), ("microscope", "scan.microscope")):
        chosen = tree.override(chosen, {field: str(options[name])}) if options[name] is not None else chosen
    return chosen


@click.command(cls=Listing)
@click.argument("results", type=source)
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
    targets.folder(out)
    from adaptycho.compare import plots

    written = plots.draw(results, out, strategies, teller())
    tell({"figures": [str(path) for path in written]}, [f"wrote {path}" for path in written], as_json)
