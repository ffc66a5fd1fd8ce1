"""Importers: the rotavirus layout and plain arrays become recordings, and what cannot be understood is named."""

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from adaptycho.formats import from_arrays, from_rotavirus, read, write


def _rotavirus_folder(folder: Path) -> dict:
    counts = np.random.default_rng(0).integers(1, 80, (6, 5, 8, 8)).astype(np.uint8)
    row, column = np.meshgrid(np.arange(6, dtype=np.int16), np.arange(5, dtype=np.int16), indexing="ij")
    for first in (0, 3):
        part = slice(first, first + 3)
        np.savez(folder / f"counts_rows_{first:03d}.npz", counts=counts[part], scan_row=row[part], scan_col=column[part])
    probe = np.zeros((8, 8), np.complex64)
    probe[4, 4] = 3
    np.savez(folder / "probe_start.npz", probe=probe)
    facts = {
        "energy_kev": 300.0, "convergence_semiangle_mrad_nominal": 1.03, "scan_step_angstrom": 31.25, "scan_rotation_deg_fitted": -122.5,
        "defocus_angstrom_fitted": -130000.0, "real_space_pixel_angstrom": 9.3, "detector_pixel_mrad": 0.2646,
    }  # fmt: skip
    (folder / "metadata.json").write_text(json.dumps(facts))
    return {"counts": counts, "row": row, "column": column, **facts}


def test_independent_rotavirus_positions_follow_the_formula_of_the_source(tmp_path):
    made = _rotavirus_folder(tmp_path)
    got = from_rotavirus(tmp_path, rows=(1, 5), columns=(0, 4))
    row, column = made["row"][1:5, :4].ravel(), made["column"][1:5, :4].ravel()
    t, scale = math.radians(-122.5), 31.25 / 9.3
    wanted = np.stack([row * np.cos(t) - column * np.sin(t), row * np.sin(t) + column * np.cos(t)], -1) * scale
    pixels = got.setup.to_pixels(got.measurement.positions[0].double()).numpy()
    # Up to a common origin; fractions are in single precision (6e-8) of a field of 10 pixels.
    np.testing.assert_allclose(pixels - pixels[0], wanted - wanted[0], atol=10 * 2 * 2**-23)
    shifted = np.fft.fftshift(got.measurement.patterns[0].numpy(), (-2, -1))
    np.testing.assert_array_equal(shifted, made["counts"][1:5, :4].reshape(-1, 8, 8))
    assert got.setup.aberrations.defocus == 130000 and got.setup.measured_probe[0, 0] == 3
    assert float(got.measurement.dose[0, 0]) == pytest.approx(float(shifted.sum() / 16), rel=1e-6)
    with pytest.raises(ValueError, match="expected a range inside the scan"):
        from_rotavirus(tmp_path, rows=(90, 95))
    probe = np.load(tmp_path / "probe_start.npz")["probe"]
    for value in (math.nan, math.inf, 1e300, 0.0):
        np.savez(tmp_path / "probe_start.npz", probe=np.full((8, 8), value, complex))
        with pytest.raises(ValueError, match=r"probe_start\.npz: probe: expected finite values that are not all zero, found others"):
            from_rotavirus(tmp_path)
    with pytest.raises(ValueError, match="probe: expected finite values"):
        write(tmp_path / "a.h5", replace(got, setup=replace(got.setup, measured_probe=torch.full((8, 8), torch.nan + 0j))))
    np.savez(tmp_path / "probe_start.npz", probe=probe)
    facts = json.loads((tmp_path / "metadata.json").read_text())
    for key, value, wanted in (("real_space_pixel_angstrom", 0.0, "a positive"), ("scan_rotation_deg_fitted", math.nan, "a finite")):
        (tmp_path / "metadata.json").write_text(json.dumps(facts | {key: value}))
        with pytest.raises(ValueError, match=f"metadata.json: {key}: expected {wanted} number, found {value}"):
            from_rotavirus(tmp_path)
    (tmp_path / "metadata.json").write_text("{}")
    with pytest.raises(ValueError, match=r"metadata.json: energy_kev: expected a number, found None"):
        from_rotavirus(tmp_path)


