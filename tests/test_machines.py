"""Published numbers are the same on other processors, as far as this one can pretend to be them."""

import sys
from pathlib import Path

import pytest

import machines

HERE = Path(__file__).parent


# Those that take paths of their own on any processor; `make machines` runs everything on all of them.
SOME = ("mkl-compatible", "torch-plain", "numba-generic", "mkl-full-as-intel", "mkl-sse4-as-intel")


@pytest.mark.parametrize("name", SOME)
def test_published_numbers_come_out_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTYCHO_UNCHECKED", "1")
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        f"{HERE / 'test_results.py'}",
        "-k",
        "regenerates_a_cell or regenerates_a_row",
    ]
    found = machines.run(name, tests, tmp_path, quiet=True)
    if found is None:
        pytest.skip("needs a C compiler on an x86-64 Linux")
    assert found[0] == 0, found[1]
