"""What another program's file holds is not believed: damage, links, bombs, pickles and absurd sizes end in one sentence."""

import json
import os
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

import foreign_damage
import foreign_files
from adaptycho.formats.readers import cxi, facts, foreign, matlab, nion, zspy
from adaptycho.formats.readers import ptychodus as ptychodus_reader
from adaptycho.support import reading
from foreign_files import COUNTS, HDF5, READERS, STACK, WRITERS, refused


def test_damage() -> None:
    """Some hundred of what `python tests/foreign_damage.py` tries by the thousand."""
    ends = {end for _, _, end in foreign_damage.tried(15 * 7, seed=3)[0]}
    assert ends <= {"read", "refused", "unknown"} and "refused" in ends


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_foreign_is_known(tmp_path: Path, name: str) -> None:
    """Text, pickles, empty files, folders and pipes are nobody's, whatever they are called."""
    called = WRITERS[name](tmp_path).name
    for number, make in enumerate(
        (
            lambda path: path.write_text("a,b\n1,2\n"),
            lambda path: path.write_bytes(pickle.dumps(COUNTS)),
            lambda path: path.touch(),
            lambda path: path.mkdir(),
            os.mkfifo,
            lambda path: path.symlink_to(path),
            lambda path: path.write_bytes(os.urandom(5000)),
        )
    ):
        path = tmp_path / f"{number}" / called
        path.parent.mkdir()
        make(path)
        assert [each.name for each in foreign.FOREIGN if each.can_read(path)] == []


@pytest.mark.parametrize("name", HDF5)
@pytest.mark.parametrize("kind", ["objects", "text", "complex", "empty", "records", "huge"])
def test_what_are_no_patterns(tmp_path: Path, name: str, kind: str) -> None:
    path, key = WRITERS[name](tmp_path), HDF5[name]
    with h5py.File(path, "a") as file:
        attributes, shape = dict(file[key].attrs), file[key].shape
        del file[key]
        if kind == "huge":
            file.create_dataset(key, (*(10**5,) * (len(shape) - 2), 4096, 4096), "u2", chunks=(1,) * len(shape))
        elif kind == "empty":
            file.create_dataset(key, (0, *shape[1:]), "u2")
        else:
            kinds = {"objects": h5py.ref_dtype, "text": h5py.string_dtype(), "complex": "c8", "records": [("a", "f4"), ("b", "i2")]}
            file.create_dataset(key, shape, kinds[kind])
        file[key].attrs.update(attributes)
    positions = name in ("cxi", "ptychodus")  # of which there are too few, and they are counted first
    refused(READERS[name], path, "expected .* bytes that the file has of it" if kind == "huge" and not positions else "expected .*, found")


def zipped(path: Path, data: bytes, said: bytes, packed: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr("data.npy", data)
        archive.writestr("metadata.json", said)
    return path


def npy(shape: tuple[int, ...], dtype: str = "<u2") -> bytes:
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (npy((3, 5, 6, 8)), b"{}"),  # nothing after the header
        (npy((10**6, 10**6, 64, 64)), b"{}"),
        (npy((-3, 5, 6, 8)), b"{}"),
        (npy((3, 5, 6, 8), "|O") + pickle.dumps(COUNTS), b"{}"),
        (pickle.dumps(COUNTS), b"{}"),
        (npy((4, 2)) + bytes(16), b"{}"),
        (npy((1, 1, 2, 2)) + bytes(8), b"[" * 10**5),
        (npy((1, 1, 2, 2)) + bytes(8), b'{"a":' * 900 + b"1" + b"}" * 900),
        (npy((1, 1, 2, 2)) + bytes(8), b"[1]"),
        (npy((1, 1, 2, 2)) + bytes(8), b"\xff\xfe"),
        (npy((1, 1, 2, 2)) + bytes(8), b" " * (2**24 + 1)),
    ],
)
def test_zips_of_nion(tmp_path: Path, data: bytes, said: bytes, packed: int) -> None:
    refused(nion, zipped(tmp_path / "x.ndata", data, said, packed), "expected .*, found")


