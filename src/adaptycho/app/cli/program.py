"""The commands. What one of them needs beyond its options is loaded when it runs: torch and its friends take seconds."""

import io
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from adaptycho import settings as tree
from adaptycho.app.cli.advising import advise
from adaptycho.app.cli.exporting import export
from adaptycho.app.cli.exposing import rehearse
from adaptycho.app.cli.importing import import_, inspect
from adaptycho.app.cli.judging import evaluate, figures
from adaptycho.app.cli.monitoring import monitor
from adaptycho.app.cli.output import placed, progress, say, tell, teller, to_json, use, warn
from adaptycho.app.cli.training import train
from adaptycho.app.given import pop_given, with_given
from adaptycho.app.options import (
    PROTOCOLS,
    SHORT,
    as_json,
    collect,
    device,
    given,
    protocol,
    scheduler,
    source,
    threads,
    with_settings,
    workers,
)
from adaptycho.app.refining import as_before, pop_refinement, spelled, with_refinement
from adaptycho.settings import microscopes
from adaptycho.support import targets

FULL_SCAN = {"scan.policy": "raster", "scan.positions": "10000", "scan.subsequences": "1"}


def run(arguments: Sequence[str]) -> int:
    """Runs the command that the arguments name, or says which there are; returns the exit code."""
    warnings.showwarning = warn
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of what a terminal's alphabet lacks
    try:
        return commands.main(args=list(arguments) or ["--help"], prog_name="adaptycho", standalone_mode=False) or 0
    except click.exceptions.Abort:
        return 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="adaptycho", prog_name="adaptycho")
def commands() -> None:
    """Adaptive ptychography: decides, while the scan runs, where the next electrons go.

    Start with `adaptycho demo`. Every setting can be given to the commands that use settings as --section.name VALUE; `adaptycho settings`
    lists them with what they mean.
    """


@commands.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("adaptycho-demo"), show_default=True, help="Folder for the report.")
@click.option("--specimens", type=click.IntRange(2, 100), default=8, show_default=True, help="Simulated specimens to average over.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of specimens, noise and random scans.")
@threads
@as_json
def demo(out: Path, specimens: int, seed: int, threads: int | None, as_json: bool) -> None:
    """Adaptive against conventional scans, on simulated MoS2 and on recorded data (a minute).

    Writes a report with pictures that any browser shows.
    """
    targets.folder(out)
    from adaptycho.app import demo as tour

    use(threads)
    found = tour.run(out, seed=seed, specimens=specimens, tell=teller())
    if as_json:
        say(to_json(found))
        return
    for part, scores in found["ssim"].items():
        say(f"\n{part}: SSIM against the reference, mean [95 % interval]")
        for name, value in scores.items():
            low, high = found["ssim_ci"][part][name]
            say(f"  {name:<10} {value:.3f} [{low:.3f}, {high:.3f}]")
        random, best = found["q_ssim_vs_random"][part], found["q_ssim_vs_best_baseline"][part]
        say(f"  the adaptive scan: {100 * random:+.1f} % over random, {100 * best:+.1f} % over the best conventional scan")
    say(f"\n{found['seconds']:.0f} s; pictures in {found['report']}")


@commands.command()
@click.argument("out", type=click.Path(path_type=Path))
@with_settings("policy", "positions", "dose", "seed")
@workers
@scheduler
@as_json
def simulate(out: Path, workers: int | None, scheduler: str | None, as_json: bool, **options: Any) -> None:
    """Simulate a recorded scan and write it to OUT (.h5).

    By default a raster of 100 x 100 positions. More than one specimen gives OUT-000.h5, ...
    """
    from adaptycho.app import tasks

    written = tasks.simulate(out, collect(options, FULL_SCAN), progress, workers=workers, scheduler=scheduler)
    tell({"files": [str(p) for p in written]}, [f"wrote {p}" for p in written], as_json)


