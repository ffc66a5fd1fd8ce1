"""The site, for Sphinx: `make docs` builds it into build/site.

Its pages are the Markdown files of the repository, so that every link works here as it does in a checkout. Three kinds of text are written
from the code while it is built: all settings, the help of every command, and the docstrings of every room. Their pages say where:
`<!-- settings -->`, `<!-- commands -->` and `<!-- room physics -->`.
"""

import json
import os
import pkgutil
import re
import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"<!-- (settings|commands|room)(?: (\w+))? -->")
MARKUP = re.compile(r"([*|\\]|_(?=\W|$))")

project = "adaptycho"
author = "The adaptycho developers"
project_copyright = author
release = version = metadata.version("adaptycho")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "paper/README.md",
    "benchmarks/README.md",
    "benchmarks/peers/README.md",
    "experiments/README.md",
]
exclude_patterns = [".*", "build", "dist", "src", "tests", "docs/results/*.json*"]

myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 120
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "ignore-module-all": True}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has them
default_role = "code"

html_theme = "furo"
html_title = "adaptycho"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_root"]  # leads from the root of the site to its first page
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"


def setup(app: Any) -> None:
    """Hooks in what is written from the code, and keeps docstrings from being read as reStructuredText."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the program of the tutorials is this one
    profile = ROOT / "build" / "ipython" / "profile_default"  # a profile of its own, which nobody's habits change
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 'ERROR'\n", encoding="utf-8")
    os.environ |= {"OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "IPYTHONDIR": str(profile.parent)}
    app.connect("source-read", lambda _, page, source: source.__setitem__(0, written(source[0])))
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon, which is at 500


def written(text: str) -> str:
    """A page with what its marks stand for."""
    kinds = {"settings": lambda _: settings(), "commands": lambda _: commands(), "room": room}
    return MARK.sub(lambda mark: kinds[mark[1]](mark[2]), text)


def settings() -> str:
    """Tables of all settings in Markdown, a heading for each section: name, default and meaning."""
    from adaptycho import settings as tree

    found = tree.Settings()
    sections: dict[str, list[str]] = {}
    for name, value, meaning in tree.fields(found):
        default = "" if value is None else f"`{value if isinstance(value, str) else json.dumps(value)}`"
        sections.setdefault(name.partition(".")[0], []).append(f"| `{name}` | {default} | {_cell(meaning)} |")
    tables = ("\n".join([f"## {name}", "", "| setting | default | meaning |", "|---|---|---|", *rows]) for name, rows in sections.items())
    return "\n\n".join(tables)


def commands() -> str:
    """The help of every command in Markdown, a heading for each."""
    from adaptycho.app.cli.program import commands as program

    return "\n\n".join(f"## {name}\n\n```text\n{text}\n```" for name, text in _helped(program, "adaptycho", None))


def room(name: str) -> str:
    """Directives for the docstrings of a room of the package and all modules in it, in the order of their names."""
    module = import_module(f"adaptycho.{name}")
    names = [module.__name__]
    if hasattr(module, "__path__"):
        inner = (found.name for found in pkgutil.walk_packages(module.__path__, f"{module.__name__}."))
        names += sorted(found for found in inner if not any(part.startswith("_") for part in found.split(".")))
    return "\n\n".join(f"## {found}\n\n```{{eval-rst}}\n.. automodule:: {found}\n```" for found in names)


def plain(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turns fences into blocks of code, and escapes what reStructuredText would take for markup; what stands between backticks is code."""
    fenced, text = False, lines[:]
    lines.clear()
    for line in text:
        if line.strip() == "```":
            fenced = not fenced
            lines += ["::", ""] if fenced else [""]
        elif fenced:
            lines.append(f"    {line}")
        else:
            parts = re.split(r"(`[^`]+`)", line)
            lines.append("".join(part if part.startswith("`") else MARKUP.sub(r"\\\1", part) for part in parts))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _helped(command: click.Command, path: str, parent: click.Context | None) -> list[tuple[str, str]]:
    own = {**command.context_settings, "info_name": path.rpartition(" ")[2], "terminal_width": 100}
    context = click.Context(command, parent=parent, **own)
    found = [(path, command.get_help(context))]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found += _helped(command.commands[name], f"{path} {name}", context)
    return found
