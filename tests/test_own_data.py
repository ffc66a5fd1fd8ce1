"""Data of one's own: what is typed against what a file says, scans with gaps, detectors with faults, units; against known patterns."""

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import adaptycho as ad
from adaptycho import formats
from adaptycho.app import cli
from adaptycho.formats import Contradiction, Doubt, Given, Recording, frames, pixels, tables, units
from adaptycho.formats.assemble import assemble
from adaptycho.formats.detector import detector, tilted
from adaptycho.formats.inspect import describe
from adaptycho.formats.raw import Raw, Said
from adaptycho.formats.stored import Stored
from adaptycho.instruments.simulated import Simulated
from adaptycho.physics.forward import diffract
from adaptycho.physics.grid import Grid, fft2
from adaptycho.physics.optics import Aberrations, Setup, object_grid
from adaptycho.types import Action

ROWS, COLUMNS, STEP, Q, MRAD = 6, 9, 0.8, 16, 10.0
BEAM = {"energy": 60e3, "semiangle": 33.0, "defocus": 40.0, "detector_pixel": MRAD}
RASTER = BEAM | {"scan_step": STEP}
PLACES = np.indices((ROWS, COLUMNS)).reshape(2, -1).T * STEP  # Å
FLAGS = ["--energy", "60keV", "--semiangle", "33", "--defocus", "4nm", "--detector-pixel", "0.01rad"]


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """Patterns (6, 9, 16, 16) of random atoms, zero frequency in the centre pixel."""
    field = ((ROWS - 1) * STEP, (COLUMNS - 1) * STEP)
    grid = Grid((Q, Q), 1e3 * 0.0486612 / (Q * MRAD))
    setup = Setup(field, object_grid(field, grid), grid, (Q, Q), 33.0, energy=60e3, aberrations=Aberrations(C10=-40.0))
    generator = torch.Generator().manual_seed(0)
    potential = torch.rand(1, *setup.object.shape, generator=generator) ** 8
    where = torch.from_numpy(PLACES / np.array(field)).float()[None]
    patterns = Simulated(setup, potential, 2e4).acquire(Action(where), generator=generator).patterns[0]
    return np.fft.fftshift(patterns.numpy(), (-2, -1)).astype(np.uint16).reshape(ROWS, COLUMNS, Q, Q)


@pytest.fixture(scope="module")
def plain(counts: np.ndarray) -> Recording:
    return Recording.from_arrays(counts, **RASTER)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def alike(found: Recording, wanted: Recording, kept: np.ndarray | None = None) -> None:
    """The same patterns at the same places, perhaps only some of them."""
    some = slice(None) if kept is None else torch.from_numpy(kept)
    assert torch.equal(found.measurement.patterns[0], wanted.measurement.patterns[0][some])
    lengths = [made.measurement.positions[0].double().numpy() * np.array(made.setup.field) for made in (found, wanted)]
    offset = lengths[1][some] - lengths[0]
    np.testing.assert_allclose(offset, np.broadcast_to(offset[0], offset.shape), atol=1e-5)  # single precision of 6 Å


