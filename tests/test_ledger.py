"""Results on disk: whatever is in the files, what is read was written, or one sentence says what is wrong."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from adaptycho.compare import archive, plots, race
from adaptycho.compare.ledger import Ledger
from adaptycho.compare.trial import Plan
from adaptycho.settings import preset

ROW = {"key": "a", "kind": "test", "specimen": 3, "strategy": "raster", "numbers": {"ssim": 0.51234, "resolution": None}}
NUMBERS = {"raster": ({"ssim": 0.5, "resolution": 2.25}, {"ssim": 0.25}), "random:focused": ({"ssim": 0.125}, {"ssim": float("nan")})}


def ledger(path: Path, *rows: dict[str, Any]) -> Path:
    Ledger(path).add(rows)
    return path


def cells(path: Path) -> Path:
    plans = {"raster": Plan("raster", 60.0, (("iterations", 40),)), "random:focused": Plan("random", 0.0)}
    archive.write(path, [race.Cell(preset("light"), race.PROTOCOLS["best"], plans, NUMBERS)])
    return path


def test_rows_come_back(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"key": "b", "numbers": {}}]
    path = ledger(tmp_path / "results.jsonl", *rows)
    assert list(Ledger.open(path)) == rows
    # Of an older version, without a checksum.
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(Ledger.open(path)) == rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"numbers": {"ssim": "x"}}, "numbers.ssim: expected a valid number, found 'x'"),
        ({"numbers": {"ssim": True}}, "numbers.ssim: expected a valid number, found True"),
        ({"numbers": None}, "numbers: expected an object, found None"),
        ({"numbers": [1.0]}, "numbers: expected an object, found [1.0]"),
        ({"key": 7}, "key: expected a valid string, found 7"),
    ],
)
def test_a_row_of_a_wrong_type_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | change) + "\n")
    with pytest.raises(ValueError) as refused:
        Ledger.open(path)
    assert str(refused.value).startswith(f"{path}: line 2: expected a row of an evaluation in JSON, found ")
    assert str(refused.value).endswith(said)


@pytest.mark.parametrize("line", ["[" * 10_000, "{" * 10_000, '{"key": "a", "numbers": {"ssim": 1e999}}', "7", '"\x1b[31m"', "nul"])
def test_a_line_that_is_no_row_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match="line 1: expected a row of an evaluation in JSON, found") as refused:
        Ledger.open(tmp_path / "results.jsonl")
    assert str(refused.value).isprintable()


def test_whatever_byte_is_changed_no_other_number_is_read(tmp_path: Path) -> None:
    """Of a ledger and of finished comparisons, 200 times each: the same, or one sentence."""
    draw = random.Random(0)
    first, whole = ledger(tmp_path / "results.jsonl", ROW), cells(tmp_path / "cells.json")
    packed = cells(tmp_path / "cells.json.gz")
    readers = {
        first: lambda path: [{name: row[name] for name in ROW} for row in Ledger.open(path)],
        whole: archive.read,
        packed: archive.read,
    }
    refused = dict.fromkeys(readers, 0)
    for path, read in readers.items():
        raw, wanted = path.read_bytes(), repr(read(path))
        for _ in range(200):
            changed = bytearray(raw)
            changed[draw.randrange(len(raw) - 1)] ^= 1 << draw.randrange(8)  # a last line without its end is dropped
            path.write_bytes(changed)
            try:
                assert repr(read(path)) == wanted
            except ValueError as error:
                refused[path] += 1
                assert str(error).startswith(str(path)) and "expected" in str(error) and "\n" not in str(error)
    assert min(refused.values()) > 150, refused  # some bytes say nothing: spaces, the name of the checksum


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (["protocol"], "worst", "cells.0.protocol: expected 'paper', 'best' or 'regularised', found 'worst'"),
        (["settings"], 1, "cells.0.settings: expected an object, found 1"),
        (["settings", "scan"], {"policy": "psychic"}, "cells.0.settings: scan.policy: expected"),
        (["plans", "raster"], None, "cells.0.plans.raster: expected an object, found None"),
        (["plans", "raster", "strategy"], "rasta", "cells.0.plans.raster: strategy: expected one of raster"),
        (["plans", "raster", "reconstruct"], {"iterations": "many"}, "cells.0.plans.raster: reconstruct.iterations: expected"),
        (["plans"], {}, "cells.0.plans: expected one for every strategy, found none for random:focused, raster"),
        (["numbers"], {}, "cells.0.numbers: expected"),
        (["numbers", "raster", "ssim"], [0.5], "cells.0.numbers: expected one for each specimen, found 1, 2"),
        (["numbers", "raster", "ssim"], [0.5, "x"], "cells.0.numbers.raster.ssim.1"),
    ],
)
def test_comparisons_of_a_wrong_type_are_refused(where: list[str], value: object, said: str, tmp_path: Path) -> None:
    path = cells(tmp_path / "cells.json")
    found = json.loads(path.read_text())
    del found["sha256"]  # as an older version wrote it
    inner = found["cells"][0]
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError) as refused:
        plots.draw(path, tmp_path / "out", (), print)
    assert str(refused.value).startswith(f"{path}: {said}")
    assert not (tmp_path / "out").exists()


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cells.json.gz"
    path.write_bytes(gzip.compress(b" " * 2000))
    monkeypatch.setattr(archive, "LARGEST", 1000)
    with pytest.raises(ValueError, match=r"cells\.json\.gz: expected at most 1000 bytes, found more"):
        archive.read(path)
