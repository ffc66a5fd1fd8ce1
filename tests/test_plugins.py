"""What installed packages bring: found by name, refused where two bring the same, and named with its version by a run."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adaptycho import formats
from adaptycho.formats import readers
from adaptycho.runs import summary
from adaptycho.runs.execution import execute
from adaptycho.runs.scans import Run
from adaptycho.settings import Settings, build, microscopes, policies, preset, update
from adaptycho.support import plugins

GROUP = "adaptycho.tried"
BENCH = """
from adaptycho.instruments import Capabilities
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.settings import build
from adaptycho.settings.microscopes import Kind

KIND = Kind(name="stage", capabilities=Capabilities(), open=build.simulated)

def scanner(settings, defocus):
    return Fixed("raster", defocus)
"""

Install = Callable[[str, str, dict[str, dict[str, str]]], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Lays a package with one module and its entry points where `pip install` would."""
    folder = tmp_path / "installed"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    modules = []

    def lay(package: str, code: str, points: dict[str, dict[str, str]]) -> None:
        modules.append(package)
        (folder / f"{package}.py").write_text(code, encoding="utf-8")
        known = folder / f"{package}-1.2.dist-info"
        known.mkdir()
        (known / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n", encoding="utf-8")
        lines = [
            line for group, names in points.items() for line in (f"[{group}]", *(f"{name} = {value}" for name, value in names.items()))
        ]
        (known / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    yield lay
    for module in modules:
        sys.modules.pop(module, None)


def staged(**scan: object) -> Settings:
    tiny = {"geometry": {"field": [8.0, 6.0], "object": "auto"}, "scan": {"positions": 12, "subsequences": 3} | scan}
    return update(preset("light"), tiny, "test")


def test_what_comes_along_goes_first_and_what_packages_bring_is_sorted(install: Install) -> None:
    install("bench_b", "VALUE = 2", {GROUP: {"zebra": "bench_b:VALUE", "ours": "bench_b:VALUE"}})
    install("bench_a", "VALUE = 1", {GROUP: {"apple": "bench_a:VALUE", "gone": "bench_a:GONE"}})
    assert plugins.names(GROUP) == ["apple", "gone", "ours", "zebra"]
    assert plugins.names(GROUP, ("ours", "another")) == ["ours", "another", "apple", "gone", "zebra"]
    assert plugins.one_of(["a", "b"]) == "a or b"
    assert plugins.one_of(["a", "b", "c"]) == "a, b or c"
    assert "bench_b" not in sys.modules  # to be asked for loads nothing
    assert plugins.load(plugins.find(GROUP, "zebra")) == 2
    with pytest.raises(ValueError, match=rf"^{GROUP}: expected one package to bring 'pear', found none$"):
        plugins.find(GROUP, "pear")
    with pytest.raises(ValueError, match=rf"^{GROUP}: expected bench_a:GONE to load for 'gone', found AttributeError: .*GONE"):
        plugins.load(plugins.find(GROUP, "gone"))


def test_a_name_that_two_packages_bring_is_refused_wherever_it_is_used_and_no_other(install: Install, tmp_path: Path) -> None:
    both = {microscopes.GROUP: "KIND", policies.GROUP: "scanner", readers.GROUP: "KIND"}
    for package in ("bench_a", "bench_b"):
        install(package, BENCH, {group: {"stage": f"{package}:{name}"} for group, name in both.items()})
    install("bench_c", BENCH, {policies.GROUP: {"mine": "bench_c:scanner"}})
    said = r"{}: expected one package to bring 'stage', found bench_[ab] \(bench_[ab]:{}\) and bench_[ab] \(bench_[ab]:{}\)"
    with pytest.raises(ValueError, match=f"^{said.format(microscopes.GROUP, 'KIND', 'KIND')}$") as refused:
        microscopes.find("stage")
    assert {"bench_a", "bench_b"} <= set(str(refused.value).split())
    with pytest.raises(ValueError, match=f"^{said.format(policies.GROUP, 'scanner', 'scanner')}$"):
        build.scanner(staged(policy="stage"))
    (tmp_path / "unknown").write_text("?")
    with pytest.raises(ValueError, match=rf"readers that failed: stage \({said.format(readers.GROUP, 'KIND', 'KIND')}\)$"):
        formats.read(tmp_path / "unknown")
    assert build.scanner(staged(policy="mine")) == build.scanner(staged(policy="raster"))


def test_a_run_and_its_report_say_which_packages_brought_microscope_and_policy(install: Install, tmp_path: Path) -> None:
    install("bench_a", BENCH, {microscopes.GROUP: {"stage": "bench_a:KIND"}})
    install("bench_b", BENCH, {policies.GROUP: {"mine": "bench_b:scanner"}})
    install("bench_c", BENCH, {policies.GROUP: {"unused": "bench_c:scanner"}})
    brought = {"bench_a": "1.2", "bench_b": "1.2"}
    target = Run.create(tmp_path / "run", staged(microscope="stage", policy="mine"))
    versions = json.loads((target.path / "run.json").read_text())["versions"]
    assert {name: number for name, number in versions.items() if name.startswith("bench")} == brought
    assert "torch" in versions
    list(execute(target))
    page = summary.run_page(target)
    assert "bench_a 1.2" in page and "bench_b 1.2" in page and "bench_c" not in page
    usual = Run.create(tmp_path / "usual", staged())
    assert not any(name.startswith("bench") for name in usual.provenance.versions)