def test_arrays_of_every_kind_give_the_same_recording(tmp_path):
    counts = np.random.default_rng(1).integers(0, 99, (3, 4, 8, 8)).astype(">u2")
    np.save(tmp_path / "a.npy", counts)
    np.savez(tmp_path / "a.npz", data=counts, other=np.zeros((2, 2, 2)))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data"] = counts
    np.save(tmp_path / "flat.npy", counts.reshape(12, 8, 8))
    where = np.array([[2.0 * i, 3.0 * j] for i in range(3) for j in range(4)])
    np.savetxt(tmp_path / "where.csv", where, delimiter=",", header="y,x", comments="")
    np.save(tmp_path / "swapped.npy", counts.swapaxes(-2, -1))
    common = {"energy": 80e3, "semiangle": 20.0, "defocus": -50.0, "detector_pixel": 5.0}
    raster = {**common, "scan_step": (2.0, 3.0)}
    made = from_arrays(tmp_path / "a.npy", **raster)
    others = [
        from_arrays(tmp_path / "a.npz", key="data", **raster),
        from_arrays(tmp_path / "a.h5", **raster),
        from_arrays(tmp_path / "flat.npy", positions=tmp_path / "where.csv", **common),
        from_arrays(tmp_path / "flat.npy", positions=where + 7.0, **common),
        from_arrays(tmp_path / "swapped.npy", swap=True, **raster),
        from_arrays(tmp_path / "no such file", patterns=counts, **raster),
    ]
    assert made.setup.field == (4.0, 9.0) and made.setup.aberrations.C10 == 50.0
    assert made.setup.detector_pixel == pytest.approx(5.0, rel=1e-12)
    assert made.measurement.patterns[0, :, 0, 0].tolist() == counts[..., 4, 4].ravel().tolist()
    assert float(made.measurement.dose[0, 0]) == pytest.approx(float(counts.sum()) / 12, rel=1e-6)
    for other in others:
        assert torch.equal(other.measurement.patterns, made.measurement.patterns)
        # One rounding each of a fraction of the field in single precision.
        assert torch.allclose(other.measurement.positions, made.measurement.positions, rtol=0, atol=2**-23)
    write(tmp_path / "out.h5", made)
    assert torch.equal(read(tmp_path / "out.h5").measurement.patterns, made.measurement.patterns)


def test_cropping_keeps_the_centre_and_odd_patterns_are_refused(tmp_path):
    counts = np.zeros((2, 2, 9, 11), np.float32)
    counts[..., 4, 5] = 1
    np.save(tmp_path / "a.npy", counts)
    options = {"energy": 80e3, "semiangle": 20.0, "detector_pixel": 5.0, "scan_step": 2.0}
    with pytest.raises(ValueError, match="even number of pixels, found 9 x 11; crop=8 would keep the centre"):
        from_arrays(tmp_path / "a.npy", **options)
    patterns = from_arrays(tmp_path / "a.npy", crop=8, **options).measurement.patterns[0]
    assert patterns.shape == (4, 8, 8) and patterns[:, 0, 0].tolist() == [1.0] * 4


