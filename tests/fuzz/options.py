"""Mutations of what is typed: options of `import` and `advise`, and any setting by its name."""

import random
from pathlib import Path

from adaptycho import settings
from fuzz.case import Expect, Mutation, Mutator

Values = tuple[tuple[str, Expect], ...]
Options = dict[str, Values]


def _each(values: tuple[str, ...], expect: Expect) -> Values:
    return tuple((value, expect) for value in values)


NOT_NUMBERS = _each(("nan", "inf", "-inf", "x", "", "1+2j", "0x", "\x1b[31m", "1e999", "١x"), "refused")
POSITIVE = (*NOT_NUMBERS, *_each(("0", "-1", "-1e308"), "refused"))
IMPORTS: Options = {
    "--energy": (*POSITIVE, *_each(("60000", "1e10", "1e308", "1e-10", "6e-8"), "refused"), ("61", "free")),
    "--semiangle": (*POSITIVE, *_each(("1e18", "33000", "1e308", "3.2e4"), "refused"), ("0.033", "free"), ("34", "free")),
    "--defocus": (*NOT_NUMBERS, *_each(("1e30", "-1e30", "1e308", "1e12"), "refused"), ("-100", "free")),
    "--pixel": (*POSITIVE, *_each(("1e-10", "1e10", "3.08e-11", "1e308", "1e-308"), "refused"), ("0.3", "free")),
    "--detector-pixel": (*POSITIVE, *_each(("1e10", "4937", "1e-10"), "refused")),
    "--rotation": (*NOT_NUMBERS, ("1e308", "free"), ("-90", "free"), ("1e-320", "free")),
    "--crop": _each(("0", "-2", "3", "64", "99999999999999999999", "x", "1.5", ""), "refused"),
    "--dose": (*POSITIVE, ("1e308", "refused"), ("1000", "free"), ("1e-300", "refused")),
    "--counts-per-electron": (*POSITIVE, ("2", "free"), ("1e308", "free")),
    "--scan-step": (("x", "refused"), *_each(("0", "nan", "-1", "1e308", "1.6"), "either")),  # positions go before it
    "--key": _each(("patterns", "x", "", "\x1b[31m", "../x"), "either"),
    "--title": _each(("\x1b[31mred", "\x00", "x" * 100_000, "é\u202e", "\udcff", "a\nb"), "free"),
    "--licence": _each(("\x1b[31mred", "\udcff", "MIT"), "free"),
    "--wavelength": _each(("1", "0.0487", "x"), "refused"),
}
DEEP = "[" * 20_000 + "]" * 20_000
VALUES = (
    *("0", "-1", "1e308", "-1e308", "1e12", "1e18", "1000000000000000000", "9223372036854775808", "1" + "0" * 400, "0.5", "true", '"x"'),
    *("''", "[]", "{}", "[[1]]", "2020-01-01", "1e-320", "x", "", "none", "\x1b[31m", "\x00", "\udcff", DEEP, "[1, 2", "{a=1}", "1_0"),
    *("nan", "inf", "-inf", "60000000", "1e10", "1e-10", "60", "[1e10, 1e10]", "[1e-10, 1e-10]", "[0, 1000000000000]", "/etc/passwd"),
    *("../..", "auto"),
)
WRONG = {"nan", "inf", "-inf", "2020-01-01", DEEP}
ADVICE: Options = {
    "--energy": (
        *POSITIVE,
        *_each(("1e10", "1e308", "1e-300"), "refused"),
        ("300 keV", "free"),
        ("60000 eV", "free"),
        ("60 miles", "refused"),
    ),
    "--semiangle": (*POSITIVE, *_each(("1e18", "1e308", "1e-300"), "refused"), ("28 mrad", "free")),
    "--field": (*POSITIVE, *_each(("1e308", "1e-300", "2x", "x2", "1x2x3"), "refused"), ("5nm", "free"), ("20x30", "free")),
    "--dose": (*POSITIVE, ("1e308", "free"), ("1e-300", "free"), ("3", "free")),
    "--positions": (*_each(("0", "-1", "x", "", "1.5", "99999999999999999999999"), "refused"), *_each(("1", "1000000000"), "free")),
    "--filling": (*NOT_NUMBERS, *_each(("-1", "2", "1e308"), "refused"), ("0.5", "free")),
    "--frame-time": (*POSITIVE, ("1e308", "free"), ("1 us", "free")),
    "--scan-time": (*POSITIVE, ("1e308", "free"), ("1e-300", "free"), ("1 min", "free")),
    "--family": (*_each(("x", "", "\x1b[31m", "\udcff"), "refused"), *_each(("crystal", "amorphous"), "free")),
}


def one_of(options: Options) -> Mutator:
    """A mutator that gives an option another value."""

    def mutate(rng: random.Random, path: Path) -> Mutation:
        name = rng.choice(list(options))
        value, expect = rng.choice(options[name])
        return Mutation(f"option {name}", ascii(value)[:60], expect, (name, value))

    return mutate


def setting(rng: random.Random, path: Path) -> Mutation:
    """Gives any setting another value, on the command line."""
    words = {"specimen.structure", "scan.file", "scan.weights"}  # of these any text may be meant
    names = [name for name, _, _ in settings.fields(settings.Settings()) if name.split(".")[0] not in ("train", "network", "practice")]
    name, value = rng.choice(names), rng.choice(VALUES)
    expect: Expect = "refused" if value in WRONG and name not in words else "free"
    return Mutation(f"option --{name}", ascii(value)[:60], expect, (f"--{name}", value))
