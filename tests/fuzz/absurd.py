"""Values that attributes of a recording cannot have, and what a right program does about each."""

from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from fuzz.case import Expect

DEEP = 20_000
# Of an attribute that is a number or several.
KINDS: dict[str, tuple[Callable[[np.ndarray], Any], Expect]] = {
    "text": (lambda v: str(v), "refused"),
    "bytes": (lambda v: np.bytes_(str(v)), "refused"),
    "not UTF-8": (lambda _: np.bytes_(b"\xff\xfe"), "refused"),
    "complex": (lambda v: v + 1j, "refused"),
    "truth": (lambda v: v > -1, "either"),
    "empty": (lambda _: h5py.Empty("f8"), "refused"),
    "list": (lambda v: np.stack([v, v, v]), "refused"),
    "none of them": (lambda _: np.zeros(0), "refused"),
    "texts": (lambda v: ["a", "b"], "refused"),
    "objects": (lambda v: np.array([b"a", b"b"], dtype=h5py.string_dtype()), "refused"),
    "half precision": (lambda v: np.float16(np.minimum(v, 6e4)), "free"),
    "nan": (lambda v: v * np.nan, "refused"),
    "inf": (lambda v: v * 0.0 + np.inf, "refused"),
    "long double": (lambda v: np.longdouble(v), "either"),
    "compound": (lambda v: np.zeros((), [("a", "f4")]), "refused"),
    "whole": (lambda v: np.uint64(2**63 + 5) + (0 * v).astype(np.uint64), "free"),
}
# Numbers of a recording that cannot be meant: what they are multiplied with, or what takes their place.
ABSURD: dict[str, tuple[float | str, ...]] = {
    "energy": ("0", "-6e4", 1e3, 1e-3, 1e10, 1e-10, "1e308"),
    "semiangle": ("0", "-33", 1e3, 1e10, "1e18", "1e308"),
    "pixel": ("0", "-1", 1e3, 1e-3, 1e10, 1e-10),
    "field": ("0", "-1", 1e-3, 1e10, 1e-10, "1e308", "1e-308"),
    "detector_pixel": ("0", "-1", 1e3, 1e-3, 1e10, 1e-10),
    "object_shape": ("0", "-1", 1e3, 1e10, "1000000", "4294967296"),
    "window_shape": ("0", "-1", 1e3, "1000000", "33"),
    "binning": ("0", "-1", 1e3, 1e10, "7"),
    "counts_per_electron": ("0", "-1"),
}
ABERRATIONS: dict[str, Expect] = {
    '{"C10": 1e30}': "refused",
    '{"C10": NaN}': "refused",
    '{"C10": 1e999}': "refused",
    '{"C30": -Infinity}': "refused",
    '{"C10": "x"}': "refused",
    '{"C10": null}': "refused",
    '{"C10": [1]}': "refused",
    '{"C10": true}': "free",
    '{"C99": 1.0}': "refused",
    '{"C10": 1.0, "C10": 0.0}': "free",
    "[]": "refused",
    "null": "refused",
    "1": "refused",
    "": "refused",
    "{": "refused",
    "[" * DEEP: "refused",
    '{"C10": ' + "[" * DEEP + "]" * DEEP + "}": "refused",
    '{"C10": ' + "1" * 5000 + "}": "refused",
    '{"\x1b[31m": 1}': "refused",
    "{} ": "free",
}
