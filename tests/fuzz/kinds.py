"""Kinds of input: what is made, what is damaged, and which commands read it."""

import random
from pathlib import Path

from fuzz import arrays, hdf5, options, places, raw, templates, tensors, text
from fuzz.case import Command, Expect, Kind, Mutation, Mutator, Target
from fuzz.templates import QUICK, SMALL

RUN = (
    *("{}", "{}/settings.toml", "{}/run.json", "{}/subsequences", "{}/subsequences/[0-9][0-9][0-9].h5", "{}/states"),
    *("{}/states/[0-9][0-9][0-9].h5", "{}/reference.h5", "{}/result.h5", "{}/report.html"),
)
OURS = ("run/states/[0-9][0-9][0-9].h5", "run/result.h5", "run/report.html")  # made again by `resume`
IMPORT = ("--energy", "60", "--semiangle", "33", "--pixel", "0.308", "--json")
OUT = "out.h5"
EMPTY = ("empty folder", "link to empty folder")


def _run(name: str) -> tuple[str, ...]:
    return tuple(pattern.format(name) for pattern in RUN)


def _scan(*arguments: str) -> Command:
    return Command(
        ("scan", "run", *arguments, *QUICK, "--json"), _run("run"), volatile=("run/settings.toml", "run/run.json", "run/report.html")
    )


def _import(source: str, *more: str) -> Command:
    return Command(("import", source, OUT, *more, *IMPORT), (OUT,))


def _provenance(rng: random.Random, path: Path) -> Mutation:
    """Changes run.json; what it only reports may be anything."""
    found = text.json_file("free")(rng, path)
    kept = any(f": {key}" in found.text for key in ("format", "input"))
    return Mutation(found.label, found.text, "either" if kept and found.expect == "free" else found.expect)


def _targets(file: str, *weighted: tuple[int, Mutator]) -> tuple[Target, ...]:
    return tuple(Target(file, (mutator,), weight) for weight, mutator in weighted)


def _training(missing: Expect) -> tuple[Target, ...]:
    return (
        *_targets(
            "t/settings.toml", (2, text.toml_file("either")), (1, raw.damaged("either")), (1, raw.replaced("either", other="either"))
        ),
        *_targets("t/run.json", (2, text.json_file("free")), (1, raw.damaged("free")), (1, raw.replaced("either", other="either"))),
        *_targets("t/log.jsonl", (2, text.json_lines), (1, raw.damaged("free")), (1, raw.replaced("either", "free", "free", "either"))),
        *_targets(
            "t/imitate.checkpoint.safetensors",
            (4, tensors.tensors),
            (2, raw.damaged("either")),
            (1, raw.replaced("either", "free", other="either")),
        ),
        *_targets(
            "t/imitate.safetensors", (2, tensors.tensors), (1, raw.damaged("either")), (1, raw.replaced("either", missing, other="either"))
        ),
        *_targets("t", (1, places.decoys("run.json")), (1, places.decoys("imitate.safetensors")), (1, places.decoys("log.jsonl"))),
    )


def _resumed() -> tuple[Command, ...]:
    resume = Command(("resume", "run", "--threads", "1", "--json"), _run("run"), OURS, volatile=("run/report.html",))
    return (resume, resume, Command(("report", "run", "--json"), ("run/report.html",), ("run/report.html",)))


