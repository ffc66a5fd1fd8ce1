"""Who reads a file: its content decides, readers of other packages come last, and what nobody knows is refused with what is known."""

import pickle
import shutil
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from adaptycho import formats
from adaptycho.app import cli
from adaptycho.formats import hdf5, plain, readers, rotavirus
from adaptycho.formats.recording import Recording
from adaptycho.types import Measurement

OPTIONS = {"semiangle": 20.0, "detector_pixel": 4.0, "scan_step": 1.0, "title": "four by four"}


def arrays(folder: Path) -> Path:
    np.save(folder / "a.npy", np.random.default_rng(0).integers(0, 9, (4, 4, 8, 8)).astype(np.uint8))
    return folder / "a.npy"


def own(folder: Path) -> Path:
    formats.write(folder / "own.h5", formats.from_arrays(arrays(folder), energy=80e3, **OPTIONS))
    return folder / "own.h5"


def rota(folder: Path) -> Path:
    made = folder / "scan"
    made.mkdir()
    row, column = np.meshgrid(np.arange(4), np.arange(4), indexing="ij")
    np.savez(made / "counts_rows_000.npz", counts=np.ones((4, 4, 8, 8), np.uint8), scan_row=row, scan_col=column)
    np.savez(made / "probe_start.npz", probe=np.ones((8, 8), np.complex64))
    (made / "metadata.json").write_text(
        '{"energy_kev": 300, "convergence_semiangle_mrad_nominal": 1.0, "scan_step_angstrom": 30.0, "scan_rotation_deg_fitted": 0.0, '
        '"defocus_angstrom_fitted": 0.0, "real_space_pixel_angstrom": 9.0, "detector_pixel_mrad": 0.27}'
    )
    return made


class Brought:
    """A reader as a package might bring it: of text that begins with a word."""

    name, needs = "words", "a text that begins with RECORDING"

    def __init__(self, recording: object) -> None:
        self.recording = recording

    def can_read(self, path: Path) -> bool:
        return path.read_bytes()[:9] == b"RECORDING"

    def read(self, path: Path) -> Recording:
        if isinstance(self.recording, Exception):
            raise self.recording
        return self.recording  # type: ignore[return-value]


