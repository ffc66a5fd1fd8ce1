"""What a user can get wrong: one line that says where, what was expected and what was found; exit code 2; nothing is written over."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from adaptycho.app import cli
from adaptycho.app.cli import program

SMALL = ["--geometry.field", "[8.0, 6.0]", "--geometry.object", "auto"]
SCAN = [
    *SMALL,
    "--threads",
    "1",
    "--positions",
    "8",
    "--subsequences",
    "2",
    "--reconstruct.iterations",
    "1",
    "--reconstruct.reference_side",
    "3",
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording, the same as arrays, and a finished run."""
    folder = tmp_path_factory.mktemp("good")
    for arguments in (["simulate", "good.h5", *SMALL, "--positions", "36"], ["scan", "run", *SCAN]):
        arguments[1] = str(folder / arguments[1])
        CliRunner().invoke(program.commands, arguments, catch_exceptions=False)
    with h5py.File(folder / "good.h5") as file:
        np.save(folder / "patterns.npy", file["patterns"][...])
        np.save(folder / "positions.npy", file["positions"][...])
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    copy = tmp_path / "work"
    shutil.copytree(good, copy)
    monkeypatch.chdir(copy)
    return copy


def digest(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "folder" for p in folder.rglob("*")}


def refused(capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str], *said: str) -> str:
    """Runs a command that must fail; returns the sentence."""
    capsys.readouterr()
    before = digest(folder)
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("adaptycho: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    for part in said:
        assert re.search(part, err), f"{part!r} not in {err!r}"
    assert digest(folder) == before
    return err


def change(key: str, values: object) -> Callable[[Path], None]:
    """Puts another array or attribute (`setup/pixel`) in place of one in a recording."""

    def damage(path: Path) -> None:
        with h5py.File(path, "a") as file:
            if key.startswith("setup/"):
                file["setup"].attrs[key.removeprefix("setup/")] = values
                return
            new = values(file[key][...]) if callable(values) else values
            del file[key]
            file[key] = new

    return damage


def put(index: tuple[int, ...], value: float) -> Callable[[np.ndarray], np.ndarray]:
    def changed(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float64)
        values[index] = value
        return values

    return changed


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


# What is done to a recording, and what is said about it after the file's name.
RECORDINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, r"expected a recording, found none"),
    "truncated": (truncate, r"expected a complete HDF5 file, found one that cannot be read"),
    "not HDF5": (lambda p: p.write_text("hello"), r"expected a recording in a known format \(.*\), found a file of another"),
    "empty": (lambda p: p.write_bytes(b""), r"expected a recording in a known format \(.*\), found a file of another"),
    "other HDF5": (lambda p: h5py.File(p, "w").close(), r"expected a recording in a known format \(.*\), found an HDF5 file of another"),
    "complex": (change("patterns", lambda v: v.astype(complex)), r"patterns: expected integer or real numbers, found complex128"),
    "text": (change("patterns", lambda v: np.full(v.shape, b"a")), r"patterns: expected integer or real numbers, found \|S1"),
    "flat": (change("patterns", lambda v: v.reshape(len(v), -1)), r"patterns: expected shape \(N, Q, Q\), found \(36, 1024\)"),
    "oblong": (change("patterns", lambda v: v[:, :, :-1]), r"detector: expected .*, found"),
    "nan": (change("patterns", put((7, 3, 4), np.nan)), r"patterns: expected finite counts, found NaN or infinity in pattern 7"),
    "negative": (change("patterns", put((7, 3, 4), -1)), r"patterns: expected counts of at least 0, found -1 in pattern 7"),
    "outside": (
        change("positions", put((5, 1), 6.5)),
        r"positions: expected positions inside the scan field of 8 x 6 Å, found \(.*6\.5\) Å",
    ),
    "lost": (change("positions", put((5, 1), np.nan)), r"positions: expected finite numbers, found 1 that are not \(the first at index 5"),
    "fewer": (change("positions", lambda v: v[:-1]), r"positions: expected shape \(36, 2\) for 36 patterns, found \(35, 2\)"),
    "three": (change("positions", lambda v: np.c_[v, v]), r"positions: expected shape \(36, 2\) for 36 patterns, found \(36, 4\)"),
    "zero dose": (change("dose", lambda v: 0 * v), r"dose: expected a positive dose for each pattern, found 36 without"),
    "pixel": (change("setup/pixel", 0.31), r"setup/pixel: expected 0\.308 Å, the wavelength over 32 / 1 pixels of .* mrad, found 0\.31 Å"),
    "energy": (change("setup/energy", 80e3), r"setup/pixel: expected 0\.264.* Å, the wavelength over .*, found 0\.308 Å"),
    "semiangle": (change("setup/semiangle", -3.0), r"setup/semiangle: expected .*, found -3"),
    "field": (change("setup/field", [8.0]), r"setup/field: expected two finite numbers \(y, x\), found \[8\.\]"),
    "aberrations": (change("setup/aberrations", "C10"), r"setup/aberrations: expected coefficients such as .*, found 'C10'"),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_damaged_recordings(capsys: pytest.CaptureFixture[str], folder: Path, name: str) -> None:
    damage, said = RECORDINGS[name]
    damage(folder / "good.h5")
    for arguments in (
        ["inspect", "good.h5"],
        ["reconstruct", "good.h5", "out.h5", "--threads", "1"],
        ["scan", "new", "--microscope", "recorded", "--file", "good.h5", "--threads", "1"],
    ):
        refused(capsys, folder, arguments, r"^adaptycho: [^:]*good\.h5: ", said)


