"""How uncertain a phase is: as far from the truth as it says, and as uncertain as can be where nobody looked."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from adaptycho.app.cli import main
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.uncertainty import uncertainty
from adaptycho.types import Measurement
from test_priors import scanned, specimen


@pytest.mark.parametrize("dose", [300.0, 3000.0])
@pytest.mark.parametrize("family", ["crystal", "amorphous"])
def test_it_says_how_far_from_the_truth_a_phase_is(family: str, dose: float) -> None:
    found = specimen(family, 7410)
    seen = scanned(found, dose, positions=100)
    how = Reconstructor.best(found.setup, loss="poisson", prior="atoms", strength=0.4, blob=0.25)
    error = found.setup.crop(uncertainty(how, seen))[0]
    off = found.setup.crop(how(seen).phase)[0] - found.truth[0]
    away = (off - off.mean()).abs() / error
    # 0.93 to 0.99 within two of it and an rms of 0.7 to 1.1 as measured on twelve other specimens.
    assert float((away < 2).float().mean()) > 0.9
    assert 0.5 < float(away.square().mean().sqrt()) < 1.3


def test_more_electrons_know_more() -> None:
    found = specimen("crystal", 7411)
    how = Reconstructor.best(found.setup, loss="poisson", prior="atoms", strength=0.4, blob=0.25)
    errors = [float(found.setup.crop(uncertainty(how, scanned(found, dose, positions=100))).mean()) for dose in (300.0, 3000.0, 3e4)]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


def test_where_nobody_looked_nothing_is_known() -> None:
    found = specimen("crystal", 7412)
    whole = scanned(found, 3000.0, positions=144)
    half = whole.take((whole.positions[0, :, 1] < 0.5).nonzero()[:, 0])
    how = Reconstructor.best(found.setup, loss="poisson", prior="atoms", strength=0.4, blob=0.25)
    both = Measurement.stack([whole, half])
    error, phase = (found.setup.crop(x) for x in (uncertainty(how, both), how(both).phase))
    assert torch.equal(error[0], found.setup.crop(uncertainty(how, whole))[0])  # data sets do not know of each other
    columns = phase.shape[-1]
    left, right = error[:, :, : columns // 3], error[:, :, -columns // 4 :]
    # As uncertain as phases vary elsewhere, though the phase itself is a smooth zero there.
    assert float(right[1].median()) == pytest.approx(float(phase[0].std()), rel=0.3)
    assert float(phase[1, :, -columns // 4 :].std()) < 0.3 * float(phase[0].std())
    assert float(right[1].median()) > 2 * float(left[1].median())
    assert float(left[1].median()) == pytest.approx(float(left[0].median()), rel=0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior": "none"}, "expected a prior and nothing else that is sought, got none"),
        ({"refine": ("probe",)}, "expected a prior and nothing else that is sought, got more than one slice and a known probe"),
        ({"counts_per_electron": 2.0}, "expected patterns of counted electrons, one count of each, got others"),
    ],
)
def test_what_nobody_can_say_is_refused(changes: dict[str, object], message: str) -> None:
    found = specimen("crystal", 7413)
    how = Reconstructor.best(found.setup, **({"loss": "poisson", "prior": "atoms"} | changes))
    with pytest.raises(ValueError, match=f"uncertainty: {message}"):
        uncertainty(how, scanned(found, 300.0))


def test_the_command_writes_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--preset", "light", "--geometry.field", "[8.0, 8.0]", "--geometry.object", "auto", "--positions", "64", "--dose", "1000"]
    assert main(["simulate", str(tmp_path / "a.h5"), *words, "--beam.defocus", "60"]) == 0

    def run(out: str, *more: str) -> int:
        options: Sequence[str] = ["--reconstruct.iterations", "6", "--refine", "none", *more]
        return main(["reconstruct", str(tmp_path / "a.h5"), str(tmp_path / out), *options])

    prior = ["--reconstruct.prior", "atoms", "--reconstruct.loss", "poisson"]
    assert run("plain.h5", *prior) == 0
    assert run("b.h5", *prior, "--uncertainty") == 0
    with h5py.File(tmp_path / "b.h5") as file:
        error, phase = file["uncertainty_in_field"][()], file["phase_in_field"][()]
        assert error.shape == phase.shape
        assert (error > 0).all()
        assert np.isfinite(error).all()
    widths = [imread(tmp_path / name).shape[1] for name in ("plain.png", "b.png")]
    assert widths[1] > 1.6 * widths[0]  # both side by side
    capsys.readouterr()
    assert run("c.h5", "--uncertainty") == 2
    assert capsys.readouterr().err == "adaptycho: uncertainty: expected a prior and nothing else that is sought, got none\n"
    assert not (tmp_path / "c.h5").exists()
