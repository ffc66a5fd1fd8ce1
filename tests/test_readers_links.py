"""What a file says lies elsewhere is not read: links, other files' values, names that lead out of the folder."""

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import foreign_files
from adaptycho.formats.readers import dectris, empad, foreign, zspy
from foreign_files import HDF5, READERS, WRITERS, refused

SECRET = np.full((15, 6, 8), 42, np.uint16)


def external(file: h5py.File, key: str, other: Path) -> None:
    file[key] = h5py.ExternalLink(str(other), "secret")


def virtual(file: h5py.File, key: str, other: Path) -> None:
    layout = h5py.VirtualLayout((15, 6, 8), "u2")
    layout[:] = h5py.VirtualSource(str(other), "secret", (15, 6, 8))
    file.create_virtual_dataset(key, layout)


def storage(file: h5py.File, key: str, other: Path) -> None:
    file.create_dataset(key, (15, 6, 8), "u2", external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def loop(file: h5py.File, key: str, other: Path) -> None:
    file[key] = h5py.SoftLink(f"/{key}")


@pytest.mark.parametrize("way", [external, virtual, storage, loop], ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", HDF5)
def test_values_elsewhere(tmp_path: Path, name: str, way: Callable[[h5py.File, str, Path], None]) -> None:
    """Nobody knows such a file, and who is made to open it refuses."""
    path, other = WRITERS[name](tmp_path), tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = SECRET
    with h5py.File(path, "a") as file:
        attributes = dict(file[HDF5[name]].attrs)
        del file[HDF5[name]]
        way(file, HDF5[name], other)
        if way in (virtual, storage):
            file[HDF5[name]].attrs.update(attributes)
    assert [each.name for each in foreign.FOREIGN if each.can_read(path)] == []
    refused(READERS[name], path, "expected .*, found")


OUTSIDE = ["../secret.h5", "/secret.h5", "sub/../secret.h5", "..", "", "sub\\secret.h5", "out.h5", "loop.h5", "none.h5"]


@pytest.mark.parametrize("link", OUTSIDE)
def test_dectris_frames_outside_of_the_folder(tmp_path: Path, link: str) -> None:
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["entry/data/data"] = SECRET
    (inside / "out.h5").symlink_to(tmp_path / "secret.h5")
    (inside / "loop.h5").symlink_to(inside / "loop.h5")
    with h5py.File(inside / "x_master.h5", "w") as file:
        file["entry/data/data_000001"] = h5py.ExternalLink(link or ".", "/entry/data/data")
    beside = link in ("none.h5", "loop.h5")
    refused(
        dectris,
        inside / "x_master.h5",
        f"expected a {'file of frames beside the master' if beside else 'link to a file in the same folder'}",
    )


def test_dectris_links_that_go_on(tmp_path: Path) -> None:
    """A file beside the master that links elsewhere, and a master that names itself."""
    path = foreign_files.dectris(tmp_path)
    with h5py.File(tmp_path / "run_data_000002.h5", "w") as file:
        file["entry/data/data"] = h5py.ExternalLink("run_data_000001.h5", "/entry/data/data")
    refused(dectris, path, "found a link; these are not followed")
    with h5py.File(path, "w") as file:
        file["entry/data/data_000001"] = h5py.ExternalLink(path.name, "/entry/data/data_000001")
    refused(dectris, path, "found a link; these are not followed")


def test_dectris_frames_that_do_not_fit(tmp_path: Path) -> None:
    path = foreign_files.dectris(tmp_path)
    with h5py.File(tmp_path / "run_data_000002.h5", "w") as file:
        file["entry/data/data"] = np.ones((2, 5, 8), np.uint32)
    refused(dectris, path, r"expected frames \(6, 8\) of uint32 as in the first, found \(5, 8\) of uint32")


def test_links_and_bombs_in_zarr(tmp_path: Path) -> None:
    path = foreign_files.zspy(tmp_path)
    chunk = path / "Experiments" / "__unnamed__" / "data" / "0" / "0" / "0" / "0"
    (tmp_path / "secret").write_bytes(chunk.read_bytes())
    chunk.write_bytes(zlib.compress(bytes(2**24)))
    refused(zspy, path, "expected 384 bytes of numbers, found 385")
    chunk.unlink()
    chunk.symlink_to(tmp_path / "secret")
    refused(zspy, path, "found a link; these are not followed")
    chunk.unlink()
    os.mkfifo(chunk)
    refused(zspy, path, "found something that is no file")
    chunk.unlink()
    chunk.parent.rmdir()
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "0").write_bytes((tmp_path / "secret").read_bytes())
    chunk.parent.symlink_to(tmp_path / "away")
    refused(zspy, path, "found a link; these are not followed")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ('<root><raw_file filename="/etc/passwd"/></root>', "expected a raw file of EMPAD frames, found none"),
        ('<root><raw_file filename=".."/></root>', "expected the name of a file in the same folder"),
        ('<root><raw_file filename="out.raw"/></root>', "expected the name of a file in the same folder"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><root><raw_file filename="&b;"/></root>', "XML without a document type"),
        ("<root>", "expected XML, found one that cannot be read"),
        ("<root>" * 50000, "expected XML, found one that cannot be read"),
        ("<root/>" + " " * 2**22, "bytes of XML, found"),
    ],
)
def test_xml_of_empad(tmp_path: Path, words: str, said: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "out.raw").symlink_to(tmp_path / "scan_x5_y3.raw")
    foreign_files.empad(tmp_path)
    (inside / "x.xml").write_text(words)
    refused(empad, inside / "x.xml", said)


def test_empad_frames_that_are_not_whole(tmp_path: Path) -> None:
    path = foreign_files.empad(tmp_path)
    path.write_bytes(path.read_bytes()[:-4])
    assert not empad.can_read(path)
    refused(empad, path, "expected whole frames of 66560 bytes")
