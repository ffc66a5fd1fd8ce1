"""Reconstructions that are written while they descend, and gone on from."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import adaptycho as ad
from adaptycho.app.cli import main
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.runs import results

WAYS = {
    "plain": {"iterations": 6},
    "conjugate": {"iterations": 6, "method": "conjugate"},
    "prior": {"iterations": 6, "prior": "atoms", "loss": "poisson"},
    "refined": {"iterations": 12, "refine": ("probe", "positions"), "modes": 2},
    "slices": {"iterations": 8, "refine": ("thickness",), "slices": 2, "thickness": 100.0},
    "complex": {"iterations": 4, "kind": "complex"},
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "tiny.h5"
    words = ["--geometry.field", "[6.0, 6.0]", "--geometry.object", "auto", "--positions", "36", "--dose", "20000"]
    assert main(["simulate", str(path), "--preset", "light", *words]) == 0
    return path


@pytest.mark.parametrize("way", WAYS)
def test_what_was_written_is_gone_on_from(way: str, recording: Path, tmp_path: Path) -> None:
    found = ad.read(recording)
    descent = Reconstructor.best(found.setup, **WAYS[way])
    first = descent(found.measurement)
    results.write_state(tmp_path / "state.h5", found.setup, first)
    read = results.read_state(tmp_path / "state.h5", found.setup, found.measurement.positions.shape[1])
    again, more = descent(found.measurement, read), descent(found.measurement, first)
    assert torch.equal(again.potential, more.potential)
    assert torch.equal(again.loss, more.loss)
    assert again.loss.shape[1] == 2 * first.loss.shape[1]
    if first.refined is not None:
        assert read.refined is not None
        assert torch.equal(first.refined.positions, read.refined.positions)
    if way == "slices":
        with h5py.File(tmp_path / "state.h5") as file:
            np.testing.assert_allclose(file["slices"][()].sum(1), file["potential"][()], atol=1e-6)


def test_the_command_writes_snapshots_and_goes_on(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(out: str, *words: str) -> dict[str, list[float]]:
        assert main(["reconstruct", str(recording), str(tmp_path / out), *words, "--json"]) == 0
        found: dict[str, list[float]] = json.loads(capsys.readouterr().out)
        return found

    whole = run("whole.h5", "--reconstruct.iterations", "10", "--snapshots", "4")
    assert sorted(path.name for path in tmp_path.glob("*.h5")) == ["whole-0004.h5", "whole-0008.h5", "whole.h5"]
    rest = run("rest.h5", "--start", str(tmp_path / "whole-0004.h5"), "--reconstruct.iterations", "6")
    assert rest["loss"] == whole["loss"]
    with h5py.File(tmp_path / "whole.h5") as a, h5py.File(tmp_path / "rest.h5") as b:
        assert (a["potential"][()] == b["potential"][()]).all()
    # Nothing is written over.
    assert main(["reconstruct", str(recording), str(tmp_path / "other.h5"), "--snapshots", "4"]) == 0
    (tmp_path / "third-0004.h5").write_text("mine")
    assert main(["reconstruct", str(recording), str(tmp_path / "third.h5"), "--snapshots", "4"]) == 2
    assert "third-0004.h5: expected a new file to write" in capsys.readouterr().err
    assert (tmp_path / "third-0004.h5").read_text() == "mine"
    assert not (tmp_path / "third.h5").exists()


def test_what_cannot_be_gone_on_from_is_refused(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(start: Path, *words: str) -> str:
        assert main(["reconstruct", str(recording), str(tmp_path / "out.h5"), "--start", str(start), *words]) == 2
        assert not (tmp_path / "out.h5").exists()
        return capsys.readouterr().err

    assert "expected what `adaptycho reconstruct` wrote, found no state of a descent in it" in refused(recording)
    quick = ["--refine", "none", "--reconstruct.iterations", "2"]
    assert main(["reconstruct", str(recording), str(tmp_path / "good.h5"), *quick]) == 0
    capsys.readouterr()
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes((tmp_path / "good.h5").read_bytes())
    with h5py.File(damaged, "r+") as file:
        file["potential"][0, 3, 3] += 1
    assert "potential: expected what the run wrote, found other values" in refused(damaged)
    other = tmp_path / "other.h5"
    words = ["--geometry.field", "[7.0, 6.0]", "--geometry.object", "auto", "--positions", "36"]
    assert main(["simulate", str(other), "--preset", "light", *words]) == 0
    assert main(["reconstruct", str(other), str(tmp_path / "elsewhere.h5"), *quick]) == 0
    capsys.readouterr()
    assert "potential: expected" in refused(tmp_path / "elsewhere.h5")
    assert "reconstruct.stop: expected iterations to go on from a result" in refused(tmp_path / "good.h5", "--reconstruct.stop", "held-out")
