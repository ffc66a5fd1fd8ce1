"""The page on adding a microscope: its file and its entry point, as they stand there, make a microscope that scans."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import h5py
import numpy as np

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "microscope.md"
TINY = ["--geometry.field", "[8.0, 6.0]", "--geometry.object", "auto", "--positions", "12", "--subsequences", "3", "--threads", "1"]


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return found


def install(folder: Path) -> None:
    """Lays the file and its entry point where `pip install` would."""
    points = tomllib.loads(block("toml"))["project"]["entry-points"]
    (folder / "bench.py").write_text(block("python"), encoding="utf-8")
    known = folder / "bench-1.0.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: bench\nVersion: 1.0\n", encoding="utf-8")
    lines = [line for group, names in points.items() for line in (f"[{group}]", *(f"{name} = {value}" for name, value in names.items()))]
    (known / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def adaptycho(installed: Path, *commands: list[object]) -> subprocess.CompletedProcess[str]:
    """Commands one after the other in a process of their own."""
    words = [[*map(str, command)] for command in commands]
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); from adaptycho.app.cli import main; sys.exit(max(map(main, {words!r})))"
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=110)


def test_the_page_s_microscope_scans(tmp_path: Path) -> None:
    installed, run = tmp_path / "installed", tmp_path / "run"
    installed.mkdir()
    install(installed)
    done = adaptycho(installed, ["scan", run, "--microscope", "bench", *TINY, "--json"])
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["positions"], found["subsequences"]) == (12, 3)
    assert set(found["scores"].values()) == {None}
    assert not (run / "reference.h5").exists()
    with h5py.File(run / "subsequences" / "000.h5") as file:
        dose, counted = file["dose"][()], file["patterns"][()].sum((-2, -1))
    assert np.ptp(dose) == 0  # what was sent does not depend on what was counted
    assert (counted <= dose + 5 * np.sqrt(dose)).all()  # Poisson noise
    assert len(np.unique(counted)) > 1
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "Scanned: bench." in report
    assert "SSIM" not in report


def test_it_scans_in_the_dark(tmp_path: Path) -> None:
    installed, run = tmp_path / "installed", tmp_path / "run"
    installed.mkdir()
    install(installed)
    file = installed / "bench.py"
    lit = file.read_text(encoding="utf-8")
    file.write_text(lit.replace("self.random.poisson(self.sent *", "self.random.poisson(0 *"), encoding="utf-8")
    assert file.read_text(encoding="utf-8") != lit
    done = adaptycho(installed, ["scan", run, "--microscope", "bench", *TINY], ["resume", run])
    assert (done.returncode, done.stderr) == (0, "")


def test_without_the_package_its_name_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    done = adaptycho(tmp_path, ["scan", tmp_path / "run", "--microscope", "bench", *TINY])
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"scan\.microscope: expected simulated(, \w+)* or \w+, found 'bench'", done.stderr)
    assert not (tmp_path / "run").exists()


def test_it_keeps_the_contract_as_the_page_tests_it(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "test_bench.py").write_text(block("py"), encoding="utf-8")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path), "test_bench.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout
    assert "10 passed" in done.stdout
