"""Puts the best weights of a finished training into the package, in half precision, and writes their model card.

`python experiments/publish.py RUN NAME --command 'adaptycho train all --recipe ...' --commit HASH --evaluation FILE.md --limits FILE.md`
writes NAME.safetensors in src/adaptycho/scan/networks/shipped, and docs/models/NAME.md and .png. It refuses a command that does not give
the settings of the run, and a run that is not finished.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import tomli_w
import torch
from torch import nn

from adaptycho import settings
from adaptycho.app import options
from adaptycho.app.cli.training import train
from adaptycho.draw import report
from adaptycho.learn import plots, pool, stages
from adaptycho.learn.loop import read_log
from adaptycho.scan.episode import run as scan
from adaptycho.scan.networks import library, weights
from adaptycho.scan.networks.field import Field
from adaptycho.scan.networks.recurrent import Recurrent
from adaptycho.settings import Settings, microscopes

ROOT = Path(__file__).parents[1]
COURSES = ("all", "imitate", "reinforce")  # commands that train a policy
SCORES = {"ssim": "SSIM", "ssim_aligned": "SSIM, aligned", "correlation_inside": "correlation inside", "loss": "loss (A3)"}
Log = list[dict[str, Any]]


def commanded(command: str) -> Settings:
    """The settings that an `adaptycho train` command line gives.

    Raises:
        ValueError: it is no such command.
    """
    words = shlex.split(command)
    if words[:2] != ["adaptycho", "train"] or len(words) < 3 or words[2] not in COURSES:
        raise ValueError(f"command: expected `adaptycho train {'|'.join(COURSES)} ...`, got {command!r}")
    given = train.commands[words[2]].make_context(words[2], words[3:]).params
    return options.collect(given, recipe=given["recipe"])


def finished(run: Path) -> list[str]:
    """Names of the courses of a run, all of which are done.

    Raises:
        ValueError: one of them is not.
    """
    courses = json.loads((run / "run.json").read_text(encoding="utf-8"))["courses"]
    steps = {"autoencoder": "encode_steps", "imitate": "imitate_steps", "reinforce": "reinforce_steps"}
    wanted = settings.load(run / "settings.toml").train
    for course in courses:
        done, of = max((e["step"] for e in read_log(run) if e["course"] == course), default=0), getattr(wanted, steps[course])
        if done != of:
            raise ValueError(f"{run}: expected a finished training, found {done} of {of} steps in course {course}")
    return courses


def publish(run: Path, path: Path, facts: dict[str, Any]) -> nn.Module:
    """Writes the best weights of a run in half precision, with facts about the training in their card; the network that is in the file."""
    found = weights.load(run / f"{finished(run)[-1]}.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    weights.write(path, found.tensors, found.card | {"training": facts}, half=True)
    return library.load(path)


def moved(run: Path, network: nn.Module) -> float:
    """How far half precision moves a position of the scan of a validation specimen at most, in Å."""
    work = stages.look(settings.load(run / "settings.toml"))
    places = []
    for one in (library.load(run / f"{finished(run)[-1]}.safetensors"), network):
        policy = library.scanner(one, defocus=work.defocus)
        with torch.no_grad():
            *_, last = scan(work.microscope, policy, work.reconstructor, work.lengths, seed=work.seed)
        places.append(last.seen.positions * torch.tensor(work.microscope.setup.field))
    return float((places[0] - places[1]).norm(dim=-1).max())


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    for row in (names, ["---"] * len(names), *rows):
        yield "| " + " | ".join(str(cell) for cell in row) + " |"
    yield ""


def best(log: Log, course: str) -> dict[str, Any]:
    """The validation whose weights were kept: the first of the best."""
    entries = [e for e in log if e["course"] == course and e.get("validation", {}).get("score") is not None]
    return max(entries, key=lambda e: e["validation"]["score"])


def architecture(network: nn.Module) -> str:
    match network:
        case Field():
            widths = ", ".join(map(str, network.widths))
            return (
                f"A translation-equivariant field policy (`adaptycho.scan.networks.field`): a convolutional network of {widths} channels "
                f"from "
                f"fine to coarse, with {network.survey} survey and density floor {network.floor:g}"
            )
        case Recurrent():
            return (
                "The paper's recurrent policy (`adaptycho.scan.networks.recurrent`): "
                + ", ".join(f"{name} {width}" for name, width in network.widths.items())
                + f", two GRU layers, an encoder for images of {network.encoder.size} x {network.encoder.size}; "
                + f"sub-sequences of {', '.join(map(str, network.lengths))} positions"
            )
        case _:
            raise ValueError(f"network: expected a policy, found a {type(network).__name__}")


def data(s: Settings) -> str:
    """What was practised on, in words."""
    p = s.practice
    scans = f"{amount(p.positions)} positions in {s.scan.subsequences} sub-sequences"
    if microscopes.of(s).capabilities.windows:
        part = f"rows {span(s.scan.rows)} and columns {span(s.scan.columns)} of the recording, as fractions"
        return f"{p.pool} windows of {p.window[0]} x {p.window[1]} recorded positions in {part}, scanned at {scans}."
    families = {name: p.families.count(name) for name in p.families}
    shares = ", ".join(name if count == 1 else f"{name} ({count} of {len(p.families)})" for name, count in families.items())
    kinds = "families" if len(families) > 1 else "family"
    low, high = s.evaluate.train
    turned = ", turned and mirrored at every use" if p.turn else ", all in the same orientation"
    filling = f" (filling {span(p.filling)} of the field)" if set(families) & {"island", "edge", "particles"} else ""
    return (
        f"{p.pool} simulated specimens of {s.specimen.structure}, {kinds} {shares}{filling}, with numbers between {low + pool.UNTUNED:,} "
        f"and {high - 1:,}{turned}. Scans of {scans}, {span(p.dose)} electrons per position, defocus {amount(p.defocus)} Å. "
        f"Weights are chosen on {p.validation} specimens from {s.evaluate.validation[0]:,} on; those from {s.evaluate.test[0]:,} on are "
        "not used."
    )


def span(ends: tuple[float, float]) -> str:
    return f"{ends[0]:,.6g}" if ends[0] == ends[1] else f"{ends[0]:,.6g} to {ends[1]:,.6g}"


def amount(values: Sequence[float]) -> str:
    return " or ".join([", ".join(f"{v:g}" for v in values[:-1]), f"{values[-1]:g}"] if len(values) > 1 else [f"{values[0]:g}"])


def courses(runs: Sequence[Path]) -> Iterator[str]:
    """Time of every course of every run, and validation scores before it and of the weights that it kept."""
    rows = []
    logged = [(settings.load(run / "settings.toml").train.seed, name, read_log(run)) for run in runs for name in finished(run)]
    columns = [key for key in SCORES if any(key in e.get("validation", {}) for *_, log in logged for e in log)]
    for seed, name, log in logged:
        entries = [e for e in log if e["course"] == name]
        first, kept = next(e for e in entries if "validation" in e), best(log, name)
        minutes = max(e["seconds"] for e in entries) / 60
        scores = [" → ".join(number(e["validation"].get(key)) for e in (first, kept)) for key in columns]
        rows.append([seed, name, max(e["step"] for e in entries), f"{minutes:.1f}", kept["step"], *scores])
    yield from table(["seed", "course", "steps", "minutes", "step kept", *(SCORES[key] for key in columns)], rows)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def page(name: str, network: nn.Module, runs: Sequence[Path], facts: dict[str, Any], size: int, texts: Sequence[str]) -> Iterator[str]:
    """The model card, line by line; `texts` are evaluation and limits."""
    s = settings.load(runs[0] / "settings.toml")
    frozen = sum(p.numel() for p in network.encoder.parameters()) if isinstance(network, Recurrent) else 0
    learnt = sum(p.numel() for p in network.parameters()) - frozen
    parts = f"{learnt:,} parameters" + (f" that learn, {frozen:,} that do not (the encoder, trained before)" if frozen else "")
    yield from [f"# Model card: {name}", "", f"{architecture(network)}. {parts[:1].upper()}{parts[1:]}.", ""]
    yield f"Weights: `src/adaptycho/scan/networks/shipped/{name}.safetensors`, {size / 1e6:.1f} MB in half precision, which moves the"
    yield from [f"positions of a scan by at most {moved(runs[0], network):.2g} Å (one validation specimen).", ""]
    yield from ["## Training data", "", data(s), ""]
    yield from ["## Training", "", "```console", f"$ {facts['command']}", "```", ""]
    seeds = ", ".join(map(str, facts["seeds"]))
    yield f"At commit {facts['commit']}, adaptycho {facts['adaptycho']}, torch {facts['torch']}, Python {facts['python']}."
    one = f"These weights are of seed {facts['seeds'][0]}"
    yield one + (f"; the same training was done with seeds {seeds}." if len(runs) > 1 else "; no other seed was trained.")
    yield from ["Settings that differ from the defaults:", "", "```toml", tomli_w.dumps(settings.changes(s)).rstrip(), "```", ""]
    yield from ["Validation scores before each course → of the weights that it kept, which are the best:", ""]
    yield from courses(runs)
    yield from [f"![Validation score against training step]({name}.png)", ""]
    for title, text in zip(("Evaluation", "Limits"), texts, strict=True):
        yield from [f"## {title}", "", text.strip(), ""]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished training")
    parser.add_argument("name", help="of the policy")
    parser.add_argument("--command", required=True, help="the command line that trained it")
    parser.add_argument("--commit", required=True, help="of the code that trained it")
    parser.add_argument("--evaluation", type=Path, required=True, help="Markdown: how good it is")
    parser.add_argument("--limits", type=Path, required=True, help="Markdown: what it is not for")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="folders of the same training with other seeds")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    runs = [given.run, *given.others]
    try:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", given.name):
            raise ValueError(f"name: expected lower-case letters, digits and hyphens, got {given.name!r}")
        texts = [path.read_text(encoding="utf-8") for path in (given.evaluation, given.limits)]
        if len(plots.grouped(runs)) > 1:
            raise ValueError("others: expected runs that differ from the first in nothing but the seed, found other settings")
        if commanded(given.command) != settings.load(given.run / "settings.toml"):
            raise ValueError(f"command: expected one that gives the settings of {given.run}, got {given.command!r}")
        told = json.loads((given.run / "run.json").read_text(encoding="utf-8"))
        facts = {key: told[key] for key in ("adaptycho", "torch", "python")} | {"command": given.command, "commit": given.commit}
        facts["seeds"] = [settings.load(run / "settings.toml").train.seed for run in runs]
        path = given.root / "src" / "adaptycho" / "scan" / "networks" / "shipped" / f"{given.name}.safetensors"
        network = publish(given.run, path, facts)
        card = given.root / "docs" / "models" / f"{given.name}.md"
        report.save_png(card.with_suffix(".png"), plots.progress(given.run), dpi=130)
        lines = page(given.name, network, runs, facts, path.stat().st_size, texts)
        card.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    except (ValueError, OSError, click.ClickException) as error:
        print(f"publish: {error.format_message() if isinstance(error, click.ClickException) else error}", file=sys.stderr)
        return 2
    print(f"wrote {path}, {card} and {card.with_suffix('.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