# Scans: what is stored, options, and which patterns are left.
FLAT = ROWS * COLUMNS
LOST = np.delete(np.arange(FLAT), [3, 17, 40])
NOISE = np.full((3, Q, Q), 7, np.uint16)
SCANS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], dict[str, Any], np.ndarray | None]] = {
    "list": (lambda p: p.reshape(-1, Q, Q), {"scan_shape": (ROWS, COLUMNS)}, None),
    "one row": (lambda p: p.reshape(1, -1, Q, Q), {"scan_shape": (ROWS, COLUMNS)}, None),
    "flyback": (lambda p: np.concatenate([p, p[:, :2]], 1), {"flyback": 2}, None),
    "flyback in a list": (
        lambda p: np.concatenate([p, p[:, :2]], 1).reshape(-1, Q, Q),
        {"flyback": 2, "scan_shape": (ROWS, COLUMNS)},
        None,
    ),
    "before": (lambda p: np.concatenate([NOISE, p.reshape(-1, Q, Q)]), {"skip": 3, "scan_shape": (ROWS, COLUMNS)}, None),
    "rolled": (lambda p: np.roll(p.reshape(-1, Q, Q), -2, 0), {"roll": 2, "scan_shape": (ROWS, COLUMNS)}, "rolled"),
    "lost": (lambda p: p.reshape(-1, Q, Q)[LOST], {"frames": LOST, "scan_shape": (ROWS, COLUMNS)}, LOST),
    "flyback of a table": (
        lambda p: np.concatenate([p, p[:, :2]], 1),
        {"flyback": 2, "scan_step": None, "positions": PLACES},
        None,
    ),
    "flyback that has positions": (
        lambda p: np.concatenate([p, p[:, :2]], 1),
        {"flyback": 2, "scan_step": None, "positions": np.pad(PLACES.reshape(ROWS, COLUMNS, 2), ((0, 0), (0, 2), (0, 0)))},
        None,
    ),
    "lost of a table": (lambda p: p.reshape(-1, Q, Q)[LOST], {"frames": LOST, "positions": PLACES, "scan_step": None}, LOST),
    "frames": (lambda p: np.stack([p // 3, p - p // 3], 2), {"sum_frames": True}, None),
    "frames of a list": (
        lambda p: np.stack([p // 3, p - p // 3], 2).reshape(-1, 2, Q, Q),
        {"sum_frames": True, "scan_shape": (ROWS, COLUMNS)},
        None,
    ),
    "pixels": (lambda p: p.reshape(-1, Q, Q), {"positions": PLACES / STEP, "position_unit": "px"}, None),
    "nm": (lambda p: p.reshape(-1, Q, Q), {"positions": PLACES / 10, "position_unit": "nm", "scan_step": None}, None),
}


@pytest.mark.parametrize("name", SCANS)
def test_patterns_are_put_where_they_were_taken(counts: np.ndarray, plain: Recording, name: str) -> None:
    changed, options, kept = SCANS[name]
    found = Recording.from_arrays(changed(counts), **(RASTER | options))
    if name == "rolled":
        order = np.argsort((np.arange(FLAT) + 2) % FLAT)
        found = replace(found, measurement=found.measurement.take(torch.from_numpy(order)))
        kept = None
    if name.startswith("frames"):  # two numbers of 16 bits may need more
        assert found.measurement.patterns.dtype == torch.uint32
        found = replace(found, measurement=replace(found.measurement, patterns=found.measurement.patterns.to(torch.uint16)))
    alike(found, plain, kept)  # type: ignore[arg-type]


def test_a_scan_that_ended_early_is_said(counts: np.ndarray, plain: Recording) -> None:
    stored = np.concatenate([counts, counts[:, :2]], 1).reshape(-1, Q, Q)[:-4]
    with pytest.warns(Doubt, match=r"patterns: scan_shape: the last 2 positions have no pattern, .*frames \(--frames\)"):
        found = Recording.from_arrays(stored, scan_shape=(ROWS, COLUMNS), flyback=2, **RASTER)
    alike(found, plain, np.arange(FLAT - 2))
    late = np.concatenate([NOISE, counts.reshape(-1, Q, Q)[:-3]]).reshape(counts.shape)
    with pytest.warns(Doubt, match=r"the last 3 positions have no pattern"):
        alike(Recording.from_arrays(late, skip=3, **RASTER), plain, np.arange(FLAT - 3))
    positions = np.concatenate([np.zeros((3, 2)), PLACES[:-3]])  # also of those before the scan
    alike(Recording.from_arrays(late, positions, skip=3, **BEAM), plain, np.arange(FLAT - 3))
    alike(Recording.from_arrays(late, PLACES[:-3], skip=3, **BEAM), plain, np.arange(FLAT - 3))
    with pytest.warns(Doubt, match=r"54 patterns are taken for a line"):
        Recording.from_arrays(counts.reshape(1, -1, Q, Q), **RASTER)


WRONG_SCANS = {
    "too few": (
        {"scan_shape": (9, 9)},
        r"scan_shape: expected 81 patterns for 9 x 9 positions, found 54: scan_shape, skip, flyback or frames",
    ),
    "too many": ({"scan_shape": (5, 9)}, r"scan_shape: expected 45 patterns for 5 x 9 positions, found 54"),
    "flyback": ({"flyback": 1, "scan_shape": (5, 9)}, r"expected 50 patterns for 5 x 9 positions and 1 of flyback in each line, found 54"),
    "all flyback": ({"flyback": 9}, r"flyback: expected fewer than the 9 patterns of a line, found 9"),
    "negative": ({"skip": -1}, r"skip: expected 0 to 53 of the 54 patterns, found -1"),
    "twice": ({"frames": np.zeros(54)}, r"frames: expected 54 different numbers from 0 on, .*found 54, 1 of them different"),
    "from one": ({"frames": np.arange(54) + 1}, r"frames: expected numbers below 54, counted from 0, found 54"),
    "halves": ({"frames": np.arange(54) / 2}, r"frames: expected whole numbers of patterns"),
    "both": ({"frames": np.arange(54), "roll": 1}, r"frames: expected no skip and roll beside"),
    "fewer": ({"positions": PLACES[1:]}, r"positions: expected 54 finite pairs \(y, x\) in Å, found shape \(53, 2\)$"),
    "more": ({"positions": np.r_[PLACES, PLACES]}, r"found shape \(108, 2\); where some were lost, frames \(--frames\) says which"),
    "nm": (
        {"positions": PLACES / 10},
        r"positions: expected neighbours at least 0\.25 pixels .* \(0\.69 Å if they are in nm\): .*position-unit",
    ),
    "unit": ({"positions": PLACES, "position_unit": "furlong"}, r"position_unit: expected px or a length \(Å, .*\), found 'furlong'"),
    "px": (
        {"positions": PLACES, "position_unit": "px", "scan_step": None},
        r"position_unit: expected the length of a scan pixel as scan_step",
    ),
    "crop": ({"crop": 8, "pad": 20}, r"crop: expected crop or pad, found both"),
    "pad": ({"pad": 8}, r"patterns: expected square patterns .*, found 16 x 16 padded to 8"),
    "bin": ({"bin": 9}, r"bin: expected 1 to 8 pixels to add up, found 9"),
    "centre": ({"centre": (3.0, 16.0)}, r"centre: expected a pixel \(row, column\) of 16 x 16, found 3, 16"),
    "mask": ({"mask": np.zeros((16, 16))}, r"mask: expected 1 for pixels to believe, found 0% of them; is 1 said of bad pixels\?"),
    "mask's shape": ({"mask": np.ones((8, 8))}, r"mask: expected ones and zeros for 16 x 16 stored pixels, found others of shape \(8, 8\)"),
    "drop": ({"drop": "some"}, r"drop: expected none, empty or bad, found 'some'"),
    "probe": ({"probe": np.ones((8, 8), complex)}, r"probe: expected the patterns' \(16, 16\) pixels, found \(8, 8\)"),
    "vacuum": ({"probe": np.ones((8, 8))}, r"probe: expected a pattern taken through vacuum with \(16, 16\) pixels, found shape \(8, 8\)"),
    "semi-angle in rad": (
        {"semiangle": 0.033},
        r"semiangle: expected .*, found 0\.033 mrad \(33 mrad if it is in rad: --semiangle 0\.033rad\)",
    ),
    "detector in rad": (
        {"detector_pixel": 0.01},
        r"detector_pixel: expected .* ends at 0\.08 mrad \(80 mrad if its pixel is in rad: .*0\.01rad",
    ),
    "pair": ({"detector_pixel": (1.0, -1.0)}, r"detector_pixel: expected a positive angle in mrad, found -1"),
}


@pytest.mark.parametrize("name", WRONG_SCANS)
def test_what_does_not_fit_is_said(counts: np.ndarray, name: str) -> None:
    options, said = WRONG_SCANS[name]
    with pytest.raises(ValueError, match=rf"^patterns: .*{said}") as caught:
        Recording.from_arrays(counts, **(RASTER | options))
    assert "\n" not in str(caught.value)


TABLES = {
    "x first": "x_nm,y_nm,time\n{x10},{y10},3\n",
    "spaces": "# Y (nm)   X (nm)\n{y10} {x10}\n",
    "brackets": "index; pos_y [Å]; pos_x [Å]\n7; {y}; {x}\n",
    "rows": "row,col\n{y},{x}\n",
    "bare": "{y}\t{x}\n",
    "other names": "a,b\n{y},{x}\n",
    "metres": "Y position (m),X position (m)\n{ym},{xm}\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_positions_say_order_and_unit_in_their_header(folder: Path, name: str) -> None:
    *header, row = TABLES[name].splitlines()
    lines = [row.format(y=y, x=x, y10=y / 10, x10=x / 10, ym=y * 1e-10, xm=x * 1e-10) for y, x in PLACES]
    Path("t.txt").write_text("\n".join([*header, *lines]), encoding="utf-8-sig")
    np.testing.assert_allclose(tables.positions("t.txt", "p.npy", None, None), PLACES, rtol=1e-9, atol=1e-9)


def test_tables_that_leave_doubt_are_refused(folder: Path) -> None:
    for text, said in (
        ("1,2,3\n4,5,6\n", r"t\.txt: positions: expected two columns \(y, x\), or a header that says which of the 3"),
        ("x_nm,y_um\n1,2\n", r"t\.txt: positions: expected y and x in one unit, found um and nm"),
        ("x,y,x\n1,2,3\n", r"t\.txt: positions: expected one column x, found two"),
        ("x_px,y_px\n1,2\n", r"t\.txt: position_unit: expected the length of a scan pixel as scan_step"),
    ):
        Path("t.txt").write_text(text)
        with pytest.raises(ValueError, match=said):
            tables.positions("t.txt", "p.npy", None, None)


def test_numbers_of_frames_come_from_files(folder: Path) -> None:
    Path("n.txt").write_text("0\n2\n3\n")
    assert tables.numbers("n.txt", "p.npy").tolist() == [0, 2, 3]
    np.save("n.npy", np.array([[4], [1]], np.uint8))
    assert tables.numbers("n.npy", "p.npy").tolist() == [4, 1]
    Path("n.txt").write_text("frame\n0\n")
    with pytest.raises(ValueError, match=r"^n\.txt: frames: expected whole numbers, one in each line, found one that cannot be read"):
        tables.numbers("n.txt", "p.npy")


def test_units_as_people_type_them() -> None:
    for text, table, usual, wanted in (
        ("60", units.ENERGIES, "keV", 60e3), ("60keV", units.ENERGIES, "keV", 60e3), ("6e4 eV", units.ENERGIES, "keV", 60e3),
        ("0.06MeV", units.ENERGIES, "keV", 60e3), ("60kv", units.ENERGIES, "keV", 60e3), ("-6nm", units.LENGTHS, "Å", -60.0),
        ("1e-10m", units.LENGTHS, "Å", 1.0), (".5µm", units.LENGTHS, "Å", 5e3), ("33", units.ANGLES, "mrad", 33.0),
        ("0.033rad", units.ANGLES, "mrad", 33.0), ("0.05/Å", units.PER_LENGTH, "1/Å", 0.05), ("0.5 nm^-1", units.PER_LENGTH, "1/Å", 0.05),
    ):  # fmt: skip
        assert units.typed(text, table, usual) == pytest.approx(wanted, rel=1e-12)
    for text in ("", "keV", "60 furlong", "60keV60", "nan", "1,2"):
        with pytest.raises(ValueError, match="expected a number, in keV or with one of the units eV, keV"):
            units.typed(text, units.ENERGIES, "keV")


def test_the_command_line_takes_units_and_pairs(folder: Path, counts: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("p.npy", counts)
    reciprocal = 1e-3 * MRAD / 0.0486612  # 1/Å, of the wavelength at 60 keV
    same = [
        [*FLAGS, "--scan-step", "0.8"],
        ["--energy", "60000eV", "--semiangle", "0.033rad", "--defocus", "40", "--detector-pixel", "10,10", "--scan-step", "0.08nm,0.8"],
        ["--energy", "60", "--semiangle", "33", "--defocus", "40Å", "--detector-pixel", f"{reciprocal}/Å", "--scan-step", "80pm"],
    ]
    made = []
    for number, words in enumerate(same):
        assert cli.main(["import", "p.npy", f"{number}.h5", *words]) == 0
        made.append(formats.read(f"{number}.h5"))
        setup = made[-1].setup
        assert (setup.energy, setup.semiangle) == (60e3, 33.0) and setup.aberrations.defocus == pytest.approx(40, rel=1e-12)
        assert setup.detector_pixel == pytest.approx(MRAD, rel=1e-4) and setup.field == pytest.approx((4.0, 6.4), rel=1e-9)
    assert capsys.readouterr().err == ""
    for words, said in (
        (["--energy", "60000"], r"energy: expected 1 to 3000 keV, found 60000 keV; 60 keV is --energy 60"),
        (["--scan-step", "1,2,3"], r"'--scan-step': length: expected one number or y,x, found '1,2,3'"),
        (["--scan-shape", "nine"], r"expected rows x columns such as 24x32, found 'nine'"),
        (["--centre", "1"], r"expected a row and a column such as 63\.5,64, or auto, found '1'"),
        (["--detector-pixel", "5m"], r"expected a number, in mrad or with one of the units mrad, .*, found '5m'"),
    ):
        assert cli.main(["import", "p.npy", "no.h5", *FLAGS, "--scan-step", "0.8", *words]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and re.search(said, err), err
    assert not Path("no.h5").exists()


def opened(values: np.ndarray, **said: Any) -> Raw:
    return Raw(patterns=Stored.of(values, "f"), said=Said(**said))


def test_what_a_file_says_is_taken_and_what_is_typed_goes_before_it(counts: np.ndarray, plain: Recording) -> None:
    said = {"energy": 60e3, "semiangle": 33.0, "defocus": 40.0, "detector_pixel": (MRAD, MRAD), "scan_step": (STEP, STEP)}
    alike(assemble(Path("f"), opened(counts, title="told", **said), Given()), plain)
    typed = Given(energy=60.1e3, semiangle=33.0, title="typed")
    found = assemble(Path("f"), opened(counts, title="told", **said), typed)  # half a per cent is no contradiction
    assert (found.setup.energy, found.title) == (60.1e3, "typed")
    with pytest.warns(Contradiction) as seen:
        found = assemble(Path("f"), opened(counts, **said), Given(energy=80e3, defocus=-40.0, scan_step=(STEP, 1.0)))
    assert [str(each.message) for each in seen] == [
        "f: energy: 80000 eV typed, 60000 eV in the file; what is typed is taken",
        "f: defocus: -40 Å typed, 40 Å in the file; what is typed is taken",
        "f: scan_step: 0.8 x 1 Å typed, 0.8 x 0.8 Å in the file; what is typed is taken",
    ]
    assert found.setup.energy == 80e3 and found.setup.aberrations.defocus == -40.0 and found.setup.field == (4.0, 8.0)
    with pytest.warns(Contradiction, match=r"^f: pixel: 0\.2 Å typed, 0\.304\d* Å in the file; what is typed is taken$"):
        assert assemble(Path("f"), opened(counts, **said), Given(pixel=0.2)).setup.window.pixel == 0.2
    for key in ("energy", "semiangle", "detector_pixel", "scan_step"):
        with pytest.raises(ValueError, match=rf"^f: {key}: expected .*, found n"):
            assemble(Path("f"), opened(counts, **{k: v for k, v in said.items() if k != key}), Given())
    positions = PLACES[::-1].copy()
    listed = assemble(Path("f"), opened(counts.reshape(-1, Q, Q), **(said | {"positions": positions})), Given())
    alike(
        replace(listed, measurement=listed.measurement.take(torch.arange(FLAT).flip(0))),
        Recording.from_arrays(counts[::-1, ::-1], **RASTER),
    )


def test_patterns_stored_from_the_corner_are_the_same(counts: np.ndarray, plain: Recording) -> None:
    raw = Raw(patterns=Stored.of(np.fft.ifftshift(counts, (-2, -1)), "f"), corner=True)
    alike(assemble(Path("f"), raw, Given(**RASTER)), plain)


def test_positions_of_an_npz_file_are_read(folder: Path, counts: np.ndarray, plain: Recording) -> None:
    np.savez("a.npz", data=counts.reshape(-1, Q, Q), positions=PLACES)
    alike(ad.open("a.npz", **BEAM), plain)


def test_independent_bright_pixels_are_found_and_left_out(folder: Path, counts: np.ndarray, plain: Recording) -> None:
    """One hot pixel ruins a reconstruction; without it and a dead one it is as if they had never been."""
    spoilt = counts.copy()
    spoilt[..., 2, 3], spoilt[..., 8, 11] = 65535, 0
    with pytest.warns(Doubt, match=r"mask: 1 hot, 1 dead detector pixels may spoil a reconstruction; mask \(--mask auto, or FILE\)"):
        raw = Recording.from_arrays(spoilt, **RASTER)
    assert any("--mask auto" in text for text in describe(raw)["warnings"])
    assert describe(raw)["faulty_px"] == {"hot": 1, "dead": 1, "stuck": 0}
    with pytest.warns(Doubt, match="1 hot, 1 dead detector pixels are left out of account"):
        mended = Recording.from_arrays(spoilt, mask="auto", **RASTER)
    assert mended.mask is not None and sorted((~torch.fft.fftshift(mended.mask)).nonzero().tolist()) == [[2, 3], [8, 11]]
    by_hand = np.ones((Q, Q), bool)
    by_hand[2, 3] = by_hand[8, 11] = False
    np.save("m.npy", by_hand)
    again = Recording.from_arrays(spoilt, mask="m.npy", **RASTER)
    assert torch.equal(again.measurement.patterns, mended.measurement.patterns) and torch.equal(
        again.measurement.dose, mended.measurement.dose
    )
    # The dose is that of all pixels: the disc of a vacuum pattern says what the dead one would have had.
    assert float(mended.measurement.dose[0, 0]) == pytest.approx(float(plain.measurement.dose[0, 0]), rel=2e-3)
    phases = [made.setup.crop(ad.reconstruction(made, iterations=10).phase)[0].flatten() for made in (plain, mended, raw)]
    scores = [float(torch.corrcoef(torch.stack([phases[0], phase]))[0, 1]) for phase in phases[1:]]
    assert scores[0] > 0.99 and scores[1] < 0.8
    # It stays with the recording.
    formats.write("a.h5", mended)
    back = formats.read("a.h5")
    assert back.mask is not None and torch.equal(back.mask, mended.mask)
    assert ad.Reconstructor(back.setup).mask is back.mask
    assert torch.equal(formats.cut(back, rows=(0, 1), columns=(0, 0.5)).setup.mask, back.mask)
    with h5py.File("a.h5", "r+") as file:
        file["mask"][0, 0] = 0
    with pytest.raises(ValueError, match=r"a\.h5: sha256: expected"):
        formats.read("a.h5")
    with h5py.File("a.h5", "r+") as file:
        file["mask"][0, 0] = 2
    with pytest.raises(ValueError, match=r"a\.h5: mask: expected ones and zeros"):
        formats.read("a.h5")


def test_a_mask_can_be_given_to_a_recording_that_says_everything_else(folder: Path, plain: Recording) -> None:
    formats.write("a.h5", plain)
    mask = np.ones((Q, Q), np.uint8)
    mask[0, 5] = 0
    found = formats.read("a.h5", mask=mask)
    assert found.mask is not None and (~torch.fft.fftshift(found.mask)).nonzero().tolist() == [[0, 5]]
    assert formats.read("a.h5", mask="auto").mask is None


def test_no_fault_is_seen_in_what_counting_makes() -> None:
    """A focused disc of few electrons, brightest at its rim: nothing about it is a fault."""
    y, x = np.indices((32, 32)) - 16
    mean = np.where(np.hypot(y, x) < 9, 0.5 + 0.05 * np.hypot(y, x), 1e-3)
    patterns = np.random.default_rng(0).poisson(mean, (400, 32, 32))
    seen = pixels.moments([patterns[:150], patterns[150:]], (32, 32))
    assert pixels.faults(seen).said() == ""
    np.testing.assert_allclose(seen.mean, patterns.mean(0))
    np.testing.assert_allclose(seen.variance, patterns.var(0, ddof=1))
    # A median over 31 pixels of variances over 400 patterns, each within sqrt(2 / 400): 1.25 x 0.07 / sqrt(31), and four times that.
    assert pixels.gain(seen) == pytest.approx(1, abs=0.065)
    assert pixels.gain(pixels.moments([7 * patterns], (32, 32))) == pytest.approx(7, abs=0.45)
    # Where the specimen makes more of the variance than counting does, nothing is told.
    changing = np.random.default_rng(0).uniform(0, 2, (400, 32, 32)) * mean * 1e4 * (1 + np.hypot(y, x))
    assert pixels.gain(pixels.moments([np.random.default_rng(1).poisson(changing)], (32, 32))) is None


def test_patterns_that_are_empty_broken_or_far_out(counts: np.ndarray, plain: Recording) -> None:
    wide = np.zeros((ROWS + 4, COLUMNS, Q, Q), np.uint16)
    wide[2:-2] = counts
    with pytest.raises(ValueError, match=r"patterns: expected counts in each, found 36 of 90 without: .*drop \(--drop empty\)"):
        Recording.from_arrays(wide, **RASTER)
    assert Recording.from_arrays(wide, drop="none", **RASTER).measurement.patterns.shape[1] == 90
    with pytest.warns(Doubt, match="drop: 36 of 90 patterns are left out"):
        alike(Recording.from_arrays(wide, drop="empty", **RASTER), plain)
    # Where only a few electrons come, some patterns are empty by chance.
    few = np.random.default_rng(0).poisson(0.01, (8, 8, Q, Q)).astype(np.uint8)
    assert (few.sum((2, 3)) == 0).sum() > 3
    Recording.from_arrays(few, **RASTER)
    broken = counts.astype(np.float32)
    broken[1, 2, 3, 3], broken[2, 2], broken[4, 4] = np.nan, 0, 30 * broken[4, 4]
    with pytest.raises(ValueError, match=r"expected finite counts, found NaN or infinity in pattern 11; drop \(--drop bad\)"):
        Recording.from_arrays(broken, **RASTER)
    with pytest.warns(Doubt, match="drop: 3 of 54 patterns are left out"):
        found = Recording.from_arrays(broken, drop="bad", **RASTER)
    kept = np.delete(np.arange(FLAT), [11, 20, 40])
    alike(replace(found, measurement=replace(found.measurement, patterns=found.measurement.patterns.to(torch.uint16))), plain, kept)
    with pytest.warns(Doubt, match=r"1 hold far from the .* counts of the others \(number 40"):
        found = Recording.from_arrays(np.nan_to_num(broken), **RASTER)
    assert describe(found)["outlying_patterns"] == [40] and any("--drop bad" in text for text in describe(found)["warnings"])
    negative = counts.astype(np.int32)
    negative[0, 0] -= 5
    with pytest.raises(ValueError, match=r"expected counts of at least 0, found -5 in pattern 0; clip \(--clip\)"):
        Recording.from_arrays(negative, **RASTER)
    clipped = Recording.from_arrays(negative, clip=True, **RASTER).measurement.patterns[0]
    assert int(clipped.min()) == 0 and torch.equal(clipped[1:], plain.measurement.patterns[0, 1:].int())


def test_independent_unequal_pixels_become_square_ones(counts: np.ndarray) -> None:
    """Rows that were added up in pairs: columns are added up likewise, and the forward model adds up its frequencies."""
    rows = counts.reshape(ROWS, COLUMNS, Q // 2, 2, Q).sum(3)
    found = Recording.from_arrays(rows, **(RASTER | {"detector_pixel": (2 * MRAD, MRAD)}))
    assert found.setup.binning == 2 and found.setup.window.shape == (Q, Q) and found.setup.measured_probe is None
    assert found.setup.detector_pixel == pytest.approx(2 * MRAD, rel=1e-9)
    wanted = counts.reshape(FLAT, Q // 2, 2, Q // 2, 2).sum((2, 4))
    np.testing.assert_array_equal(np.fft.fftshift(found.measurement.patterns[0].numpy(), (-2, -1)), wanted)
    both = Recording.from_arrays(counts, bin=2, **RASTER)
    assert torch.equal(both.measurement.patterns, found.measurement.patterns.to(both.measurement.patterns.dtype))
    with pytest.raises(ValueError, match=r"found 8 x 16; crop=8 would keep the centre, pad=16 all of it; --detector-pixel y,x if"):
        Recording.from_arrays(rows, **RASTER)
    # Not a whole ratio: every count stays, on the part of the detector that the square covers.
    spread = detector("f", (32, 32), Given(), None, (1.0, 1.04))
    assert spread.side == 30 and spread.binning == 1
    image = np.zeros((1, 32, 32))
    image[0, 10:20, 8:24] = np.random.default_rng(0).random((10, 16))
    made = spread.gather(image[:, *spread.read])[0]
    assert made.sum() == pytest.approx(image.sum(), rel=1e-6)
    row = np.arange(32) - 16.0
    for axis, scale in ((0, 1.04), (1, 1.0)):  # rows are the finer ones
        first = (image[0].sum(1 - axis) * row).sum() / image.sum()
        profile = made.sum(1 - axis)
        # Counts have no place within a pixel.
        assert (profile * (np.arange(30) - 15)).sum() / profile.sum() * scale == pytest.approx(first, abs=0.02)


def test_padding_and_a_moved_centre_are_left_out_of_account(counts: np.ndarray, plain: Recording) -> None:
    moved = np.roll(counts, (2, -3), (2, 3))
    moved[:, :, :2], moved[..., -3:] = 99, 99  # what would have wrapped round is anything
    found = Recording.from_arrays(moved, centre=(Q / 2 + 2, Q / 2 - 3), **RASTER)
    believed = torch.fft.fftshift(found.mask)
    assert (~believed).sum() == 2 * Q + 3 * Q - 6 and not believed[-2:].any() and not believed[:, :3].any()
    seen = torch.fft.fftshift(found.measurement.patterns[0], (-2, -1))
    assert torch.equal(seen[:, believed], torch.fft.fftshift(plain.measurement.patterns[0], (-2, -1))[:, believed])
    padded = Recording.from_arrays(counts[..., 1:, 1:], pad=18, **RASTER)
    assert padded.setup.detector == (18, 18) and int((~padded.mask).sum()) == 18 * 18 - 15 * 15
    assert padded.setup.window.pixel * 18 == pytest.approx(plain.setup.window.pixel * 16, rel=1e-9)
    # Odd patterns keep their centre pixel n // 2.
    assert int(padded.measurement.patterns[0, 0, 0, 0]) == int(counts[0, 0, 8, 8])


def test_independent_a_fraction_of_a_pixel_is_carried_by_the_probe() -> None:
    """A pattern sampled off its pixels is the pattern of a probe with a phase ramp, not one whose counts are interpolated."""
    window = Grid((32, 32), 0.3)
    setup = Setup((4.0, 4.0), object_grid((4.0, 4.0), window), window, (32, 32), 25.0, energy=60e3, aberrations=Aberrations(C10=-40.0))
    fine = Grid((320, 320), 0.3)  # ten times finer in reciprocal space
    wide = Setup((4.0, 4.0), object_grid((4.0, 4.0), fine), fine, (320, 320), 25.0, energy=60e3, aberrations=Aberrations(C10=-40.0))
    intensity = wide.spectra(torch.tensor([40.0], dtype=torch.float64))[0].abs().square()
    rest = (0.3, -0.2)  # zero frequency lies so far after the middle of its pixel
    index = [torch.fft.fftfreq(32, 1 / 32).long() * 10 - round(10 * r) for r in rest]
    sampled = intensity[index[0] % 320][:, index[1] % 320]
    probe = tilted(setup, rest)
    seen = fft2(probe).abs().square()
    axis = torch.fft.fftfreq(32, 1 / 32, dtype=torch.float64)
    for along, wanted in ((1, 0.3), (0, -0.2)):
        middles = [float((image.sum(along) * axis).sum() / image.sum()) for image in (seen, sampled)]
        # The disc's edge is soft over one pixel in one of them and over a tenth in the other: of 40 pixels on it some are in or out.
        assert middles == pytest.approx([wanted, wanted], abs=0.06)
    given = replace(setup, measured_probe=setup.probe())
    again = tilted(given, rest)  # the ramp on a probe that is known: the same but for the edge of its window
    overlap = (again.conj() * probe).sum().abs() / (again.abs().square().sum() * probe.abs().square().sum()).sqrt()
    assert float(overlap) > 0.98
    assert tilted(setup, (0.01, 0.01)) is None


def test_a_centre_with_a_fraction_reconstructs(counts: np.ndarray) -> None:
    """Patterns of a probe that is tilted by 0.4 pixels: the loss says where the centre is."""
    field = ((ROWS - 1) * STEP, (COLUMNS - 1) * STEP)
    grid = Grid((Q, Q), 1e3 * 0.0486612 / (Q * MRAD))
    setup = Setup(field, object_grid(field, grid), grid, (Q, Q), 33.0, energy=60e3, aberrations=Aberrations(C10=-40.0))
    setup = replace(setup, measured_probe=tilted(setup, (0.4, 0.0)))
    where = torch.from_numpy(PLACES / np.array(field)).double()
    potential = torch.rand(setup.object.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 8
    focus = torch.full((FLAT,), 40.0, dtype=torch.float64)
    seen = np.fft.fftshift(1e4 * diffract(setup, potential, where, focus).numpy(), (-2, -1)).reshape(ROWS, COLUMNS, Q, Q)
    losses = [
        float(ad.reconstruction(Recording.from_arrays(seen, centre=(Q / 2 + off, Q / 2), **RASTER), iterations=15).loss[0, -1])
        for off in (0.4, 0.0, -0.4)
    ]
    assert losses[0] < 0.5 * min(losses[1:])


def test_a_vacuum_pattern_or_a_probe_can_be_given(counts: np.ndarray, plain: Recording) -> None:
    probe = plain.setup.probe()
    vacuum = np.fft.fftshift(fft2(probe).abs().square().numpy())
    for given in (vacuum, np.fft.fftshift(probe.numpy())):
        found = Recording.from_arrays(counts, probe=given, **RASTER).setup.measured_probe
        overlap = (found.conj() * probe).sum().abs() ** 2 / found.abs().square().sum() / probe.abs().square().sum()
        assert float(overlap) == pytest.approx(1, abs=1e-9)
    # One that lies off the centre as the patterns do is not moved again; of a hot pixel nothing is left.
    moved = tilted(plain.setup, (0.3, -0.2))
    assert moved is not None
    vacuum = np.fft.fftshift(fft2(moved).abs().square().numpy())
    spoilt, mask = vacuum.copy(), np.ones((Q, Q), bool)
    spoilt[8, 8], mask[8, 8] = 1e9, False
    found = Recording.from_arrays(counts, probe=spoilt, mask=mask, centre=(Q / 2 + 0.3, Q / 2 - 0.2), **RASTER).setup.measured_probe
    overlap = (found.conj() * moved).sum().abs() ** 2 / found.abs().square().sum() / moved.abs().square().sum()
    assert float(overlap) == pytest.approx(1, abs=1e-9)


def test_a_probe_says_its_semi_angle(counts: np.ndarray, plain: Recording) -> None:
    """A zone plate has none on paper; what reaches the detector has one."""
    probe, rest = plain.setup.probe(), {key: value for key, value in RASTER.items() if key != "semiangle"}
    for given in (np.fft.fftshift(probe.numpy()), np.fft.fftshift(fft2(probe).abs().square().numpy())):
        found = Recording.from_arrays(counts, probe=given, **rest).setup.semiangle
        assert found == pytest.approx(RASTER["semiangle"], abs=0.5 * MRAD)
    with pytest.raises(ValueError, match=r"semiangle: expected a convergence semi-angle in mrad, found none"):
        Recording.from_arrays(counts, **rest)


def test_saturation_is_seen(counts: np.ndarray) -> None:
    full = np.minimum(counts, 255).astype(np.uint8)
    found = describe(Recording.from_arrays(full, **RASTER))
    assert found["saturated_patterns"] == int((counts >= 255).any((2, 3)).sum()) > 0
    assert any("saturated" in text for text in found["warnings"])


def test_five_lines_from_arrays_to_a_picture(counts: np.ndarray) -> None:
    patterns, positions = torch.from_numpy(counts.reshape(-1, Q, Q)), torch.from_numpy(PLACES)
    recording = ad.Recording.from_arrays(patterns, positions, energy=60e3, semiangle=33.0, defocus=40.0, detector_pixel=MRAD)
    result = ad.reconstruction(recording, iterations=8)
    image = recording.setup.crop(result.phase)[0]
    assert image.shape == recording.setup.field_shape and result.loss[0, -1] < result.loss[0, 0]
    with pytest.raises(ValueError, match=r"^patterns: energy: expected a beam energy in eV"):
        ad.Recording.from_arrays(patterns, positions, semiangle=33.0)
    with pytest.raises(TypeError, match="semiangel"):
        ad.Recording.from_arrays(patterns, positions, semiangel=33.0)


def test_foreign_files_need_no_import(folder: Path, counts: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("p.npy", counts)
    assert cli.main(["inspect", "p.npy", *FLAGS, "--scan-step", "0.8"]) == 0
    assert "60 keV" in capsys.readouterr().out
    words = ["reconstruct", "p.npy", "v.h5", *FLAGS, "--scan-step", "0.8", "--reconstruct.iterations", "2", "--threads", "1"]
    assert cli.main(words) == 0
    assert Path("v.png").exists()
    capsys.readouterr()
    assert cli.main(["scan", "run", "--microscope", "recorded", "--file", "p.npy"]) == 2
    assert re.search(
        r"p\.npy: energy: expected .*; `adaptycho import` takes what is missing and makes a recording", capsys.readouterr().err
    )


def test_patterns_are_held_once(folder: Path, counts: np.ndarray) -> None:
    """Of an .npy file no more is taken than the recording's own patterns and a part of it at a time."""
    import tracemalloc

    many = np.tile(counts.reshape(-1, Q, Q), (80, 1, 1))
    np.save("p.npy", many)
    places = np.tile(PLACES, (80, 1))
    with warnings.catch_warnings(action="ignore", category=Doubt):
        formats.read("p.npy", positions=places, **BEAM)  # loads what is loaded once
        tracemalloc.start()
        formats.read("p.npy", positions=places, **BEAM)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    part = frames.CHUNK * Q * Q * 8
    assert peak < many.nbytes + 12 * part + 2e6


@pytest.mark.parametrize("shape", [(ROWS * COLUMNS, 1), (ROWS * COLUMNS,), (ROWS * COLUMNS, 3), (1,)])
def test_a_table_of_another_number_of_columns_is_refused(counts: np.ndarray, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"positions: expected .*finite pairs \(y, x\) in Å, found shape"):
        Recording.from_arrays(counts.reshape(-1, Q, Q), np.ones(shape), **BEAM)
