"""Published numbers are the same on other processors, as far as this one can pretend to be them."""

import sys
from pathlib import Path

import pytest

import machines

HERE = Path(__file__).parent


# The others are what this suite runs as anyway: conftest.py gives every test one thread.
@pytest.mark.parametrize("name", [name for name in machines.MACHINES if name not in ("default", "one-thread")])
def test_published_numbers_come_out_on(name: str, tmp_path: Path) -> None:
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
        "regenerates",
    ]
    found = machines.run(name, tests, tmp_path, quiet=True)
    if found is None:
        pytest.skip("needs a C compiler on an x86-64 Linux")
    assert found[0] == 0, found[1]