@commands.command()
@click.argument("file", type=source)
@click.argument("out", type=click.Path(path_type=Path))
@with_given
@protocol
@with_refinement
@click.option("--start", type=source, metavar="RESULT", help="Go on from a result or snapshot of FILE, with its settings.")
@click.option("--snapshots", type=click.IntRange(1), metavar="N", help="Write what there is after every N iterations too, as OUT-0020.h5.")
@click.option("--uncertainty", is_flag=True, help="Find out how uncertain the phase is at every pixel, too (with a prior).")
@with_settings()
@threads
@device
@as_json
def reconstruct(
    file: Path,
    out: Path,
    start: Path | None,
    snapshots: int | None,
    uncertainty: bool,
    protocol: str | None,
    threads: int | None,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Reconstruct a recording FILE; writes the potential to OUT (.h5) and a picture beside it (.png).

    Take single settings of the reconstruction as --reconstruct.iterations 40 and so on. A FILE that lacks facts is told them by the
    options of `import`.
    """
    from adaptycho.app import tasks

    use(threads)
    given = pop_given(options)
    base = PROTOCOLS["best"] | pop_refinement(options)
    if start is not None:
        base |= as_before(start)
    chosen = collect(options, base, protocol)
    how: dict[str, Any] = {"start": start, "snapshots": snapshots or 0, "uncertain": uncertainty}
    found = tasks.reconstruct(file, out, chosen, progress, placed(device), given, **how)
    if not found["loss"][-1] <= found["loss"][0]:
        say("adaptycho: the loss rose: the step is too long for these data (--protocol best adapts it)", err=True)
    text = [f"loss per position {found['loss'][0]:.4g} to {found['loss'][-1]:.4g}", f"wrote {found['file']} and {found['picture']}"]
    if found["prior"] != "none":
        text.insert(0, f"prior: {found['prior']}, strength {found['strength']:g}")
    if "refined" in found:
        text.insert(1, spelled(found["refined"]))
    tell(found, text, as_json)


@commands.command()
@click.argument("run", type=click.Path(path_type=Path))
@protocol
@with_settings(*SHORT)
@click.option("--ask", is_flag=True, help="Wait before each sub-sequence until it is approved (`adaptycho monitor RUN`).")
@threads
@device
@click.option("--dry-run", is_flag=True, help="Print the first positions and what they would do to the specimen; expose and write nothing.")
@as_json
def scan(
    run: Path, protocol: str | None, ask: bool, threads: int | None, device: str, dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Scan, and keep everything in the new folder RUN: every sub-sequence is on disk before the next is decided.

    A scan that was interrupted, by whatever, goes on with `adaptycho resume RUN`. `adaptycho monitor RUN` shows it while it runs. Limits
    that no request may break are settings of the section `safety`.
    """
    targets.folder(run, new=True)
    from adaptycho.runs import orders, scans

    use(threads)
    placed(device)
    kind = microscopes.of(collect(options))
    for name, value in given(options).items():
        if name.startswith(kind.brings) or (name == "scan.dose" and not kind.capabilities.dose):
            raise click.UsageError(f"--{name}: expected none with {kind.noun}, which has its own, found {value}")
    chosen = collect(options, {} if kind.capabilities.specimens else PROTOCOLS["best"], protocol)
    if dry_run:
        rehearse(chosen, as_json)
        return
    target = scans.Run.create(run, chosen)
    if ask:
        orders.give(target.path, orders.Order(word="ask"))
    _finish(target, as_json, device)


@commands.command()
@click.argument("run", type=source)
@threads
@device
@as_json
def resume(run: Path, threads: int | None, device: str, as_json: bool) -> None:
    """Go on with an interrupted scan in the folder RUN, from the last whole sub-sequence."""
    from adaptycho.runs import scans

    use(threads)
    _finish(scans.Run.open(run), as_json, placed(device))


@commands.command()
@click.argument("run", type=source)
@as_json
def report(run: Path, as_json: bool) -> None:
    """Write RUN/report.html: pictures of every sub-sequence, dose, scores. Also of a scan that is still running."""
    from adaptycho.app import tasks
    from adaptycho.runs import scans

    page = tasks.write_report(scans.Run.open(run))
    tell({"report": str(page)}, [f"wrote {page}"], as_json)


@commands.command()
@click.argument("what", type=click.Choice(["reconstruct", "latency", "forward", "all"]), default="all")
@as_json
def bench(what: str, as_json: bool) -> None:
    """Time the hot paths on this machine: reconstruction against the bare Fourier transforms, decision latency, simulation."""
    from adaptycho.app import bench as benchmarks

    names = ["reconstruct", "latency", "forward"] if what == "all" else [what]
    found = {name: getattr(benchmarks, name)() for name in names}
    flat = found if what == "all" else found[what]
    tell(flat, [f"{name}.{key}: {value}" for name, part in found.items() for key, value in part.items()], as_json)


for command in (advise, evaluate, export, figures, import_, inspect, monitor, train):
    commands.add_command(command)


@commands.command()
@with_settings(*SHORT)
def settings(**options: Any) -> None:
    """Print all settings as TOML with what they mean; edit the output and give it back with --settings."""
    chosen = collect(options)
    values = {name: text for name, _, text in tree.fields(chosen)}
    section = ""
    for line in tree.dump(chosen).splitlines():
        section = line.strip("[]").split(".")[0] if line.startswith("[") else section
        name = f"{section}.{line.split(' = ')[0]}"
        if name in values and " = " in line:
            say(f"# {values.pop(name)}")
        say(line)
    unset = [f"#   {name}: {text}" for name, text in values.items() if not name.endswith((".options", ".aberrations"))]
    if unset:
        say("\n# Not set:\n" + "\n".join(unset))


def _finish(run: Any, as_json: bool, device: str) -> None:
    from adaptycho.app import tasks

    found = tasks.scan(run, progress, device)
    scores = ", ".join(f"{name} {value:.3f}" for name, value in found["scores"].items()) if run.referenced else "no reference for scores"
    text = [f"{found['positions']} positions in {found['subsequences']} sub-sequences: {scores}"]
    if not run.finished:
        text.append(f"stopped before the end; `adaptycho resume {run.path}` goes on")
    tell(found, [*text, f"wrote {found['run']}; pictures in {found['report']}"], as_json)
