"""Other programs' files give patterns, positions and units as their layouts define them: order, signs and what is not said."""

import json
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest

import foreign_files
from adaptycho.formats.raw import Raw, Said
from adaptycho.formats.readers import calibration, cxi, dectris, emd, empad, facts, foreign, hspy, matlab, nion, rosetta, zspy
from adaptycho.formats.readers import ptychodus as ptychodus_reader
from adaptycho.formats.readers.views import Joined, Turned
from foreign_files import COUNTS, PROBE, SQUARE, STACK, WAVE, WRITERS, YX

NION = {"energy": 60e3, "semiangle": 33.0, "defocus": 60.0, "detector_pixel": (1.5, 2.0), "scan_step": (0.5, 0.625)}
HYPERSPY = {"energy": 60e3, "semiangle": 33.0, "detector_pixel": (1.5, 2.0), "scan_step": (0.5, 0.625)}
FRAMES = np.zeros((3, 5, 128, 128), np.float32)
FRAMES[:, :, :6, :8] = COUNTS
# reader, patterns, and all that is said besides a title
EXPECTED: dict[str, tuple[ModuleType, np.ndarray, dict[str, Any]]] = {
    "emd": (emd, COUNTS, {"pixel": (1 / (6 * 0.03), 1 / (8 * 0.04)), "scan_step": (0.5, 0.625), "rotation": 30.0}),
    "nion_zip": (nion, COUNTS, {**NION, "counts_per_electron": 37.0}),
    "nion_ndata1": (nion, COUNTS, {**NION, "counts_per_electron": 37.0}),
    "nion_hdf5": (nion, COUNTS, {**NION, "counts_per_electron": 37.0}),
    "hspy": (hspy, COUNTS, HYPERSPY),
    "zspy": (zspy, COUNTS, HYPERSPY),
    "dectris": (dectris, STACK, {"energy": 60e3, "scan_step": (0.625, 0.625), "scan_shape": (3, 5), "mask": (6, 8)}),
    "dectris_frames": (dectris, STACK[9:], {}),
    "cxi": (cxi, SQUARE, {"wavelength": WAVE, "detector_pixel": (0.0275, 0.025), "positions": YX, "mask": (8, 8), "probe": PROBE}),
    "ptychodus": (ptychodus_reader, SQUARE, {"wavelength": WAVE, "pixel": (300.0, 200.0), "positions": YX, "probe": PROBE}),
    "fold_slice": (ptychodus_reader, SQUARE, {"wavelength": WAVE, "pixel": (200.0, 200.0), "positions": YX}),
    "matlab_new": (matlab, STACK, {}),
    "matlab_old": (matlab, COUNTS, {}),
    "empad": (empad, FRAMES, {}),
    "empad_xml": (empad, FRAMES, {"scan_step": (10.0, 10.0)}),
}


def whole(raw: Raw) -> np.ndarray:
    raw.patterns.check_size(raw.patterns.shape)
    return np.asarray(raw.patterns.values[tuple(slice(None) for _ in raw.patterns.shape)])


def said(found: Said) -> dict[str, Any]:
    return {key: value for key, value in vars(found).items() if value is not None and not isinstance(value, str)}


@pytest.mark.parametrize("name", WRITERS)
def test_patterns_and_facts(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path)
    reader, patterns, expected = EXPECTED[name]
    assert [each for each in foreign.FOREIGN if each.can_read(path)] == [reader]  # and nobody else takes it for their own
    with reader.opened(path) as raw:
        assert not raw.corner
        np.testing.assert_array_equal(whole(raw), patterns)
        # As patterns are read: a line of the scan, some of its columns, a window of the detector.
        part = (1, slice(1, 4), slice(1, 5), slice(2, 8)) if patterns.ndim == 4 else (slice(1, 6), slice(1, 5), slice(2, 8))
        np.testing.assert_array_equal(raw.patterns.values[part], patterns[part])
        found = said(raw.said)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            if key == "mask":
                assert found[key].dtype == bool
                assert np.argwhere(~found[key]).tolist() == ([[1, 2]] if name == "dectris" else [[2, 3]])
            else:
                np.testing.assert_allclose(found[key], value, rtol=1e-6, atol=1e-6)  # single precision of the probe


