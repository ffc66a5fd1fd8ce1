"""Where a result comes from: the code that measured it, the libraries under it, the files it was given, and the day.

Code, libraries and files are in the key of every result, so that none is ever used for what another would have measured.
"""

import datetime
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import adaptycho

# Modules, packages and data that no scan, reconstruction or score can depend on, since `evaluate` does not import them where it measures:
# they command, draw, teach, or tabulate what was measured. Whatever else there is counts.
APART = (
    *("app", "draw", "learn", "runs"),
    *("compare/advice", "compare/archive", "compare/ledger", "compare/plots", "compare/table", "compare/table1", "compare/trained"),
)
LIBRARIES = ("ase", "numba", "numpy", "scikit-image", "scikit-learn", "scipy", "torch")


@dataclass(frozen=True)
class Origin:
    """When and by what a comparison was measured.

    Attributes:
        date: of the latest of its results, year-month-day.
        code: see `code`.
        version: of the package.
    """

    date: str
    code: str
    version: str


@cache
def code() -> str:
    """Tells versions of the package apart: a hash of its modules and small data files but for those in `APART`."""
    found, root = hashlib.sha256(), Path(adaptycho.__file__).parent
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).with_suffix("").as_posix()
        if path.suffix in (".py", ".json") and not any(f"{name}/".startswith(f"{apart}/") for apart in APART):
            found.update(f"{name}\n".encode() + path.read_bytes())
    return found.hexdigest()[:12]


@cache
def package() -> str:
    """Version of the package."""
    return version("adaptycho")


@cache
def libraries() -> dict[str, str]:
    """Versions of what computes underneath: with another one numbers differ in their last digits, or random numbers altogether."""
    return {name: version(name) for name in LIBRARIES}


def digest(files: Iterable[Path]) -> str:
    """Tells files apart by what they hold, those that there are none of left out."""
    return _hash(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files if path.is_file()))


@cache
def _hash(files: tuple[tuple[Path, int, int], ...]) -> str:
    found = hashlib.sha256()
    for path, *_ in files:
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def shipped_policies() -> list[Path]:
    """Files of the weights that come with the package."""
    return sorted((Path(adaptycho.__file__).parent / "scan" / "networks" / "shipped").glob("*.safetensors"))


def today() -> str:
    """The day, as it is kept with a result."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def latest(origins: Iterable[Origin | None]) -> Origin | None:
    """Of results that belong together, the one measured last; None if that of any is not known."""
    known = list(origins)
    found = [origin for origin in known if origin is not None]
    return max(found, key=lambda origin: origin.date) if found and len(found) == len(known) else None