@pytest.mark.parametrize(
    "said",
    [
        {"dimensional_calibrations": 7, "metadata": 7, "title": 7},
        {
            "dimensional_calibrations": [{"scale": "x", "units": 3}] * 4,
            "metadata": {"instrument": {"high_tension": "60 kV", "defocus": None}},
        },
        {"dimensional_calibrations": [{"scale": 0, "units": "nm"}] * 4, "metadata": {"instrument": {"high_tension": -1, "defocus": [1]}}},
        {"dimensional_calibrations": [[1], None, {}, {"scale": True, "units": "rad"}], "data_sources": [4], "data_source": []},
    ],
)
def test_odd_words_say_nothing(tmp_path: Path, said: dict[str, object]) -> None:
    with nion.opened(zipped(tmp_path / "x.ndata", npy((1, 1, 2, 2)) + bytes(8), json.dumps(said).encode())) as raw:
        assert {value for key, value in vars(raw.said).items() if key != "title"} <= {None, ""} and raw.said.title == ""


def test_what_cannot_be_listed_is_not_read() -> None:
    """A file whose attributes could not be listed, and therefore not be tried before, was read by name without an end."""

    class Damaged:
        def __iter__(self) -> Iterator[str]:
            raise RuntimeError("possibly corrupted file")

        def __getitem__(self, name: str) -> object:
            pytest.fail("read by name")

        __contains__ = __getitem__

    with pytest.raises(RuntimeError, match="corrupted"):
        facts.attribute(SimpleNamespace(attrs=Damaged()), "format")  # type: ignore[arg-type]


def test_a_deep_document() -> None:
    with pytest.raises(ValueError, match=f"^x: expected a JSON object of at most {facts.NESTED} levels, found another$"):
        facts.document('{"a":' * 100 + "1" + "}" * 100, "x")


def test_a_bomb_in_matlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An element that unpacks to a thousand times its size is refused in pieces, before it is memory; limits are lowered to be fast."""
    monkeypatch.setattr(reading, "SMALL", 2**20)
    monkeypatch.setattr(reading, "PACKED", 100)
    packed = zlib.compress(bytes(2**24))
    path = foreign_files.matlab_old(tmp_path)
    element = (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    path.write_bytes(path.read_bytes()[:128] + element)
    refused(matlab, path, "old.mat: an element: expected at most 100 times the [0-9]+ bytes")


def test_cells_and_structures_are_not_looked_into(tmp_path: Path) -> None:
    cells = np.empty((2, 2, 2), object)
    cells[...] = 1.0
    foreign_files.scipy.io.savemat(tmp_path / "x.mat", {"dp": cells, "s": {"a": STACK}})
    refused(matlab, tmp_path / "x.mat", "expected one array of patterns, or its name as key, found none")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"filters": [{"id": "pickle"}]}, "packed by zlib with filters"),
        ({"compressor": {"id": "pickle"}}, "packed by pickle"),
        ({"dtype": "|O"}, "expected integer or real numbers, found object"),
        ({"dtype": [["a", "<i4"]]}, "found records"),
        ({"shape": [10**6, 10**6, 64, 64]}, "bytes that the file has of it"),
        ({"shape": [3, 5, 6, 8], "chunks": [10**6, 10**6, 64, 64]}, "expected .*, found"),
        ({"shape": [0, 5, 6, 8]}, "none of them empty"),
        ({"shape": 7}, "expected .*, found"),
        ({"dimension_separator": "/../"}, "expected the order"),
        ({"zarr_format": 3}, "found format 3"),
        ({"dtype": "<f8"}, "expected 1536 bytes of numbers, found 384"),
    ],
)
def test_arrays_of_zarr(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = foreign_files.zspy(tmp_path)
    about = path / "Experiments" / "__unnamed__" / "data" / ".zarray"
    about.write_text(json.dumps({**json.loads(about.read_text()), **change}))
    refused(zspy, path, said)


def test_positions_of_others(tmp_path: Path) -> None:
    path = foreign_files.ptychodus(tmp_path)
    with h5py.File(tmp_path / "scan_para.hdf5", "a") as file:
        file["probe_position_indexes"][...] = 3
    with pytest.raises(ValueError, match=r"expected each number below 15 once, found others$"), ptychodus_reader.opened(path):
        pass
    with h5py.File(tmp_path / "scan_para.hdf5", "a") as file:
        del file["probe_position_x_m"]
        file["probe_position_x_m"] = np.ones(14)
    with pytest.raises(ValueError, match=r"expected 15 positions, one for each pattern, found shapes"), ptychodus_reader.opened(path):
        pass
    path = foreign_files.cxi(tmp_path)
    with h5py.File(path, "a") as file:
        del file["entry_1/sample_1/geometry_1/translation"]
        file["entry_1/sample_1/geometry_1/translation"] = np.ones((14, 3))
    refused(cxi, path, r"expected 15 translations \(x, y, z\) in m, one for each pattern, found shape \(14, 3\)")
