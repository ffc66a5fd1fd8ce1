"""Settings on the command line: which options a command has, and the settings that they describe."""

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from adaptycho import settings
from adaptycho.settings import Settings

SHORT = ("microscope", "file", "policy", "positions", "subsequences", "dose", "seed")  # fields of `scan` that need no section name
PROTOCOLS = {
    protocol: {f"reconstruct.{name}": json.dumps(value) for name, value in {"prior": "none", **values}.items()}
    for protocol, values in (("best", settings.BEST), ("paper", settings.PAPER | {"refine": ()}), ("regularised", settings.REGULARISED))
}
EXAMPLE = "--beam.energy 80e3 --specimen.family island"
protocol = click.option(
    "--protocol",
    type=click.Choice(list(PROTOCOLS)),
    default=None,
    help="How to reconstruct. best: amplitude loss, adapted step, momentum, 20 iterations. paper: 5 plain steps on intensities. "
    "regularised: with a prior that the data choose.  "
    "[default: paper for simulated scans, best for all others; a settings file goes before the default]",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
scheduler = click.option(
    "--scheduler", metavar="ADDRESS", default=None, help="Dask scheduler to send the work to (tcp://host:8786, or a scheduler file)."
)


class Source(click.Path):
    """A file or folder to read. A pipe or a device is none: it may never end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, unless nothing can be read there."""
        path = Path(value)
        if "\0" in str(path):
            self.fail("expected a name, found one with a NUL character", param, ctx)
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            self.fail(f"{path}: expected a file or a folder, found a pipe or a device", param, ctx)
        return path


source = Source(path_type=Path)
_some = click.IntRange(1, 1024)
workers = click.option("--workers", type=_some, default=None, help="Processes on this machine.  [default: one for each core]")
threads = click.option("--threads", type=_some, default=None, help="Processor cores to use.  [default: all]")

device = click.option("--device", default="cpu", show_default=True, help="Where to compute, as torch calls it: cpu, cuda, cuda:1, ...")


class Listing(click.Command):
    """A command whose repeatable options take several values after one name: `--dose 300 1000` is `--dose 300 --dose 1000`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeats the option's name before each value that follows, up to the next option."""
        lists = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        spread, current, fresh = [], "", False
        for word in args:
            if word.startswith("--"):
                current, fresh = (word if word in lists else ""), True
            elif current and not fresh:
                spread.append(current)
            else:
                fresh = False
            spread.append(word)
        return super().parse_args(ctx, spread)


def with_settings(*short: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds --preset, --settings, some fields of `scan` by short names, and every setting by its dotted name (hidden: there are many)."""
    described = {name: text for name, _, text in settings.fields(Settings())}
    sections = ", ".join(dict.fromkeys(name.partition(".")[0] for name in described))
    known = f"The sections are {sections}; `adaptycho settings` prints what is in them."

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__doc__ = f"{inspect.getdoc(function)}\n\nEvery setting is an option too, by its section and name: {EXAMPLE}. {known}"
        for name in described:
            function = click.option(f"--{name}", _variable(name), metavar="VALUE", hidden=True)(function)
        for name in reversed(short):
            function = click.option(f"--{name}", _variable(f"short.{name}"), metavar="VALUE", help=described[f"scan.{name}"])(function)
        function = click.option("--settings", "settings_file", type=source, help="TOML file with settings.")(function)
        presets = click.Choice(settings.PRESETS)
        return click.option("--preset", type=presets, default="light", show_default=True, help="Settings to start from.")(function)

    return decorate


def collect(
    options: dict[str, Any], base: dict[str, str] | None = None, protocol: str | None = None, recipe: str | None = None
) -> Settings:
    """The settings that a command's options describe: preset, the command's own, a recipe, the file, a protocol, single fields."""
    chosen = settings.override(settings.preset(options["preset"]), base or {})
    if recipe:
        chosen = settings.recipe(recipe, chosen)
    if options["settings_file"]:
        chosen = settings.load(options["settings_file"], chosen)
    return settings.override(chosen, (PROTOCOLS[protocol] if protocol else {}) | given(options))


def given(options: dict[str, Any]) -> dict[str, str]:
    """The single fields among a command's options, by dotted name; the long name of a field goes before its short one."""
    short = {f"scan.{name}": options.get(_variable(f"short.{name}")) for name in SHORT}
    long = {name: options[_variable(name)] for name, _, _ in settings.fields(Settings())}
    return {name: text for fields in (short, long) for name, text in fields.items() if text is not None}


def _variable(name: str) -> str:
    """Click wants a Python name for each option."""
    return name.replace(".", "__")
