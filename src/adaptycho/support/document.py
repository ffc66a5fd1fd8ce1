"""JSON whose form is known: parsed and checked in one step, so that a damaged file is one sentence and nothing of a wrong type gets in."""

from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from adaptycho.support.reading import printable, reading, regular

T = TypeVar("T")
LONGEST = 60  # characters of what was found that a sentence repeats


def read(path: Path, kind: type[T]) -> T:
    """What a file of JSON holds, as `parse` has it.

    Raises:
        ValueError: also if the file is missing or cannot be read.
    """
    regular(path, "a file of JSON")
    with reading(path, "a file of JSON"):
        text = path.read_bytes()
    return parse(text, kind, str(path))


def parse(text: str | bytes, kind: type[T], source: str) -> T:
    """A value of some kind from JSON; numbers are not read from text, nor truth values from numbers.

    Args:
        text: the JSON.
        kind: a dataclass, TypedDict or other type that pydantic knows.
        source: opens the sentence.

    Raises:
        ValueError: one sentence naming source, key, what was expected and what was found.
    """
    try:
        described: Any = kind
        found: T = _adapter(described).validate_json(text, strict=True)
        return found
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise ValueError(f"{source}: expected JSON, found something else ({first['ctx']['error']})") from None
        key = "".join(f"{part}: " for part in [".".join(map(_shown, first["loc"]))] if part)
        if first["type"] in ("missing", "missing_argument"):
            raise ValueError(f"{source}: {key}expected a value, found none") from None
        wanted = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        raise ValueError(f"{source}: {key}expected {wanted}, found {_shown(repr(first['input']))}") from None


@cache
def _adapter(kind: Any) -> Any:  # a class that the shape checker of the tests does not know
    return TypeAdapter(kind)


def _shown(part: Any) -> str:
    text = str(part)
    return printable(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")
