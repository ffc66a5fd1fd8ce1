"""The command line: commands join to a chain, say one JSON object with --json, and nothing else when piped."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from adaptycho import formats, settings
from adaptycho.app import cli
from adaptycho.app.cli import program
from adaptycho.app.options import PROTOCOLS
from adaptycho.runs import scans, summary
from adaptycho.settings import ADAPTIVE, BEST, build, dump, load, preset, update
from adaptycho.types import Measurement

FIELD = ["--geometry.field", "[8.0, 6.0]", "--geometry.object", "auto"]
SMALL = [*FIELD, "--positions", "18", "--subsequences", "3", "--reconstruct.iterations", "2", "--reconstruct.reference_side", "6"]
COMMANDS = [
    "demo",
    "simulate",
    "import",
    "export",
    "inspect",
    "reconstruct",
    "scan",
    "resume",
    "report",
    "monitor",
    "settings",
    "evaluate",
    "figures",
    "train",
    "advise",
]


@pytest.fixture(autouse=True)
def threads_stay() -> None:
    """Commands set the number of threads of the whole process."""
    torch.set_num_threads(1)


def adaptycho(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    """The one object that a command prints, and nothing on stderr."""
    code, out, err = adaptycho(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded raster of 12 x 12 positions."""
    path = tmp_path_factory.mktemp("recordings") / "raster.h5"
    options = [*FIELD, "--positions", "144", "--workers", "1"]
    CliRunner().invoke(program.commands, ["simulate", str(path), *options], catch_exceptions=False)
    return path


@pytest.mark.parametrize("command", [*COMMANDS, "bench"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str, flag: str) -> None:
    code, out, err = adaptycho(capsys, command, flag)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: adaptycho {command} ")
    assert set(program.commands.commands) == {*COMMANDS, "bench"}


def test_without_arguments_it_explains_itself(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["adaptycho"])
    assert cli.main() == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "adaptycho demo" in said.out
    for command in COMMANDS:
        assert f"\n  {command} " in said.out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = adaptycho(capsys, "--version")
    assert code == 0
    assert out.startswith("adaptycho, version ")


def test_simulate_inspect_reconstruct_scan_report(capsys: pytest.CaptureFixture[str], tmp_path: Path, raster: Path) -> None:
    found = as_json(capsys, "inspect", raster)
    assert (found["patterns"], found["field_A"], found["energy_keV"]) == (144, [8.0, 6.0], 60.0)

    out = tmp_path / "potential.h5"
    found = as_json(capsys, "reconstruct", raster, out, "--reconstruct.iterations", "4", "--threads", "1")
    assert found["file"] == str(out)
    assert len(found["loss"]) == 4
    assert found["loss"][-1] < 0.5 * found["loss"][0]
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    with h5py.File(out) as file:
        recording = formats.read(raster)
        descent = build.reconstructor(update(preset("light"), {"reconstruct": BEST | {"iterations": 4}}, "test"), recording.setup)
        assert np.array_equal(file["potential"][...], descent(recording.measurement).potential.numpy())

    run = tmp_path / "run"
    options = ["--microscope", "recorded", "--file", raster, "--positions", "30", "--subsequences", "3", "--threads", "1"]
    found = as_json(capsys, "scan", run, *options)
    assert (found["run"], found["positions"], found["subsequences"], found["policy"]) == (str(run), 30, 3, "heuristic")
    assert found["scores"].keys() == {"ssim", "ssim_aligned", "correlation"}
    # 30 of 144 positions, but the very same patterns.
    assert found["scores"]["correlation"] > 0.3
    assert found["report"] == str(run / "report.html")

    page = Path(found["report"]).read_text(encoding="utf-8")
    (run / "report.html").unlink()
    assert as_json(capsys, "report", run) == {"report": str(run / "report.html")}
    assert (run / "report.html").read_text(encoding="utf-8") == page
    assert "3 of 3 sub-sequences" in page


def test_text_says_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path, raster: Path) -> None:
    code, out, err = adaptycho(capsys, "inspect", raster)
    assert (code, err) == (0, "")
    assert "144" in out
    code, out, err = adaptycho(capsys, "scan", tmp_path / "run", *SMALL, "--threads", "1")
    assert (code, err) == (0, "")
    assert out.startswith("18 positions in 3 sub-sequences: ")
    assert "ssim 0." in out
    assert out.endswith(f"wrote {tmp_path / 'run'}; pictures in {tmp_path / 'run' / 'report.html'}\n")
    code, out, err = adaptycho(capsys, "report", tmp_path / "run")
    assert (code, out, err) == (0, f"wrote {tmp_path / 'run' / 'report.html'}\n", "")
    code, out, err = adaptycho(capsys, "reconstruct", raster, tmp_path / "p.h5", "--reconstruct.iterations", "2", "--threads", "1")
    assert (code, err) == (0, "")
    assert out.endswith(f"wrote {tmp_path / 'p.h5'} and {tmp_path / 'p.png'}\n")


