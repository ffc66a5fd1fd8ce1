"""What installed packages bring by name: an entry point of a group names an object. Nothing is loaded before it is asked for."""

from collections.abc import Collection, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any


def names(group: str, own: Collection[str] = ()) -> list[str]:
    """Names that there are: those that come along, then those that only packages bring.

    Args:
        group: of entry points.
        own: what comes along, which goes before what a package brings under the same name.
    """
    return [*own, *sorted({point.name for point in entry_points(group=group)} - set(own))]


def one_of(words: Iterable[str]) -> str:
    """Two words or more as a sentence has them: `a, b or c`."""
    *some, last = words
    return f"{', '.join(some)} or {last}"


def find(group: str, name: str) -> EntryPoint:
    """The entry point of a name; it knows its package (`dist`).

    Raises:
        ValueError: no package brings it, or more than one.
    """
    found = [point for point in entry_points(group=group) if point.name == name]
    if len(found) != 1:
        packages = " and ".join(f"{point.dist.name} ({point.value})" if point.dist else point.value for point in found)
        raise ValueError(f"{group}: expected one package to bring {name!r}, found {packages or 'none'}")
    return found[0]


def load(point: EntryPoint) -> Any:
    """What an entry point names.

    Raises:
        ValueError: it does not load.
    """
    try:
        return point.load()
    except Exception as error:  # a package of somebody else may fail in any way
        raise ValueError(
            f"{point.group}: expected {point.value} to load for {point.name!r}, found {type(error).__name__}: {error}"
        ) from error
