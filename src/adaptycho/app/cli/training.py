"""`adaptycho train`: the courses of learning, as a user meets them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptycho.app.cli.output import patient_progress, placed, tell
from adaptycho.app.options import as_json, collect, device, source, with_settings
from adaptycho.settings import RECIPES
from adaptycho.support import targets

if TYPE_CHECKING:  # at run time torch is loaded when a command needs it
    from adaptycho.learn.loop import Name

Command = Callable[..., Any]


@click.group()
def train() -> None:
    """Train a policy: autoencoder, imitation, reinforcement, or all that it needs.

    Settings are those of the sections practice, network and train; `--recipe` starts from one that is known to work. Everything goes to the
    folder RUN: log, checkpoints, pictures, weights. A training that was interrupted, by whatever, goes on with `adaptycho train resume RUN`
    and comes to the same weights.
    """


def _course(names: "tuple[Name, ...]", text: str) -> Command:
    def decorate(function: Command) -> Command:
        function = device(as_json(function))
        function = with_settings()(function)
        function = click.option("--recipe", type=click.Choice(RECIPES), help="Settings that come with the package.")(function)
        function = click.option("--weights", type=source, help="Weights to start from (.safetensors).")(function)
        function = click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder for the run.")(function)
        return train.command(name=names[0] if len(names) == 1 else "all", help=text)(function)

    return decorate


def _begin(
    names: "tuple[Name, ...]", out: Path, weights: Path | None, recipe: str | None, device: str, as_json: bool, options: dict[str, Any]
) -> None:
    targets.folder(out)
    from adaptycho.learn import checks, trainings

    chosen = collect(options, recipe=recipe)
    checks.check_device(chosen, placed(device))
    trainings.create(out, chosen, names, weights)
    _go(out, device, as_json)


def _go(out: Path, device: str, as_json: bool) -> None:
    from adaptycho.learn import trainings

    found = trainings.execute(out, _shown, placed(device))
    scores = ", ".join(f"{name} {value:.3f}" for name, value in found["validation"].items())
    tell(found, [f"validation: {scores}", f"wrote {found['weights']}; pictures and curves in {out}"], as_json)


def _shown(items: Iterable[Any], total: int, what: str) -> Iterable[Any]:
    return patient_progress(items, total, what)


@_course(("autoencoder",), "Train the autoencoder that compresses reconstructions for the recurrent policy (A3).")
def autoencoder(out: Path, weights: Path | None, recipe: str | None, device: str, as_json: bool, **options: Any) -> None:
    """Trains the autoencoder alone."""
    _begin(("autoencoder",), out, weights, recipe, device, as_json, options)


@_course(("imitate",), "Train a policy to do what a teacher does: an even scan (C1), or oracles that know the specimen.")
def imitate(out: Path, weights: Path | None, recipe: str | None, device: str, as_json: bool, **options: Any) -> None:
    """Trains by imitation alone."""
    _begin(("imitate",), out, weights, recipe, device, as_json, options)


@_course(("reinforce",), "Improve a policy by trial and reward (Eqs. 6 to 8).")
def reinforce(out: Path, weights: Path | None, recipe: str | None, device: str, as_json: bool, **options: Any) -> None:
    """Trains by reinforcement alone."""
    _begin(("reinforce",), out, weights, recipe, device, as_json, options)


@_course(("autoencoder", "imitate", "reinforce"), "Every course that the network needs, one after the other.")
def all_(out: Path, weights: Path | None, recipe: str | None, device: str, as_json: bool, **options: Any) -> None:
    """Trains by every course."""
    _begin(("autoencoder", "imitate", "reinforce"), out, weights, recipe, device, as_json, options)


@train.command()
@click.argument("run", type=source)
@device
@as_json
def resume(run: Path, device: str, as_json: bool) -> None:
    """Go on with an interrupted training in the folder RUN, from its last checkpoint."""
    _go(run, device, as_json)


@train.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("runs", type=source, nargs=-1, required=True, metavar="RUN...")
@as_json
def figures(out: Path, runs: tuple[Path, ...], as_json: bool) -> None:
    """Draw the figures of trainings: learning curves, cells, what a code keeps, where positions went.

    Runs that differ in nothing but their seed are one training, drawn with its spread.
    """
    targets.folder(out)
    from adaptycho.learn import plots

    written = [str(path) for path in plots.draw(runs, out)]
    tell({"figures": written}, [f"wrote {path}" for path in written], as_json)
