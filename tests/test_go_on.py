"""Reconstructions that are written while they descend, and gone on from."""

import dataclasses
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import adaptycho as ad
from adaptycho.app.cli import main
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.reconstruction import Reconstruction
from adaptycho.runs import results
from adaptycho.types import Measurement

WAYS = {
    "plain": {"iterations": 6},
    "conjugate": {"iterations": 6, "method": "conjugate"},
    "prior": {"iterations": 6, "prior": "atoms", "loss": "poisson"},
    "refined": {"iterations": 12, "refine": ("probe", "positions"), "modes": 2},
    "slices": {"iterations": 8, "refine": ("thickness",), "slices": 2, "thickness": 100.0},
    "complex": {"iterations": 4, "kind": "complex"},
}
EXACT = ("plain", "conjugate", "complex")  # in two parts the same as in one, to the last bit


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
    source = results.origin(found.setup, found.measurement)
    results.write_state(tmp_path / "state.h5", found.setup, first, source)
    read = results.read_state(tmp_path / "state.h5", found.setup, found.measurement.positions.shape[1], source)
    assert read.made == first.made == descent.made
    again, more = descent(found.measurement, read), descent(found.measurement, first)
    assert torch.equal(again.potential, more.potential)
    assert torch.equal(again.loss, more.loss)
    assert again.loss.shape[1] == 2 * first.loss.shape[1]
    whole = dataclasses.replace(descent, iterations=2 * descent.iterations)(found.measurement)
    if way in EXACT:
        assert torch.equal(again.potential, whole.potential)
        assert torch.equal(again.loss, whole.loss)
    else:  # 0.8 % apart at most as measured: it forgets where it would have gone back to
        assert float(again.loss[0, -1]) == pytest.approx(float(whole.loss[0, -1]), rel=0.02)
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
    rest = run("rest.h5", "--start", str(tmp_path / "whole-0004.h5"), "--reconstruct.iterations", "6", "--snapshots", "4")
    assert [path.name for path in tmp_path.glob("rest-*.h5")] == ["rest-0008.h5"]  # by all iterations so far
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
    # Of the same shape, and of something else.
    words = ["--geometry.field", "[6.0, 6.0]", "--geometry.object", "auto", "--positions", "36", "--seed", "5"]
    assert main(["simulate", str(tmp_path / "twin.h5"), "--preset", "light", *words]) == 0
    assert main(["reconstruct", str(tmp_path / "twin.h5"), str(tmp_path / "twins.h5"), *quick]) == 0
    capsys.readouterr()
    assert "twins.h5: expected the result of the same recording, told the same of it, found that of another one" in refused(
        tmp_path / "twins.h5"
    )
    for name in ("potential", "loss", "descent/velocity", "descent/step", "descent/count", "descent/held_gradient"):
        less = tmp_path / "less.h5"
        less.write_bytes((tmp_path / "good.h5").read_bytes())
        with h5py.File(less, "r+") as file:
            del file[name]
        wanted = "no state of a descent" if name == "descent/velocity" else rf"less.h5: {name}: expected"
        assert wanted in refused(less)
    with h5py.File(less, "r+") as file:
        file.attrs["made"] = '{"loss": "guess"}'
    assert "less.h5: made: loss: expected" in refused(less)
    assert "reconstruct.stop: expected iterations to go on from a result" in refused(tmp_path / "good.h5", "--reconstruct.stop", "held-out")


@pytest.fixture(scope="module")
def measured(recording: Path) -> tuple[Reconstructor, Measurement]:
    found = ad.read(recording)
    return Reconstructor.best(found.setup, iterations=6), found.measurement


