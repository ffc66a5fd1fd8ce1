"""Table I: its rows, what of it follows from the scan alone, several policies, and the settings and commands in paper/."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from adaptycho import settings
from adaptycho.app import cli, tasks
from adaptycho.app.cli.program import commands
from adaptycho.app.options import collect
from adaptycho.compare import race, table1, trained, work
from adaptycho.compare.ledger import Ledger
from adaptycho.compare.table1 import REACH, ROWS, Published
from adaptycho.scan import patterns
from adaptycho.scan.episode import split_evenly
from adaptycho.scan.networks import library, weights
from adaptycho.scan.networks.autoencoder import Autoencoder, Encoder
from adaptycho.scan.networks.field import Field
from adaptycho.scan.networks.recurrent import Recurrent
from adaptycho.settings import Settings, build

PAPER = Path(__file__).parents[1] / "paper"
SCRATCH = (1_200_000, 1_300_000)  # test specimens of tests, nobody else's
TINY = {
    "geometry": {"field": (8.0, 8.0), "object": "auto"},
    "evaluate": {"specimens": 3, "test": SCRATCH},
    "reconstruct": {"reference_side": 10, **settings.PAPER},
    "scan": {"dose": 1e4},
}
SMALL = ["--geometry.field", "[8.0, 8.0]", "--geometry.object", "auto", "--reconstruct.reference_side", "10"]
SMALL += ["--evaluate.test", str(list(SCRATCH))]
TWO, THREE, FOUR = (Published(16, s, 8.0, 2e4, q, q) for s, q in ((2, -99.0), (3, 999.0), (4, 999.0)))
# Row 250x5 of specimen 1,100,000: the adaptive and the random scan.
SSIM = (0.4242, 0.2881)
RESOLUTION = (0.6240, 0.9112)


def tiny(**sections: dict) -> Settings:
    return settings.update(settings.update(settings.preset("light"), TINY, "test"), sections, "test")


def silent(items, total, what):
    return items


def measured(rows: list[Published], policies: tuple[trained.Trained, ...], ledger: Ledger, base: Settings | None = None) -> dict:
    return table1.table1(base or tiny(), rows, policies, ledger, progress=silent, workers=1)


def saved(path: Path, network: torch.nn.Module) -> Path:
    weights.save(path, network, library.described(network))
    return path


def recurrent(path: Path, positions: int, subsequences: int, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    network = Recurrent(split_evenly(positions, subsequences), Encoder((4, 4), 16), hidden=4, location=4, structure=4)
    for parameter in network.heads.parameters():  # untrained ones all propose the Halton points
        torch.nn.init.normal_(parameter, std=0.02)
    return saved(path, network)


@pytest.fixture
def field(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return saved(tmp_path / "field.safetensors", Field((8,)))


def numbers(ledger: Ledger, strategy: str, name: str) -> list[list[float]]:
    """A metric as it is in the ledger: for each scan that was measured, in order, a value for each of three specimens."""
    found = [r["numbers"][name] for r in ledger if r["strategy"] == strategy]
    return [found[i : i + 3] for i in range(0, len(found), 3)]


def test_the_printed_rows() -> None:
    assert [row.name for row in ROWS] == ["250x2", "250x3", "250x4", "250x5", "335x5", "420x5", "500x5"]
    assert [row.q_ssim for row in ROWS] == [16.71, 22.89, 24.96, 25.75, 12.53, 12.29, 8.16]
    assert [row.q_res for row in ROWS] == [9.74, 15.06, 19.79, 27.57, 28.71, 29.23, 31.59]


def test_dose_and_oversampling_are_the_papers_in_its_size() -> None:
    base = settings.update(settings.preset("paper"), {"evaluate": {"test": SCRATCH}}, "test")
    for row in ROWS[3:]:
        found = table1.scan_facts(row.cell(base))
        # Printed to three digits.
        assert found["dose"] == pytest.approx(row.dose, abs=0.005e5)
        # One random scan differs from their mean by 1.0 % at 250 positions (standard deviation): two of those if the paper's is of one, and
        # the rounding of the paper's pixel, 0.154 Å to 0.3 %, twice in an area.
        assert found["nk_nu"] == pytest.approx(row.nk_nu, rel=2 * 0.010 + 2 * 0.003)


@pytest.mark.parametrize("preset", ["light", "paper"])
def test_oversampling_is_that_of_disks_round_the_positions(preset: str) -> None:
    """Against distances to the positions themselves instead of to their pixels."""
    setup = build.setup(settings.preset(preset))
    where = patterns.pattern("random", 40, setup.field, generator=torch.Generator().manual_seed(3))
    pixel, side = setup.object.pixel, setup.field[0] + 2 * REACH
    line = (torch.arange(round(side / pixel), dtype=torch.float64) + 0.5) * pixel - REACH
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    lit = (cKDTree(where.double().numpy() * setup.field[0]).query(grid.numpy())[0] <= REACH).sum()
    # A position is moved by up to half a pixel along each axis, either way: where disks overlap, the area changes by less than half
    # a pixel along its outline.
    outline = 4 * side / pixel
    found = 40 * setup.detector[0] * setup.detector[1] / (2 * table1.oversampling(setup, where))
    assert abs(found - lit) < outline / 2


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12), st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_further_position_never_unlights_a_pixel(where: list[tuple[float, float]], further: tuple[float, float]) -> None:
    setup = build.setup(settings.preset("light"))
    few, many = (table1.oversampling(setup, torch.tensor(p, dtype=torch.float64)) for p in (where, [*where, further]))
    # Unknowns are measured pixels over the ratio; 1e-9 is rounding.
    assert (len(where) + 1) / many >= len(where) / few * (1 - 1e-9)


def test_the_table_is_made_of_what_the_judge_measured(field: Path) -> None:
    ledger = Ledger()
    found = measured([TWO, THREE], trained.read([field]), ledger)
    assert (found["unit"], found["specimens"], found["policies"]) == ("per cent", 3, [str(field)])
    assert [(r["positions"], r["subsequences"]) for r in found["rows"]] == [(16, 2), (16, 3)]
    # Random scans do not know of sub-sequences.
    ((ssim_random,), (resolution_random,)) = (numbers(ledger, "random", name) for name in ("ssim", "resolution"))
    ours = zip(numbers(ledger, "adaptive", "ssim"), numbers(ledger, "adaptive", "resolution"), strict=True)
    for row, (ssim, resolution) in zip(found["rows"], ours, strict=True):
        # Two decimals are kept.
        assert row["q_ssim"] == pytest.approx(100 * (sum(ssim) / sum(ssim_random) - 1), abs=0.006)
        assert row["q_res"] == pytest.approx(100 * (1 - sum(resolution) / sum(resolution_random)), abs=0.006)
        assert row["q_ssim_ci"][0] <= row["q_ssim"] <= row["q_ssim_ci"][1]
        assert row["q_res_ci"][0] <= row["q_res"] <= row["q_res_ci"][1]
        # Four decimals are kept.
        assert (row["ssim"], row["ssim_random"]) == pytest.approx((sum(ssim) / 3, sum(ssim_random) / 3), abs=6e-5)
        assert row["dose"] == pytest.approx(1e4 * 16 / 64, rel=1e-6)
        assert row["policies"] == [str(field)]
    assert [row["below_paper"] for row in found["rows"]] == [[], ["q_ssim", "q_res"]]


def test_several_policies_are_meaned_and_each_is_used_where_it_fits(tmp_path: Path) -> None:
    files = [recurrent(tmp_path / f"{i}.safetensors", 16, s, i) for i, s in enumerate((2, 2, 3))]
    ledger = Ledger()
    found = measured([TWO, THREE, FOUR], trained.read(files), ledger)
    assert [row["policies"] for row in found["rows"]] == [[str(files[0]), str(files[1])], [str(files[2])], []]
    two, three, four = found["rows"]
    # As in the ledger: the two of the first row, then that of the second.
    scores = numbers(ledger, "recurrent", "ssim")
    assert len(scores) == 3
    assert scores[0] != scores[1]
    random = sum(numbers(ledger, "random", "ssim")[0])
    gains = [100 * (sum(s) / random - 1) for s in scores]
    assert two["q_ssim_by_policy"] == pytest.approx(gains[:2], abs=0.006)  # two decimals are kept
    # The ratio of means is linear in ours.
    assert two["q_ssim"] == pytest.approx(sum(gains[:2]) / 2, abs=0.006)
    assert three["q_ssim_by_policy"] == [three["q_ssim"]]
    assert {four[k] for k in ("q_ssim", "q_ssim_ci", "q_res", "q_res_ci", "ssim", "resolution")} == {None}
    assert four["ssim_random"] > 0
    assert four["below_paper"] == []
    last = table1.text(found)[-1]
    assert last.count("–") == 2
    assert last.endswith("no policy was made for it")


def test_policies_of_two_kinds_are_refused(tmp_path: Path, field: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = recurrent(tmp_path / "recurrent.safetensors", 250, 5)
    words = ["evaluate", "--table1", "--out", str(tmp_path / "out"), "--weights"]
    assert cli.main([*words, str(field), str(other)]) == 2
    said = capsys.readouterr().err
    assert f"weights: expected policies of one kind, field or recurrent, found field in {field}, recurrent in {other}" in said
    encoder = saved(tmp_path / "autoencoder.safetensors", Autoencoder((4, 4), 16))
    assert cli.main([*words, str(encoder)]) == 2
    assert "expected a field or recurrent policy, found an autoencoder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--protocol", "best"], "--protocol: expected paper with --table1, found best"),
        (["--strategies", "raster"], "--strategies: expected none with --table1"),
        (["--rows", "250x5", "--positions", "250"], "--rows, --positions: expected one of the two"),
        (["--rows", "250x6"], "rows: expected some of 250x2, 250x3, 250x4, 250x5, 335x5, 420x5, 500x5, found '250x6'"),
        (["--scan.subsequences", "6"], "found any positions in 6 sub-sequences"),
        (["--family", "island", "edge"], "--family, --dose: expected one of each"),
        (["--microscope", "recorded"], "scan.microscope: expected simulated specimens for Table I, found recorded"),
    ],
)
def test_what_is_no_row_of_the_table_is_refused(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--table1", *words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_without_the_table_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--weights", "a.safetensors"]) == 2
    assert "--weights: expected with --table1 only (--scan.weights FILE for a comparison)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ([], [row.name for row in ROWS]),
        (["--rows", "420x5", "250x3"], ["420x5", "250x3"]),
        (["--positions", "250"], ["250x2", "250x3", "250x4", "250x5"]),
        (["--positions", "335", "500"], ["335x5", "500x5"]),
        (["--positions", "250", "--scan.subsequences", "5"], ["250x5"]),
        (["--settings", str(PAPER / "table1-250x4.toml")], ["250x4"]),
        (["--settings", str(PAPER / "table1-250x4.toml"), "--rows", "250x5"], ["250x5"]),
    ],
)
def test_rows_are_those_that_the_settings_leave(words: list[str], rows: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def first_table(out: Path, base: Settings, rows: tuple[Published, ...], *_, **__) -> dict:
        seen.update(base=base, rows=[row.name for row in rows])
        return {}

    monkeypatch.setattr(tasks, "first_table", first_table)
    monkeypatch.setattr(table1, "text", lambda found: [])
    assert cli.main(["evaluate", "--table1", *words]) == 0
    assert seen["rows"] == rows
    base = seen["base"]
    assert (base.evaluate.specimens, base.geometry.detector) == (25, 32)
    assert {name: getattr(base.reconstruct, name) for name in settings.PAPER} == settings.PAPER


def test_the_command_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["evaluate", "--table1", "--rows", "250x2", "250x5", "--specimens", "3", "--workers", "1", *SMALL, "--out", str(tmp_path)]
    assert cli.main([*words, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "table1.json").read_text()) == first
    assert [row["paper_q_ssim"] for row in first["rows"]] == [16.71, 25.75]
    assert first["policies"] == ["shipped"]
    # Nothing is left to measure.
    monkeypatch.setattr(race, "perform", lambda task: pytest.fail("measured again"))
    assert cli.main(words) == 0
    _, _, titles, *lines = capsys.readouterr().out.splitlines()
    assert titles.split()[:2] == ["positions", "sub-seq."]
    for line, row in zip(lines, first["rows"], strict=True):
        assert line.split()[:2] == [str(row["positions"]), str(row["subsequences"])]
        assert f"{row['q_ssim']:.2f} [{row['q_ssim_ci'][0]:.2f}, {row['q_ssim_ci'][1]:.2f}]" in line
        assert (f"{row['paper_q_ssim']:.2f}" in line) and (f"{row['paper_q_res']:.2f}" in line)
        assert ("below the paper's" in line) == bool(row["below_paper"])


def test_a_full_scan_is_kept_for_the_scans_that_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def task(**sections: dict) -> work.Task:
        return work.Task(tiny(**sections), 5, (work.Plan("random"),), "full")

    monkeypatch.setattr(work, "FULL", {})
    fresh = work.perform(task(scan={"positions": 16}))[0]["numbers"]["ssim"]
    work.perform(task(scan={"positions": 24, "subsequences": 2}))
    assert len(work.FULL) == 1
    assert work.perform(task(scan={"positions": 16}))[0]["numbers"]["ssim"] == fresh
    others = ({"scan": {"dose": 2e4}}, {"scan": {"seed": 1}}, {"reconstruct": {"iterations": 4}}, {"specimen": {"structure": "WSe2"}})
    for sections in others:
        work.perform(task(**sections))
    assert len(work.FULL) == 5


def test_specimens_that_are_kept_take_no_more_memory_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of one slice have room, or one of several; the same numbers come of one that was made again."""

    def numbers(number: int, **sections: dict) -> dict[str, float]:
        task = work.Task(tiny(**sections), number, (work.Plan("random"),), "full")
        found = work.perform(task)[0]["numbers"]
        return {name: value for name, value in found.items() if not name.startswith("seconds")}

    monkeypatch.setattr(work, "FULL", {})
    first = numbers(5)
    (kept,) = work.FULL.values()
    size = kept.microscope.potential.nbytes + kept.full_phase.nbytes
    monkeypatch.setattr(work, "MOST_FULL", 2 * size)
    for number in (6, 7):
        numbers(number)
    assert [specimen.number for specimen in work.FULL.values()] == [6, 7]
    assert numbers(5) == first
    numbers(5, specimen={"slices": 4})
    assert [specimen.microscope.potential.shape[-3:-2] for specimen in work.FULL.values()] == [(4,)]