_RECORDING = _targets("rec.h5", (7, hdf5.recording), (2, raw.damaged("free")), (1, raw.replaced("either")))
EIGHT = ("--reconstruct.iterations", "8")  # so that all that is refined moves
_READERS = (
    Command(("inspect", "rec.h5", "--json")),
    Command(("inspect", "rec.h5"), volatile=("stdout",)),
    Command(
        ("reconstruct", "rec.h5", OUT, "--threads", "1", "--reconstruct.iterations", "2", "--json"), (OUT, "out.png"), volatile=("out.png",)
    ),
    Command(
        ("reconstruct", "rec.h5", OUT, "--refine", "probe,positions", "--threads", "1", *EIGHT, "--json"),
        (OUT, "out.png"),
        volatile=("out.png",),
    ),
    Command(("inspect", "rec.h5", "--doctor", "--fix", OUT, "--page", "page.html", "--json"), (OUT, "page.html"), volatile=("page.html",)),
    Command(("export", "rec.h5", "out.npz", "--json"), ("out.npz",)),
    Command(("export", "rec.h5", "out.cxi", "--json"), ("out.cxi",)),
    _scan("--microscope", "recorded", "--file", "rec.h5"),
)
_OWN = (
    *_targets("run/settings.toml", (3, text.toml_file("either")), (1, raw.damaged("either")), (1, raw.replaced("either"))),
    *_targets("run/run.json", (2, _provenance), (1, raw.damaged("free")), (1, raw.replaced("either"))),
    *_targets("run/subsequences/000.h5", (4, hdf5.own), (2, raw.damaged("either")), (1, raw.replaced("either", "free"))),
    *_targets("run/states/000.h5", (2, hdf5.own), (1, raw.damaged("either")), (1, raw.replaced("either", "free", "either", "either"))),
    *_targets("run/reference.h5", (2, hdf5.own), (1, raw.damaged("either")), (1, raw.replaced("either", "free"))),
    *_targets("run", (1, places.decoys("result.h5")), (1, places.decoys("report.html"))),
    *_targets("run/states", (1, places.decoys("001.h5"))),
)
_RESULTS = Command(templates.EVALUATE, (), ("ev/results.jsonl", "ev/cells.json", "ev/tables.json"), ("ev/results.jsonl",))
_TRAINED = ("t/log.jsonl", "t/imitate.safetensors", "t/imitate.checkpoint.safetensors", "t/curve.png", "t/pictures", "t/pictures/*")
_RESUME = Command(("train", "resume", "t", "--json"), _TRAINED, _TRAINED, volatile=("t/log.jsonl", "t/curve.png"))
_FIGURES = ("figures", "ev", "--out", "new", "--json")
_PICTURES = ("new", "new/*.png")
_THROUGH = (*_PICTURES, "empty/*.png", "victims/*.png")  # a folder for pictures may lie behind a link
_PLACES = (
    Command(("simulate", OUT, *SMALL, "--positions", "16", "--workers", "1", "--json"), (OUT, "out.toml")),
    Command(("import", "patterns.npy", OUT, "--positions", "positions.npy", *IMPORT), (OUT,)),
    Command(("reconstruct", "rec.h5", OUT, "--threads", "1", "--reconstruct.iterations", "1", "--json"), (OUT, "out.png")),
    Command(("scan", OUT, *SMALL, *QUICK, "--json"), _run(OUT), volatile=("*/run.json", "*/report.html")),
)
_NAMED = tuple(
    Command((*(a if a != OUT else "@out" for a in c.arguments),), ("*",), volatile=("*/run.json", "*/report.html")) for c in _PLACES
)
_ADVISE = (
    *("advise", "--family", "island", "--energy", "80", "--semiangle", "28", "--field", "24"),
    *("--dose", "1000", "--positions", "100", "--json"),
)


def _structure(file: str) -> Command:
    return Command(
        ("simulate", OUT, *SMALL, "--positions", "9", "--workers", "1", "--specimen.structure", file, "--json"),
        (OUT, "out.toml"),
    )


