"""Recordings on disk: what is written comes back, what cannot be true is refused in one sentence."""

import os
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptycho.formats import Recording, check, read, write
from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Aberrations, Setup, object_grid
from adaptycho.types import Measurement

WINDOW = Grid((16, 16), 0.5)


def recording(n=7, dtype=torch.uint8, rotation=20.0, probe=False, seed=0, **beam) -> Recording:
    """A small recording of random counts."""
    generator = torch.Generator().manual_seed(seed)
    field = (12.0, 9.0)
    waves = torch.randn(16, 16, generator=generator, dtype=torch.complex64) if probe else None
    setup = Setup(
        field, object_grid(field, WINDOW, rotation), WINDOW, (8, 8), 20.0, binning=2, rotation=rotation, measured_probe=waves,
        aberrations=Aberrations(C10=-150.0, C12=3.0, phi12=0.4), **(beam or {"energy": 80e3}),
    )  # fmt: skip
    measurement = Measurement(
        torch.rand(1, n, 2, generator=generator),
        torch.randint(0, 200, (1, n, 8, 8), generator=generator).to(dtype),
        torch.full((1, n), 6000.0),
        torch.full((1, n), 150.0),
    )
    return Recording(setup, measurement, "random counts", "a generator", "none", 2.5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 40),
    dtype=st.sampled_from([torch.uint8, torch.uint16, torch.int32, torch.float32, torch.float64]),
    rotation=st.floats(-180, 180),
    probe=st.booleans(),
    beam=st.sampled_from([{"energy": 300e3}, {"wavelength": 1.24}]),
)
def test_property_written_recordings_come_back(tmp_path, n, dtype, rotation, probe, beam):
    made = recording(n, dtype, rotation, probe, seed=n, **beam)
    path = tmp_path / "a.h5"
    write(path, made, overwrite=True)
    back = read(path)
    assert back.path == path
    assert back.measurement.patterns.dtype == dtype and torch.equal(back.measurement.patterns, made.measurement.patterns)
    # Fractions go through Å in double precision: half a unit in the last place of a single-precision number below one, rounded once.
    assert torch.allclose(back.measurement.positions, made.measurement.positions, rtol=0, atol=2**-23)
    for key in ("dose", "defocus"):
        assert torch.equal(getattr(back.measurement, key), getattr(made.measurement, key))
    for key in ("field", "object", "window", "detector", "semiangle", "energy", "wavelength", "aberrations", "binning", "rotation"):
        assert getattr(back.setup, key) == getattr(made.setup, key), key
    assert (back.setup.measured_probe is None) == (not probe)
    if probe:
        assert torch.equal(back.setup.measured_probe, made.setup.measured_probe)
    assert (back.title, back.source, back.licence, back.counts_per_electron) == ("random counts", "a generator", "none", 2.5)


def test_independent_disk_has_zero_frequency_in_the_centre_and_positions_in_angstrom(tmp_path):
    made = recording(n=3, probe=True)
    made.measurement.patterns.zero_()[..., 0, 0] = 9
    made.setup.measured_probe.zero_()[0, 0] = 1
    made.measurement.positions[0, 1] = torch.tensor([0.25, 0.5])
    write(tmp_path / "a.h5", made)
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.argwhere(file["patterns"][...]).tolist() == [[k, 4, 4] for k in range(3)]
        assert np.argwhere(file["probe"][...]).tolist() == [[8, 8]]
        assert file["positions"][1].tolist() == [0.25 * 12.0, 0.5 * 9.0]
        assert file["patterns"].attrs["units"] == "counts" and file["positions"].attrs["units"] == "Å"
        assert file["patterns"].shuffle and file["patterns"].compression == "gzip"


def test_existing_files_are_kept_and_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    write(path, recording(n=3))
    with pytest.raises(ValueError, match="expected a name that is not taken"):
        write(path, recording(n=5))

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, recording(n=5), overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"] and read(path).measurement.positions.shape[1] == 3
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, ".", ""):
        with pytest.raises(ValueError, match=": expected a file name, found a folder"):
            write(folder, recording(), overwrite=True)
    with pytest.raises(ValueError, match="expected an existing folder"):
        write(tmp_path / "nowhere" / "a.h5", recording())


def _swap(key, value):
    def change(file):
        attrs = dict(file[key].attrs)
        del file[key]
        file[key] = value
        file[key].attrs.update(attrs)

    return change


def _item(key, index, value):
    def change(file):
        file[key][index] = value

    return change


def _attribute(key, value, group="setup"):
    return lambda file: file[group].attrs.__setitem__(key, value)


