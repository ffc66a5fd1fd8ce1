"""Figures of an evaluation: drawn whatever strategies it has, from the numbers it has kept."""

from pathlib import Path

import pytest

from adaptycho.compare import archive, plots
from test_evaluate import judged, small


def kept(folder: Path, names: list[str], *positions: int, protocol: str = "paper") -> Path:
    cells = [judged(small(protocol, scan={"positions": p}), names, protocol=protocol) for p in positions]
    archive.write(folder / "cells.json", cells)
    return folder


def drawn(folder: Path, *strategies: str) -> set[str]:
    told: list[str] = []
    written = plots.draw(folder, folder / "figures", strategies, told.append)
    assert all(path.stat().st_size > 1000 for path in written)
    assert told == [path.name for path in written]
    return {path.stem for path in written}


def test_every_figure_that_the_results_give(tmp_path: Path) -> None:
    folder = kept(tmp_path, ["raster", "random", "heuristic", "oracle-density"], 16, 25)
    assert drawn(folder) == {"positions", "time", "gain-adaptive", "gain-oracle", "times", "scans", "diffractograms"}


def test_what_was_chosen_on_training_specimens_is_drawn_beside_its_candidates(tmp_path: Path) -> None:
    folder = kept(tmp_path, ["raster", "adaptive-dense", "auto"], 16, 25, protocol="best")
    assert {"positions", "gain-auto"} <= drawn(folder, "raster", "adaptive-dense", "auto")


@pytest.mark.parametrize("name", ["jittered", "oracle-density", "raster:focused"])
def test_one_strategy_is_enough(tmp_path: Path, name: str) -> None:
    protocol = "best" if ":" in name else "paper"
    assert {"times", "scans", "diffractograms"} <= drawn(kept(tmp_path, [name], 16, protocol=protocol))


def test_a_strategy_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"strategies: expected some of raster.*found 'rasta'"):
        drawn(kept(tmp_path, ["raster"], 16), "rasta")


def test_scans_are_those_that_were_scored(tmp_path: Path) -> None:
    """What is drawn is done again with the plan that was kept, and ends with the same score."""
    from adaptycho import metrics

    done = archive.read(kept(tmp_path, ["random"], 16) / "cells.json")[0]
    (shown,) = plots._scans(done, ["random"])
    specimen = plots._sample(done)
    value = float(metrics.correlation(shown.stages[-1].potential[None], specimen.full_scan, mask=specimen.inside)[0])
    assert value == pytest.approx(done.numbers["random"][0]["correlation_inside"], rel=1e-4)  # five digits are kept


def test_an_archive_without_comparisons_is_one_sentence(tmp_path: Path) -> None:
    archive.write(tmp_path / "cells.json", [])
    with pytest.raises(ValueError, match=r"cells\.json"):
        drawn(tmp_path)