def test_py4dstem_axes_that_are_exchanged(tmp_path: Path) -> None:
    with emd.opened(foreign_files.emd(tmp_path, flip=True)) as raw:
        np.testing.assert_array_equal(whole(raw), COUNTS.swapaxes(2, 3))
        assert raw.said.scan_step == (0.7, 0.7)  # of the calibration, which is changed later than the axes
        assert raw.said.pixel is None and raw.said.detector_pixel is None  # Q_pixel_units is pixels


def test_the_aperture_of_py4dstem_is_in_pixels(tmp_path: Path) -> None:
    path = foreign_files.emd(tmp_path)
    with h5py.File(path, "a") as file:
        made = file["datacube_root/metadatabundle/calibration"]
        del made["Q_pixel_units"]
        made["Q_pixel_units"], made["Q_pixel_size"], made["probe_semiangle"] = "mrad", 1.5, 22.0
    with emd.opened(path) as raw:
        assert raw.said.detector_pixel == (1.5, 1.5) and raw.said.semiangle == pytest.approx(33.0)


def test_the_sample_of_cxi_moves_and_the_probe_the_other_way(tmp_path: Path) -> None:
    """With rows counted up and columns to the left, the default's opposite, positions turn round; columns of vectors are vectors too."""
    basis = np.array([[0, 55e-6, 0], [50e-6, 0, 0]])
    for vectors in (basis, basis.T, np.broadcast_to(basis, (15, 2, 3))):
        with cxi.opened(foreign_files.cxi(tmp_path, vectors)) as raw:
            np.testing.assert_allclose(raw.said.positions, -YX, atol=1e-9)
            np.testing.assert_allclose(raw.said.detector_pixel, (0.0275, 0.025))


def test_electrons_in_cxi(tmp_path: Path) -> None:
    path = foreign_files.cxi(tmp_path)
    with h5py.File(path, "a") as file:
        file["entry_1/instrument_1/source_1/probe"] = "electron"
    with cxi.opened(path) as raw:
        assert raw.said.energy == pytest.approx(1e4) and raw.said.wavelength is None


def test_signal_axes_that_are_not_the_last(tmp_path: Path) -> None:
    with hspy.opened(foreign_files.hspy(tmp_path, (2, 3, 0, 1))) as raw:
        np.testing.assert_array_equal(whole(raw), COUNTS)
        assert raw.said.detector_pixel == (1.5, 2.0) and raw.said.scan_step == pytest.approx((0.5, 0.625))


def test_spectra_are_no_patterns(tmp_path: Path) -> None:
    path = foreign_files.hspy(tmp_path)
    with h5py.File(path, "a") as file:
        file["Experiments/__unnamed__/axis-2"].attrs["navigate"] = True
    with pytest.raises(ValueError, match=r"axes: expected two that do not navigate, those of the detector, found 1$"), hspy.opened(path):
        pass


def test_a_packed_zip_of_nion(tmp_path: Path) -> None:
    with nion.opened(foreign_files.nion_zip(tmp_path, packed=True)) as raw:
        np.testing.assert_array_equal(whole(raw), COUNTS)


def test_fortran_order_in_a_zip(tmp_path: Path) -> None:
    path = foreign_files.nion_zip(tmp_path)
    np.save(tmp_path / "f.npy", np.asfortranarray(COUNTS))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "f.npy", "data.npy")
        archive.writestr("metadata.json", "{}")
    with nion.opened(path) as raw:
        np.testing.assert_array_equal(whole(raw), COUNTS)
        assert said(raw.said) == {}


