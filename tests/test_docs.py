"""The documentation is part of the program: its Python runs, its commands, links and guarding tests exist."""

import ast
import pkgutil
import re
import shlex
from functools import cache
from itertools import takewhile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "paper").rglob("*.md")])
CONVENTIONS = ROOT / "docs" / "conventions.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CELL = re.compile(r"^```\{code-cell\}\n(?::[^\n]*\n|\n)*%%bash[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MODULE = re.compile(r"`(adaptycho(?:\.\w+)+)`")
GUARD = re.compile(r"tests/(test_\w+\.py)::(\w+)")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """First line number and text of each fenced block of a language."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start(2)) + 1, m[2]) for m in FENCE.finditer(text) if m[1] == language]


def commands(page: Path) -> list[list[str]]:
    """The words of every `adaptycho ...` in console blocks and shell cells, up to a pipe, a redirection or the next command."""
    typed = [line[2:] for _, text in blocks(page, "console") for line in _lines(text) if line.startswith("$ ")]
    typed += [line for text in CELL.findall(page.read_text(encoding="utf-8")) for line in _lines(text)]
    found = []
    for line in typed:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(takewhile(lambda word: not set(word) & set("|&;<>"), lexer))
        if words and Path(words[0]).name == "adaptycho":
            found.append(words[1:])
    return found


def _lines(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def found(name: str) -> bool:
    """Whether a dotted name is a module of the package, or something in one."""
    try:
        return pkgutil.resolve_name(name) is not None
    except (ImportError, AttributeError):
        return False


@cache
def names_in(file: str) -> frozenset[str]:
    path = ROOT / "tests" / file
    if not path.exists():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@cache
def program() -> click.Group:
    """The command group of `adaptycho`: the one group in `adaptycho.app.cli.program` that no other group holds."""
    from adaptycho.app.cli import program

    groups = [value for value in vars(program).values() if isinstance(value, click.Group)]
    (top,) = [group for group in groups if not any(group in other.commands.values() for other in groups)]
    return top


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=relative)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace: dict[str, object] = {"__name__": page.stem}
    for line, text in blocks(page, "python"):
        # Empty lines in front, so that a traceback points into the page.
        exec(compile("\n" * (line - 1) + text, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=relative)
def test_commands_exist(page: Path) -> None:
    for words in commands(page):
        command: click.Command = program()
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        path = []
        for word in words:
            if isinstance(command, click.Group) and not word.startswith("-"):
                assert word in command.commands, f"{relative(page)}: adaptycho {shlex.join(words)}: no command {word!r}"
                command = command.commands[word]
                path.append(word)
                known |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        shown = CliRunner().invoke(program(), [*path, "--help"], catch_exceptions=False)
        assert shown.exit_code == 0, shown.output
        known |= set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w.-]*", shown.output))
        for word in words:
            option = word.split("=")[0]
            # A minus sign in front of a digit belongs to a value.
            if re.match(r"--?[a-zA-Z]", option):
                assert option in known, f"{relative(page)}: adaptycho {shlex.join(words)}: no option {option}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [link.split("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8")) if not re.match(r"[a-z]+:", link)]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    assert not missing, f"{relative(page)}: no file {missing}"


@pytest.mark.parametrize("guard", sorted(set(GUARD.findall(CONVENTIONS.read_text(encoding="utf-8")))), ids="::".join)
def test_guard_exists(guard: tuple[str, str]) -> None:
    file, name = guard
    assert name in names_in(file), f"docs/conventions.md: no tests/{file}::{name}"


def test_every_convention_is_guarded() -> None:
    entries = re.findall(r"^- .*(?:\n  .*)*", CONVENTIONS.read_text(encoding="utf-8"), re.MULTILINE)
    unguarded = [entry for entry in entries if not GUARD.search(entry)]
    assert entries
    assert not unguarded, f"docs/conventions.md: no guarding test for {unguarded}"


def test_the_front_page_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    assert len(re.findall(r"!\[", text)) == 1


@pytest.mark.parametrize("page", [page for page in PAGES if MODULE.search(page.read_text(encoding="utf-8"))], ids=relative)
def test_modules_exist(page: Path) -> None:
    """What a page calls `adaptycho.room.module.name` is there."""
    missing = [name for name in sorted(set(MODULE.findall(page.read_text(encoding="utf-8")))) if not found(name)]
    assert not missing, f"{relative(page)}: no {missing}"
