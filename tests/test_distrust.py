"""What a file holds is not believed: foreign bytes, hollow arrays, absurd units and changed numbers end in one sentence."""

import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from adaptycho import settings
from adaptycho.compare import archive
from adaptycho.formats import from_arrays, read, rehearsal, write
from adaptycho.learn import loop
from adaptycho.runs import checksums, journal
from adaptycho.scan.networks import weights
from adaptycho.support import document, reading
from adaptycho.types import Measurement

COUNTS = np.random.default_rng(0).poisson(2.0, (36, 16, 16)).astype(np.uint16)
PLACES = np.stack(np.meshgrid(np.arange(6) * 1.3, np.arange(6) * 1.0, indexing="ij"), -1).reshape(-1, 2)
OPTIONS = {"energy": 60e3, "semiangle": 33.0, "pixel": 0.308, "positions": PLACES}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("p.npy", COUNTS)
    write("good.h5", from_arrays("p.npy", **OPTIONS))
    return tmp_path


def refused(call: Callable[[], object], name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert str(caught.value).startswith(f"{name}: ")
    assert str(caught.value).isprintable()


def place(way: str) -> None:
    """Puts something that is no file under the name of `odd`."""
    if way == "pipe":
        os.mkfifo("odd")
    elif way == "folder":
        Path("odd").mkdir()
    elif way != "none":
        Path("odd").symlink_to({"device": "/dev/zero", "loop": "odd", "dangling": "nowhere"}[way])


ODD = {
    **{"pipe": "something that is no file", "device": "something that is no file", "folder": "a folder", "none": "none"},
    **{"loop": "a link that leads nowhere", "dangling": "a link that leads nowhere"},
}
SOURCE = checksums.Source("odd", "")
READERS: dict[str, Callable[[Path], object]] = {
    "recording": read,
    "arrays": lambda path: from_arrays(path, **OPTIONS),
    "table": lambda path: from_arrays("p.npy", **(OPTIONS | {"positions": path})),
    "settings": settings.load,
    "JSON": lambda path: document.read(path, checksums.Source),
    "weights": weights.load,
    "evaluation": archive.read,
    "sub-sequence": lambda path: journal.read_arrays(path, {}, sealed=False),
    "checksum": lambda path: checksums.check_start(path, checksums.Beginning(start=SOURCE)),
}


@pytest.mark.parametrize("way", ODD)
@pytest.mark.parametrize("name", READERS)
def test_only_files_are_opened(folder: Path, name: str, way: str) -> None:
    """A pipe without a writer would block, and a device never end: the test then runs out of its time."""
    place(way)
    refused(lambda: READERS[name](Path("odd")), "odd", f"expected an? .*, found {ODD[way]}$")


@pytest.mark.parametrize("way", ["pipe", "device", "folder", "loop", "dangling"])
def test_a_log_is_a_file(folder: Path, way: str) -> None:
    place(way)
    Path("odd").rename(loop.LOG)
    if way == "loop":
        Path(loop.LOG).unlink()
        Path(loop.LOG).symlink_to(loop.LOG)
    refused(lambda: loop.read_log(folder), f"{folder / loop.LOG}", f"expected the log of a training, found {ODD[way]}$")


def test_a_link_to_itself_has_a_whole_path(folder: Path) -> None:
    Path("odd").symlink_to("odd")
    chosen = settings.update(settings.Settings(), {"scan": {"file": "odd", "weights": "odd"}}, "test")
    assert checksums.located(chosen).scan.file == checksums.located(chosen).scan.weights == str(folder / "odd")


def test_groups_in_each_other_without_end(folder: Path) -> None:
    with h5py.File("a.h5", "w") as file:
        file["data/patterns"] = COUNTS
        file["data/again"] = h5py.SoftLink("/data/patterns")
        file["data/round"] = file["data"]  # a circle
        group = file
        for depth in range(3000):
            group = group.create_group("g")
            if depth == rehearsal.DEPTH:
                group["deeper"] = COUNTS
    started = time.process_time()
    found = from_arrays("a.h5", **OPTIONS)
    # HDF5's own walk takes 72 s, since it works out the path of each of the groups.
    assert time.process_time() - started < 5
    assert torch.equal(found.measurement.patterns, read("good.h5").measurement.patterns)


def virtual(file: h5py.File, key: str) -> None:
    layout = h5py.VirtualLayout((36, 16, 16), np.uint16)
    layout[:] = h5py.VirtualSource("good.h5", "patterns", (36, 16, 16))
    file.create_virtual_dataset(key, layout)


FOREIGN = {
    "storage": lambda f, k: f.create_dataset(k, (36, 16, 16), np.uint16, external=[("p.npy", 0, 36 * 512)]),
    "virtual": virtual,
    "external": lambda f, k: f.__setitem__(k, h5py.ExternalLink("good.h5", "/patterns")),
    "soft": lambda f, k: f.__setitem__(k, h5py.SoftLink("/positions")),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_no_bytes_of_other_files_are_shown(folder: Path, kind: str) -> None:
    with h5py.File("a.h5", "w") as file:
        FOREIGN[kind](file, "p")
    refused(lambda: from_arrays("a.h5", **OPTIONS), "a.h5", "in the file itself")
    for key in ("patterns", "positions", "dose", "setup"):
        (folder / "b.h5").write_bytes((folder / "good.h5").read_bytes())
        with h5py.File("b.h5", "r+") as file:
            del file[key]
            FOREIGN[kind](file, key)
        refused(lambda: read("b.h5"), "b.h5", "in the file itself|expected a group")


HEADERS = {
    "unbalanced": "{'descr': '<u2', 'shape': (36, 16, 16",
    "negative": "{'descr': '<u2', 'fortran_order': False, 'shape': (-36, 16, 16), }",
    "huge": "{'descr': '<u2', 'fortran_order': False, 'shape': (1000000000000000000000, 16, 16), }",
    "record": "{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (36, 16, 16), }",
    "escape": "{'descr': '\x1b[31m', 'fortran_order': False, 'shape': (36, 16, 16), }",
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_arrays_are_not_believed(folder: Path, name: str) -> None:
    text = HEADERS[name].ljust(117) + "\n"
    (folder / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + COUNTS.tobytes())
    refused(lambda: from_arrays("x.npy", **OPTIONS), "x.npy", "expected")


def test_hollow_files_take_no_memory(folder: Path) -> None:
    """1 TB of them, of which the file has nothing; 11 GiB packed into less than 2 MB are the same."""
    with h5py.File("a.h5", "w") as file:
        file.create_dataset("p", (1000, 1000, 1000, 1000), np.uint8, chunks=(1, 1, 1000, 1000))
    raster = {k: v for k, v in OPTIONS.items() if k != "positions"} | {"scan_step": 1.0}
    refused(lambda: from_arrays("a.h5", **raster), "a.h5", "p: expected at most 1000 times the 0 bytes .*, found 931 GiB")
    text = "{'descr': '<u2', 'fortran_order': False, 'shape': (90, 90, 1000, 1000), }".ljust(117) + "\n"
    with zipfile.ZipFile("a.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    refused(lambda: from_arrays("a.npz", **raster), "a.npz", "expected at most 1000 times the .* bytes")


def test_memory_that_is_not_there_is_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**26 < reading.free_memory() < 2**50
    monkeypatch.setattr(reading, "free_memory", lambda: 20_000)  # 36 patterns of 16 x 16 take 18,432 bytes, cropped 4,608
    refused(lambda: from_arrays("p.npy", **OPTIONS), "p.npy", "expected at most .* GiB, what fits into memory now, .*; a crop reads less")
    assert from_arrays("p.npy", crop=8, **OPTIONS).measurement.patterns.shape == (1, 36, 8, 8)


def test_half_precision_is_single_precision_everywhere(folder: Path) -> None:
    np.save("p.npy", COUNTS.astype(np.float16))
    made = from_arrays("p.npy", **OPTIONS)
    assert made.measurement.patterns.dtype == torch.float32
    whole = from_arrays("p.npy", **OPTIONS).measurement.patterns
    assert float(whole.sum()) == COUNTS.sum()


ABSURD = {
    "MeV": ({"energy": 60e6}, r"energy: expected 1 to 3000 keV, found 60000 keV; 60 keV is --energy 60"),
    "keV as eV": ({"energy": 60.0}, r"energy: .* found 0\.06 keV; 60 keV is --energy 60, or 60000 eV"),
    "semiangle": ({"semiangle": 1e18}, r"semiangle: expected 1e-06 to 500 mrad, found 1e\+18"),
    "defocus": ({"defocus": 1e30}, r"defocus: expected -1e\+10 to 1e\+10 Å, found 1e\+30"),
    "spread": ({"defocus": 1e6}, r"defocus: expected a beam of at most 10 times its window"),
    "pixel": ({"pixel": 3e-11}, r"pixel: expected"),
    "dose": ({"dose": 1e300}, r"dose: expected 0 to 1e\+15 counts"),
    "rotation": ({"rotation": 1e300}, r"rotation: expected -360 to 360 degrees"),
    "metres": ({"positions": PLACES * 1e-10}, r"positions: .* within 6\.5e-10 Å \(6\.5 Å if they are in m\)"),
    "far": ({"positions": PLACES * 1e6}, r"object: expected at most \d+ pixels for 36 patterns"),
    "endless": ({"positions": PLACES * 1e307}, r"positions: expected"),
    "strings": ({"positions": PLACES.astype("U8")}, r"positions: expected integer or real numbers, found <U8"),
    "dates": ({"positions": PLACES.astype("M8[s]")}, r"positions: expected integer or real numbers, found datetime64"),
    "complex": ({"positions": PLACES + 0j}, r"positions: expected integer or real numbers, found complex128"),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_values_are_wrong_units(folder: Path, name: str) -> None:
    options, said = ABSURD[name]
    refused(lambda: from_arrays("p.npy", **(OPTIONS | options)), "p.npy", said)


def test_an_array_beside_other_things_in_a_zip(folder: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, COUNTS)
    with zipfile.ZipFile("a.ndata", "w") as archive:
        archive.writestr("data.npy", stream.getvalue())
        archive.writestr("metadata.json", json.dumps({}))
    assert torch.equal(from_arrays("a.ndata", **OPTIONS).measurement.patterns, from_arrays("p.npy", **OPTIONS).measurement.patterns)
    with zipfile.ZipFile("b.npz", "w") as archive:
        archive.writestr("metadata.json", json.dumps({}))
    refused(lambda: from_arrays("b.npz", **OPTIONS), "b.npz", "found nothing")


def test_every_changed_field_is_noticed_and_text_is_made_printable(folder: Path) -> None:
    plain = (folder / "good.h5").read_bytes()

    def changed(group: str, key: str, index: int | None = None) -> None:
        (folder / "a.h5").write_bytes(plain)
        with h5py.File("a.h5", "r+") as file:
            if index is not None:
                file[key][index] = file[key][index] + file[key].dtype.type(1)
                return
            value = file[group].attrs[key]
            file[group].attrs[key] = value + "x" if isinstance(value, str) else np.asarray(value) + np.asarray(value).dtype.type(2)

    for key in ("patterns", "positions", "dose", "defocus"):
        changed("/", key, 20)
        refused(lambda: read("a.h5"), "a.h5", "expected")
    with h5py.File("good.h5") as file:
        keys = [("/", k) for k in ("title", "source", "licence", "counts_per_electron")] + [("setup", k) for k in file["setup"].attrs]
    for group, key in keys:
        if key != "units":
            changed(group, key)
            refused(lambda: read("a.h5"), "a.h5", "expected")
    (folder / "a.h5").write_bytes(plain)
    with h5py.File("a.h5", "r+") as file:
        del file.attrs["sha256"]
        file.attrs["title"], file.attrs["note"] = "\x1b[31mred\u202e\nline", "nobody reads this"
    assert read("a.h5").title == "\ufffd[31mred\ufffd line"


@pytest.mark.parametrize("fate", ["endless", "crash"])
def test_a_file_that_the_library_does_not_survive_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, fate: str) -> None:
    def look(*_: object) -> None:
        while fate == "endless":
            pass
        os.abort()

    monkeypatch.setattr(rehearsal, "BUSY", 1)
    monkeypatch.setattr(rehearsal, "_look", look)
    refused(lambda: read("good.h5"), "good.h5", "found a damaged one: reading it does not end, or crashes")


def test_measurements_of_no_numbers_are_refused() -> None:
    def made(patterns: torch.Tensor, **values: torch.Tensor) -> Measurement:
        parts = {"positions": torch.full((1, 2, 2), 0.5), "dose": torch.ones(1, 2), "defocus": torch.zeros(1, 2)} | values
        return Measurement(patterns=patterns, **parts)

    for dtype in (torch.bool, torch.complex64, torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match="patterns: expected integer or real counts"):
            made(torch.ones(1, 2, 4, 4, dtype=dtype))
    for key in ("positions", "dose", "defocus"):
        bad = torch.full((1, 2, 2) if key == "positions" else (1, 2), torch.nan)
        with pytest.raises(ValueError, match=f"{key}: expected finite real numbers"):
            made(torch.ones(1, 2, 4, 4), **{key: bad})