def test_simulate_writes_one_file_for_each_specimen(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = [*FIELD, "--positions", "30", "--policy", "random", "--specimen.count", "2", "--seed", "4", "--workers", "1"]
    found = as_json(capsys, "simulate", tmp_path / "s.h5", *options)
    assert found == {"files": [str(tmp_path / "s-000.h5"), str(tmp_path / "s-001.h5")]}
    first, second = (formats.read(path) for path in found["files"])
    assert first.measurement.positions.shape == (1, 30, 2)
    assert not torch.equal(first.measurement.positions, second.measurement.positions)
    assert first.source == "adaptycho simulate, specimen 0, settings in s.toml"
    assert load(tmp_path / "s.toml").scan.seed == 4


def test_an_explicit_protocol_goes_before_the_file_and_a_field_before_both(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[reconstruct]\niterations = 7\nloss = "poisson"\n', encoding="utf-8")
    bare = {"preset": "light", "settings_file": file} | dict.fromkeys(OPTIONS)
    assert program.collect(bare, PROTOCOLS["best"]).reconstruct.loss == "poisson"
    assert program.collect(bare, {}, "best").reconstruct.loss == "amplitude"
    assert program.collect(bare, PROTOCOLS["best"], "paper").reconstruct.step == 525.0
    field = bare | {"reconstruct__iterations": "9"}
    assert program.collect(field, {}, "paper").reconstruct.iterations == 9


def test_what_a_recording_has_already_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for option in ("--dose", "--geometry.window", "--specimen.count"):
        code, out, err = adaptycho(capsys, "scan", tmp_path / "run", "--microscope", "recorded", option, "4")
        assert (code, out) == (2, "")
        assert "expected none with a recording" in err
        assert not (tmp_path / "run").exists()


def test_simulate_gives_the_full_scan_by_default() -> None:
    chosen = program.collect({"preset": "light", "settings_file": None} | dict.fromkeys(OPTIONS), program.FULL_SCAN)
    assert (chosen.scan.policy, chosen.scan.positions, chosen.scan.subsequences) == ("raster", 10_000, 1)


OPTIONS = [parameter.name or "" for parameter in program.commands.commands["simulate"].params if "__" in (parameter.name or "")]


def test_every_setting_is_an_option_of_every_command_that_uses_settings() -> None:
    wanted = {f"--{name}" for name, _, _ in settings.fields(preset("light"))}
    for command in ("simulate", "reconstruct", "scan", "settings"):
        assert wanted <= {name for parameter in program.commands.commands[command].params for name in parameter.opts}


def test_settings_are_preset_then_file_then_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("[scan]\npositions = 60\nseed = 5\ndose = 100.0\n")
    arguments = ["settings", "--preset", "paper", "--settings", file, "--seed", "6", "--dose", "200", "--scan.dose", "300"]
    code, out, err = adaptycho(capsys, *arguments)
    assert (code, err) == (0, "")
    (tmp_path / "again.toml").write_text(out, encoding="utf-8")
    chosen = load(tmp_path / "again.toml")
    assert chosen == update(preset("paper"), {"scan": {"positions": 60, "seed": 6, "dose": 300.0}}, "test")


def test_a_recorded_scan_reconstructs_best_and_a_simulated_one_as_the_paper(
    tmp_path: Path, raster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "_finish", lambda *run: None)
    recorded = ["--microscope", "recorded", "--file", str(raster), "--positions", "12", "--subsequences", "2"]
    for options, best in (
        (SMALL, False),
        (recorded, True),
        ([*SMALL, "--protocol", "best"], True),
        ([*recorded, "--protocol", "paper"], False),
    ):
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        result = CliRunner().invoke(program.commands, ["scan", str(folder), *options, "--reconstruct.iterations", "1", "--threads", "1"])
        assert result.exit_code == 0, result.output
        chosen = load(folder / "settings.toml").reconstruct
        assert chosen.iterations == 1
        assert {n: getattr(chosen, n) for n in BEST if n != "iterations"} == {
            n: BEST[n] if best else getattr(preset("light").reconstruct, n) for n in BEST if n != "iterations"
        }


@pytest.mark.parametrize("kind", ["grid", "list"])
def test_import_from_numpy(capsys: pytest.CaptureFixture[str], tmp_path: Path, raster: Path, kind: str) -> None:
    recording = formats.read(raster)
    patterns = torch.fft.fftshift(recording.measurement.patterns[0], (-2, -1)).numpy()
    where = recording.measurement.positions[0].numpy() * np.array(recording.setup.field)
    out = tmp_path / "imported.h5"
    options = [
        "--energy",
        "60",
        "--semiangle",
        "33",
        "--detector-pixel",
        recording.setup.detector_pixel,
        "--title",
        "again",
        "--dose",
        "2.14e5",
    ]
    if kind == "list":
        np.save(tmp_path / "p.npy", patterns)
        np.savetxt(tmp_path / "where.csv", where, delimiter=",", header="y,x", comments="")
        options += ["--positions", tmp_path / "where.csv"]
    else:
        # A step along both axes alike: what is checked here is the scan's shape, not the raster's own step.
        np.save(tmp_path / "p.npy", patterns.reshape(12, 12, *patterns.shape[1:]))
        options += ["--scan-step", "0.5", "--defocus", "15", "--rotation", "3"]
    found = as_json(capsys, "import", tmp_path / "p.npy", out, *options)
    assert found == {"file": str(out), "patterns": 144}
    imported = formats.read(out)
    assert imported.title == "again"
    assert torch.equal(imported.measurement.patterns, recording.measurement.patterns)
    assert (imported.setup.energy, imported.setup.semiangle) == (60e3, 33.0)
    if kind == "list":
        moved = torch.from_numpy(where - where.min(0)).float()
        # Single precision of lengths up to 8 Å.
        assert torch.allclose(imported.measurement.positions[0] * torch.tensor(imported.setup.field), moved, atol=1e-5)
    else:
        assert imported.setup.field == (5.5, 5.5)
        assert (imported.setup.aberrations.defocus, imported.setup.rotation) == (15.0, 3.0)
    assert cli.main(["import", str(tmp_path / "p.npy"), str(out), *map(str, options), "--overwrite"]) == 0


def test_resume_finishes_what_was_begun(capsys: pytest.CaptureFixture[str], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    wanted = as_json(capsys, "scan", whole, *SMALL, "--threads", "1")
    shutil.copytree(whole, cut)
    for name in ("result.h5", "report.html", "subsequences/002.h5", "states/002.h5"):
        (cut / name).unlink()
    code, _, err = adaptycho(capsys, "report", cut)
    assert (code, err) == (0, "")
    assert "2 of 3 sub-sequences" in (cut / "report.html").read_text(encoding="utf-8")
    request.getfixturevalue("no_pictures")
    found = as_json(capsys, "resume", cut, "--threads", "1")
    assert found["scores"] == wanted["scores"]
    with h5py.File(whole / "result.h5") as a, h5py.File(cut / "result.h5") as b:
        for name in ("potential", "phase_in_field", "loss", "probe"):
            assert np.array_equal(a[name][...], b[name][...])


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report takes a second to draw; here it is not the point."""
    monkeypatch.setattr(summary, "run_page", lambda target: "<html></html>")


@pytest.mark.usefixtures("no_pictures")
def test_the_settings_of_a_run_make_the_same_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first = as_json(capsys, "scan", tmp_path / "a", *SMALL, "--policy", "random", "--seed", "3", "--threads", "1")
    again = as_json(capsys, "scan", tmp_path / "b", "--settings", tmp_path / "a" / "settings.toml", "--threads", "1")
    assert again["scores"] == first["scores"]
    assert scans.Run.open(tmp_path / "a").settings == scans.Run.open(tmp_path / "b").settings
    assert dump(scans.Run.open(tmp_path / "b").settings) == (tmp_path / "a" / "settings.toml").read_text(encoding="utf-8")


def test_a_reconstruction_that_diverged_is_null_in_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    found = as_json(capsys, "scan", tmp_path / "run", *SMALL, "--reconstruct.step", "1e60", "--threads", "1")
    assert found["scores"] == {"ssim": None, "ssim_aligned": None, "correlation": None}
    assert "3 of 3 sub-sequences" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    request.getfixturevalue("no_pictures")
    code, out, _ = adaptycho(capsys, "resume", tmp_path / "run", "--threads", "1")
    assert code == 0
    assert "ssim nan" in out


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("policy", [name for name in ADAPTIVE if name != "recurrent"])  # which knows one kind of scan only
def test_every_adaptive_policy_scans(policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "scan", tmp_path / "run", *SMALL, "--policy", policy, "--threads", "1")
    assert (found["policy"], found["positions"]) == (policy, 18)
    if policy in ("greedy", "adaptive", "crop", "threshold"):
        return  # rightly spreads evenly on the little that can be seen of a uniform crystal
    # It looked: what it asked for later is not what it would have asked for on another specimen.
    as_json(capsys, "scan", tmp_path / "other", *SMALL, "--policy", policy, "--seed", "1", "--threads", "1")
    requested = [scans.read_states(scans.Run.open(tmp_path / name)) for name in ("run", "other")]
    assert torch.equal(requested[0][0]["requested"], requested[1][0]["requested"])
    assert not torch.equal(requested[0][-1]["requested"], requested[1][-1]["requested"])


def test_without_a_terminal_nothing_but_the_answer_is_printed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "adaptycho.app.cli", "simulate", str(tmp_path / "s.h5"), *FIELD, "--positions", "9", "--json"]
    done = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout == json.dumps({"files": [str(tmp_path / "s.h5")]}) + "\n"


@pytest.mark.usefixtures("no_pictures")
def test_the_microscope_of_a_replay_gives_the_recorded_counts(raster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--microscope", "recorded", "--file", raster, "--positions", "12", "--subsequences", "2", "--threads", "1"]
    as_json(capsys, "scan", tmp_path / "run", *options)
    recorded = formats.read(raster).measurement
    for state in scans.read_states(scans.Run.open(tmp_path / "run")):
        measurement: Measurement = state["measurement"]
        nearest = torch.cdist(measurement.positions[0], recorded.positions[0]).argmin(1)
        assert torch.equal(measurement.patterns[0], recorded.patterns[0, nearest])
