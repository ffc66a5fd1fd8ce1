"""The comparison with other packages: the file they share, the clock, and our own side of it. The others are not run."""

import subprocess
import sys
from pathlib import Path

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