SLOW = {"scan", "report", "figures", "train resume", "train figures"}  # commands that draw
KINDS = (
    Kind("recording", templates.recording, _RECORDING, _READERS),
    Kind("probed", templates.probed, _RECORDING, _READERS),
    Kind(
        "npy",
        templates.arrays,
        (
            *_targets(
                "patterns.npy",
                (4, arrays.values(arrays.PATTERNS)),
                (3, arrays.header),
                (2, raw.damaged("free")),
                (1, raw.replaced("either")),
            ),
        ),
        (_import("patterns.npy", "--positions", "positions.npy"),),
    ),
    Kind(
        "npz",
        templates.arrays,
        _targets("patterns.npz", (4, arrays.archive), (2, raw.damaged("free")), (1, raw.replaced("either"))),
        (_import("patterns.npz", "--positions", "positions.csv"),),
    ),
    Kind(
        "foreign",
        templates.arrays,
        _targets("foreign.h5", (6, hdf5.foreign), (2, raw.damaged("free")), (1, raw.replaced("either"))),
        (_import("foreign.h5", "--positions", "positions.npy"),),
    ),
    Kind(
        "table",
        templates.arrays,
        _targets("positions.csv", (6, text.table), (1, raw.damaged("free")), (1, raw.replaced("either"))),
        (_import("patterns.npy", "--positions", "positions.csv"),),
    ),
    Kind(
        "positions",
        templates.arrays,
        _targets("positions.npy", (4, arrays.values(arrays.POSITIONS)), (2, arrays.header), (1, raw.damaged("free"))),
        (_import("patterns.npy", "--positions", "positions.npy"),),
    ),
    Kind(
        "folder",
        templates.arrays,
        (
            *_targets("rota/metadata.json", (3, text.json_file("free")), (1, raw.damaged("free")), (1, raw.replaced("either"))),
            *_targets("rota/counts_rows_000.npz", (3, arrays.archive), (1, raw.damaged("free")), (1, raw.replaced("either", "free"))),
            *_targets("rota/probe_start.npz", (2, arrays.archive), (1, raw.damaged("free")), (1, raw.replaced("either"))),
        ),
        (Command(("import", "rota", OUT, "--json"), (OUT,)),),
    ),
    Kind(
        "import",
        templates.arrays,
        (Target("", (options.one_of(options.IMPORTS),)),),
        (_import("patterns.npy", "--positions", "positions.npy"),),
    ),
    Kind("run", templates.run, _OWN, _resumed()),
    Kind(
        "finished",
        templates.finished,
        (*_OWN, *_targets("rec.h5", (2, raw.damaged("either")), (1, raw.replaced("either")))),
        _resumed(),
    ),
    Kind(
        "settings",
        templates.toml,
        _targets("s.toml", (5, text.toml_file("free")), (1, raw.damaged("free")), (1, raw.replaced("either", empty="free"))),
        (
            Command(("settings", "--settings", "s.toml")),
            Command(("simulate", OUT, "--settings", "s.toml", "--workers", "1", "--json"), (OUT, "out-[0-9]*.h5", "out.toml")),
            Command(
                ("scan", "run", "--settings", "s.toml", "--threads", "1", "--positions", "8", "--json"),
                _run("run"),
                volatile=("run/run.json", "run/report.html"),
            ),
            Command(
                ("reconstruct", "rec.h5", OUT, "--settings", "s.toml", "--threads", "1", "--json"), (OUT, "out.png"), volatile=("out.png",)
            ),
        ),
    ),
    Kind(
        "options",
        templates.toml,
        (Target("", (options.setting,)),),
        (
            Command(("settings", "--settings", "s.toml")),
            Command(("simulate", OUT, "--settings", "s.toml", "--workers", "1", "--json"), (OUT, "out-[0-9]*.h5", "out.toml")),
            Command(("scan", "run", "--settings", "s.toml", "--threads", "1", "--positions", "8", "--json"), _run("run")),
            Command(("scan", "run", "--microscope", "recorded", "--file", "rec.h5", *QUICK, "--json"), _run("run")),
            Command(("reconstruct", "rec.h5", OUT, "--settings", "s.toml", "--threads", "1", "--json"), (OUT, "out.png")),
        ),
    ),
    Kind(
        "weights",
        templates.field_policy,
        _targets("w.safetensors", (5, tensors.tensors), (2, raw.damaged("either")), (1, raw.replaced("either"))),
        (_scan(*SMALL, "--policy", "adaptive", "--scan.weights", "w.safetensors"),),
    ),
    Kind(
        "recurrent",
        templates.recurrent_policy,
        _targets("w.safetensors", (5, tensors.tensors), (2, raw.damaged("either")), (1, raw.replaced("either"))),
        (_scan(*SMALL, "--policy", "recurrent", "--scan.weights", "w.safetensors"),),
    ),
    Kind(
        "ledger",
        templates.evaluation,
        (
            *_targets("ev/results.jsonl", (6, text.json_lines), (2, raw.damaged("free")), (1, raw.replaced("either", "same", "same"))),
            *_targets("ev/cells.json", (1, text.json_file("same")), (1, raw.damaged("same"))),
            *_targets("ev", (1, places.decoys("cells.json")), (1, places.decoys("results.jsonl")), (1, places.decoys("tables.json"))),
        ),
        (_RESULTS,),
    ),
    Kind(
        "cells",
        templates.evaluation,
        (
            *_targets("ev/cells.json", (6, text.json_file("free")), (2, raw.damaged("free")), (1, raw.replaced("either"))),
            *_targets("", (1, places.decoys("new")), (1, places.taken("new", folders=(*EMPTY, "folder", "link to folder")))),
        ),
        (Command(_FIGURES, _THROUGH),),
    ),
    Kind(
        "packed",
        templates.evaluation,
        _targets("cells.json.gz", (2, raw.damaged("either")), (1, raw.replaced("either"))),
        (Command(("figures", "cells.json.gz", "--out", "new", "--json"), _PICTURES),),
    ),
    Kind(
        "training",
        templates.training,
        (
            *_training("either"),
            *_targets(
                "t/start.safetensors",
                (2, tensors.tensors),
                (1, raw.damaged("either")),
                (1, raw.replaced("either", "either", "either", "either")),
            ),
        ),
        (_RESUME,),
    ),
    Kind(
        "trained",
        templates.trained,
        _training("free"),  # figures show what is there
        (_RESUME, Command(("train", "figures", "new", "t", "--json"), _PICTURES)),
    ),
    Kind(
        "places",
        templates.arrays,
        (
            *_targets("", (3, places.decoys(OUT)), (1, places.decoys("out.toml")), (1, places.decoys("out.png"))),
            *_targets("", (3, places.taken(OUT, folders=EMPTY))),
        ),
        _PLACES,
    ),
    Kind("names", templates.arrays, _targets("", (1, places.named)), _NAMED),
    Kind(
        "advice",
        templates.nothing,
        (*_targets("", (6, options.one_of(options.ADVICE)), (1, places.decoys("a.png")), (1, places.taken("a.png"))),),
        (
            Command(
                (*_ADVISE, "--picture", "a.png"),
                ("a.png",),
            ),
        ),
    ),
    Kind("cif", templates.structures, _targets("a.cif", (3, raw.damaged("free")), (1, raw.replaced("either"))), (_structure("a.cif"),)),
    Kind("xyz", templates.structures, _targets("a.xyz", (3, raw.damaged("free")), (1, raw.replaced("either"))), (_structure("a.xyz"),)),
    Kind("vasp", templates.structures, _targets("POSCAR", (3, raw.damaged("free")), (1, raw.replaced("either"))), (_structure("POSCAR"),)),
)
LONG = {templates.run, templates.finished, templates.evaluation}  # to make, and to try once without damage
QUICK_KINDS = tuple(
    Kind(kind.name, kind.make, kind.targets, quick)
    for kind in KINDS
    if kind.make not in LONG and (quick := tuple(command for command in kind.commands if command.name not in SLOW))
)
