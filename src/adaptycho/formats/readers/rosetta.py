"""Reads what RosettaSciIO reads and this package does not: Quantum Detectors MIB, DigitalMicrograph DM3 and DM4, TVIPS, MRC, NanoMegas blo.

Axes are as RosettaSciIO describes them, in HyperSpy's words (`adaptycho.formats.readers.hspy`): (scan_y, scan_x, ky, kx) in NumPy's order
where the file knows its scan, else (N, ky, kx). A MIB file knows it by the `.hdr` beside it. DECTRIS and EMPAD are read by this package:
the ARINA reader of RosettaSciIO 0.15 takes (32, 24) for a scan of 24 rows and 32 columns and gives (32, 24, ...) back.

RosettaSciIO is under GPL-3 and therefore an extra, which is imported when a file needs it and at no other time.
"""

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from adaptycho.formats.raw import Raw
from adaptycho.formats.readers import facts, hspy
from adaptycho.formats.readers.views import Computed
from adaptycho.formats.rehearsal import rehearse
from adaptycho.formats.stored import Stored, check_numbers
from adaptycho.support.reading import reading, regular

name = "RosettaSciIO"
needs = "a MIB, DM3, DM4, TVIPS, MRC or blo file"
HEADER = 256  # bytes
BUSY = 20  # seconds of processor time for the headers of all frames of a long recording
FORMATS = {"MIB": "quantumdetector", "DM3 or DM4": "digitalmicrograph", "TVIPS": "tvips", "MRC": "mrc", "blo": "blockfile"}


def can_read(path: Path) -> bool:
    """Whether a file begins as one of these does."""
    with suppress(Exception):
        return path.is_file() and _kind(path) is not None
    return False


@contextmanager
def opened(path: Path, key: str | None = None) -> Iterator[Raw]:
    """Patterns and what is known of the axes; `key` is the number of the signal, from 0, where a file has several.

    Raises:
        ValueError: naming the file; RosettaSciIO is missing, there are no patterns, or they cannot be read.
    """
    regular(path, "a file of patterns")
    kind = _kind(path)
    if kind is None:
        raise ValueError(f"{path}: expected {needs}, found another file")
    plugin = _plugin(path, kind)
    rehearse(path, _look, kind, BUSY)
    with reading(path, f"a complete {kind} file"), warnings.catch_warnings(action="ignore"):
        signals = _signals(path, plugin)
        chosen = signals[facts.choose(path, key, sorted(signals))]
        values = Computed(chosen["data"])
        check_numbers(values.dtype, f"{path}: patterns")
        axes = sorted(chosen["axes"], key=lambda axis: int(axis.get("index_in_array", chosen["axes"].index(axis))))
        yield hspy.described(Stored(values, path.stat().st_size, f"{path}: patterns"), axes, chosen.get("metadata", {}))


def _kind(path: Path) -> str | None:
    """By the first bytes: each format has some of its own."""
    with path.open("rb") as stream:
        head = stream.read(HEADER)
    words = [int.from_bytes(head[i : i + 4], "little") for i in range(0, 20, 4)]
    version, order = int.from_bytes(head[:4], "big"), {3: head[8:12], 4: head[12:16]}
    marks = {
        "MIB": head.startswith(b"MQ1,"),
        "DM3 or DM4": version in order and order[version] in (b"\0\0\0\0", b"\0\0\0\1"),
        "TVIPS": words[0] == HEADER and words[1] in (1, 2) and words[4] in (8, 16, 32),  # size, version, bits in a pixel
        "MRC": head[208:211] == b"MAP",
        "blo": head.startswith(b"IMGBLO"),
    }
    return next((kind for kind, found in marks.items() if found), None)


def _plugin(path: Path, kind: str) -> ModuleType:
    with warnings.catch_warnings(action="ignore"):
        try:
            return importlib.import_module(f"rsciio.{FORMATS[kind]}")
        except ImportError:
            raise ValueError(
                f"{path}: expected RosettaSciIO to be installed, which reads {kind} files, found none; "
                "pip install 'adaptycho[formats]' brings it"
            ) from None


def _look(path: Path) -> None:
    kind = _kind(path)
    if kind is not None:
        _signals(path, _plugin(path, kind))


def _signals(path: Path, plugin: ModuleType) -> dict[str, dict[str, Any]]:
    """What the file holds with 3 or 4 axes, by number; nothing is read that is not asked for."""
    options = {"metadata_file": None} if plugin.__name__.endswith("mrc") else {}  # it could name files anywhere
    logger = logging.getLogger("rsciio")  # says what is missing beside the file, which is said by what is asked for
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(action="ignore"):
            found = plugin.file_reader(str(path), lazy=True, **options)
    finally:
        logger.setLevel(level)
    return {str(i): each for i, each in enumerate(found) if len(each["data"].shape) in (3, 4) and 0 not in each["data"].shape}
