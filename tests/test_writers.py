"""What is written for other programs is read back the same, refused where it has no place, and there whole or not at all."""

import json
import shlex
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner
from PIL import Image

from adaptycho import formats
from adaptycho.app import cli
from adaptycho.app.cli import program
from adaptycho.app.exporting import read_positions
from adaptycho.app.given import pop_given
from adaptycho.draw import greyscale
from adaptycho.formats import tables
from adaptycho.formats.readers import cxi as cxi_reader
from adaptycho.formats.readers import emd as emd_reader
from adaptycho.formats.recording import Recording
from adaptycho.formats.writers import WRITERS, cxi, emd, npz, parts
from adaptycho.physics.grid import ifft2
from adaptycho.reconstruct.reconstruction import Reconstruction
from adaptycho.runs import results, scans

ROWS, COLUMNS, Q = 5, 7, 16
STEP, ANGLE = 2.0, 1.5  # Å, mrad
SMALL = ["--geometry.field", "[8.0, 6.0]", "--geometry.object", "auto"]


def recording(step: float | tuple[float, float] = STEP, positions: np.ndarray | None = None, **facts: object) -> Recording:
    """Patterns of which no two pixels are alike."""
    counts = np.random.default_rng(1).permutation(ROWS * COLUMNS * Q * Q).astype(np.uint16).reshape(ROWS * COLUMNS, Q, Q)
    lie = {"scan_shape": (ROWS, COLUMNS), "scan_step": step} if positions is None else {}
    said = {"energy": 80e3, "semiangle": 9.0, "detector_pixel": ANGLE, "defocus": 120.0, "rotation": 30.0, "title": "a b"}
    return Recording.from_arrays(counts, positions, **{**lie, **said, **facts})


def masked() -> np.ndarray:
    """Two bad pixels."""
    mask = np.ones((Q, Q), np.uint8)
    mask[3, 5] = mask[9, 2] = 0
    return mask


def free() -> np.ndarray:
    """Positions that are no raster, in Å."""
    where = np.random.default_rng(2).uniform(0, 12, (ROWS * COLUMNS, 2))
    return where - where.min(0)


def same(found: Recording, wanted: Recording) -> None:
    """Patterns to the last bit; positions on the object, in single precision; beam and lens."""
    assert torch.equal(found.measurement.patterns, wanted.measurement.patterns)
    a, b = (each.setup.to_pixels(each.measurement.positions[0].double()) for each in (found, wanted))
    assert torch.allclose(a - a[0], b - b[0], atol=1e-4)  # pixels: a field of 20 in single precision is good to 2e-6
    for key in ("wavelength", "semiangle", "detector_pixel"):
        assert getattr(found.setup, key) == pytest.approx(getattr(wanted.setup, key), rel=1e-8), key
    assert (found.setup.energy is None) == (wanted.setup.energy is None)
    assert found.setup.aberrations.defocus == pytest.approx(wanted.setup.aberrations.defocus)
    assert found.counts_per_electron == pytest.approx(wanted.counts_per_electron)
    assert torch.allclose(found.measurement.dose, wanted.measurement.dose, rtol=1e-6)


def reread(path: Path, left: parts.Left, **more: object) -> Recording:
    """Reads a file with the options that its writer says, as the command line takes them."""
    words = shlex.split(" ".join(left.options))
    context = program.commands.commands["import"].make_context("import", ["in", "out", *words])
    return formats.read(path, pop_given(dict(context.params)), **more)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    wanted = recording(counts_per_electron=3.0)
    left = WRITERS[name](tmp_path / f"a.{name}", wanted)
    found = reread(tmp_path / f"a.{name}", left)
    same(found, wanted)
    assert found.setup.rotation == (0.0 if name == "cxi" else 30.0)  # whose positions are turned instead
    assert left.lost == ()
    assert list(tmp_path.glob("*.part")) == []


def test_a_mask_is_kept_or_said_to_be_missing(tmp_path: Path) -> None:
    wanted = recording(mask=masked())
    left = {name: write(tmp_path / f"a.{name}", wanted).lost for name, write in WRITERS.items()}
    assert left == {"emd": ("the mask",), "cxi": (), "npz": (), "npy": ("the mask",)}
    found = formats.read(tmp_path / "a.cxi", semiangle=9.0, defocus=120.0)
    assert found.mask is not None and wanted.mask is not None and torch.equal(found.mask, wanted.mask)
    assert torch.allclose(found.measurement.dose, wanted.measurement.dose, rtol=1e-6)  # which counts what the mask takes away
    with np.load(tmp_path / "a.npz") as arrays:
        assert np.array_equal(arrays["mask"], masked())


