"""How numbers are written in the tables of docs/."""

from collections.abc import Iterator, Sequence

from adaptycho.compare import table

Lines = Iterator[str]


def row(values: Sequence[object]) -> str:
    return "| " + " | ".join(str(v) for v in values) + " |"


def head(names: Sequence[str]) -> Lines:
    yield row(names)
    yield row(["---"] * len(names))


def percent(values: Sequence[float | None]) -> str:
    return table.percent(values).replace(" %", "")


def times(values: Sequence[float], bounded: str | None) -> str:
    """How many times the dose, and whether that is only a bound."""
    return {"above": "≥ ", "below": "≤ ", None: ""}[bounded] + table.between(values, 2)


def hundredths(values: Sequence[float]) -> str:
    return table.between([100 * v for v in values], 0)
