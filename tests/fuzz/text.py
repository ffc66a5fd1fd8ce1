"""Mutations of JSON, JSON lines, TOML and tables of numbers: what a hand or another program writes."""

import json
import random
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

from fuzz.case import Expect, Mutation, Mutator, Unfit

DEEP = 20_000
# In place of a value; each as it stands in JSON.
STRANGE = (
    *("null", '"x"', '""', "true", "-1", "0", "1e308", "-1e308", "NaN", "Infinity", "-Infinity", "1e400", "[]", "{}", "[[1]]", '{"a": 1}'),
    *("1" + "0" * 400, "9223372036854775808", "1e-320", '"1"', '"../../etc/passwd"', "[" * 1000 + "]" * 1000),
    *('"\\u001b[31mred"', '"\\ud800"', '"\\u0000"', '"' + "long" * 5000 + '"'),
)
TOML = (
    *('"x"', '""', "true", "-1", "0", "0.5", "1e308", "-1e308", "nan", "inf", "-inf", "[]", "{}", "[[1]]", "{a = 1}", '"1"', "1e-320"),
    *("1" + "0" * 400, "9223372036854775808", "1e12", "1000000000000000000", "1_000_000_000_000_000", "2020-01-01", "12:00:00"),
    *('"\\u001b[31mred"', '"\\u0000"', '"""\nmore\n"""', "[" * DEEP + "]" * DEEP),
)
WAYS = (
    *["value"] * 6,
    *["factor"] * 2,
    *("dropped", "unknown", "section", "twice", "comment", "mark", "endings", "bytes", "nul"),
)


