"""The patterns of a run as a recording, to be reconstructed, inspected, converted and replayed like any other."""

from functools import reduce
from operator import add
from pathlib import Path

from adaptycho import formats
from adaptycho.formats import Given, Recording
from adaptycho.formats.amend import amended
from adaptycho.runs import checksums
from adaptycho.runs.journal import numbered, read_subsequence
from adaptycho.runs.scans import Run


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run."""
    return (path / "settings.toml").is_file()


def read(path: Path, given: Given | None = None) -> Recording:
    """Reads a recording in any known format, or all that a run has recorded so far.

    Args:
        path: a file, a folder, or the folder of a run.
        given: what is said of it; of a run no more than a mask.

    Raises:
        ValueError: see `formats.read`; or a run is damaged, has several specimens, or has recorded nothing yet.
    """
    if not is_run(path):
        return formats.read(path, given)
    return amended(_recording(path), given or Given(), path, "adaptycho run")


def _recording(path: Path) -> Recording:
    run = Run.open(path)
    checksums.check_sources(path, run.provenance, run.settings, ["input"])
    if run.batch != 1:
        raise ValueError(f"{path}: expected the run of one specimen, found {run.batch} (specimen.count)")
    files = numbered(path / "subsequences")
    if not files:
        raise ValueError(f"{path}: subsequences: expected at least one, found that nothing was recorded yet")
    setup = run.setup
    each = [read_subsequence(one, setup, (1, count), sealed=run.sealed)[1] for one, count in zip(files, run.lengths, strict=False)]
    title = f"{run.settings.scan.policy} scan {path.resolve().name}"
    return Recording(setup, reduce(add, each), title, counts_per_electron=run.subject.counts_per_electron, path=path)
