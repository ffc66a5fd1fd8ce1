"""The site: what it writes from the code is all there, and its picture of the rooms is that of the code. `make docs` builds it."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from adaptycho import settings as tree
from adaptycho.app.cli.program import commands as program

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def script(name: str) -> ModuleType:
    """A file of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def conf() -> ModuleType:
    return script("conf")


@pytest.fixture(scope="module")
def architecture() -> ModuleType:
    return script("architecture")


def test_every_setting_is_in_the_reference(conf: ModuleType) -> None:
    listed = re.findall(r"^\| `([\w.]+)` \|", conf.settings(), re.MULTILINE)
    assert listed == [name for name, _, _ in tree.fields(tree.Settings())]
    assert all(meaning for _, _, meaning in tree.fields(tree.Settings()))


def test_every_command_is_in_the_reference(conf: ModuleType) -> None:
    text = conf.commands()
    for name, command in program.commands.items():
        assert f"## adaptycho {name}\n" in text
        for inner in getattr(command, "commands", {}):
            assert f"## adaptycho {name} {inner}\n" in text


def test_marks_are_replaced(conf: ModuleType) -> None:
    for page in (DOCS / "reference").rglob("*.md"):
        text = conf.written(page.read_text(encoding="utf-8"))
        assert not conf.MARK.search(text), page
    assert "automodule:: adaptycho.reconstruct.descent" in conf.room("reconstruct")


def test_every_room_but_the_program_has_a_page(architecture: ModuleType) -> None:
    rooms = {room for row in architecture.rows() for room in row}
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (DOCS / "reference" / "rooms").glob("*.md")}
    assert set(pages) == rooms - {"app"}
    for name, text in pages.items():
        assert f"<!-- room {name} -->" in text


def test_docstrings_are_no_markup(conf: ModuleType) -> None:
    lines = ["|probe|^2 of *one* position_, see `a * b`", "```", "RUN/*.h5", "```", "after"]
    conf.plain(None, "module", "x", None, {}, lines)
    assert lines == [r"\|probe\|^2 of \*one\* position\_, see `a * b`", "::", "", "    RUN/*.h5", "", "after"]


def test_architecture_is_that_of_the_code(architecture: ModuleType) -> None:
    """Both the table and the picture, which carries what it was drawn from."""
    table = architecture.table(architecture.imports())
    shown = architecture.TABLE.search(architecture.PAGE.read_text(encoding="utf-8"))
    assert shown
    assert table in shown[0], "docs/architecture.md is not what the code says: run `python docs/architecture.py`"
    drawn = architecture.PICTURE.read_text(encoding="utf-8")
    assert table.strip() in drawn, "docs/pictures/architecture.svg is not what the code says: run `python docs/architecture.py`"


def test_imports_are_found_and_go_down(architecture: ModuleType) -> None:
    floor = {room: level for level, row in enumerate(architecture.rows()) for room in row}
    found = architecture.imports()
    assert "scan" in found["settings"]  # settings.build
    assert "instruments" in found["scan"]  # the loop
    assert all(floor[to] > floor[room] for room in found for to in found[room])


def test_every_page_is_in_the_menu() -> None:
    """Or in a list that another page has: `make docs` fails on pages that nothing leads to, and this says so earlier."""
    reached = {DOCS / "index.md"}
    for page in DOCS.rglob("*.md"):
        for toctree in TOCTREE.findall(page.read_text(encoding="utf-8")):
            for line in (line for line in toctree.splitlines() if line.strip() and not line.startswith(":")):
                entry = re.sub(r"^.*<(.+)>$", r"\1", line.strip())
                found = sorted(page.parent.glob(f"{entry}.md"))
                assert found, f"{page.relative_to(ROOT)}: no page {entry}"
                reached |= {path.resolve() for path in found}
    assert {page for page in DOCS.rglob("*.md") if page not in reached} == set()


def test_its_tools_are_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    wanted = {re.split(r"[\[<>=]", name)[0] for name in project["optional-dependencies"]["docs"]} - {"adaptycho"}
    assert wanted
    assert wanted <= pinned
