"""The patterns of a run, taken up as a recording."""

import json
import shutil
from pathlib import Path

import h5py
import pytest
import torch

from adaptycho import formats
from adaptycho.app.cli import main
from adaptycho.runs import patterns
from adaptycho.runs.scans import Run, read_states

WORDS = ["--preset", "light", "--geometry.field", "[6.0, 7.0]", "--geometry.object", "auto", "--positions", "21", "--subsequences", "3"]
WORDS += ["--reconstruct.reference_side", "3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "one"
    assert main(["scan", str(path), *WORDS, "--policy", "heuristic", "--dose", "3000", "--scan.defocus", "60"]) == 0
    return path


def test_all_that_was_recorded_is_there(run: Path) -> None:
    found = patterns.read(run)
    states = read_states(Run.open(run))
    assert found.measurement.positions.shape == (1, 21, 2)
    assert torch.equal(found.measurement.patterns, torch.cat([state["measurement"].patterns for state in states], 1))
    assert set(found.measurement.defocus[0].tolist()) == {60.0}
    assert found.setup.field == (6.0, 7.0)
    assert found.title == "heuristic scan one"


def test_commands_take_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prior = ["--reconstruct.prior", "atoms", "--reconstruct.loss", "poisson", "--refine", "none", "--reconstruct.iterations", "4"]
    assert main(["reconstruct", str(run), str(tmp_path / "phase.h5"), *prior, "--uncertainty"]) == 0
    with h5py.File(tmp_path / "phase.h5") as file:
        assert file["uncertainty_in_field"].shape == file["phase_in_field"].shape
    assert main(["import", str(run), str(tmp_path / "one.h5")]) == 0
    assert main(["export", str(run), str(tmp_path / "one.cxi")]) == 0
    capsys.readouterr()
    assert main(["inspect", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["patterns"] == 21
    back = formats.read(tmp_path / "one.h5")
    assert torch.equal(back.measurement.patterns.float(), patterns.read(run).measurement.patterns.float())
    torch.testing.assert_close(back.measurement.defocus, patterns.read(run).measurement.defocus)
    assert main(["inspect", str(run), "--energy", "80"]) == 2
    assert (
        "--energy: expected to be left out, since these facts come from the file, which is in the format adaptycho run"
        in capsys.readouterr().err
    )


def test_what_is_no_recording_of_one_specimen_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = tmp_path / "several"
    assert main(["scan", str(several), *WORDS, "--policy", "raster", "--specimen.count", "2", "--reconstruct.iterations", "1"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(several)]) == 2
    assert "several: expected the run of one specimen, found 2 (specimen.count)" in capsys.readouterr().err


def test_what_is_not_of_the_run_is_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert main(["scan", str(other), *WORDS, "--policy", "heuristic", "--dose", "3000", "--seed", "5"]) == 0

    def copied(name: str) -> Path:
        shutil.copytree(run, tmp_path / name)
        return tmp_path / name / "subsequences"

    foreign, twice, gap, empty = (copied(name) for name in ("foreign", "twice", "gap", "empty"))
    shutil.copy(other / "subsequences" / "001.h5", foreign / "001.h5")
    shutil.copy(twice / "000.h5", twice / "001.h5")
    (gap / "001.h5").unlink()
    for file in empty.iterdir():
        file.unlink()
    for folder, said in (
        (foreign, r"001\.h5: run: expected \w+, found \w+: a sub-sequence from elsewhere"),
        (twice, r"001\.h5: number: expected 1, found 0: a sub-sequence from elsewhere"),
        (gap, r"subsequences: expected 000\.h5 and so on without a gap, found 000\.h5, 002\.h5"),
        (empty, r"subsequences: expected at least one, found that nothing was recorded yet"),
    ):
        with pytest.raises(ValueError, match=said):
            patterns.read(str(folder.parent))


def test_an_unfinished_run_has_what_it_has(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "part")
    for file in ("subsequences/002.h5", "states/002.h5", "result.h5"):
        (tmp_path / "part" / file).unlink()
    found = patterns.read(tmp_path / "part")
    assert torch.equal(found.measurement.patterns, patterns.read(run).measurement.patterns[:, :14])


def test_options_that_would_go_unheard_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--specimen", "1"], ["--which", "requested"]):
        assert main(["export", str(run), str(tmp_path / "a.cxi"), *words]) == 2
        assert "expected neither --specimen nor --which for the patterns of a run" in capsys.readouterr().err
