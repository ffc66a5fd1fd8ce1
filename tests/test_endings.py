"""How commands end: whatever happens is one line, in which nothing that a file or a user says reaches the terminal as a command."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
import torch

from adaptycho import settings
from adaptycho.app import cli
from adaptycho.app.cli import output, program
from adaptycho.app.cli.output import explain, say
from adaptycho.support import targets

COMMAND = [sys.executable, "-m", "adaptycho.app.cli"]


def ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException) -> tuple[int, str]:
    """Exit code and stderr of a command inside which something is raised."""

    def fail(options: object) -> None:
        raise error

    monkeypatch.setattr(program, "collect", fail)
    code = cli.main(["settings"])
    out, err = capsys.readouterr()
    assert out == ""
    return code, err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("a: expected b,\n\tfound c"), 2, "a: expected b, found c"),
        (FileNotFoundError(2, "No such file", "x"), 2, "[Errno 2] No such file: 'x'"),
        (click.UsageError("no\nsuch thing"), 2, "no such thing"),
        (MemoryError(), 2, "memory: expected enough for this, found too little (none could be allocated)"),
        (MemoryError("Unable to allocate 9 TiB"), 2, "memory: expected enough for this, found too little (Unable to allocate 9 TiB)"),
        (KeyError("key"), 1, "unexpected KeyError: 'key'; ADAPTYCHO_DEBUG=1 shows where"),
        (RuntimeError("line\nline"), 1, "unexpected RuntimeError: line line; ADAPTYCHO_DEBUG=1 shows where"),
        (RecursionError("deep"), 1, "unexpected RecursionError: deep; ADAPTYCHO_DEBUG=1 shows where"),
    ],
)
def test_every_exception_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int, said: str
) -> None:
    assert ends(monkeypatch, capsys, error) == (code, f"adaptycho: {said}\n")
    monkeypatch.setenv("ADAPTYCHO_DEBUG", "1")
    with pytest.raises(type(error)):
        ends(monkeypatch, capsys, error)


def test_an_interrupt_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = ends(monkeypatch, capsys, KeyboardInterrupt())
    assert (code, err.strip()) == (130, "")


def test_memory_that_torch_did_not_get_is_no_bug() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    code, said = explain(caught.value)
    assert code == 2
    assert said.startswith("memory: expected enough for this, found too little (")


def test_a_terminal_is_shown_escapes_and_never_told_them(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[31mred\x07\u202e \udcff \x9b1m Å\nnext")
    assert capsys.readouterr().out == "a\\x1b[31mred\\x07\\u202e \\udcff \\x9b1m Å\nnext\n"
    assert cli.main(["inspect", "\x1b]0;title\x07.h5"]) == 2
    assert capsys.readouterr().err == "adaptycho: \\x1b]0;title\\x07.h5: expected a recording, found none\n"
    output.tell({"title": "\x1b[2J"}, ["title: \x1b[2J"], False)
    output.tell({"title": "\x1b[2J"}, ["title: \x1b[2J"], True)
    assert capsys.readouterr().out == 'title: \\x1b[2J\n{"title": "\\u001b[2J"}\n'


def test_a_warning_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = output.warn
        warnings.warn("two\nlines\x1b[0m", UserWarning, stacklevel=1)
        warnings.warn("overflow in a library", RuntimeWarning, stacklevel=1)
        assert capsys.readouterr().err == "adaptycho: two lines\\x1b[0m\n"
        monkeypatch.setenv("ADAPTYCHO_DEBUG", "1")
        warnings.warn("overflow in a library", RuntimeWarning, stacklevel=1)
        assert capsys.readouterr().err == "adaptycho: overflow in a library\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, "settings"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is played by a device of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_sentence(unbuffered: str) -> None:
    where = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "settings"], stdout=full, stderr=subprocess.PIPE, text=True, env=where)
    assert (done.returncode, done.stderr) == (2, "adaptycho: [Errno 28] No space left on device\n")


@pytest.mark.parametrize(
    "argument", ["inspect", "report", "resume", "figures", "settings --settings", "scan new --settings", "train resume"]
)
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_pipes_and_devices_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argument: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    assert cli.main([*argument.split(), "pipe" if kind == "fifo" else "/dev/zero"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "expected a file or a folder, found a pipe or a device" in err
    with pytest.raises(ValueError, match=r"pipe: expected a settings file, found something that is no file"):
        settings.load(Path("pipe"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of everything that may be in the way."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("kept")
    Path("folder").mkdir()
    Path("empty").mkdir()
    Path("folder", "inside").write_text("kept")
    for name, target in (("link", "file"), ("nowhere", "none"), ("loop", "loop"), ("door", "folder")):
        Path(name).symlink_to(target)
    os.link("file", "twin")
    os.mkfifo("pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("new", None),
        ("folder/new", None),
        ("door/new", None),
        (".", "a new file, found a place without one"),
        ("..", "a new file, found a place without one"),
        ("/", "a new file, found a place without one"),
        ("folder/..", "a new file, found a place without one"),
        ("folder", "the name of a file, found a folder"),
        ("folder/", "the name of a file, found a folder"),
        ("file", "a new file to write, found one that exists"),
        ("link", "a new file to write, found one that exists"),
        ("nowhere", "a new file to write, found one that exists"),
        ("loop", "a new file to write, found one that exists"),
        ("pipe", "a new file to write, found one that exists"),
        ("none/new", "an existing folder to write into, found none at none"),
        ("file/new", "an existing folder to write into, found none at file"),
        ("n" * 300, "a name of at most 200 bytes, found 300"),
        ("a\0b", "the name of a file, found one with a NUL character"),
    ],
)
def test_new_files(place: Path, name: str, said: str | None) -> None:
    if said is None:
        targets.new_file(Path(name))
        return
    with pytest.raises(ValueError, match=f"expected .*{said}"):
        targets.new_file(Path(name))


@pytest.mark.parametrize("name", ["file", "link", "twin", "./folder/../file"])
def test_what_is_read_is_never_replaced(place: Path, name: str) -> None:
    targets.new_file(Path(name), overwrite=True, inputs=[Path("none"), Path("folder/inside")])
    with pytest.raises(ValueError, match="expected another name than that of what is read, found the same file"):
        targets.new_file(Path(name), overwrite=True, inputs=[Path("folder/inside"), Path("file")])
    for other in ("nowhere", "pipe"):
        with pytest.raises(ValueError, match=f"{other}: expected a file to replace, found something else"):
            targets.new_file(Path(other), overwrite=True)


@pytest.mark.parametrize(
    ("name", "there", "new"),
    [
        ("empty", None, None),
        ("none/deep", None, None),
        (".", None, "a new folder, found a place without one"),
        ("folder/..", None, "a new folder, found a place without one"),
        ("file", "a folder to write into, found a file", "a folder to write into, found a file"),
        ("nowhere", "found a link that leads nowhere", "found a link that leads nowhere"),
        ("file/deep/new", "a folder to write into, found a file at file", "a folder to write into, found a file at file"),
        ("n" * 300, "a name of at most 200 bytes, found 300", "a name of at most 200 bytes, found 300"),
    ],
)
def test_folders(place: Path, name: str, there: str | None, new: str | None) -> None:
    for said, is_new in ((there, False), (new, True)):
        if said is None:
            targets.folder(Path(name), new=is_new)
            continue
        with pytest.raises(ValueError, match=f"expected .*{said}"):
            targets.folder(Path(name), new=is_new)


def test_a_folder_that_may_not_be_written_to_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    for check in (targets.new_file, targets.folder):
        with pytest.raises(ValueError, match=r"folder: expected a folder to write into, found one that may not be written to"):
            check(Path("folder/new"))


SCAN = "--family crystal --energy 60 --semiangle 33 --field 20 --dose 1000 --positions 64"


@pytest.mark.parametrize(
    "arguments",
    [
        "scan .",
        "scan file",
        "scan file/run",
        "simulate .",
        "simulate folder",
        "simulate s.toml",
        "reconstruct file file",
        "reconstruct file ..",
        "import file file --overwrite",
        "import file link --overwrite",
        "import folder/inside twin --positions file --overwrite",
        "import file folder --overwrite",
        "demo --out file",
        "evaluate --out file",
        "figures folder --out file/x",
        "train imitate --out file",
        "train figures file folder",
        f"advise {SCAN} --picture seen.png",
    ],
)
def test_commands_refuse_what_is_in_the_way_and_leave_it(place: Path, capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    Path("seen.png").write_text("kept")
    before = sorted((str(p), p.is_file() and p.read_text()) for p in place.rglob("*"))
    assert cli.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("adaptycho: ")
    assert "expected" in err and "Errno" not in err
    assert sorted((str(p), p.is_file() and p.read_text()) for p in place.rglob("*")) == before