@pytest.mark.parametrize("shape", [(6, 8, 15), (6, 8, 5, 3), (8, 8, 15), (15, 8, 8), (8, 8, 8)])
def test_orders_of_axes_in_matlab(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """(ky, kx, N) becomes (N, ky, kx); where the last two axes alone are equal, Python wrote it, and it stays."""
    values = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    expected = values if shape == (15, 8, 8) else values.transpose(*reversed(range(2, len(shape))), 0, 1)
    foreign_files.scipy.io.savemat(tmp_path / "x.mat", {"dp": values})
    with h5py.File(tmp_path / "y.mat", "w") as file:
        file["dp"] = values.T
        file["dp"].attrs["MATLAB_class"] = np.bytes_("double")
    for name in ("x.mat", "y.mat"):
        with matlab.opened(tmp_path / name) as raw:
            np.testing.assert_array_equal(whole(raw), expected)


def test_the_name_of_an_array(tmp_path: Path) -> None:
    path = foreign_files.matlab_old(tmp_path)
    foreign_files.scipy.io.savemat(path, {"a": COUNTS, "b": 2 * COUNTS})
    with (
        pytest.raises(ValueError, match=r"old.mat: patterns: expected one array of patterns, or its name as key, found a, b$"),
        matlab.opened(path),
    ):
        pass
    with matlab.opened(path, "b") as raw:
        assert raw.patterns.name.endswith(": b")
    with (
        pytest.raises(ValueError, match=r"key: expected one of the arrays of patterns in the file \(a, b\), found 'c'$"),
        matlab.opened(path, "c"),
    ):
        pass


def test_a_scan_that_was_stopped(tmp_path: Path) -> None:
    """DECTRIS: frames without a shape. EMPAD: the shape that the name says would put every line in a wrong place."""
    path = foreign_files.dectris(tmp_path)
    with h5py.File(tmp_path / "run.h5", "a") as side:
        side["STEM Metadata"].attrs["NumPixelsY"] = [4]
    with dectris.opened(path) as raw:
        assert raw.said.scan_shape is None and raw.said.energy == 60e3
    raw_file = foreign_files.empad(tmp_path)
    raw_file.write_bytes(raw_file.read_bytes()[: 14 * empad.FRAME.itemsize])
    with pytest.raises(ValueError, match=r"expected 3 x 5 frames, as the scan is said to have, found 14$"), empad.opened(raw_file):
        pass


def test_zarr_chunks_that_are_not_there_are_filled(tmp_path: Path) -> None:
    path = foreign_files.zspy(tmp_path)
    (path / "Experiments" / "__unnamed__" / "data" / "0" / "0" / "0" / "0").unlink()
    with zspy.opened(path) as raw:
        expected = COUNTS.copy()
        expected[:2, :2] = 0
        np.testing.assert_array_equal(whole(raw), expected)
        np.testing.assert_array_equal(raw.patterns.values[-1, ::2, 3], COUNTS[-1, ::2, 3])


def test_zarr_packed_by_blosc(tmp_path: Path) -> None:
    blosc = pytest.importorskip("numcodecs.blosc")
    path = foreign_files.zspy(tmp_path)
    data = path / "Experiments" / "__unnamed__" / "data"
    about = json.loads((data / ".zarray").read_text())
    (data / ".zarray").write_text(json.dumps({**about, "chunks": COUNTS.shape, "compressor": {"id": "blosc"}, "dimension_separator": "."}))
    (data / "0.0.0.0").write_bytes(blosc.compress(COUNTS.tobytes(), b"lz4", 5))
    with zspy.opened(path) as raw:
        np.testing.assert_array_equal(whole(raw), COUNTS)


def test_frames_packed_by_bitshuffle(tmp_path: Path) -> None:
    plugin = pytest.importorskip("hdf5plugin")
    path = foreign_files.dectris(tmp_path)
    with h5py.File(tmp_path / "run_data_000001.h5", "w") as file:
        file.create_dataset("entry/data/data", data=STACK[:9].astype(np.uint32), chunks=(1, 6, 8), **plugin.Bitshuffle(cname="lz4"))
    with dectris.opened(path) as raw:
        np.testing.assert_array_equal(whole(raw), STACK)


def test_a_missing_filter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code < 256)
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, 6, 8))
        plist.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, (0, 2))  # bitshuffle's number
        space, parent = h5py.h5s.create_simple((15, 6, 8)), file.create_group("entry/data")
        data = h5py.Dataset(h5py.h5d.create(parent.id, b"data", h5py.h5t.STD_U32LE, space, plist))
        data.attrs["image_nr_low"] = 1
    with pytest.raises(ValueError, match=r"found number 32008 .*adaptycho\[formats\]' brings hdf5plugin"), dectris.opened(path):
        pass