class Careless(Brought):
    """One that fails where it should only look."""

    def can_read(self, path: Path) -> bool:
        assert isinstance(self.recording, Exception)
        raise self.recording


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A module that stands for another package, whose `READER` an entry point names."""
    module = types.ModuleType("brought")
    monkeypatch.setitem(sys.modules, "brought", module)
    point = EntryPoint("words", "brought:READER", readers.GROUP)
    monkeypatch.setattr("adaptycho.support.plugins.entry_points", lambda group: [point] if group == readers.GROUP else [])
    yield module


def test_every_reader_that_comes_along_says_what_it_is_and_knows_its_own_only(tmp_path: Path) -> None:
    paths = {"adaptycho": own(tmp_path), "rotavirus": rota(tmp_path)}
    assert [reader.name for reader in readers.READERS][:2] == list(paths)
    for reader in (*readers.READERS, *readers.LAST):
        assert isinstance(reader, formats.Reader | formats.Opener) and reader.needs
        assert not reader.can_read(tmp_path)
        if reader is not plain:  # any file with an array is one of arrays
            assert [name for name, path in paths.items() if reader.can_read(path)] == [name for name in paths if name == reader.name]
            assert not reader.can_read(tmp_path / "a.npy")


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    path = own(tmp_path)
    renamed = shutil.copy(path, tmp_path / "looks-like-text.csv")
    assert formats.find(renamed) is hdf5
    assert torch.equal(formats.read(renamed).measurement.patterns, formats.read(path).measurement.patterns)
    folder = rota(tmp_path).rename(tmp_path / "folder.h5")
    assert formats.find(folder) is rotavirus
    assert formats.read(folder).measurement.patterns.shape == (1, 16, 8, 8)
    assert formats.find(tmp_path / "a.npy") is plain


def test_what_nobody_knows_is_refused_with_what_is_known(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.ones(3)
    known = r"adaptycho: an HDF5 file .*; rotavirus: a folder with .*; arrays: NumPy or HDF5 with patterns .*"
    (tmp_path / "folder").mkdir()
    (tmp_path / "pickle").write_bytes(pickle.dumps([1]))
    for path, found in (("other.h5", "an HDF5 file of another"), ("pickle", "a file of another"), ("folder", "a folder")):
        with pytest.raises(ValueError, match=rf"{path}: expected a recording in a known format \({known}\), found {found}$"):
            formats.read(tmp_path / path)
    with pytest.raises(ValueError, match=r"none: expected a recording, found none$"):
        formats.read(tmp_path / "none")


def test_a_damaged_file_is_said_to_be_damaged_and_not_unknown(tmp_path: Path) -> None:
    path = own(tmp_path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"own\.h5: expected a complete HDF5 file"):
        formats.find(path)
    made = rota(tmp_path)
    (made / "probe_start.npz").unlink()
    with pytest.raises(ValueError, match=r"probe_start\.npz: expected an \.npz file, found none"):
        formats.read(made)


def test_a_package_brings_a_reader(tmp_path: Path, installed: types.ModuleType) -> None:
    recording = formats.read(own(tmp_path))
    path = tmp_path / "own.txt"
    path.write_text("RECORDING 1")
    installed.READER = Brought(recording)
    assert formats.read(path) is recording
    # Those that come along are asked first, and what is still unknown is refused with the new one too.
    installed.READER.can_read = lambda path: True
    assert formats.find(tmp_path / "own.h5") is hdf5
    installed.READER.can_read = lambda path: False
    with pytest.raises(ValueError, match=r"own\.txt: expected a recording .*; words: a text that begins with RECORDING; arrays"):
        formats.read(path)


@pytest.mark.parametrize(
    ("brought", "said"),
    [
        (Brought(None), r"a\.txt: expected the reader words to make a recording, found a NoneType$"),
        (
            Brought(KeyError("step")),
            r"a\.txt: expected a recording in the format words, found one that cannot be read \(KeyError: 'step'\)$",
        ),
        (Brought(ValueError("a.txt: step: expected a length, found -1")), r"^a\.txt: step: expected a length, found -1$"),
    ],
)
def test_a_reader_that_fails_is_one_sentence(tmp_path: Path, installed: types.ModuleType, brought: object, said: str) -> None:
    (tmp_path / "a.txt").write_text("RECORDING 1")
    installed.READER = brought
    with pytest.raises(ValueError, match=said):
        formats.read(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("careless", "why"),
    [
        (None, r"adaptycho\.readers: expected careless:READER to have name, needs, can_read and read, found a NoneType without"),
        ("absent", r"adaptycho\.readers: expected careless:READER to load for 'careless', found AttributeError: .*"),
        (KeyError("step"), r"KeyError: 'step'"),
        (ValueError("a.txt: expected a header, found\x1b[2J none"), r"a\.txt: expected a header, found\ufffd\[2J none"),
        (OSError("the disk is gone"), r"the disk is gone"),
    ],
)
def test_a_package_s_reader_that_cannot_be_asked_is_passed_over_and_named_where_nobody_knows(
    tmp_path: Path, installed: types.ModuleType, monkeypatch: pytest.MonkeyPatch, careless: object, why: str
) -> None:
    recording = formats.read(own(tmp_path))
    installed.READER = Brought(recording)
    module = types.ModuleType("careless")
    if careless != "absent":
        module.READER = Careless(careless) if isinstance(careless, Exception) else careless  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "careless", module)
    points = [EntryPoint(name, f"{value}:READER", readers.GROUP) for name, value in (("careless", "careless"), ("words", "brought"))]
    monkeypatch.setattr("adaptycho.support.plugins.entry_points", lambda group: points)
    (tmp_path / "a.txt").write_text("RECORDING 1")
    assert formats.read(tmp_path / "a.txt") is recording
    assert formats.find(tmp_path / "a.npy") is plain
    (tmp_path / "b.txt").write_text("nothing")
    assert formats.find(tmp_path / "b.txt") is None
    with pytest.raises(
        ValueError, match=rf"b\.txt: expected a recording .*, found a file of another; readers that failed: careless \({why}\)$"
    ):
        formats.read(tmp_path / "b.txt")
    # The other one opens whatever it is given, a folder too.
    failed = rf"readers that failed: careless \({why}\), words \(\[Errno 21\] Is a directory: .*\)$"
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=rf"folder: expected a recording in a known format .*; arrays: .*, found a folder; {failed}"):
        formats.read(tmp_path / "folder")
    # What comes along and knows that nobody can read it ends the search.
    path = tmp_path / "own.h5"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"own\.h5: expected a complete HDF5 file") as refused:
        formats.read(path)
    assert "careless" not in str(refused.value)


def test_what_a_package_s_reader_makes_is_not_believed(tmp_path: Path, installed: types.ModuleType) -> None:
    recording = formats.read(own(tmp_path))
    recording.measurement.positions[0, 3, 0] = 7.0
    installed.READER = Brought(recording)
    (tmp_path / "a.txt").write_text("RECORDING 1")
    with pytest.raises(ValueError, match=r"a\.txt: positions: expected positions inside the scan field"):
        formats.read(tmp_path / "a.txt")


def test_an_import_takes_what_can_be_read_and_arrays_whose_beam_is_given(tmp_path: Path) -> None:
    path, folder = own(tmp_path), rota(tmp_path)
    assert formats.read(folder).title == rotavirus.TITLE
    assert formats.read(path).setup.energy == 80e3
    # With a beam given by hand the arrays count, not what the file says.
    with h5py.File(path) as file:
        np.save(tmp_path / "where.npy", file["positions"][...])
    where = tmp_path / "where.npy"
    again = formats.read(path, energy=60e3, semiangle=20.0, detector_pixel=4.0, key="patterns", positions=where)
    assert again.setup.energy == 60e3
    with pytest.raises(ValueError, match=r"a\.npy: energy: expected a beam energy in eV .*, found neither \(--energy 300keV"):
        formats.read(tmp_path / "a.npy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: expected a recording in a known format .*, found a folder$"):
        formats.read(tmp_path / "empty", energy=60e3)


def test_options_that_a_file_with_facts_of_its_own_would_leave_unheard_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.h5"
    words = ["import", str(formats.example()), str(out), "--json"]
    options = {"crop": 16, "title": "MINE", "rotation": 33.0, "dose": 5.0, "scan-step": 3.0, "counts-per-electron": 9.0, "defocus": 999.0}
    assert cli.main([*words, *(f"--{name}={value}" for name, value in options.items())]) == 2
    said = capsys.readouterr().err
    assert all(f"--{name}" in said and str(value) in said for name, value in options.items())
    assert not out.exists()
    (tmp_path / "a.csv").write_text("0,0\n")
    for flag, found in (
        ("--swap", "True"),
        ("--key=patterns", "patterns"),
        (f"--positions={tmp_path / 'a.csv'}", "a.csv"),
        ("--pixel=2", "2.0"),
        ("--rotation=0", "0.0"),
    ):
        assert cli.main([*words, flag]) == 2
        name = flag.partition("=")[0]
        expected = f"rotavirus.h5: {name}: expected to be left out, since these facts come from the file, which is in the format adaptycho"
        said = capsys.readouterr().err
        assert expected in said and found in said
    with pytest.raises(ValueError, match=r"scan: --crop, --title: expected to be left out, .* in the format rotavirus, found 4, MINE$"):
        formats.read(rota(tmp_path), crop=4, title="MINE", swap=False)
    # What says nothing about the data.
    out.write_bytes(b"")
    assert cli.main([*words, "--title", "", "--overwrite"]) == 0
    assert formats.read(out).title == formats.read(formats.example()).title


def test_a_recording_of_two_data_sets_is_not_cut(tmp_path: Path) -> None:
    recording = formats.read(own(tmp_path))
    two = replace(recording, measurement=Measurement.stack([recording.measurement] * 2))
    with pytest.raises(ValueError, match=r"^measurement: expected one data set, got 2$"):
        formats.cut(two, rows=(0.0, 1.0), columns=(0.0, 1.0))
    assert len(formats.cut(recording, rows=(0.0, 1.0), columns=(0.0, 0.5)).measurement) == 1