@pytest.mark.parametrize("name", ["cxi", "npz", "npy"])
def test_free_positions(tmp_path: Path, name: str) -> None:
    wanted = recording(positions=free(), rotation=-40.0)
    same(reread(tmp_path / f"a.{name}", WRITERS[name](tmp_path / f"a.{name}", wanted)), wanted)


def test_emd_refuses_what_is_no_raster(tmp_path: Path) -> None:
    for where in (free(), STEP * np.indices((ROWS, COLUMNS)).reshape(2, -1).T + 0.2 * free()):
        with pytest.raises(ValueError, match=r"a.emd: positions: expected a full raster .* found 35 positions .*CXI.*npz"):
            emd.write(tmp_path / "a.emd", recording(positions=where))
    whole = recording()
    with pytest.raises(ValueError, match="found 34 positions"):
        emd.write(tmp_path / "a.emd", replace(whole, measurement=whole.measurement.take(torch.arange(34))))
    assert list(tmp_path.iterdir()) == []


def test_emd_puts_a_scan_of_any_order_into_rows(tmp_path: Path) -> None:
    plain = recording()
    order = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    order[1::2] = order[1::2, ::-1]  # there and back
    snake = replace(plain, measurement=plain.measurement.take(torch.from_numpy(order.ravel().copy())))
    left = emd.write(tmp_path / "a.emd", snake)
    same(reread(tmp_path / "a.emd", left), plain)


def test_emd_of_steps_that_differ_has_them_in_its_axes(tmp_path: Path) -> None:
    wanted = recording(step=(2.0, 3.0))
    left = emd.write(tmp_path / "a.emd", wanted)
    same(reread(tmp_path / "a.emd", left), wanted)
    with h5py.File(tmp_path / "a.emd") as file:
        assert "R_pixel_size" not in file["datacube_root/metadatabundle/calibration"]
        assert file["datacube_root/datacube/dim1"][...] == pytest.approx(3.0 * np.arange(COLUMNS))
    with emd_reader.opened(tmp_path / "a.emd") as raw:
        assert (raw.said.scan_step, raw.said.semiangle) == (pytest.approx((2.0, 3.0)), pytest.approx(9.0))


@pytest.mark.parametrize("shape", [(1, ROWS * COLUMNS), (ROWS * COLUMNS, 1)])
def test_emd_of_a_line(shape: tuple[int, int]) -> None:
    where = STEP * np.indices(shape).reshape(2, -1).T
    assert (emd.raster(where, "a").shape, emd.raster(where, "a").step) == (shape, (STEP, STEP))


