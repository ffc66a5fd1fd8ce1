"""The policies by name: those that come along, and those that installed packages bring (docs/how-to/policy.md).

A package brings one by an entry point of the group `adaptycho.policies`, which names a callable: settings and defocus in Å, or None for the
nominal one, to a `Scanner`. Nothing is loaded before a policy is made.
"""

import dataclasses
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, get_args

from adaptycho.scan import Pattern
from adaptycho.support import plugins

if TYPE_CHECKING:
    from adaptycho.settings.sections import Settings
    from adaptycho.types import Scanner

GROUP = "adaptycho.policies"
# Module of adaptycho.scan.policies and the class in it, which is made with the defocus and the section of the settings that has the
# policy's name, if there is one.
OWN = {
    "heuristic": "heuristic:Heuristic",
    "greedy": "greedy:Greedy",
    "lattice": "lattice:LatticeFit",
    "reduction": "reduction:ErrorReduction",
    "process": "gaussian_process:GaussianProcess",
    "crop": "crop:Crop",
    "threshold": "threshold:Threshold",
}
LEARNED = ("adaptive", "recurrent")  # networks, which take weights: `build.learned`
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)  # which look at nothing
ADAPTIVE = (*OWN, *LEARNED)
POLICIES = (*ADAPTIVE, *PATTERNS)


def known(name: str) -> str:
    """The name, if there is a policy of that name; nothing is loaded.

    Raises:
        ValueError: there is none; says only what there is, for the settings name the key and what was found.
    """
    if name not in POLICIES and name not in (there := plugins.names(GROUP, POLICIES)):
        raise ValueError(plugins.one_of(map(repr, there)))
    return name


def make(name: str, settings: "Settings", defocus: float | None) -> "Scanner":
    """A policy that looks at what was seen and takes no weights, one that comes along or one that an installed package brings.

    Raises:
        ValueError: there is none of that name, several packages bring one, or what a package brings is none.
    """
    if name in OWN:
        module, _, kind = OWN[name].partition(":")
        options = dataclasses.asdict(getattr(settings, name)) if hasattr(settings, name) else {}
        found: Scanner = getattr(import_module(f"adaptycho.scan.policies.{module}"), kind)(**options, defocus=defocus)
        return found
    there = plugins.names(GROUP, POLICIES)
    if name not in there:
        raise ValueError(f"scan.policy: expected {plugins.one_of(map(repr, there))}, found {name!r}")
    return _made(plugins.find(GROUP, name), settings, defocus)


def _made(point: EntryPoint, settings: "Settings", defocus: float | None) -> "Scanner":
    maker = plugins.load(point)
    try:
        found: Scanner = maker(settings, defocus)
    except Exception as error:  # a package of somebody else may fail in any way
        wanted = f"{point.value} to make the policy {point.name!r} from settings and defocus"
        raise ValueError(f"{GROUP}: expected {wanted}, found {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ValueError(f"{GROUP}: expected {point.value} to make a scanner for {point.name!r}, found a {type(found).__name__}")
    return found
