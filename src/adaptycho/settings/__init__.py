"""Everything that can be set, as one tree of validated dataclasses: presets, TOML in and out, any field by its dotted name.

The defaults are the paper's (Table II, in the reading of docs/decisions/0003); `light` keeps the physics and takes pixels twice as large.
"""

import dataclasses
import reprlib
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import tomli_w
from pydantic import TypeAdapter, ValidationError

from adaptycho.settings.policies import ADAPTIVE, POLICIES
from adaptycho.settings.sections import USED, Scan, Settings
from adaptycho.support.reading import regular

__all__ = [
    "ADAPTIVE",
    "BEST",
    "PAPER",
    "POLICIES",
    "PRESETS",
    "RECIPES",
    "REGULARISED",
    "USED",
    "Preset",
    "Scan",
    "Settings",
    "changes",
    "dump",
    "fields",
    "load",
    "nested",
    "override",
    "preset",
    "recipe",
    "update",
    "validate",
]

Preset = Literal["light", "paper"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
RECIPES = ("lattice", "structure", "recurrent", "recurrent-2", "voronoi", "shared", "recorded")  # recipes/

# The protocols: as the paper reconstructs, the settings that reconstruct best (`Reconstructor.best`), and those with a prior.
PAPER: dict[str, Any] = {"iterations": 5, "loss": "intensity", "step": 525.0, "scaling": "none", "momentum": 0.0}
BEST: dict[str, Any] = {"iterations": 20, "loss": "amplitude", "step": "auto", "scaling": "illumination", "momentum": 0.7}
REGULARISED: dict[str, Any] = {**BEST, "prior": "auto"}

LARGEST = 30_000  # bytes of a settings file; all settings take 10,000, and a key of 15,000 parts is read in 3 s, one of 40,000 in 27

_ADAPTER = TypeAdapter(Settings)
# Pixels twice as large: the same electrons in a quarter of the pixels, so a step for unit-sum probes goes four times as far.
_LIGHT = {
    "geometry": {"pixel": 0.308, "object": 100, "window": 32, "detector": 32},
    "reconstruct": {"reference_step": 50.0},
    "network": {"hidden": 512, "location": 256, "structure": 256, "image": 128},
}


def preset(name: str) -> Settings:
    """The paper's settings, or the light ones.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, found {name!r}")
    return validate(_LIGHT if name == "light" else {}, f"preset {name}")


def load(path: Path, base: Settings | None = None) -> Settings:
    """Settings of a TOML file, on top of others.

    Raises:
        ValueError: the file is missing, is not TOML, or holds something that is not a setting or not allowed.
    """
    regular(path, "a settings file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path}: expected a settings file of at most {LARGEST} bytes, found {path.stat().st_size}")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path}: expected settings in TOML, found arrays or tables nested too deep") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected settings in TOML, found something else ({error})") from None
    return update(base or Settings(), tree, str(path))


def recipe(name: str, base: Settings) -> Settings:
    """Settings with which a policy is known to learn, on top of others.

    Raises:
        ValueError: there is no such recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, found {name!r}")
    with resources.as_file(resources.files("adaptycho.settings") / "recipes" / f"{name}.toml") as path:
        return load(path, base)


def update(base: Settings, tree: Mapping[str, Any], source: str) -> Settings:
    """Settings with some fields changed, given as a nested mapping."""
    return validate(_merge(_plain(base), tree), source)


def override(base: Settings, changes: Mapping[str, str]) -> Settings:
    """Settings with fields changed by dotted name, values as a person types them: `{"scan.positions": "144"}`."""
    tree: dict[str, dict[str, Any]] = {}
    for key, text in changes.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = _typed(text)
    return update(base, tree, "command line")


def dump(settings: Settings) -> str:
    """The settings as TOML; fields that are None are left out."""
    return tomli_w.dumps(nested(settings))


def nested(settings: Settings) -> dict[str, Any]:
    """Every value as a nested mapping from which `validate` makes the settings again; fields that are None are left out."""
    return _drop_none(_plain(settings))


def fields(settings: Settings) -> Iterator[tuple[str, Any, str]]:
    """Dotted name, value and description of every field."""
    for section in dataclasses.fields(settings):
        group = getattr(settings, section.name)
        described = group.__pydantic_fields__
        for leaf in dataclasses.fields(group):
            yield f"{section.name}.{leaf.name}", getattr(group, leaf.name), described[leaf.name].description or ""


def changes(settings: Settings) -> dict[str, dict[str, Any]]:
    """What differs from the defaults, as a nested mapping from which `validate` makes the settings again."""
    usual = {name: value for name, value, _ in fields(Settings())}
    found: dict[str, dict[str, Any]] = {}
    for name, value, _ in fields(settings):
        if value != usual[name]:
            section, _, leaf = name.partition(".")
            found.setdefault(section, {})[leaf] = value
    return found


def validate(tree: Mapping[str, Any], source: str) -> Settings:
    """Settings from a nested mapping.

    Raises:
        ValueError: one sentence naming source, key, what was expected and what was found.
    """
    try:
        return _ADAPTER.validate_python(_drop_none(dict(tree)) if tree else {})
    except RecursionError:
        raise ValueError(f"{source}: expected settings, found tables nested too deep") from None
    except ValidationError as error:
        raise ValueError(f"{source}: {_sentence(error)}") from None


def _sentence(error: ValidationError) -> str:
    """The first of the things that are wrong: key, what was expected, what was found, and for a bound what the value means."""
    first = error.errors(include_url=False)[0]
    parts = [str(p) for p in first["loc"]]
    key = ".".join(parts[:2])
    known = {name: text for name, _, text in fields(Settings())}
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        near = [n for n in known if n.startswith(f"{parts[0]}.")] or sorted({n.partition(".")[0] for n in known})
        return f"{key[:80]}: expected one of {', '.join(near)}, found {_SHORT.repr(key)}"
    message = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if not parts:  # said by all sections together, and whole
        return message
    # The only values of fixed length are pairs (y, x) and (from, to).
    message = "two values" if first["type"] in ("missing", "too_long") else message
    meaning = f" ({known[key]})" if first["type"].startswith(("greater_than", "less_than")) and known.get(key) else ""
    return f"{key}: expected {message}, found {_SHORT.repr(first['input'])}{meaning}"


class _Short(reprlib.Repr):
    """Shows what was found without filling the screen."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxstring, self.maxother, self.maxlong = 3, 12, 12, 80, 80, 40

    def repr_int(self, x: int, level: int) -> str:
        """Also of numbers that Python refuses to write in decimal."""
        return super().repr_int(x, level) if x.bit_length() < 1000 else f"a number of {x.bit_length()} bits"


_SHORT = _Short()


def _plain(settings: Settings) -> dict[str, Any]:
    return dataclasses.asdict(settings)


def _merge(base: Any, change: Any) -> Any:
    """Sections are merged key by key; `options` and `aberrations` inside them are replaced whole, an energy by a wavelength."""
    merged = dict(base)
    for section, values in change.items():
        if not isinstance(base.get(section), dict) or not isinstance(values, Mapping):
            merged[section] = values
            continue
        merged[section] = {**base[section], **values}
        for name, other in (("wavelength", "energy"), ("energy", "wavelength")):
            if values.get(name) is not None and other not in values:
                merged[section].pop(other, None)
    return merged


def _drop_none(tree: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null, so None is the default of every field that may be None, and is left out."""
    return {k: _drop_none(v) if isinstance(v, dict) else v for k, v in tree.items() if v is not None}


def _typed(text: str) -> Any:
    """A value as TOML reads it, else the text itself; `none` leaves a field out."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