class Tempting:
    """Would leave a file behind if it were unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("opened"),)


def test_pickles_are_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"energy": 80e3, "semiangle": 20.0, "detector_pixel": 5.0, "scan_step": 2.0}
    objects = np.empty((1, 1, 1), object)
    objects[0, 0, 0] = Tempting()
    np.save("a.npy", objects, allow_pickle=True)
    np.savez("b.npz", patterns=objects)
    Path("c.npy").write_bytes(pickle.dumps(Tempting()))
    for name in ("a.npy", "b.npz", "c.npy"):
        with pytest.raises(ValueError, match=f"{name}: expected plain numbers, found Python objects"):
            from_arrays(name, **options)
        with pytest.raises(ValueError, match=f"{name}: expected (plain numbers, found Python objects|a recording in a known format)"):
            read(name, **options)
    assert not Path("opened").exists()


WRONG = {
    "no pixel": ({"detector_pixel": None}, "detector_pixel: expected the angle"),
    "two pixels": ({"pixel": 3.0}, "pixel: expected 1.04.* Å, .* found 3 Å"),
    "no step": ({"scan_step": None}, "scan_step: expected the distance"),
    "endless step": ({"scan_step": (2.0, math.inf)}, r"scan_step: expected a positive length in Å, found \(2.0, inf\)"),
    "nan step": ({"scan_step": math.nan}, "scan_step: expected a positive length in Å, found nan"),
    "zero step": ({"scan_step": 0.0}, "scan_step: expected a positive length in Å, found 0.0"),
    "bad pixel": ({"detector_pixel": None, "pixel": 0.0}, "pixel: expected a positive length in Å, found 0.0"),
    "bad angle": ({"detector_pixel": -5.0}, "detector_pixel: expected a positive angle in mrad, found -5.0"),
    "semiangle": ({"semiangle": 0.0}, "semiangle: expected a positive angle in mrad, found 0.0"),
    "rotation": ({"rotation": math.nan}, "rotation: expected a finite number, found nan"),
    "endless rotation": ({"rotation": math.inf}, "rotation: expected a finite number, found inf"),
    "defocus": ({"defocus": math.inf}, "defocus: expected a finite number, found inf"),
    "counts": ({"counts_per_electron": 0.0}, "counts_per_electron: expected a positive number, found 0.0"),
    "no beam": ({"energy": None}, "energy: expected a beam energy in eV or a wavelength in Å, found neither"),
    "two beams": ({"wavelength": 1.24}, "energy: expected a beam energy in eV or a wavelength in Å, found both"),
    "energy": ({"energy": math.inf}, "energy: expected a positive energy in eV, found inf"),
    "wavelength": ({"energy": None, "wavelength": -1.0}, "wavelength: expected a positive length in Å, found -1.0"),
    "crop": ({"crop": 0}, "patterns: expected square patterns with an even number of pixels, found 8 x 8 cropped to 0"),
    "empty": ({"key": "none"}, r"patterns: expected an array .* with no axis empty, found shape \(0, 2, 8, 8\)"),
    "nan positions": ({"positions": np.full((4, 2), np.nan)}, r"positions: expected 4 finite pairs .* \(4, 2\) with NaN or infinity"),
    "bad step": ({"scan_step": -1.0}, "scan_step: expected a positive length"),
    "bad key": ({"key": "data"}, r"key: expected one of the arrays in the file \(a \(2, 2, 8, 8\), b \(2, 2, 8, 8\), .*\), found 'data'"),
    "which": ({"key": None}, "patterns: expected one array with 3, 4 or 5 axes, or its name as key"),
    "positions": ({"positions": np.zeros((3, 2))}, r"positions: expected 4 finite pairs \(y, x\) in Å, found shape \(3, 2\)"),
    "text": ({"positions": "words.txt"}, "words.txt: positions: expected two columns of numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_of_an_import_are_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    counts = np.ones((2, 2, 8, 8), np.uint8)
    np.savez("a.npz", a=counts, b=counts, none=counts[:0])
    Path("words.txt").write_text("y x\none two\n")
    change, message = WRONG[name]
    options = {"energy": 80e3, "semiangle": 20.0, "detector_pixel": 5.0, "scan_step": 2.0, "key": "a"}
    with pytest.raises(ValueError, match=message) as caught:
        from_arrays("a.npz", **(options | change))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(("a.npz: ", "words.txt: "))


def test_x_rays_and_light_are_imported_by_their_wavelength(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((2, 2, 8, 8), np.uint8))
    options = {"semiangle": 2.0, "detector_pixel": 0.5, "scan_step": 100.0}
    made = from_arrays(path, wavelength=1.24, **options)
    assert made.setup.energy is None and made.setup.wavelength == 1.24
    # Wavelength over 8 pixels of 0.5 mrad.
    assert made.setup.window.pixel == pytest.approx(1.24 / 4e-3, rel=1e-12)
    # 300 keV electrons have 0.0196875 Å (any textbook); half its last digit.
    assert from_arrays(path, energy=300e3, **options).setup.wavelength == pytest.approx(0.0196875, abs=5e-8)
