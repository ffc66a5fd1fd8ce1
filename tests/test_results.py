"""The published results: made by the commands beside them, and shown as they are."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from adaptycho import settings as tree
from adaptycho.app import cli
from adaptycho.compare import archive, table
from adaptycho.compare.provenance import Origin
from adaptycho.compare.race import Cell
from adaptycho.compare.work import family

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
# What is published says which specimens it is from, and is measured again on those.
pytestmark = pytest.mark.filterwarnings("ignore:evaluate.test. designs were changed")
# The other tables take two minutes.
QUICK = ["paper-light", "paper-size", "paper-wse2", "paper-graphene", "recorded", "conventional", "savings"]
QUICK += [
    "generalise",
    "ablate",
    "engine",
    "table1",
    "table1-recurrent",
    "table1-size",
    "table1-recurrent-size",
    "learned",
    "learned-means",
]


# Largest relative difference of one specimen's score between the code paths of tests/machines.py, measured on 12 specimens of islands and
# 4 of crystals: 4e-5 of scans that look at nothing and 9e-5 of the learned scan, half of it from the five digits that are kept. Doubled.
BLIND, LEARNED = 1e-4, 2e-4
SOME = 6  # specimens of a published comparison that are measured again


def published(name: str, what: str, positions: int, dose: float) -> Cell:
    cells = archive.read(RESULTS / name)
    return next(c for c in cells if (family(c.settings), c.settings.scan.positions, c.settings.scan.dose) == (what, positions, dose))


def measured(tmp_path: Path, capsys: pytest.CaptureFixture[str], wanted: Cell, *words: str) -> tuple[Cell, dict]:
    """The same comparison again, on some of the specimens that the published one is from."""
    where = ["--evaluate.test", str(list(wanted.settings.evaluate.test))]
    assert cli.main(["evaluate", *words, *where, "--workers", "1", "--out", str(tmp_path), "--json"]) == 0
    return archive.read(tmp_path / "cells.json")[0], json.loads(capsys.readouterr().out)


def test_one_command_regenerates_a_cell_of_the_best_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tuning on training specimens included."""
    wanted = published("saving.json.gz", "island", 64, 1000.0)
    where = ["--family", "island", "--specimen.options", "{filling = [0.15, 0.35]}", "--positions", "64", "--dose", "1000"]
    names = ("raster", "hexagonal")
    found, _ = measured(tmp_path, capsys, wanted, "--protocol", "best", *where, "--specimens", str(SOME), "--strategies", *names)
    for name in names:
        assert found.plans[name] == wanted.plans[name]
        for metric in ("correlation_inside", "ssim", "ssim_aligned", "nrmse", "held_out", "dose_peak"):
            values, expected = (table.columns(cell, metric)[name].tolist()[:SOME] for cell in (found, wanted))
            assert values == pytest.approx(expected, rel=BLIND)


def test_one_command_regenerates_the_papers_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = published("paper-light.json", "crystal", 250, 2.14e5)
    where = ["--family", "crystal", "--positions", "250", "--specimens", "1"]
    found, _ = measured(tmp_path, capsys, wanted, "--protocol", "paper", *where, "--strategies", "random", "raster", "oracle")
    for name in ("random", "raster", "oracle"):
        for metric in ("ssim", "ssim_uniform", "correlation", "frc_half_bit"):
            assert found.numbers[name][0][metric] == pytest.approx(wanted.numbers[name][0][metric], rel=BLIND)


def test_one_command_regenerates_a_row_of_table_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Some specimens of it, with the policy that comes along, which is the first of the three that the row is the mean of."""
    published_table = json.loads((RESULTS / "table1.json").read_text())
    wanted = next(r for r in published_table["rows"] if (r["positions"], r["subsequences"]) == (250, 5))
    where = ["--evaluate.test", str(published_table["test"]), "--specimens", "2", "--workers", "1"]
    assert cli.main(["evaluate", "--table1", "--rows", "250x5", *where, "--out", str(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["rows"]
    for metric in ("ssim", "resolution"):
        assert found[f"{metric}_random_by_specimen"] == pytest.approx(wanted[f"{metric}_random_by_specimen"][:2], rel=BLIND)
        assert found[f"{metric}_by_specimen"][0] == pytest.approx(wanted[f"{metric}_by_specimen"][0][:2], rel=LEARNED)
    for key in ("nk_nu", "dose"):
        assert found[key] == pytest.approx(wanted[key], rel=BLIND)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """experiments/results.py"""
    spec = importlib.util.spec_from_file_location("results", ROOT / "experiments" / "results.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as path:
        path.syspath_prepend(ROOT / "experiments")  # where scripts find each other
        spec.loader.exec_module(found)
    return found


def test_a_table_says_when_and_by_what_it_was_measured(script: ModuleType) -> None:
    cells = archive.read(RESULTS / "paper-light.json")
    tests = {"evaluate": {"test": [1_200_000, 1_300_000]}}
    new = [replace(c, settings=tree.update(c.settings, tests, "test"), origin=Origin("2031-02-03", "abc", "9")) for c in cells]
    old = [replace(c, origin=None) for c in cells]
    said = "*Measured on 2031-02-03, code abc, specimens from 1,200,000 on.*"
    lines = [table.source(c) for c in new]
    for data in (new[0], [*new], lines, lines[0]):
        assert list(script.sourced(lambda data: iter(["|"]), data)) == ["|", "", said]
    assert list(script.sourced(lambda data: iter(["|"]), old)) == ["|"]


def test_the_page_shows_the_published_numbers() -> None:
    command = [sys.executable, "experiments/results.py", "--check", "--only", *QUICK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "up to date\n", "")


def test_every_published_number_has_an_interval_and_twelve_specimens() -> None:
    cells = archive.read(RESULTS / "best.json.gz")
    assert {family(c.settings) for c in cells} == {"crystal", "vacancies", "island", "particles", "boundary", "amorphous"}
    assert {(c.settings.scan.positions, c.settings.scan.dose) for c in cells} == {(p, d) for p in (64, 144, 256) for d in (300.0, 1e3, 1e4)}
    assert len(cells) == 54
    # All from one range, and if from another than the one in use, from the one that is known as used.
    assert len({c.settings.evaluate.test for c in cells}) == 1
    assert cells[0].settings.evaluate.test in (tree.USED, tree.Settings().evaluate.test)
    for cell in cells:
        assert all(len(rows) == 12 for rows in cell.numbers.values())
        assert len(cell.numbers) == 32