MIB = "MQ1,{:06d},00384,01,0008,0006,U16,   1x1,01,2026-01-01 00:00:00.000000,0.001,0,0,0,1.0E+2,MQ1A,2026-01-01T00:00:00.0Z,1200000ns,6,"


def test_mib_by_rosettasciio(tmp_path: Path) -> None:
    """Which turns the detector's rows round, as Merlin shows them."""
    pytest.importorskip("rsciio")
    path = tmp_path / "merlin.mib"
    path.write_bytes(b"".join(MIB.format(k).ljust(383).encode() + b"\n" + p.astype(">u2").tobytes() for k, p in enumerate(STACK, 1)))
    path.with_suffix(".hdr").write_text("HDR,\t\nFrames in Acquisition (Number):\t15\nFrames per Trigger (Number):\t5\nEnd\t")
    with rosetta.opened(path) as raw:
        np.testing.assert_array_equal(whole(raw), COUNTS[:, :, ::-1])


def test_rosettasciio_is_named_when_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rosetta.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    path = tmp_path / "merlin.mib"
    path.write_bytes(MIB.format(1).encode().ljust(400))
    assert rosetta.can_read(path)
    with (
        pytest.raises(ValueError, match=r"merlin.mib: expected RosettaSciIO to be installed, .*adaptycho\[formats\]"),
        rosetta.opened(path),
    ):
        pass


@pytest.mark.parametrize(
    ("unit", "angle", "pixel"),
    [
        ("rad", (1.0, 2.0), None),
        ("mrad", (1e-3, 2e-3), None),
        *((unit, (1e-6, 2e-6), None) for unit in ("\u00b5rad", "\u03bcrad", "urad")),
        *((unit, None, (1e3 / 8, 1e3 / 20)) for unit in ("A^-1", "1/Å", "1 / Å", "Å⁻¹", "1/\u212b")),
        *((unit, None, (1e4 / 8, 1e4 / 20)) for unit in ("1/nm", "nm^-1")),
        *((unit, None, None) for unit in ("", "pixels", "nm", "counts")),
    ],
)
def test_units_of_the_detector(unit: str, angle: tuple[float, float] | None, pixel: tuple[float, float] | None) -> None:
    """1/length is a real-space pixel 1/(Q dk) without an energy, and an angle, lambda dk, with one: lambda is 0.04866 Å at 60 keV."""
    found = calibration.detector((1e-3, -2e-3), (unit, unit), (8, 10))
    assert found == (pytest.approx(angle) if angle else None, pytest.approx(pixel) if pixel else None)
    if pixel:
        angles, _ = calibration.detector((1e-3, 2e-3), (unit, unit), (8, 10), 60e3)
        assert angles == pytest.approx((1e3 * 0.048661 / (8 * pixel[0]), 1e3 * 0.048661 / (10 * pixel[1])), rel=1e-4)


def test_lengths_that_are_none() -> None:
    assert calibration.step((0.5, 0.5), ("nm", "um")) == (5.0, 5000.0)
    for scales, units in (((None, 1.0), ("nm", "nm")), ((0.0, 1.0), ("nm", "nm")), ((1.0, 1.0), ("nm", "")), ((np.nan, 1.0), ("nm", "nm"))):
        assert calibration.step(scales, units) is None


def test_views() -> None:
    turned, joined = Turned(COUNTS.transpose(3, 0, 2, 1), (1, 3, 2, 0)), Joined([STACK[:4], STACK[4:5], STACK[5:]])
    for key in (1, -1, slice(2, 3), (0, slice(None), 1), (slice(1, None), 2, ..., 5), (..., slice(0, 6, 2)), (0, 1, 2, 3)):
        np.testing.assert_array_equal(turned[key], COUNTS[key])
    for key in (3, -1, slice(2, 9), slice(None), slice(3, 15, 4), slice(1, 14, 5), slice(7, 7), (slice(1, 9, 2), 3, slice(2, 4)), (..., 0)):
        np.testing.assert_array_equal(joined[key], STACK[key])
    with pytest.raises(IndexError):
        joined[15]
