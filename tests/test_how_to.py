"""The pages on adding a loss, a reward, a policy and a format: what stands there is done to a copy of the sources, and then used."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adaptycho
from adaptycho import formats, settings
from adaptycho.reconstruct import mkl

PAGES = Path(__file__).parents[1] / "docs" / "how-to"
# The file that each page adds, below src/adaptycho.
FILES = {
    "loss": "reconstruct/losses/robust.py",
    "reward": "learn/rewards/sharpness.py",
    "policy": "scan/policies/dark_field.py",
    "format": "formats/bench.py",
}
TINY = [
    "--geometry.field",
    "[8.0, 6.0]",
    "--geometry.object",
    "auto",
    "--positions",
    "12",
    "--subsequences",
    "3",
    "--reconstruct.reference_side",
    "8",
]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (PAGES / f"{page}.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def patch(sources: Path, text: str) -> None:
    """Replaces the lines of a diff that are there once: runs of context and removed lines by what they become."""
    head, target, *lines = text.splitlines()
    file = sources.parent / target.removeprefix("+++ ")
    assert head.removeprefix("--- ") == target.removeprefix("+++ ")
    whole = file.read_text(encoding="utf-8")
    for run in re.findall(r"(?:^[ -].*\n)*(?:^\+.*\n)+(?:^ .*\n)*", "\n".join(lines) + "\n", re.MULTILINE):
        old, new = ("".join(f"{line[1:]}\n" for line in run.splitlines() if line[0] in kept) for kept in (" -", " +"))
        assert whole.count(old) == 1, f"{target}: expected once:\n{old}"
        whole = whole.replace(old, new)
    file.write_text(whole, encoding="utf-8")


def python(path: Path, code: str) -> list[dict[str, Any]]:
    """What a program prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=110,
        env=os.environ | {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the format that the page on formats adds."""
    folder = tmp_path_factory.mktemp("data")
    ky, kx = np.indices((16, 16)) - 8
    counts = np.random.default_rng(0).poisson(20.0 * (np.hypot(ky, kx) < 4), (5, 6, 16, 16)).astype("<u2")
    facts = {"scan": [5, 6], "camera": [16, 16], "keV": 60, "mrad": 20.0, "mrad per pixel": 5.0, "step in Å": 1.0, "title": "on the bench"}
    (folder / "scan.bench").write_bytes(b"BENCH1\n" + json.dumps(facts).encode() + b"\n" + counts.tobytes())
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with all that the pages add, in a folder `src`."""
    copy = tmp_path_factory.mktemp("copy") / "src"
    shutil.copytree(Path(adaptycho.__file__).parent, copy / "adaptycho")  # with what is compiled, which saves half of the time
    for page, file in FILES.items():
        assert not (copy / "adaptycho" / file).exists()
        (copy / "adaptycho" / file).write_text(blocks(page, "python")[0], encoding="utf-8")
        for text in blocks(page, "diff"):
            patch(copy, text)
    return copy


LOSSES = """
import json, sys
from adaptycho import settings
from adaptycho.reconstruct import kernels
from adaptycho.settings import build
from adaptycho.types import Action
import torch

tiny = {"geometry": {"field": [8.0, 6.0], "object": "auto"}, "scan": {"positions": 12, "subsequences": 3}}
chosen = settings.update(settings.preset("light"), tiny, "tiny")
microscope = build.simulated(chosen)
line = torch.linspace(0, 1, 6)
seen = microscope.acquire(Action(torch.cartesian_prod(line, line)[None]), generator=torch.Generator().manual_seed(0))
found = {}
for name in ("amplitude", "robust"):
    wanted = settings.override(chosen, {"reconstruct.loss": name, "reconstruct.step": "auto", "reconstruct.iterations": "20"})
    descent = build.reconstructor(wanted, microscope.setup)
    losses = descent(seen).loss[0].tolist()
    found[name] = {"first": losses[0], "last": losses[-1], "compiled": sum(kernels._loops(name).through.stats.cache_misses.values())}
"""
REWARD = """
from adaptycho.learn.env.single import ScanEnv
from adaptycho.learn.reward import reward

chosen = settings.override(chosen, {"train.credit": "sharpness"})
env = ScanEnv(changes=tiny, reward=chosen.train.credit)
env.reset(seed=0)
env.action_space.seed(0)
_, gained, _, _, info = env.step(env.action_space.sample())
found["reward"] = {"gained": gained, "quality": info["quality"]}
try:
    reward("sharp", None)
except ValueError as error:
    found["refused"] = str(error)
"""
USE = """
import json, sys
from adaptycho.app.cli import main

assert main(["scan", {run!r}, "--policy", "dark-field", *{tiny!r}]) == 0
assert main(["inspect", {file!r}, "--json"]) == 0
"""

BROUGHT = """
import json
from adaptycho import formats, settings
from adaptycho.settings import build

chosen = settings.override(settings.preset("light"), {{"scan.policy": "dark-field"}})
print(json.dumps({{"title": formats.read({file!r}).title, "policy": str(build.scanner(chosen, defocus=60.0))}}))
"""


@pytest.fixture(scope="module")
def done(sources: Path, data: Path) -> list[dict[str, Any]]:
    """What came of a reconstruction and a reward with what was added, and what `inspect` said of a file of the new format."""
    use = USE.format(run=str(data / "run"), tiny=TINY, file=str(data / "scan.bench"))
    return python(sources, LOSSES + REWARD + "print(json.dumps(found))" + use)


def test_a_loss_falls_and_is_compiled_again_when_its_file_changes(sources: Path, done: list[dict[str, Any]]) -> None:
    before = done[0]
    # Far less than half is left where gradient and value belong together.
    assert before["robust"]["last"] < 0.5 * before["robust"]["first"]
    file = sources / "adaptycho" / FILES["loss"]
    file.write_text(file.read_text(encoding="utf-8").replace("WIDTH = 0.01", "WIDTH = 0.02"), encoding="utf-8")
    (after,) = python(sources, LOSSES + "print(json.dumps(found))")
    assert (after["amplitude"]["first"], after["amplitude"]["last"]) == (before["amplitude"]["first"], before["amplitude"]["last"])
    assert after["robust"]["first"] != before["robust"]["first"]
    # What is compiled is kept for the next process; of what has another source nothing is taken from there.
    if mkl.transform((32, 32), torch.complex64):
        assert (after["amplitude"]["compiled"], after["robust"]["compiled"]) == (0, 1)


def test_a_reward_pays_in_an_environment(done: list[dict[str, Any]]) -> None:
    # The contrast of a phase in rad of which something is seen.
    assert 0 < done[0]["reward"]["quality"] < 10
    assert done[0]["reward"]["gained"] != 0
    assert done[0]["refused"] == "reward: expected one of shared, voronoi, window, error, structure, scattered, sharpness, got 'sharp'"


def test_a_policy_scans_and_a_file_of_a_format_is_inspected(done: list[dict[str, Any]], data: Path) -> None:
    assert (done[1]["title"], done[1]["patterns"], done[1]["pattern_px"]) == ("on the bench", 30, [16, 16])
    assert 'policy = "dark-field"' in (data / "run" / "settings.toml").read_text(encoding="utf-8")
    assert (data / "run" / "report.html").exists()


def test_packages_bring_a_policy_and_a_format(data: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    for page, module in (("policy", "dark_field"), ("format", "bench")):
        known = installed / f"{module}-1.0.dist-info"
        known.mkdir(parents=True)
        (installed / f"{module}.py").write_text("\n\n".join(blocks(page, "python")), encoding="utf-8")
        (known / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
        points = tomllib.loads(blocks(page, "toml")[0])["project"]["entry-points"]
        lines = [
            line for group, names in points.items() for line in (f"[{group}]", *(f"{name} = {value}" for name, value in names.items()))
        ]
        (known / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (found,) = python(installed, BROUGHT.format(file=str(data / "scan.bench")))
    assert found == {"title": "on the bench", "policy": "DarkField(step=1.0, defocus=60.0)"}
    with pytest.raises(ValueError, match="expected a recording in a known format"):
        formats.read(data / "scan.bench")
    with pytest.raises(ValueError, match=r"scan\.policy: expected 'heuristic', .* or 'spiral', found 'dark-field'"):
        settings.override(settings.preset("light"), {"scan.policy": "dark-field"})
