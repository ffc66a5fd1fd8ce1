"""Training sets from several dense recordings, of any format."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adaptycho as ad
from adaptycho import formats
from adaptycho.formats.recording import Recording
from adaptycho.learn import checks, recordings
from adaptycho.learn import pool as pools
from adaptycho.learn.share import share
from adaptycho.runs import checksums
from adaptycho.settings import Settings, dump, preset, update

SIDE = 34


@pytest.fixture(scope="module")
def example() -> Recording:
    """A corner of the shipped recording, 34 x 34 positions."""
    whole = ad.read(ad.example())
    step = 1 / 63
    return formats.cut(whole, rows=(0.0, (SIDE - 0.9) * step), columns=(0.0, (SIDE - 0.9) * step))


def settings(folder: Path | None, **practice: Any) -> Settings:
    practice = {"window": [8, 8], "recordings": folder and str(folder), **practice}
    return update(preset("light"), {"scan": {"microscope": "recorded"}, "geometry": {"object": "auto"}, "practice": practice}, "test")


@pytest.fixture
def folder(example: Recording, tmp_path: Path) -> Path:
    """Two recordings that differ in their patterns, one as CXI, and what lies beside such files."""
    found = tmp_path / "recordings"
    found.mkdir()
    formats.write(found / "b.h5", example)
    flipped = dataclasses.replace(example.measurement, patterns=example.measurement.patterns.flip(2))
    formats.write(found / "a.h5", dataclasses.replace(example, measurement=flipped))
    (found / "notes.txt").write_text("monday")
    (found / ".hidden").write_text("")
    return found


def fingerprint(pattern: torch.Tensor) -> bytes:
    return pattern.float().numpy().tobytes()


def test_windows_come_from_all_of_them(folder: Path) -> None:
    chosen = settings(folder)
    assert [Path(str(file)).name for file in recordings.files(chosen)] == ["a.h5", "b.h5"]
    found = pools.pool(chosen, "train", 20)
    pictures = [{fingerprint(p) for p in ad.read(folder / name).measurement.patterns[0]} for name in ("a.h5", "b.h5")]
    firsts = [fingerprint(one.microscope.measurement.patterns[0, 0]) for one in found]
    counts = [sum(first in some for first in firsts) for some in pictures]
    assert sum(counts) == 20
    # Of 20 fair draws fewer than 3 of a kind come up twice in ten thousand times.
    assert min(counts) >= 3
    again = pools.pool(chosen, "train", 20)
    assert all(torch.equal(a.microscope.measurement.patterns, b.microscope.measurement.patterns) for a, b in zip(found, again, strict=True))


def test_of_one_recording_windows_are_those_that_they_were(example: Recording, tmp_path: Path) -> None:
    """In a folder of its own or named: the same draws."""
    (tmp_path / "one").mkdir()
    formats.write(tmp_path / "one" / "a.h5", example)
    named = update(settings(None), {"scan": {"file": str(tmp_path / "one" / "a.h5")}}, "test")
    a, b = (pools.pool(some, "train", 5) for some in (settings(tmp_path / "one"), named))
    assert all(torch.equal(x.microscope.measurement.patterns, y.microscope.measurement.patterns) for x, y in zip(a, b, strict=True))


def test_validation_shares_no_pattern_with_training(folder: Path) -> None:
    chosen = settings(folder, held_out=0.4)
    seen = {part: pools.pool(chosen, part, 12) for part in ("train", "validation")}
    hashed = {
        part: {fingerprint(p) for s in some for m in (s.microscope.measurement, s.held_out) for p in m.patterns[0]}
        for part, some in seen.items()
    }
    assert not hashed["train"] & hashed["validation"]


def test_fewer_electrons_are_kept(folder: Path) -> None:
    full, few = (pools.pool(settings(folder, kept=kept), "train", 6) for kept in ([1.0, 1.0], [0.1, 0.3]))
    shares = []
    for a, b in zip(full, few, strict=True):
        whole, part = a.microscope.measurement, b.microscope.measurement
        assert (part.patterns <= whole.patterns + a.counts_per_electron).all()  # counts that are no whole electrons were rounded
        share_ = float(part.dose[0, 0] / whole.dose[0, 0])
        kept = float(part.patterns.sum() / whole.patterns.sum())
        electrons = float(whole.patterns.sum()) / a.counts_per_electron
        assert kept == pytest.approx(share_, abs=5 * (share_ / electrons) ** 0.5)  # five deviations of a binomial
        shares.append(share_)
        assert torch.equal(a.held_out.patterns, b.held_out.patterns)  # what scores refer to keeps all of them
    assert 0.1 <= min(shares) < max(shares) <= 0.3


def test_a_batch_has_the_probe_of_each_recording(example: Recording, folder: Path) -> None:
    probe = example.setup.measured_probe
    assert probe is not None
    turned = dataclasses.replace(example, setup=dataclasses.replace(example.setup, measured_probe=probe * np.exp(0.3j)))
    formats.write(folder / "c.h5", turned)
    found = share(settings(folder, pool=12, positions=[12]), 0, 0, 8, pools.pool(settings(folder), "train", 12))
    lit = found.batch.setup.measured_probe
    assert lit is not None
    assert lit.shape == (8, *example.setup.window.shape)
    each = [torch.allclose(one, probe.to(one)) for one in lit]
    assert 0 < sum(each) < 8
    assert found.reconstructor(found.batch.microscope.acquire(ad.Action(torch.rand(8, 9, 2)))).phase.isfinite().all()


def spot(recording: Recording) -> torch.Tensor:
    mask = torch.ones(recording.setup.detector, dtype=torch.bool)
    mask[3, 5] = False
    return mask


WRONG: dict[str, tuple[Callable[[Recording], Recording], str]] = {
    "beam": (
        lambda r: dataclasses.replace(r, setup=dataclasses.replace(r.setup, semiangle=1.1 * r.setup.semiangle)),
        r"z\.h5: wavelength in Å, semi-angle in mrad: expected .* as in .*a\.h5, found",
    ),
    "astigmatism": (
        lambda r: dataclasses.replace(r, setup=dataclasses.replace(r.setup, aberrations=dataclasses.replace(r.setup.aberrations, C12=5e3))),
        r"z\.h5: aberrations: expected -1.3e\+05, 0, .* as in .*a\.h5, found -1.3e\+05, 5000",
    ),
    "no measured probe": (
        lambda r: dataclasses.replace(r, setup=dataclasses.replace(r.setup, measured_probe=None)),
        r"z\.h5: measured probes: expected 1 as in .*a\.h5, found 0",
    ),
    "mask": (
        lambda r: dataclasses.replace(r, setup=dataclasses.replace(r.setup, mask=spot(r))),
        r"z\.h5: mask: expected the 0 pixels to leave out of .*a\.h5, found 1, or others",
    ),
    "rotation": (
        lambda r: dataclasses.replace(r, setup=dataclasses.replace(r.setup, rotation=90.0)),
        r"z\.h5: rotation in degrees: expected 122\.5 as in .*a\.h5, found 90",
    ),
    "counts": (lambda r: dataclasses.replace(r, counts_per_electron=7.0), r"z\.h5: counts of an electron: expected 5 as in .*, found 7"),
}


@pytest.mark.parametrize("name", WRONG)
def test_recordings_that_were_not_taken_alike_are_refused(name: str, example: Recording, folder: Path) -> None:
    change, message = WRONG[name]
    formats.write(folder / "z.h5", change(example))
    with pytest.raises(ValueError, match=message):
        pools.pool(settings(folder), "train", 2)


def test_what_is_no_training_set_is_refused(tmp_path: Path, example: Recording) -> None:
    with pytest.raises(ValueError, match=r"practice\.recordings: expected a folder of recordings, found none"):
        recordings.files(settings(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"practice\.recordings: expected a folder of recordings, found a file"):
        recordings.files(settings(tmp_path / "file"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"practice\.recordings: expected recordings in .*, found none"):
        recordings.files(settings(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"kept: expected a smaller and a larger part, found 0\.5 and 0\.2"):
        settings(None, kept=[0.5, 0.2])


def test_a_training_knows_its_folder_again(folder: Path, tmp_path: Path) -> None:
    chosen = checksums.located(settings(folder))
    (tmp_path / "settings.toml").write_text(dump(chosen), encoding="utf-8")
    began = checksums.facts(tmp_path / "settings.toml", chosen)
    assert began["recordings"]["file"] == "recordings"
    (folder / ".hidden").write_text("still")
    assert checksums.facts(tmp_path / "settings.toml", chosen) == began
    (folder / "b.h5").unlink()
    assert checksums.facts(tmp_path / "settings.toml", chosen) != began


def test_a_small_difference_of_rotation_is_none(example: Recording, folder: Path) -> None:
    formats.write(folder / "z.h5", dataclasses.replace(example, setup=dataclasses.replace(example.setup, rotation=122.7 - 360)))
    assert len(recordings.rasters(settings(folder), "train")) == 3


def test_settings_of_recordings_go_with_recordings_alone(folder: Path) -> None:
    for practice, scan, message in (
        ({"recordings": str(folder)}, {}, r"practice\.recordings: expected scan\.microscope = recorded with it, found .* simulated"),
        ({"kept": [0.1, 0.2]}, {}, r"practice\.kept: expected scan\.microscope = recorded with it, found \[0\.1, 0\.2\] and simulated"),
        (
            {"recordings": str(folder)},
            {"microscope": "recorded", "file": str(folder / "a.h5")},
            r"scan\.file: expected none beside practice\.recordings, which are scanned, found .*a\.h5",
        ),
    ):
        chosen = update(preset("light"), {"practice": practice, "scan": scan}, "test")
        with pytest.raises(ValueError, match=message):
            checks.check(chosen, ("autoencoder",))
