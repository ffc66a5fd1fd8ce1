"""Files and folders that are whole or not there: nothing that was there before is lost, and two at once do not meet."""

import os
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from adaptycho.support.atomic import whole, whole_folder


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_what_was_beside_stays_and_links_are_not_followed(tmp_path: Path) -> None:
    """Under the name that parts had once, and under one that a guess may hit."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "a.part").symlink_to(tmp_path / "victim")
    (tmp_path / "b.part").mkdir()
    for name in ("a", "b"):
        with whole(tmp_path / name) as part:
            part.write_text("new")
    with whole_folder(tmp_path / "c") as part:
        (part / "d").write_text("new")
    assert names(tmp_path) == ["a", "a.part", "b", "b.part", "c", "victim"]
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_text() == (tmp_path / "c" / "d").read_text() == "new"


def test_a_part_is_never_one_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda n: "0")
    (tmp_path / "a.0.part").symlink_to(tmp_path / "victim")
    for make in (whole, whole_folder):
        with pytest.raises(FileExistsError), make(tmp_path / "a"):
            pytest.fail("it was given something that it did not make")
    assert names(tmp_path) == ["a.0.part"]


def test_a_link_is_replaced_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "a").symlink_to("victim")
    with whole(tmp_path / "a") as part:
        part.write_text("new")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "a").is_symlink()


def test_nothing_is_left_of_a_block_that_fails(tmp_path: Path) -> None:
    for make in (whole, whole_folder):
        with pytest.raises(OSError, match="disk full"), make(tmp_path / "a") as part:
            assert names(tmp_path) == [part.name] and part.name.startswith("a.") and part.suffix == ".part"
            raise OSError("disk full")
        assert names(tmp_path) == []


def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    """The later one replaces a file unless it was to be new, and never a folder; each removes its own part only."""
    for make, wanted in ((whole, "second"), (lambda path: whole(path, new=True), "first"), (whole_folder, "first")):
        path = tmp_path / "a"
        with ExitStack() as stack:
            if wanted == "first":
                stack.enter_context(pytest.raises(ValueError, match=r"a: expected a .*, found something that came there meanwhile"))
            with make(path) as slow:
                with make(path) as quick:
                    (quick / "x" if quick.is_dir() else quick).write_text("first")
                (slow / "x" if slow.is_dir() else slow).write_text("second")
        assert names(tmp_path) == ["a"]
        kept = path / "x" if path.is_dir() else path
        assert kept.read_text() == wanted
        kept.unlink()


def test_a_new_name_is_not_taken_from_anything(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").write_text("precious")
    for name in ("dangling", "file"):
        with pytest.raises(ValueError, match=f"{name}: expected a name that is not taken"), whole(tmp_path / name, new=True):
            pass
    for name in ("dangling", "file"):
        with pytest.raises(ValueError, match=f"{name}: expected a new or empty folder"), whole_folder(tmp_path / name):
            pass
    assert names(tmp_path) == ["dangling", "file"]
    assert (tmp_path / "file").read_text() == "precious"


def test_file_systems_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", link)
    with whole(tmp_path / "a", new=True) as part:
        part.write_text("one")
    with pytest.raises(ValueError, match="expected a name that is not taken"), whole(tmp_path / "a", new=True):
        pass
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "one"


def test_an_empty_folder_is_filled_and_long_names_fit(tmp_path: Path) -> None:
    long = "å" * 127  # 254 bytes
    (tmp_path / long).mkdir()
    with whole_folder(tmp_path / long) as part:
        (part / "x").touch()
    with whole(tmp_path / long / long) as part:
        pass
    assert names(tmp_path / long) == ["x", long]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole(tmp_path / "a"):
            pass
        with whole_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in "ab"] == [0o640, 0o750]
