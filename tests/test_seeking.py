"""Whether a probe is refined where nobody says so: if it is wrong, and not if it is right, however few electrons there are."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import adaptycho as ad
from adaptycho import formats
from adaptycho.app.cli import main
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.seeking import MOST, REFINED, SOUGHT, _middle, seek
from adaptycho.types import Measurement
from test_priors import scanned, specimen


@pytest.mark.parametrize("dose", [300.0, 1000.0, 2e5])
@pytest.mark.parametrize("family", ["crystal", "island"])
def test_a_right_probe_is_left_alone(family, dose):
    found = specimen(family, 7300)
    assert seek(Reconstructor.best(found.setup, refine="auto"), scanned(found, dose)).refine == ()


@pytest.mark.parametrize(("dose", "share"), [(1e4, 0.7), (2e5, 0.9)])
def test_a_wrong_probe_is_refined(dose, share):
    found = specimen("crystal", 7301)
    seen = scanned(found, dose, positions=144)
    wrong = replace(seen, defocus=share * seen.defocus)
    assert seek(Reconstructor.best(found.setup, refine="auto", method="conjugate"), wrong).method == "momentum"
    chosen = seek(Reconstructor.best(found.setup, refine="auto", prior="auto"), wrong)
    assert chosen.refine == SOUGHT
    assert chosen.iterations == REFINED
    assert chosen.prior == "none"
    result = Reconstructor.best(found.setup, refine="auto")(wrong)
    assert result.loss.shape[1] == REFINED
    assert torch.equal(result.potential, chosen(wrong).potential)


def test_where_counts_are_not_electrons_positions_tell():
    found = specimen("crystal", 7302)
    seen = scanned(found, 1e4, positions=144)
    counts = replace(seen, patterns=3.3 * seen.patterns, dose=3.3 * seen.dose)
    how = Reconstructor.best(found.setup, refine="auto", counts_per_electron=3.3)
    assert seek(how, counts).refine == ()
    assert seek(how, replace(counts, defocus=0.5 * counts.defocus)).refine == SOUGHT
    assert seek(how, counts.take(torch.arange(4))).refine == ()


def test_the_middle_of_a_long_recording_is_looked_at():
    found = ad.read(ad.example()).measurement
    some = _middle(found)
    assert some.positions.shape[1] == MOST
    assert float((some.positions - 0.5).square().sum(-1).max()) < float((found.positions - 0.5).square().sum(-1).max())


def test_the_command_refines_by_itself_and_not_if_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--preset", "light", "--geometry.field", "[8.0, 8.0]", "--geometry.object", "auto", "--positions", "100", "--dose", "20000"]
    right, wrong = tmp_path / "right.h5", tmp_path / "wrong.h5"
    assert main(["simulate", str(right), *words, "--beam.defocus", "60"]) == 0
    found = ad.read(right)
    recorded = replace(found.measurement, defocus=0.5 * found.measurement.defocus)
    formats.write(wrong, replace(found, measurement=recorded, setup=found.setup.with_defocus(30.0)))
    capsys.readouterr()

    def run(out: str, source: Path, *more: str) -> str:
        assert main(["reconstruct", str(source), str(tmp_path / out), *more]) == 0
        return capsys.readouterr().out

    assert "refined" not in run("a.h5", right)
    assert "refined" in run("b.h5", wrong)
    assert "refined" not in run("c.h5", wrong, "--refine", "none")
    assert "refined" not in run("d.h5", wrong, "--protocol", "paper")


def test_a_right_probe_is_left_alone_whatever_the_steps_are():
    """Those of the settings may be too short for the loss to be judged by: as the paper's five are."""
    found = specimen("crystal", 7303)
    assert seek(Reconstructor(found.setup, refine="auto"), scanned(found, 2e4)).refine == ()


def test_data_sets_of_different_lengths_are_each_looked_at_in_the_middle():
    found = ad.read(ad.example()).measurement
    some = _middle(Measurement.stack([found, found.take(torch.arange(200)), found.take(torch.arange(found.positions.shape[1]).flip(0))]))
    assert some.lengths.tolist() == [MOST, 200, MOST]
    assert float((some.positions[2] - 0.5).abs().max()) == float((some.positions[0] - 0.5).abs().max()) < 0.3


def test_two_modes_are_refined_if_any():
    found = specimen("crystal", 7301)
    seen = scanned(found, 2e5, positions=144)
    assert seek(Reconstructor.best(found.setup, refine="auto", modes=2), seen).modes == 1
    assert seek(Reconstructor.best(found.setup, refine="auto", modes=2), replace(seen, defocus=0.7 * seen.defocus)).modes == 2
