"""Reads EMPAD recordings: a `.raw` of frames, alone or named by the `.xml` that is written with it; either may be given.

Axes: a frame is 130 rows of 128 little-endian float32, of which the last two are no picture; frames follow each other in the order of the
scan, the fast axis x. The shape of the scan is in the XML (`pix_x`, `pix_y`, or the resolution of the acquisition), else in the name,
`scan_x32_y24.raw`, which has 24 rows of 32; else they are N patterns. The XML has the full scan field of view in m, from which the step is
taken where the scan is square; newer ones give the longer side, times a factor that is given beside it. Energy, aperture and camera length
are typed.

Source: rosettasciio 0.15, `empad/_api.py`, and py4DSTEM 0.14.18, `io/filereaders/empad.py`.
"""

import ast
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from adaptycho.formats.raw import Raw, Said
from adaptycho.formats.readers import calibration, facts
from adaptycho.formats.stored import Stored
from adaptycho.support.reading import printable, reading, regular

name = "EMPAD"
needs = "a .raw of frames of 130 x 128 float32, or the .xml beside it"
ROWS, COLUMNS, KEPT = 130, 128, 128
FRAME = np.dtype(("<f4", (ROWS, COLUMNS)))
LARGEST = 2**22  # bytes of XML
NAMED = re.compile(r"_x(\d{1,6})_y(\d{1,6})")
FIELD = ("optics.get_full_scan_field_of_view", "get_full_scan_field_of_view")


def can_read(path: Path) -> bool:
    """Whether it is XML that names a raw file, or a raw file of whole frames, whose unusual size is their only mark."""
    with suppress(Exception):
        if not path.is_file():
            return False
        if path.suffix.lower() == ".xml":
            return bool(_raw_name(_parsed(path)))
        size = path.stat().st_size
        return path.suffix.lower() == ".raw" and size > 0 and size % FRAME.itemsize == 0
    return False


@contextmanager
def opened(path: Path, key: str | None = None) -> Iterator[Raw]:
    """Patterns and the scan's shape and step; there is one array and no name for it.

    Raises:
        ValueError: naming the file; the raw file is missing, lies elsewhere, or is not of whole frames.
    """
    regular(path, "an EMPAD file")
    facts.choose(path, key, ["patterns"])
    with reading(path, "an EMPAD recording"):
        tree, raw = None, path
        if path.suffix.lower() == ".xml":
            tree = _parsed(path)
            raw = _beside(path, _raw_name(tree))
        elif (about := path.with_suffix(".xml")).is_file():
            tree = _parsed(about)
        regular(raw, "a raw file of EMPAD frames")
        size = raw.stat().st_size
        if size == 0 or size % FRAME.itemsize:
            raise ValueError(f"{raw}: patterns: expected whole frames of {FRAME.itemsize} bytes ({ROWS} x {COLUMNS} float32), found {size}")
        frames: np.ndarray = np.memmap(raw, "<f4", "r", shape=(size // FRAME.itemsize, ROWS, COLUMNS))
        scan = _scan(raw, tree, len(frames))
        if scan is not None:
            frames = frames.reshape(*scan, ROWS, COLUMNS)
        found = Stored(frames[..., :KEPT, :], size, f"{raw}: patterns")
        yield Raw(patterns=found, said=Said(scan_step=_step(tree, scan), title=raw.stem))


def _parsed(path: Path) -> ElementTree.Element:
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"{path}: expected at most {LARGEST} bytes of XML, found {size}")
    words = path.read_bytes()
    if b"<!DOCTYPE" in words or b"<!ENTITY" in words:  # entities can grow without end, and show other files
        raise ValueError(f"{path}: expected XML without a document type, found one with")
    with reading(path, "XML"):
        return ElementTree.fromstring(words)


def _words(tree: ElementTree.Element | None, *names: str) -> str:
    """The text of the first element of one of the names, wherever it is."""
    found = (each.text for each in (tree.iter() if tree is not None else ()) if each.tag in names and each.text)
    return next(found, "").strip()


def _raw_name(tree: ElementTree.Element) -> str:
    item = tree.find("raw_file")
    return "" if item is None else (item.get("filename") or item.text or "").strip()


def _beside(path: Path, filename: str) -> Path:
    """The raw file in the folder of the XML; its own path is that of the microscope's computer."""
    bare = filename.replace("\\", "/").rsplit("/", 1)[-1]
    beside = path.parent / bare
    if bare in ("", ".", "..") or not bare.isprintable() or not facts.together(path, beside):
        raise ValueError(f"{path}: raw_file: expected the name of a file in the same folder, found {printable(filename)!r}")
    return beside


def _scan(raw: Path, tree: ElementTree.Element | None, frames: int) -> tuple[int, int] | None:
    """Rows and columns.

    Raises:
        ValueError: they are said, and there is another number of frames.
    """
    if tree is not None and _words(tree, "series_count"):
        return None
    acquired = None if tree is None else tree.find(".//scan_parameters[@mode='acquire']")
    named = NAMED.search(raw.stem)
    choices = (
        (_words(tree, "pix_y"), _words(tree, "pix_x")),
        (_words(acquired, "scan_resolution_y"), _words(acquired, "scan_resolution_x")),
        (named[2], named[1]) if named else ("", ""),
    )
    said = next(((int(y), int(x)) for y, x in choices if re.fullmatch(r"\d{1,6}", y) and re.fullmatch(r"\d{1,6}", x)), None)
    if said is not None and said[0] * said[1] != frames:
        raise ValueError(f"{raw}: patterns: expected {said[0]} x {said[1]} frames, as the scan is said to have, found {frames}")
    return said


def _step(tree: ElementTree.Element | None, scan: tuple[int, int] | None) -> calibration.Pair | None:
    if scan is None:
        return None
    with suppress(Exception):  # numbers in text that nobody defined: without them the step is typed
        longer, factor = _words(tree, "full_scan_field_of_view.x"), _words(tree, "full_scan_field_of_view.scale_factor")
        inside = None if tree is None else tree.find(".//full_scan_field_of_view")
        longer, factor = longer or _words(inside, "x"), factor or _words(inside, "scale_factor")
        if longer and factor:
            side = calibration.positive(float(longer) / float(factor) / max(scan))
            return calibration.step((side, side), ("m", "m"))
        if (field := _words(tree, *FIELD)) and scan[0] == scan[1]:
            sides = ast.literal_eval(field)
            return calibration.step(tuple(calibration.positive(float(side) / n) for side, n in zip(sides, scan, strict=True)), ("m", "m"))
    return None