IMPORT = ["--energy", "60", "--semiangle", "33", "--pixel", "0.308", "--positions", "positions.npy"]


def save(name: str, changed: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, changed(np.load(folder / name)))


def keep(folder: Path) -> None:
    """Nothing is wrong with the files."""


# What is done in the folder, options, and what is said.
IMPORTS: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "missing": (
        lambda f: (f / "patterns.npy").unlink(),
        IMPORT,
        r"patterns\.npy: expected a recording, found none",
    ),
    "truncated": (
        lambda f: truncate(f / "patterns.npy"),
        IMPORT,
        r"patterns\.npy: expected a complete .* file, found one that cannot be read",
    ),
    "text": (lambda f: (f / "patterns.npy").write_text("hi"), IMPORT, r"patterns\.npy: expected .*, found"),
    "objects": (
        save("patterns.npy", lambda v: np.array([{}, v[0]], object)),
        IMPORT,
        r"patterns\.npy: expected plain numbers, found Python objects",
    ),
    "complex": (
        save("patterns.npy", lambda v: v + 0j),
        IMPORT,
        r"patterns\.npy: patterns: expected integer or real numbers, found complex",
    ),
    "axes": (
        save("patterns.npy", lambda v: v[0]),
        IMPORT,
        r"patterns\.npy: patterns: expected an array \(scan_y, .*, found shape \(32, 32\)",
    ),
    "odd": (save("patterns.npy", lambda v: v[:, 1:, 1:]), IMPORT, r"patterns\.npy: patterns: expected square .* even .*, found 31 x 31"),
    "nan": (
        save("patterns.npy", put((7, 0, 0), np.nan)),
        [*IMPORT, "--dose", "100"],
        r"patterns\.npy: patterns: expected finite counts, found NaN .* pattern 7",
    ),
    "negative": (
        save("patterns.npy", put((7, 0, 0), -2)),
        IMPORT,
        r"patterns\.npy: patterns: expected counts of at least 0, found -2 in pattern 7",
    ),
    "zero dose": (
        save("patterns.npy", np.zeros_like),
        IMPORT,
        r"patterns\.npy: dose: expected a positive dose for each pattern, found 36 without",
    ),
    "fewer": (
        save("positions.npy", lambda v: v[1:]),
        IMPORT,
        r"positions\.npy: positions: expected 36 finite pairs .*, found shape \(35, 2\)",
    ),
    "lost": (save("positions.npy", put((3, 0), np.inf)), IMPORT, r"positions\.npy: positions: expected 36 finite pairs"),
    "no energy": (keep, IMPORT[2:], r"patterns\.npy: energy: expected a beam energy .*, found neither \(--energy 300keV, or --wavelength"),
    "no angle": (keep, [*IMPORT[:2], *IMPORT[4:]], r"patterns\.npy: semiangle: expected a .* in mrad, found none \(--semiangle 20"),
    "no pixel": (keep, [*IMPORT[:4], *IMPORT[6:]], r"patterns\.npy: detector_pixel: expected .*, found neither"),
    "no positions": (keep, IMPORT[:6], r"patterns\.npy: positions: expected positions in Å.*, found none"),
    "contradiction": (
        keep,
        [*IMPORT, "--detector-pixel", "9"],
        r"patterns\.npy: pixel: expected 0\.1\d* Å, the wavelength over .*, found 0\.308 Å",
    ),
    "wrong energy": (keep, ["--energy", "-60", *IMPORT[2:]], r"energy: expected .*-6"),
    "crop": (keep, [*IMPORT, "--crop", "64"], r"patterns\.npy: patterns: expected .*, found 32 x 32 cropped to 64"),
    "a word": (
        keep,
        ["--energy", "high", *IMPORT[2:]],
        r"'--energy': energy: expected a number, in keV or with one .*, found 'high'",
    ),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_wrong_imports(capsys: pytest.CaptureFixture[str], folder: Path, name: str) -> None:
    damage, options, said = IMPORTS[name]
    damage(folder)
    refused(capsys, folder, ["import", "patterns.npy", "out.h5", *options], said)