@pytest.mark.filterwarnings("ignore:evaluate.test. designs were changed")
def test_a_row_is_what_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`adaptycho evaluate --table1 --rows 250x5 --specimens 1 --json` on a specimen of the older range, with the policy that is shipped."""
    words = ["evaluate", "--table1", "--rows", "250x5", "--specimens", "1", "--json", "--evaluate.test", "[1100000, 1200000]"]
    assert cli.main([*words, "--workers", "1", "--out", str(tmp_path)]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    # Weights changed at random by 1e-6, ten times the rounding of a number, change an SSIM by 0.1 % and a resolution by 0.2 %: four times
    # that. A random scan looks at nothing, and only the last of four digits may differ.
    for name, value, part in (("ssim", SSIM, 4e-3), ("resolution", RESOLUTION, 8e-3)):
        assert row[name] == pytest.approx(value[0], rel=part)
        assert row[f"{name}_random"] == pytest.approx(value[1], abs=1.5e-4)
    # Per cent of scores that are known to those parts.
    assert row["q_ssim"] == pytest.approx(100 * (SSIM[0] / SSIM[1] - 1), abs=100 * 4e-3 * SSIM[0] / SSIM[1] + 0.1)
    assert row["q_res"] == pytest.approx(100 * (1 - RESOLUTION[0] / RESOLUTION[1]), abs=100 * 8e-3 * RESOLUTION[0] / RESOLUTION[1] + 0.1)


def told() -> list[list[str]]:
    """The words of every command in paper/README.md, in console blocks and in tables."""
    text = (PAPER / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^\$ adaptycho (.*)$", text, re.MULTILINE) + re.findall(r"`adaptycho ([^`]+ [^`]+)`", text)
    return [shlex.split(line, comments=True) for line in lines]


def test_every_command_of_the_page_parses() -> None:
    """Every option is known and has a value of its kind, and every file of settings is there and loads."""
    files = set()
    for words in told():
        command, rest = commands, words
        while isinstance(command, click.Group):
            assert rest[0] in command.commands, f"adaptycho {shlex.join(words)}"
            command, rest = command.commands[rest[0]], rest[1:]
        parent = commands.make_context("adaptycho", ["settings"])  # where commands learn that -h is help, which they remember
        given = command.make_context("adaptycho", [w.replace("paper/", f"{PAPER}/") for w in rest], parent=parent).params
        if given.get("settings_file"):
            files.add(given["settings_file"].name)
            collect(given, recipe=given.get("recipe"))
    assert files == {path.name for path in PAPER.glob("*.toml")}


@pytest.mark.parametrize("path", sorted(PAPER.glob("*.toml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("preset", settings.PRESETS)
def test_every_file_of_settings_loads(path: Path, preset: str) -> None:
    chosen = settings.load(path, settings.preset(preset))
    if path.stem.startswith("table1"):
        assert path.stem == f"table1-{chosen.scan.positions}x{chosen.scan.subsequences}"
        assert chosen.evaluate.specimens == 25
    assert {name: getattr(chosen.reconstruct, name) for name in settings.PAPER} == settings.PAPER
    assert chosen.scan.dose == 2.14e5


def test_there_are_settings_for_every_row_and_figure() -> None:
    wanted = {f"table1-{row.name}" for row in ROWS} | {f"fig{number}" for number in (3, 4, 6, 7, 8)}
    assert {path.stem for path in PAPER.glob("*.toml")} == wanted


def test_the_third_figure_is_that_of_the_recipes() -> None:
    light = settings.preset("light")
    found = settings.load(PAPER / "fig3.toml", light)
    assert found == settings.recipe("voronoi", light)
    assert settings.override(found, {"train.credit": "shared"}) == settings.recipe("shared", light)
