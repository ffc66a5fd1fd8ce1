"""The comparison with other packages: the file they share, the clock, and our own side of it. The others are not run."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PEERS = Path(__file__).parents[1] / "benchmarks" / "peers"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PEERS))


@pytest.mark.usefixtures("peers")
def test_a_problem_is_read_as_it_was_written(tmp_path: Path) -> None:
    import exchange
    import problems

    (path, _), *_ = problems.save(tmp_path, side=3, electrons=1e3, refine=True, specimens=1)
    again, _ = problems.make(3, 1e3, True, 1)[0]
    read = exchange.read(path)
    for name in ("patterns", "positions", "raster", "step", "probe", "shape", "corner"):
        np.testing.assert_array_equal(getattr(read, name), getattr(again, name))
    assert (read.pixel, read.energy, read.semiangle, read.refine) == (again.pixel, again.energy, again.semiangle, True)
    np.savez(path, patterns=read.patterns)
    with pytest.raises(ValueError, match="expected a problem, found no positions"):
        exchange.read(path)


@pytest.mark.usefixtures("peers")
def test_ours_comes_nearer_to_the_truth(tmp_path: Path) -> None:
    import exchange
    import judge
    import problems

    (path, truth), *_ = problems.save(tmp_path, side=12, electrons=2e5, refine=False, specimens=1)
    result = tmp_path / "result.npz"
    subprocess.run([sys.executable, PEERS / "run_ours.py", path, result, "{}", "15"], check=True)
    with np.load(result) as found:
        scores = [judge.correlation(exchange.Image(image, found["corner"]), truth, exchange.read(path)) for image in found["images"]]
        assert found["stops"].tolist() == [1, 2, 3, 5, 7, 10, 15]
        assert (np.diff(found["seconds"]) > 0).all()
    # Seven settings of the clock, none of them worse than the one before by more than a hundredth.
    assert min(np.diff(scores)) > -0.01
    assert scores[-1] > scores[0] + 0.02


@pytest.mark.usefixtures("peers")
def test_the_iteration_that_passes_the_limit_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    import exchange
    import problems

    problem, _ = problems.make(8, 1e3, False, 1)[0]
    clock = iter(range(1000))
    monkeypatch.setattr(exchange.time, "process_time", lambda: float(next(clock)))

    def descent(given: exchange.Problem, settings: dict[str, Any]) -> Iterator[exchange.Image]:
        while True:
            yield exchange.Image(given.probe.real, given.corner)

    # A second of this clock for each iteration, so the ninth is the first to pass eight and a half.
    found = exchange.time_descent(descent, problem, {}, 100, 8.5)
    assert found["stops"].tolist() == [1, 2, 3, 5, 7, 9]
    assert found["seconds"].tolist() == [1, 2, 3, 5, 7, 9]
    rows = exchange.first_rows(problem, 4)
    assert (len(rows.patterns), len(rows.positions), rows.raster.tolist()) == (32, 32, [4, 8])
    assert exchange.first_rows(problem, 20).raster.tolist() == [8, 8]


def _measured(asked: dict[str, Any], courses: dict[str, tuple[list[float], int]]) -> list[dict[str, Any]]:
    """The lines of one condition: a correlation for each iteration, all of which take a second (ours a tenth), and where each ends."""
    told = {"side": 16, "electrons": 2e5, "refine": False, "iterations": 50, "limit": 10.0, "repeats": 1, "trials": 3, "note": ""}
    lines: list[dict[str, Any]] = [{"kind": "asked", "options": "--side 16 --note 'a few words'"} | told | asked]
    for package, (scores, stop) in courses.items():
        numbers = list(range(1, len(scores) + 1))
        seconds = [number * (0.1 if package == "ours" else 1.0) for number in numbers]
        run = {"package": package, "problem": "one", "settings": {}, "program": f"{package} 1.0", "peak_mib": 1}
        run |= {"iterations": numbers, "seconds": seconds, "correlation": scores}
        lines += [{"kind": "chosen", "package": package, "settings": {}, "iterations": stop}, {"kind": "test", "repeat": 0} | run]
    return [*lines, {"kind": "machine", "cpu": "a processor", "python": "3", "torch": "2"}]


@pytest.mark.usefixtures("peers")
def test_a_page_has_a_row_and_a_table_for_each_condition() -> None:
    import table

    slower = _measured({}, {"ours": ([0.5, 0.9, 0.97, 0.98], 4), "other": ([0.6, 0.8, 0.96], 3)})
    better = _measured({"refine": True}, {"ours": ([0.5, 0.9, 0.8], 2), "other": ([0.6, 0.95], 2)})
    page = table.page(slower + better)
    # The other needs 3 s for 0.96, ours 0.3 s for as much.
    assert "| positions | electrons | probe | ours | other |" in page
    assert "| 256 | 200000 | known | **0.980** in 0.4 s | **0.960** 10.0 x |" in page
    sentences = " ".join(page.split())
    assert "than every other package in 2 of 2 conditions, and less than a third of it in 2" in sentences
    assert "other 10.0 times (256 positions, 200000 electrons, probe known)" in sentences
    # Where the other comes nearer to the truth the quotient is that of what both reach, and the page says so in words.
    assert "| 256 | 200000 | refined | **0.900** in 0.2 s | **0.950** *not reached*, 10.0 x to 0.900 |" in page
    assert "Nearer to the truth than adaptycho: other 0.950 where adaptycho comes to 0.900" in sentences
    assert "compare.py --side 16 >> docs" in page
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## 256 positions, 200000 electrons, probe known",
        "## 256 positions, 200000 electrons, probe refined, its guess out of focus by 20 Å",
    ]
    # One table alone says nothing of others that are nearer, and a package that failed has its reason in the table.
    failed = _measured({}, {"ours": ([0.5], 1)})
    failed.insert(1, {"kind": "chosen", "package": "other", "error": "ImportError: no such thing"})
    page = table.page(failed)
    assert "Nearer to the truth" not in page
    assert "| other | ImportError: no such thing |" in page


@pytest.mark.usefixtures("peers")
def test_all_are_tuned_with_as_many_settings() -> None:
    import compare
    import trials

    for electrons in (1e3, 2e5):
        assert {len(trials.trials(package, electrons)) for package in compare.REQUIREMENTS} == {3}
    tried = [{"settings": {"step": step}, "iterations": [1, 2], "seconds": [1, step], "correlation": [0.5, 0.9]} for step in (4, 3)]
    assert compare.choose([*tried, {"error": "it did not start"}]) == {"settings": {"step": 3}, "iterations": 2}
    assert compare.choose([{"error": "it did not start"}]) == {"error": "it did not start"}