def places(tree: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree of names and lists, but for the root."""
    found: list[tuple[Any, ...]] = []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += [(*where, key), *places(value, (*where, key))]
    return found


def shaken(rng: random.Random, tree: Any) -> tuple[str, str, str]:
    """A tree with one thing changed, as JSON text, with the kind of change and what it was."""
    spots = places(tree)
    if not spots:
        raise Unfit
    where = rng.choice(spots)
    parent = tree
    for key in where[:-1]:
        parent = parent[key]
    way = rng.choice(["value", "value", "value", "dropped", "renamed", "twice", "deep", "wrapped", "more", "factor"])
    name = ".".join(map(str, where))
    mark, put = "@@here@@", ""
    if way == "value":
        parent[where[-1]], put = mark, rng.choice(STRANGE)
        name += f" = {put[:40]}"
    elif way == "dropped":
        del parent[where[-1]]
    elif way == "renamed" and isinstance(parent, dict):
        parent[f"{where[-1]}x"] = parent.pop(where[-1])
    elif way == "twice" and isinstance(parent, dict):
        kept, other = json.dumps(parent[where[-1]]), rng.choice(STRANGE)
        parent[where[-1]], put = mark, f"{other}, {json.dumps(where[-1])}: {kept}"
    elif way == "deep":
        parent[where[-1]], put = mark, "[" * DEEP + "]" * DEEP
    elif way == "wrapped":
        parent[where[-1]] = [parent[where[-1]]]
    elif way == "more" and isinstance(parent, dict):
        parent["unknown"] = 1
    elif way == "factor" and isinstance(parent[where[-1]], int | float):
        factor = rng.choice([1e3, 1e-3, 1e10, 1e-10, -1])
        parent[where[-1]] *= factor
        name += f" times {factor:g}"
    else:
        raise Unfit
    return json.dumps(tree).replace(f'"{mark}"', put), way, name


def json_file(expect: Expect) -> Mutator:
    """A mutator of a JSON file."""

    def mutate(rng: random.Random, path: Path) -> Mutation:
        text, way, name = shaken(rng, json.loads(path.read_text(encoding="utf-8")))
        path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
        return Mutation(f"json {way}", f"{path.name}: {name}", expect)

    return mutate


def json_lines(rng: random.Random, path: Path) -> Mutation:
    """Changes a file of measured rows: numbers may be others, but what is lost is measured again."""
    lines = path.read_text(encoding="utf-8").splitlines()
    number = rng.randrange(len(lines))
    way = rng.choice(["shaken"] * 6 + ["dropped", "twice", "cut", "blank", "moved", "text", "last"])
    expect: Expect = "same"
    name = ""
    if way == "shaken":
        lines[number], how, name = shaken(rng, json.loads(lines[number]))
        way, expect = f"shaken {how}", "free"
    elif way == "dropped":
        del lines[number]
    elif way == "twice":
        lines.append(lines[number])
    elif way == "cut":
        lines[number], expect = lines[number][: rng.randrange(1, len(lines[number]))], "either" if number == len(lines) - 1 else "refused"
    elif way == "blank":
        lines.insert(number, "")
        expect = "either"
    elif way == "moved":
        rng.shuffle(lines)
    elif way == "text":
        lines[number], expect = rng.choice(["x", "1", "null", "[]", '"x"', "{}"]), "refused"
    end = "" if way == "last" else "\n"
    path.write_bytes(("\n".join(lines) + end).encode("utf-8", errors="surrogatepass"))
    return Mutation(f"lines {way}", f"{path.name}: line {number + 1} {name}", expect)


def toml_file(expect: Expect) -> Mutator:
    """A mutator of settings; `expect` is what a value that may be meant leads to."""

    def mutate(rng: random.Random, path: Path) -> Mutation:
        text = path.read_text(encoding="utf-8")
        tree = tomllib.loads(text)
        section = rng.choice([s for s in tree if tree[s]])
        name = rng.choice(list(tree[section]))
        way = rng.choice(WAYS)
        said, wanted, data = f"{section}.{name}", expect, b""
        lines = text.splitlines()
        if way == "value":
            put = rng.choice(TOML)
            lines = _put(tree, section, name, put)
            said += f" = {put[:40]}"
            wanted = "refused" if put in ("nan", "inf", "-inf", "2020-01-01", "12:00:00") or put.startswith("[[[") else expect
        elif way == "factor":
            if not isinstance(tree[section][name], int | float) or isinstance(tree[section][name], bool):
                raise Unfit
            factor = rng.choice([1e3, 1e-3, 1e10, 1e-10, -1])
            lines = _put(tree, section, name, repr(tree[section][name] * factor))
            said += f" times {factor:g}"
        elif way == "dropped":
            del tree[section][name]
            lines = tomli_w.dumps(tree).splitlines()
        elif way == "unknown":
            tree[section]["unknown"], wanted = 1, "refused"
            lines = tomli_w.dumps(tree).splitlines()
        elif way == "section":
            lines, wanted = [*lines, "[unknown]"], "refused"
        elif way == "twice":
            where = lines.index(f"[{section}]")
            lines, wanted = [*lines[: where + 1], lines[where + 1], *lines[where + 1 :]], "refused"
        elif way == "comment":
            lines, wanted = ["# a remark", *lines], "either" if expect == "either" else "same"
        elif way == "mark":
            data, wanted = b"\xef\xbb\xbf" + text.encode(), "either"
        elif way == "endings":
            data, wanted = text.replace("\n", "\r\n").encode(), "either"
        elif way == "bytes":
            data, wanted = text.encode() + b"# \xff\xfe\n", "refused"
        elif way == "nul":
            data, wanted = text.encode() + b"# \x00\n", "refused"
        path.write_bytes(data or ("\n".join(lines) + "\n").encode())
        return Mutation(f"toml {way}", f"{path.name}: {said}", wanted)

    return mutate


def _put(tree: dict[str, Any], section: str, name: str, value: str) -> list[str]:
    tree[section][name] = "@@here@@"
    return tomli_w.dumps(tree).replace('"@@here@@"', value).splitlines()


def table(rng: random.Random, path: Path) -> Mutation:
    """Changes a table of positions in text."""
    lines = path.read_text(encoding="utf-8").splitlines()
    number = rng.randrange(len(lines))
    ways: dict[str, tuple[Callable[[str], str], Expect]] = {
        "word": (lambda _: "here, there", "refused"),
        "nan": (lambda _: "nan, 1", "refused"),
        "inf": (lambda _: "inf, 1", "refused"),
        "huge": (lambda _: "1e308, 1", "refused"),
        "far": (lambda _: "1e30, 1", "refused"),
        "overflow": (lambda _: "1e999, 1", "refused"),
        "complex": (lambda _: "1+2j, 1", "refused"),
        "three": (lambda line: f"{line}, 1", "refused"),
        "one": (lambda line: line.split(",")[0], "refused"),
        "empty": (lambda _: "", "refused"),
        "blank": (lambda line: f"{line}\n", "either"),
        "spaces": (lambda line: f"  {line.replace(',', '  ')}  ", "same"),
        "semicolon": (lambda line: line.replace(",", ";"), "same"),
        "hex": (lambda _: "0x10, 1", "refused"),
        "escape": (lambda _: "\x1b[31m, 1", "refused"),
        "nul": (lambda _: "\x00, 1", "refused"),
        "remark": (lambda line: f"{line} # here", "either"),
        "date": (lambda _: "2020-01-01, 1", "refused"),
    }
    way = rng.choice([*ways, "all metres", "all nm", "header", "none", "latin", "reversed", "mark"])
    expect: Expect = "free"
    if way in ways:
        change, expect = ways[way]
        lines[number] = change(lines[number])
    elif way in ("all metres", "all nm"):
        factor, expect = (1e-10, "doubted") if way == "all metres" else (0.1, "free")
        lines = [", ".join(repr(float(v) * factor) for v in line.split(",")) for line in lines]
    elif way == "header":
        lines, expect = ["y, x", *lines], "same"
    elif way == "none":
        lines, expect = [], "refused"
    elif way == "reversed":
        lines = lines[::-1]
    data = ("\n".join(lines) + "\n").encode()
    if way == "latin":
        data, expect = b"# \xe5\xff\n" + data, "either"
    elif way == "mark":
        data, expect = b"\xef\xbb\xbf" + data, "either"
    path.write_bytes(data)
    return Mutation(f"table {way}", f"{path.name}: line {number + 1}", expect)