def test_cxi_says_where_everything_is_in_si_units(tmp_path: Path) -> None:
    where = free()
    cxi.write(tmp_path / "a.cxi", recording(positions=where, rotation=0.0, mask=masked()))
    with h5py.File(tmp_path / "a.cxi") as file:
        detector, source = file["entry_1/instrument_1/detector_1"], file["entry_1/instrument_1/source_1"]
        assert source["energy"][()] == pytest.approx(80e3 * 1.602176634e-19)
        assert source["wavelength"][()] == pytest.approx(4.1757e-12, rel=1e-4)  # of 80 keV, as tables have it
        assert detector["y_pixel_size"][()] / detector["distance"][()] == pytest.approx(1.5e-3)
        assert file["entry_1/data_1/data"] == detector["data"]
        moved = file["entry_1/sample_1/geometry_1/translation"][...]
        assert moved[:, [1, 0]] == pytest.approx(1e-10 * where, rel=1e-5, abs=1e-16)
        corner, basis = detector["corner_position"][...], detector["basis_vectors"][...]
        middle = corner + (Q // 2 + 0.5) * basis.sum(0)  # of the pixel of zero frequency
        assert middle == pytest.approx([0, 0, 1], abs=1e-12)
        assert np.argwhere(detector["mask"][...]).tolist() == [[3, 5], [9, 2]]


def test_cxi_keeps_a_measured_probe_and_photons(tmp_path: Path) -> None:
    plain = recording(rotation=0.0)
    probe = ifft2(plain.setup.spectra(torch.tensor([77.0], dtype=torch.float64))[0])
    wanted = replace(plain, setup=replace(plain.setup, measured_probe=probe, energy=None))
    left = cxi.write(tmp_path / "a.cxi", wanted)
    assert left.lost == ()
    found = reread(tmp_path / "a.cxi", left)
    assert found.setup.measured_probe is not None and torch.equal(found.setup.measured_probe, probe)
    assert found.setup.energy is None
    same(found, wanted)
    with cxi_reader.opened(tmp_path / "a.cxi") as raw:
        assert raw.said.wavelength == pytest.approx(wanted.setup.wavelength)


def test_what_no_option_says_is_named(tmp_path: Path) -> None:
    plain = recording()
    dose = torch.linspace(1e6, 2e6, ROWS * COLUMNS)[None]
    setup = replace(plain.setup, aberrations=replace(plain.setup.aberrations, C30=1e7))
    left = cxi.write(tmp_path / "a.cxi", replace(plain, setup=setup, measurement=replace(plain.measurement, dose=dose)))
    assert left.lost == ("the dose of each pattern", "aberrations")


def test_npz_has_units_in_its_names(tmp_path: Path) -> None:
    wanted = recording()
    npz.write(tmp_path / "a.npz", wanted)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert found["patterns"].shape == (ROWS * COLUMNS, Q, Q)
        assert np.array_equal(found["patterns"], torch.fft.fftshift(wanted.measurement.patterns[0], (-2, -1)).numpy())
        assert (found["energy_eV"], found["semiangle_mrad"], found["rotation_degrees"]) == (80e3, 9.0, 30.0)
        assert found["detector_pixel_yx_mrad"] == pytest.approx([ANGLE, ANGLE])
        assert found["defocus_A"] == pytest.approx(np.full(ROWS * COLUMNS, 120.0))
        assert found["positions"][-1] == pytest.approx([(ROWS - 1) * STEP, (COLUMNS - 1) * STEP], rel=1e-6)


def test_patterns_go_out_by_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "together", lambda pixels: 4)  # which divides neither 35 nor a line of 7
    wanted = recording()
    for name, write in WRITERS.items():
        same(reread(tmp_path / f"a.{name}", write(tmp_path / f"a.{name}", wanted)), wanted)
    assert max(len(values) for _, values in parts.patterns(wanted)) == 4


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_overwritten_and_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / f"a.{name}"
    path.write_text("mine")
    with pytest.raises(ValueError, match="expected a new file to write, found one that exists"):
        WRITERS[name](path, recording())
    assert path.read_text() == "mine"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts, "patterns", interrupted)
        with pytest.raises(KeyboardInterrupt):
            WRITERS[name](path, recording(), overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "mine"
    WRITERS[name](path, recording(), overwrite=True)
    assert path.read_bytes()[:4] != b"mine"


def export(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(program.commands, ["export", *map(str, words)])
    return result.exit_code, result.output if result.exception is None else str(result.exception)


def result(folder: Path, image: np.ndarray) -> Path:
    """A result of a reconstruction with a known phase inside the field, of two specimens."""
    setup = replace(recording().setup, rotation=0.0)
    phase = torch.zeros(2, *setup.object.shape)
    corner = setup.crop(torch.arange(phase[0].numel(), dtype=torch.float32).reshape(phase[0].shape))[0, 0]
    top, left = divmod(int(corner), phase.shape[-1])
    phase[1, top : top + image.shape[0], left : left + image.shape[1]] = torch.from_numpy(image)
    empty = torch.zeros(2)
    results.write_result(folder / "phase.h5", setup, Reconstruction(phase, torch.zeros(2, 3), phase, empty, empty.long()))
    return folder / "phase.h5"


def test_the_phase_of_a_result(tmp_path: Path) -> None:
    setup = recording().setup
    image = np.random.default_rng(3).normal(size=setup.field_shape).astype(np.float32)
    source = result(tmp_path, image)
    code, said = export(source, tmp_path / "a.tif", "--specimen", 1, "--json")
    assert (code, json.loads(said)["pixels"]) == (0, list(image.shape))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert np.array_equal(file.asarray(), image)
        assert file.imagej_metadata is not None and file.imagej_metadata["unit"] == "nm"
        high, low = file.pages[0].tags["XResolution"].value
        assert 10 * low / high == pytest.approx(setup.object.pixel, rel=1e-6)  # nm in Å
    assert export(source, tmp_path / "a.png", "--specimen", 1)[0] == 0
    with Image.open(tmp_path / "a.png") as picture:
        values, text = np.asarray(picture).astype(np.float64), picture.text  # type: ignore[attr-defined]
    times = int(text["enlarged"])
    assert float(text["pixel_A"]) * times == pytest.approx(setup.object.pixel)
    black, white = float(text["black_rad"]), float(text["white_rad"])
    seen = black + (white - black) * values / 65535
    shown = (image - np.median(image)).clip(black, white).repeat(times, 0).repeat(times, 1)
    off, half = np.abs(seen - shown), len(seen) // 2
    assert off[:half].max() <= (white - black) / 65535
    assert off[half:].max() > 0.5 * (white - black)  # of the scale bar, white on black
    assert (values[half:] == 65535).sum(1).max() > 0.15 * values.shape[1]  # the bar is up to a third of the width long
    code, said = export(source, tmp_path / "b.tif", "--specimen", 2)
    assert code and "specimen: expected one below 2" in said
    code, said = export(source, tmp_path / "b.cxi")
    assert code and "expected one of tif, png for a result, found cxi" in said


def test_a_picture_without_contrast_or_with_holes(tmp_path: Path) -> None:
    image = torch.zeros(300, 40)
    image[:9] = torch.nan
    greyscale.write(tmp_path / "a.png", image, 0.2)
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.size, picture.mode) == ((280, 2100), "I;16")
    greyscale.write(tmp_path / "line.png", torch.arange(2000.0)[None], 0.2)
    with Image.open(tmp_path / "line.png") as picture:
        assert picture.size == (4000, 2)
    with pytest.raises(ValueError, match="expected at most 32768 pixels a side for a picture, found 40000"):
        greyscale.write(tmp_path / "b.png", torch.zeros(1, 40000), 0.2)


def test_positions_of_a_run(tmp_path: Path) -> None:
    options = [*SMALL, "--threads", "1", "--positions", "9", "--subsequences", "2", "--reconstruct.iterations", "1", "--policy", "random"]
    run = tmp_path / "run"
    CliRunner().invoke(program.commands, ["scan", str(run), *options, "--reconstruct.reference_side", "3"], catch_exceptions=False)
    assert export(run, tmp_path / "a.csv")[0] == export(run, tmp_path / "a.npy", "--which", "requested")[0] == 0
    opened = scans.Run.open(run)
    wanted = []
    for part in sorted((run / "subsequences").glob("*.h5")):
        with h5py.File(part) as file:
            wanted.append(file["positions"][0] * np.array([8.0, 6.0]))
    assert (tmp_path / "a.csv").read_text().startswith("y_A,x_A\n")
    found = tables.positions(tmp_path / "a.csv", "a", None, None)
    assert found == pytest.approx(np.concatenate(wanted), rel=1e-6)
    assert np.load(tmp_path / "a.npy") == pytest.approx(read_positions(opened, 0, "requested"))
    assert export(run, tmp_path / "a.tif")[0] == 0
    code, said = export(run / "states" / "000.h5", tmp_path / "b.tif")
    assert code and "pixel: expected an attribute with the pixel in Å, found none" in said
    for words, why in (
        (("--specimen", 1, tmp_path / "b.csv"), "specimen: expected one below 1"),
        ((tmp_path / "b.emd",), "expected a full raster of rows and columns for EMD, found 9 positions"),
        (("--energy", 80, tmp_path / "b.csv"), "expected no facts of a recording .*energy"),
        ((tmp_path / "a.csv",), "expected a new file to write"),
    ):
        code, said = export(run, *words)
        assert code and why.split(".*")[0] in said, said


def test_the_command_says_how_to_read_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    formats.write(tmp_path / "own.h5", recording(mask=masked()))
    code, said = export(tmp_path / "own.h5", tmp_path / "a.h5", "--format", "emd")
    assert code == 0
    assert "to read it again, say: --energy 80keV --defocus 120 " in said
    assert "not in it: the mask" in said
    code, said = export(tmp_path / "own.h5", tmp_path / "p.csv", "--json")
    assert json.loads(said) == {"file": str(tmp_path / "p.csv"), "format": "csv", "patterns": ROWS * COLUMNS}
    where = tables.positions(tmp_path / "p.csv", "p", None, None)
    assert where == pytest.approx(STEP * np.indices((ROWS, COLUMNS)).reshape(2, -1).T, rel=1e-6)
    for out, why in (("own.h5", "found the same file"), ("a.xyz", "expected a name that ends in .emd"), ("a.tif", "for a recording")):
        words = ["--format", "emd", "--overwrite"] if out == "own.h5" else []
        assert cli.main(["export", str(tmp_path / "own.h5"), str(tmp_path / out), *words]) == 2
        assert why in capsys.readouterr().err
    assert not zipfile.is_zipfile(tmp_path / "own.h5")