SETTINGS = {
    "not TOML": ("[scan\n", r"s\.toml: expected settings in TOML, found something else \(.*line 1"),
    "section": ("[microscope]\n", r"s\.toml: microscope: expected one of beam, .*scan, .*found 'microscope'"),
    "key": ("[scan]\nbeams = 1\n", r"s\.toml: scan\.beams: expected one of .*scan\.positions.*, found 'scan\.beams'"),
    "type": ("[scan]\npositions = 'x'\n", r"s\.toml: scan\.positions: expected a valid integer.*, found 'x'"),
    "value": ("[scan]\ndose = 0\n", r"s\.toml: scan\.dose: expected greater than or equal to 0\.001, found 0"),
    "no section": ("scan = 1\n", r"s\.toml: scan: expected a dictionary.*, found 1"),
    "beam": ("beam = 'wavelength'\n", r"s\.toml: beam: expected a dictionary.*, found 'wavelength'"),
    "both": ("[beam]\nenergy = 6e4\nwavelength = 1.0\n", r"s\.toml: beam: expected an energy or a wavelength, not both, found"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_wrong_settings_files(capsys: pytest.CaptureFixture[str], folder: Path, name: str) -> None:
    text, said = SETTINGS[name]
    (folder / "s.toml").write_text(text)
    for arguments in (["settings"], ["scan", "new"], ["simulate", "new.h5"], ["reconstruct", "good.h5", "new.h5"]):
        refused(capsys, folder, [*arguments, "--settings", "s.toml"], said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--policy", "greedily"], r"command line: scan\.policy: expected 'heuristic', 'greedy'.*, found 'greedily'"),
        (["--policies", "random"], r"No such option '--policies'"),
        (["--preset", "heavy"], r"'--preset': 'heavy' is not one of 'light', 'paper'"),
        (["--settings", "none.toml"], r"none\.toml: expected a settings file, found none"),
        (["--positions", "many"], r"scan\.positions: expected a valid integer.*, found 'many'"),
        (["--subsequences", "300"], r"subsequences: expected 1 to 250 for 250 positions, got 300"),
        (["--threads", "0"], r"'--threads': 0 is not in the range 1<=x<=1024"),
        (["--beam.energy", "1e5", "--beam.wavelength", "1"], r"command line: beam: expected an energy or a wavelength, not both, found"),
        (["--beam.aberrations", "{X1 = 1.0}"], r"beam\.aberrations: expected Krivanek names .*, found X1"),
        (["--geometry.field", "[20.0]"], r"geometry\.field: expected two values, found \[20\.0\]"),
        (["--geometry.object", "40"], r"object: expected a grid that holds the field .*, got"),
        (["--geometry.binning", "3"], r"detector: expected .*, got"),
        (["--specimen.structure", "MoS3"], r"structure: expected one of MoS2, .*, got 'MoS3'"),
        (["--specimen.structure", "good.h5"], r"structure: expected a structure file that ASE can read, got good\.h5"),
        (["--specimen.options", "{angle = 1.0}"], r"specimen\.options: expected options of family crystal, found \{'angle': 1\.0\}"),
        (["--specimen.options", "{strain = 'much'}"], r"specimen\.options: expected options of family crystal, found \{'strain': 'much'\}"),
        (["--microscope", "recorded", "--file", "run"], r"run: expected a recording in a known format .*, found a folder"),
        (["--microscope", "recorded", "--scan.rows", "[0.6, 0.4]"], r"rows: expected two fractions .*, got 0\.6, 0\.4"),
        (["another"], r"Got unexpected extra argument"),
    ],
)
def test_wrong_scans_leave_no_folder(capsys: pytest.CaptureFixture[str], folder: Path, options: list[str], said: str) -> None:
    refused(capsys, folder, ["scan", "new", *options], said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["scan", "run", *SCAN],
            r"run: expected a new or empty folder for the run, found one with something in it \(go on with `resume`\)",
        ),
        (["scan", "good.h5", *SCAN], r"good\.h5: expected a folder to write into, found a file"),
        (["scan", "good.h5/run", *SCAN], r"good\.h5/run: expected a folder to write into, found a file at good\.h5"),
        (["resume", "none"], r"none: expected a run folder with settings\.toml, found no such folder"),
        (["resume", "."], r"expected a run folder with settings\.toml, found none in it"),
        (["report", "good.h5"], r"good\.h5: expected a run folder with settings\.toml, found no such folder"),
        (["simulate", "good.h5", *SMALL, "--positions", "9"], r"good\.h5: expected a new file to write, found one that exists"),
        (["simulate", "no/folder.h5", *SMALL], r"no/folder\.h5: expected an existing folder to write into, found none at no"),
        (
            ["simulate", "new.h5", "--policy", "heuristic"],
            r"scan\.policy: expected a conventional simulated scan to record, found .*heuristic",
        ),
        (["simulate", "new.h5", "--scan.microscope", "recorded"], r"expected a conventional simulated scan to record, found recorded"),
        (["reconstruct", "good.h5", "good.h5"], r"good\.h5: expected a new file to write, found one that exists"),
        (["reconstruct", "good.h5", "run/patterns.png"], r"run/patterns\.png: expected a name such as run/patterns\.h5"),
        (["reconstruct", "good.h5", "no/folder.h5"], r"no/folder\.h5: expected an existing folder to write into, found none at no"),
        (["import", "patterns.npy", "good.h5", *IMPORT], r"good\.h5: expected a new file to write, found one that exists"),
        (
            ["import", "patterns.npy", "no/folder.h5", *IMPORT],
            r"no/folder\.h5: expected an existing folder to write into, found none at no",
        ),
        (["import", "run/states", "new.h5"], r"run.*: expected .*, found"),
        (["inspect", "run/states"], r"run/states: expected a recording in a known format \(adaptycho: .*; rotavirus: .*\), found a folder"),
        (["inspect", "run/result.h5"], r"run/result\.h5: patterns: expected one array with 3, 4 or 5 axes, .*found loss"),
        (["demo", "--specimens", "1"], r"'--specimens': 1 is not in the range 2<=x<=100"),
        (["demos"], r"No such command 'demos'"),
        (["scan"], r"Missing argument 'RUN'"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_nothing_is_written_over(capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str], said: str) -> None:
    refused(capsys, folder, arguments, said)


def test_a_damaged_run_is_named_and_left_as_it_is(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    truncate(folder / "run" / "subsequences" / "001.h5")
    for command in ("resume", "report"):
        arguments = [command, "run", *(["--threads", "1"] if command == "resume" else [])]
        # Only states before the damage are written again, with the same numbers and other times.
        kept = folder / "run" / "subsequences"
        refused(capsys, kept, arguments, r"run/subsequences/001\.h5: expected a whole HDF5 file, found one that cannot be read \(")
    (folder / "run" / "settings.toml").write_text("[scan]\npositions = 0\n")
    refused(capsys, folder, ["resume", "run"], r"run/settings\.toml: scan\.positions: expected greater than or equal to 1, found 0")


def test_in_a_process_of_its_own_there_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "adaptycho.app.cli", "inspect", "none.h5"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "adaptycho: none.h5: expected a recording, found none\n"


def test_with_debug_on_the_traceback_is_there(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("ADAPTYCHO_DEBUG", "1")
    with pytest.raises(ValueError, match=r"none\.h5: expected"):
        cli.main(["inspect", "none.h5"])