def test_what_was_refined_stays_so_without_repeating_the_words(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(out: str, *words: str) -> dict[str, dict[str, float]]:
        assert main(["reconstruct", str(recording), str(tmp_path / out), *words, "--json"]) == 0
        found: dict[str, dict[str, float]] = json.loads(capsys.readouterr().out)
        return found

    first = run("first.h5", "--refine", "probe,positions", "--modes", "2", "--reconstruct.iterations", "12")
    more = run("more.h5", "--start", str(tmp_path / "first.h5"), "--reconstruct.iterations", "12")
    assert len(more["refined"]["modes"]) == len(first["refined"]["modes"]) == 2  # type: ignore[arg-type]
    assert more["refined"]["moved_angstrom"] != first["refined"]["moved_angstrom"] > 0
    assert more["loss"][-1] < first["loss"][-1]  # type: ignore[index]
    with h5py.File(tmp_path / "more.h5") as file:
        assert json.loads(file.attrs["made"])["refine"] == ["probe", "positions"]
    start = ["reconstruct", str(recording), str(tmp_path / "no.h5"), "--start", str(tmp_path / "first.h5")]
    assert main([*start, "--refine", "none", "--modes", "1"]) == 2
    assert "start: expected nothing that was refined, as refine is empty, got probe, positions" in capsys.readouterr().err
    assert main([*start, "--modes", "1"]) == 2
    assert "start: expected at most the 1 modes of the settings, got 2" in capsys.readouterr().err
    assert run("auto.h5", *start[3:], "--refine", "auto", "--reconstruct.iterations", "2")["refined"]["modes"]


def test_slices_are_gone_on_from_by_themselves(recording: Path, tmp_path: Path) -> None:
    words = ["--refine", "none", "--reconstruct.slices", "2", "--reconstruct.thickness", "80", "--reconstruct.iterations", "4"]
    assert main(["reconstruct", str(recording), str(tmp_path / "a.h5"), *words]) == 0
    again = ["--start", str(tmp_path / "a.h5"), "--reconstruct.iterations", "2"]
    assert main(["reconstruct", str(recording), str(tmp_path / "b.h5"), *again, "--reconstruct.thickness", "80"]) == 0
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["slices"].shape[1] == 2


def test_another_loss_or_method_begins_its_own_steps(measured: tuple[Reconstructor, Measurement]) -> None:
    """Or it would take the loss of the other for its own, and go back for ever to where that stood."""
    descent, seen = measured
    first = descent(seen)
    for changes in ({"loss": "poisson"}, {"method": "conjugate"}, {"kind": "complex"}, {"prior": "atoms", "loss": "poisson"}):
        other = dataclasses.replace(descent, **changes)  # type: ignore[arg-type]
        on = other(seen, first)
        assert on.loss.shape[1] == (6 if "loss" in changes else 12)
        assert not torch.equal(on.phase, first.potential)
        assert float(on.loss[0, -1]) < float(on.loss[0, -6])
    with pytest.raises(ValueError, match="start: expected a real potential to go on from, got a complex one"):
        descent(seen, dataclasses.replace(descent, kind="complex")(seen))
    with pytest.raises(ValueError, match="start: expected 3 slices or a single one, got 2"):
        two = dataclasses.replace(descent, slices=2, iterations=2)(seen)
        dataclasses.replace(descent, slices=3)(seen, two)
    # One slice is shared out among several; what they add up to is where it was.
    several = dataclasses.replace(descent, slices=2, iterations=1)(seen, first)
    assert float(several.loss[0, -1]) == pytest.approx(float(dataclasses.replace(descent, iterations=1)(seen, first).loss[0, -1]), rel=1e-3)


def test_conjugate_gradients_of_several_data_sets_go_on(measured: tuple[Reconstructor, Measurement]) -> None:
    """Of which one, without a specimen, has nothing to descend to."""
    descent, seen = measured
    vacuum = dataclasses.replace(
        seen, patterns=(torch.fft.fft2(descent.setup.probe(), norm="ortho").abs().square() * 2e4).expand_as(seen.patterns).clone()
    )
    both = Measurement.stack([vacuum, seen])
    how = dataclasses.replace(descent, method="conjugate", iterations=3)
    first = how(both)
    on: Reconstruction = how(both, first)
    alone = how(seen, how(seen))
    assert float(on.loss[1, -1]) <= float(first.loss[1, -1])
    assert float(on.loss[1, -1]) == pytest.approx(float(alone.loss[0, -1]), rel=0.02)


@pytest.mark.parametrize("refine", [(), ("probe",)])
@pytest.mark.parametrize(("iterations", "strength"), [(3, 0.5), (8, 0.12), (20, 0.12), (12, 1.0)])
def test_a_prior_goes_on_from_what_it_thinks_impossible(
    measured: tuple[Reconstructor, Measurement], refine: tuple[str, ...], iterations: int, strength: float
) -> None:
    """Phases below zero are no atoms: whatever was possible would lie uphill from there."""
    descent, seen = measured
    first = dataclasses.replace(descent, iterations=iterations, refine=refine)(seen)  # type: ignore[arg-type]
    how = Reconstructor.best(descent.setup, loss="poisson", prior="atoms", strength=strength, iterations=40, refine=refine)
    on, fresh = how(seen, first), how(seen)
    assert float(on.loss[0, -1]) < 1.03 * float(fresh.loss[0, -1])  # 0.97 to 1.01 of it as measured


def test_counts_of_an_electron_are_another_loss(measured: tuple[Reconstructor, Measurement]) -> None:
    descent, seen = measured
    how = dataclasses.replace(descent, loss="anscombe", counts_per_electron=5.0)
    on = dataclasses.replace(how, counts_per_electron=1.0)(seen, how(seen))
    assert on.loss.shape[1] == 6
    assert float(on.loss[0, -1]) < float(on.loss[0, 0])


def test_slices_lie_where_they_are_put(measured: tuple[Reconstructor, Measurement]) -> None:
    descent, seen = measured
    one = dataclasses.replace(descent, refine=("probe",), iterations=2)(seen)
    two = dataclasses.replace(descent, refine=("probe",), iterations=2, slices=2, thickness=40.0)
    apart = two(seen, one)
    assert apart.refined is not None
    assert float(apart.refined.thickness[0]) == 40.0
    nearer = dataclasses.replace(two, thickness=10.0)(seen, apart)
    assert nearer.refined is not None
    assert float(nearer.refined.thickness[0]) == 10.0


def test_steps_are_gone_on_with_as_they_were(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the paper do not adapt."""
    first, more, whole = (str(tmp_path / name) for name in ("a.h5", "b.h5", "c.h5"))
    paper = ["reconstruct", str(recording), first, "--protocol", "paper"]
    assert main(paper) == 0
    assert main(["reconstruct", str(recording), more, "--start", first, "--reconstruct.iterations", "5"]) == 0
    assert main([*paper[:2], whole, *paper[3:], "--reconstruct.iterations", "10"]) == 0
    capsys.readouterr()
    with h5py.File(more) as a, h5py.File(whole) as b:
        assert (a["potential"][()] == b["potential"][()]).all()


def test_a_prior_of_another_strength_keeps_its_coefficients(measured: tuple[Reconstructor, Measurement]) -> None:
    """Of which the potential is made: taken for coefficients itself, it would be blurred once more."""
    descent, seen = measured
    how = Reconstructor.best(descent.setup, loss="poisson", prior="atoms", strength=0.5, iterations=12)
    first = how(seen)
    on = dataclasses.replace(how, strength=0.25, iterations=1)(seen, first)
    # The first look is where momentum leads from there, within 1 % as measured; blurred once more it is half as high again.
    assert float(on.loss[0, 12]) == pytest.approx(float(first.loss[0, -1]), rel=0.05)