DAMAGE = {
    "format": (_attribute("format", "other", "/"), r"energy: expected a beam energy in eV or a wavelength in Å, found neither"),
    "no format": (lambda f: f.attrs.__delitem__("format"), r"energy: expected a beam energy in eV or a wavelength in Å, found neither"),
    "version": (_attribute("version", 2, "/"), "version: expected 1, found 2"),
    "counts_per_electron": (_attribute("counts_per_electron", -1.0, "/"), "counts_per_electron: expected a positive"),
    "no positions": (lambda f: f.__delitem__("positions"), "positions: expected an array of that name, found none"),
    "no setup": (lambda f: f.__delitem__("setup"), "setup: expected a group"),
    "no semiangle": (lambda f: f["setup"].attrs.__delitem__("semiangle"), "setup/semiangle: expected an attribute"),
    "no beam": (lambda f: f["setup"].attrs.__delitem__("energy"), "setup/wavelength: expected an attribute"),
    "complex patterns": (_swap("patterns", np.ones((7, 8, 8), complex)), "patterns: expected integer or real numbers, found complex128"),
    "text patterns": (_swap("patterns", np.full((7, 8, 8), b"a")), "patterns: expected integer or real numbers"),
    "flat patterns": (_swap("patterns", np.ones((7, 64))), r"patterns: expected shape \(N, Q, Q\), found \(7, 64\)"),
    "odd patterns": (_swap("patterns", np.ones((7, 7, 7))), "detector: expected even pixel numbers"),
    "few positions": (_swap("positions", np.ones((6, 2))), r"positions: expected shape \(7, 2\) for 7 patterns, found \(6, 2\)"),
    "few doses": (_swap("dose", np.ones(6)), r"dose: expected shape \(7,\)"),
    "nan counts": (_swap("patterns", np.full((7, 8, 8), np.nan)), "patterns: expected finite counts, found NaN or infinity in pattern 0"),
    "negative": (_swap("patterns", np.full((7, 8, 8), -2)), "patterns: expected counts of at least 0, found -2 in pattern 0"),
    "no dose": (_item("dose", 3, 0.0), r"dose: expected a positive dose .* found 1 without \(the first at index 3\)"),
    "nan dose": (_item("dose", 2, np.nan), "dose: expected finite numbers"),
    "nan defocus": (_item("defocus", 2, np.inf), "defocus: expected finite numbers"),
    "outside": (_item("positions", 4, [3.0, 9.1]), r"positions inside the scan field of 12 x 9 Å, found \(3, 9.1\) Å at index 4"),
    "pixel": (_attribute("pixel", 0.51), r"setup/pixel: expected 0.5 Å, .* found 0.51 Å"),
    "detector pixel": (_attribute("detector_pixel", 4.0), "setup/pixel: expected 1.3.* Å, .* 16 / 2 pixels of 4 mrad, found 0.5 Å"),
    "window": (_attribute("window_shape", (16.0, 16.0)), "setup/window_shape: expected two whole numbers"),
    "binning": (_attribute("binning", 1.5), "setup/binning: expected one whole number"),
    "object": (_attribute("object_shape", (16, 16)), "setup/object: expected a grid that holds the field .*, found"),
    "aberrations": (_attribute("aberrations", "[1]"), "setup/aberrations: expected coefficients"),
    "probe shape": (lambda f: f.create_dataset("probe", data=np.ones((8, 8), complex)), r"probe: expected the window's shape \(16, 16\)"),
    "probe zero": (lambda f: f.create_dataset("probe", data=np.zeros((16, 16), complex)), "probe: expected finite values"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused_in_one_sentence_that_names_file_and_key(tmp_path, name):
    change, message = DAMAGE[name]
    path = tmp_path / "a.h5"
    write(path, recording())
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_missing_foreign_and_truncated_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a recording, found none"):
        read(tmp_path / "a.h5")
    with pytest.raises(ValueError, match="found a folder"):
        read(tmp_path)
    (tmp_path / "b.h5").write_text("not HDF5")
    with pytest.raises(ValueError, match=r"b.h5: expected a recording in a known format \(.*\), found a file"):
        read(tmp_path / "b.h5")
    write(tmp_path / "c.h5", recording())
    whole = (tmp_path / "c.h5").read_bytes()
    (tmp_path / "c.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"c.h5: expected a complete HDF5 file"):
        read(tmp_path / "c.h5")


def test_check_finds_a_bad_count_in_any_chunk_and_an_empty_measurement():
    made = recording(n=600, dtype=torch.float32)
    check(made.measurement, made.setup, "memory")
    made.measurement.patterns[0, 599, 2, 3] = -1
    with pytest.raises(ValueError, match="memory: patterns: expected counts of at least 0, found -1 in pattern 599"):
        check(made.measurement, made.setup, "memory")
    with pytest.raises(ValueError, match="memory: positions: expected at least one position"):
        check(recording(n=0).measurement, made.setup, "memory")
    with pytest.raises(ValueError, match="expected one data set, found 2"):
        check(Measurement.stack([recording().measurement] * 2), made.setup, "memory")
    with pytest.raises(ValueError, match=r"patterns of \(8, 8\) pixels, found \(4, 4\)"):
        check(replace(made.measurement, patterns=made.measurement.patterns[..., :4, :4]), made.setup, "memory")


@given(st.floats(1, 60), st.floats(1, 60), st.floats(-400, 400))
def test_property_object_grid_holds_any_turned_field_tightly(height, width, rotation):
    grid = object_grid((height, width), WINDOW, rotation)
    setup = Setup((height, width), grid, WINDOW, (16, 16), 20.0, energy=80e3, rotation=rotation)  # refuses a grid that is too small
    corners = setup.to_pixels(torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64))
    span = corners.amax(0) - corners.amin(0)
    # One window, a margin of 4 pixels on both sides, and less than 2 pixels for an even number.
    room = torch.tensor(grid.shape) - span - 16
    assert bool((room >= 8 - 1e-5).all() and (room < 10).all())
