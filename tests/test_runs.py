"""Run folders: what is recorded is on disk before the next decision, and a run that is taken up ends as if it had never stopped."""

import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import h5py
import numpy as np
import pytest
import torch
from ase.build import mx2

from adaptycho import formats
from adaptycho.formats import Recording
from adaptycho.runs import checksums, scans, summary
from adaptycho.runs.execution import execute
from adaptycho.runs.journal import Journal
from adaptycho.runs.scans import Run, read_reference, read_states
from adaptycho.runs.scores import score
from adaptycho.settings import Settings, build, dump, load, override, preset, update
from adaptycho.support.atomic import alone
from adaptycho.types import Action, Measurement

LENGTHS = [5, 5, 4, 4]
TINY = {
    "geometry": {"field": [8.0, 6.0], "object": "auto"},
    "scan": {"positions": sum(LENGTHS), "subsequences": len(LENGTHS), "seed": 3},
    "reconstruct": {"iterations": 2, "reference_side": 5},
}


def tiny(**changes: dict[str, object]) -> Settings:
    return update(update(preset("light"), TINY, "tiny"), changes, "test")


def contents(path: Path) -> dict[str, np.ndarray]:
    """Every array of an HDF5 file by name, but for the time that things took."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return {name: values for name, values in found.items() if not name.startswith("seconds/")}


def same_run(a: Path, b: Path) -> None:
    """Every array in the two folders is the same bit for bit."""
    names = sorted(str(p.relative_to(a)) for p in a.rglob("*.h5"))
    assert names == sorted(str(p.relative_to(b)) for p in b.rglob("*.h5"))
    assert len(names) == 2 * len(LENGTHS) + 2
    for name in names:
        one, other = contents(a / name), contents(b / name)
        assert one.keys() == other.keys()
        for key, values in one.items():
            assert values.dtype == other[key].dtype, f"{name}: {key}"
            assert values.tobytes() == other[key].tobytes(), f"{name}: {key}"


def digest(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def finish(target: Run) -> Path:
    for _ in execute(target):
        pass
    return target.path


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = tiny(reconstruct={"reference_side": 12})
    source = build.simulated(chosen)
    path = tmp_path_factory.mktemp("recordings") / "small.h5"
    formats.write(path, Recording(source.setup, build.full_scan(chosen, source), title="small"))
    return path


CASES = {
    "simulated heuristic": {},
    "simulated random": {"scan": {"policy": "random"}, "specimen": {"count": 2}},
    "simulated warm": {"scan": {"warm": True}, "instrument": {"jitter": 0.2}},
    "simulated automatic warm": {"scan": {"warm": True}, "reconstruct": {"step": "auto", "momentum": 0.5, "loss": "amplitude"}},
    "recorded heuristic": {"scan": {"microscope": "recorded"}},
    "recorded random": {"scan": {"microscope": "recorded", "policy": "random"}},
    "recorded warm": {"scan": {"microscope": "recorded", "warm": True}},
}


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "-"))
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, recording: Path) -> Run:
    chosen = tiny(**CASES[request.param])
    if chosen.scan.microscope == "recorded":
        chosen = update(chosen, {"scan": {"file": str(recording)}}, "test")
    target = Run.create(tmp_path_factory.mktemp("runs") / "run", chosen)
    finish(target)
    return target


@pytest.mark.parametrize("lost", [1, 3, len(LENGTHS)])
def test_resumed_run_is_the_uninterrupted_one(finished: Run, tmp_path: Path, lost: int) -> None:
    cut = tmp_path / "run"
    shutil.copytree(finished.path, cut)
    (cut / "result.h5").unlink()
    for number in range(len(LENGTHS) - lost, len(LENGTHS)):
        (cut / "subsequences" / f"{number:03d}.h5").unlink()
        # A state is written after its sub-sequence, so it may be lost or, after files were copied by hand, be left over.
        if number % 2:
            (cut / "states" / f"{number:03d}.h5").unlink()
    # What a kill in the middle of writing leaves behind.
    (cut / "subsequences" / f"{len(LENGTHS) - lost:03d}.h5.part").write_bytes(b"half a file")
    (cut / "reference.h5.part").write_bytes(b"half a file")
    kept = digest(cut / "subsequences")
    opened = Run.open(cut)
    assert opened.recorded == len(LENGTHS) - lost
    finish(opened)
    same_run(finished.path, cut)
    again = digest(cut / "subsequences")
    assert {name: again[name] for name in kept} == kept  # also the half file, which this process did not make


def test_resuming_a_finished_run_changes_nothing(finished: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished.path, copy)
    before = digest(copy / "subsequences"), digest(copy)["settings.toml"], digest(copy)["run.json"], digest(copy)["reference.h5"]
    finish(Run.open(copy))
    assert before == (digest(copy / "subsequences"), digest(copy)["settings.toml"], digest(copy)["run.json"], digest(copy)["reference.h5"])
    same_run(finished.path, copy)


def test_lost_reference_is_made_again(finished: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished.path, copy)
    (copy / "reference.h5").unlink()
    finish(Run.open(copy))
    same_run(finished.path, copy)


@dataclass
class Faulty:
    """A microscope that breaks down at one sub-sequence, or records what is on disk whenever it is used."""

    inner: Any
    folder: Path
    breaks_at: int = -1
    used: int = 0
    closed: int = 0

    @property
    def setup(self) -> Any:
        return self.inner.setup

    @property
    def batch(self) -> int:
        return self.inner.batch

    def acquire(self, action: Action, *, generator: torch.Generator) -> Measurement:
        whole = sorted(p.name for p in self.folder.glob("*"))
        assert whole == [f"{n:03d}.h5" for n in range(self.used)], "a decision was made before the last sub-sequence was on disk"
        if self.used == self.breaks_at:
            raise OSError("the beam is down")
        self.used += 1
        return self.inner.acquire(action, generator=generator)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    target = Run.create(tmp_path_factory.mktemp("plain") / "run", tiny())
    finish(target)
    return target


def begin(folder: Path, plain: Run, breaks_at: int = -1) -> tuple[Run, Faulty]:
    """A run like the plain one, on a faulty microscope; what scores refer to is there already."""
    target = Run.create(folder, tiny())
    shutil.copy(plain.path / "reference.h5", folder)
    faulty = Faulty(target.microscope, folder / "subsequences", breaks_at)
    target.__dict__["microscope"] = faulty
    return target, faulty


def test_each_sub_sequence_is_on_disk_before_the_next_is_asked_for(tmp_path: Path, plain: Run) -> None:
    target, faulty = begin(tmp_path / "run", plain)
    finish(target)
    assert (faulty.used, faulty.closed) == (len(LENGTHS), 1)
    same_run(plain.path, target.path)


@pytest.mark.parametrize("at", range(len(LENGTHS)))
def test_a_breakdown_in_the_middle_loses_nothing(tmp_path: Path, plain: Run, at: int) -> None:
    target, faulty = begin(tmp_path / "run", plain, breaks_at=at)
    with pytest.raises(OSError, match="the beam is down"):
        finish(target)
    assert faulty.closed == 1
    again = Run.open(target.path)
    assert again.recorded == at
    for number in range(at):
        name = f"subsequences/{number:03d}.h5"
        assert contents(target.path / name).keys() == contents(plain.path / name).keys()
    finish(again)
    same_run(plain.path, target.path)


def test_a_sub_sequence_is_flushed_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Run.create(tmp_path / "run", tiny())
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(handle: int) -> None:
        events.append(("flushed", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
        fsync(handle)

    def spy_replace(self: Path, other: Path) -> Path:
        with h5py.File(self) as file:  # whole when it gets its name
            assert "patterns" in file
        events.append(("named", other.name))
        return replace(self, other)

    journal = Journal(target.microscope, target.path / "subsequences")
    action = Action(torch.full((1, 2, 2), 0.5))
    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    journal.acquire(action, generator=torch.Generator())
    (part,) = {name for done, name in events if name.endswith(".part")}
    assert events == [("flushed", part), ("named", "000.h5"), ("flushed", "subsequences")]


def test_journal_reads_instead_of_acquiring_and_says_if_the_request_has_changed(tmp_path: Path) -> None:
    target = Run.create(tmp_path / "run", tiny())
    folder, action = target.path / "subsequences", Action(torch.full((1, 2, 2), 0.5))
    measured = Journal(target.microscope, folder).acquire(action, generator=torch.Generator().manual_seed(1))
    again = Journal(Faulty(target.microscope, folder, breaks_at=0), folder)
    assert (again.setup, again.batch) == (target.microscope.setup, 1)
    read = again.acquire(action, generator=torch.Generator().manual_seed(2))
    for name in ("positions", "patterns", "dose", "defocus"):
        assert torch.equal(getattr(read, name), getattr(measured, name))
    with pytest.warns(UserWarning, match=r"000\.h5: other positions were requested"):
        Journal(target.microscope, folder).acquire(Action(torch.full((1, 2, 2), 0.6)), generator=torch.Generator())


def test_what_is_in_the_folder(finished: Run) -> None:
    folder, chosen = finished.path, finished.settings
    assert load(folder / "settings.toml") == chosen
    names = {p.name for p in folder.iterdir()}
    assert names == {"settings.toml", "run.json", "subsequences", "states", "reference.h5", "result.h5"}
    facts = json.loads((folder / "run.json").read_text())
    assert (facts["format"], facts["seed"]) == ("adaptycho run 2", 3)
    assert {"adaptycho", "torch", "numpy", "numba", "h5py"} <= facts["versions"].keys()
    assert facts.keys() >= {"created", "command", "python", "platform", "threads"}
    if chosen.scan.microscope == "recorded":
        file = Path(chosen.scan.file or "")
        assert facts["input"] == {"file": "small.h5", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    else:
        assert "input" not in facts
    assert contents(folder / "reference.h5")["phase_in_field"].shape == (chosen.specimen.count, *finished.microscope.setup.field_shape)


def test_sub_sequences_are_plain_hdf5_with_the_zero_frequency_in_the_centre(finished: Run) -> None:
    setup, batch = finished.microscope.setup, finished.microscope.batch
    seen = []
    for number, length in enumerate(LENGTHS):
        path = finished.path / "subsequences" / f"{number:03d}.h5"
        arrays = contents(path)
        assert arrays["patterns"].shape == (batch, length, *setup.detector)
        for name, shape in (("positions", (batch, length, 2)), ("requested", (batch, length, 2)), ("dose", (batch, length))):
            assert arrays[name].shape == shape
        with h5py.File(path) as file:
            assert file.attrs["patterns"] == "counts, zero frequency in the centre"
            assert file.attrs["positions"] == "reported, fractions (y, x) of the scan field"
            assert file.attrs["distance"] == "Å, from the requested to the reported position"
        away = (arrays["requested"] - arrays["positions"]) * np.array(setup.field)
        # Single precision of lengths up to 10 Å.
        assert np.allclose(arrays["distance"], np.hypot(*away.T).T, atol=1e-5)
        seen.append(arrays["patterns"])
    mean = np.concatenate(seen, 1).mean((0, 1), dtype=np.float64)
    ky, kx = np.indices(mean.shape) - np.array(setup.detector)[:, None, None] // 2
    disc = np.hypot(ky, kx) * setup.detector_pixel <= setup.semiangle
    # The bright-field disc holds nearly all electrons; with the zero frequency in the corner it would hold almost none.
    assert mean[disc].sum() > 0.8 * mean.sum()


def test_states_and_result_are_what_the_loop_gave(tmp_path: Path) -> None:
    target = Run.create(tmp_path / "run", tiny(specimen={"count": 2}))
    states = list(execute(target))
    read = read_states(target)
    assert len(read) == len(LENGTHS)
    reference = read_reference(target)
    for state, found in zip(states, read, strict=True):
        assert torch.equal(found["potential"], state.potential)
        assert torch.equal(found["loss"], state.reconstruction.loss)
        assert torch.equal(found["requested"], state.action.positions)
        for name in ("positions", "patterns", "dose", "defocus"):
            assert torch.equal(getattr(found["measurement"], name), getattr(state.latest, name))
        assert found["seconds"] == state.seconds
        wanted = score(state.potential, reference)
        assert found["scores"].keys() == {"ssim", "ssim_aligned", "correlation"}
        for name, values in found["scores"].items():
            assert np.array_equal(values, getattr(wanted, name).numpy())
    result = contents(target.path / "result.h5")
    assert np.array_equal(result["potential"], states[-1].reconstruction.potential.numpy())
    assert np.array_equal(result["phase_in_field"], states[-1].potential.numpy())
    assert np.array_equal(result["loss"], states[-1].reconstruction.loss.numpy())
    probe = np.abs(result["probe"]) ** 2
    assert np.unravel_index(probe.argmax(), probe.shape)[-2:] == (16, 16)


def test_more_than_a_thousand_sub_sequences_stay_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finish(Run.create(tmp_path / "short", tiny())), folder)
    for kind in ("subsequences", "states"):
        (folder / kind / "003.h5").rename(folder / kind / "1000.h5")
        (folder / kind / "notes.h5").write_bytes(b"not a sub-sequence")
    target = Run.open(folder)
    assert target.recorded == len(LENGTHS)
    assert [len(state["requested"][0]) for state in read_states(target)] == LENGTHS


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "no HDF5", "no patterns"])
def test_a_damaged_sub_sequence_is_named(tmp_path: Path, plain: Run, damage: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(plain.path, folder)
    path = folder / "subsequences" / "001.h5"
    whole = path.read_bytes()
    if damage == "no patterns":
        with h5py.File(path, "a") as file:
            del file["patterns"]
    elif damage == "altered":
        with h5py.File(path) as file:
            chunk = file["patterns"].id.get_chunk_info(0)
        middle = chunk.byte_offset + chunk.size // 2
        path.write_bytes(whole[: middle - 8] + bytes(16) + whole[middle + 8 :])
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "no HDF5": b"hello" * 100}[damage])
    before = digest(folder / "subsequences")
    said = (
        "patterns: expected an array .* found none" if damage == "no patterns" else "expected a whole HDF5 file, found one that cannot be"
    )
    with pytest.raises(ValueError, match=rf"^{path}: {said}"):
        finish(Run.open(folder))
    with pytest.raises(ValueError, match=rf"^{path}: {said}"):
        summary.run_page(Run.open(folder))
    assert digest(folder / "subsequences") == before


def test_only_one_process_works_on_a_run(tmp_path: Path, plain: Run) -> None:
    target = Run.create(tmp_path / "run", plain.settings)
    with alone(target.path), pytest.raises(ValueError, match="expected no other process at work"):
        next(execute(target))
    assert target.recorded == 0
    finish(target)


def test_a_run_is_there_whole_or_not_at_all(tmp_path: Path, plain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path, text: str) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(scans, "_write_text", fails)
        with pytest.raises(OSError, match="disk full"):
            Run.create(tmp_path / "run", plain.settings)
    assert not (tmp_path / "run").exists()
    finish(Run.create(tmp_path / "run", plain.settings))  # what was left beside it is not in the way
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_sub_sequences_of_other_settings_are_refused(tmp_path: Path, plain: Run) -> None:
    """Also if somebody changed the checksum of the settings with them."""
    folder = tmp_path / "run"
    shutil.copytree(plain.path, folder)
    changed = update(plain.settings, {"scan": {"positions": plain.settings.scan.positions * 2}}, "test")
    (folder / "settings.toml").write_text(dump(changed), encoding="utf-8")
    rewrite(folder / "run.json", {"settings": checksums.settings_digest(folder / "settings.toml")})
    with pytest.raises(ValueError, match=r"000\.h5: requested: expected .* as the settings say, found"):
        finish(Run.open(folder))


@pytest.mark.parametrize("name", ["subsequences/000.h5", "reference.h5"])
def test_a_link_that_leads_nowhere_is_not_replaced(name: str, tmp_path: Path, plain: Run) -> None:
    folder = tmp_path / "run"
    shutil.copytree(plain.path, folder)
    (folder / name).unlink()
    (folder / name).symlink_to("nowhere")
    with pytest.raises(ValueError, match="expected a whole HDF5 file, found a link that leads nowhere"):
        finish(Run.open(folder))
    assert os.readlink(folder / name) == "nowhere"


def rewrite(path: Path, changes: dict[str, object]) -> None:
    """Changes keys of a file of JSON; those that are None go."""
    facts = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in facts.items() if v is not None}))


@pytest.mark.parametrize(
    ("section", "change"),
    [("scan", {"seed": 4}), ("specimen", {"family": "island"}), ("beam", {"energy": 80e3}), ("reconstruct", {"iterations": 3})],
)
def test_other_settings_than_those_of_the_beginning_are_refused(
    section: str, change: dict[str, object], tmp_path: Path, plain: Run
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(plain.path, folder)
    path = folder / "settings.toml"
    path.write_text("# a remark\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert Run.open(folder).settings == plain.settings
    path.write_text(dump(update(plain.settings, {section: change}, "test")), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^{path}: expected the settings that {folder} began with, found others$"):
        Run.open(folder)


@pytest.mark.parametrize("name", ["subsequences/001.h5", "states/001.h5", "reference.h5"])
def test_an_array_that_was_changed_is_named(name: str, tmp_path: Path, plain: Run) -> None:
    """By one bit of one number, with HDF5's own means, so that the file is whole."""
    folder = tmp_path / "run"
    shutil.copytree(plain.path, folder)
    key = "patterns" if "sub" in name else "phase_in_field"
    with h5py.File(folder / name, "a") as file:
        values = file[key][...]
        values.view(np.uint8).flat[values.nbytes // 2] ^= 1
        file[key][...] = values
    said = rf"^{folder / name}: {key}: expected what the run wrote, found other values"
    with pytest.raises(ValueError, match=said):
        summary.run_page(Run.open(folder))
    if "states" not in name:  # those are made again
        with pytest.raises(ValueError, match=said):
            finish(Run.open(folder))


def test_sub_sequences_from_elsewhere_are_refused(tmp_path: Path, plain: Run) -> None:
    folder, other = tmp_path / "run", finish(Run.create(tmp_path / "other", tiny(scan={"seed": 4})))
    for source, number, said in ((other, 0, "000.h5: run: expected"), (plain.path, 1, "000.h5: number: expected 0, found 1")):
        shutil.copytree(plain.path, folder, dirs_exist_ok=True)
        shutil.copy(source / "subsequences" / f"{number:03d}.h5", folder / "subsequences" / "000.h5")
        with pytest.raises(ValueError, match=said):
            finish(Run.open(folder))


@pytest.mark.parametrize("what", ["input", "weights", "structure"])
def test_other_files_than_those_of_the_beginning_are_refused(what: str, tmp_path: Path, recording: Path) -> None:
    """Of the same name; the same file under another name is fine."""
    source, policies = tmp_path / "source", Path(formats.__file__).parents[1] / "scan" / "networks" / "shipped"
    if what == "input":
        shutil.copy(recording, source)
        chosen = tiny(scan={"microscope": "recorded", "file": str(source)})
    elif what == "weights":
        shutil.copy(policies / "lattice.safetensors", source)
        chosen = tiny(scan={"policy": "adaptive", "weights": str(source)})
    else:
        source = tmp_path / "source.vasp"
        ase.io.write(source, mx2("MoS2", vacuum=5))
        chosen = tiny(specimen={"structure": str(source)})
    target = Run.create(tmp_path / "run", chosen)
    next(execute(target))
    source.write_bytes(source.read_bytes() + b" ")
    with pytest.raises(ValueError, match=rf"run\.json: {what}: expected {source.name} as it was when the run began, found another file"):
        next(execute(Run.open(target.path)))
    rewrite(target.path / "run.json", {what: None})
    with pytest.raises(ValueError, match=rf"run\.json: {what}: expected a checksum of it"):
        next(execute(Run.open(target.path)))


def test_a_run_of_an_older_version_is_read_and_gone_on_with(tmp_path: Path, plain: Run) -> None:
    folder = tmp_path / "run"
    shutil.copytree(plain.path, folder)
    rewrite(folder / "run.json", {"format": "adaptycho run 1", "settings": None})
    for path in folder.rglob("*.h5"):
        with h5py.File(path, "a") as file:
            file.visititems(lambda _, item: item.attrs.pop("sha256", None))
            for name in ("run", "number"):
                file.attrs.pop(name, None)
    (folder / "subsequences" / "003.h5").unlink()
    with pytest.warns(UserWarning, match=f"{folder}: of an older version, without checksums"):
        old = Run.open(folder)
    finish(old)
    same_run(plain.path, folder)
    assert summary.run_page(old)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input": 1}, "input: expected an object, found 1"),
        ({"seed": "three"}, "seed: expected a valid integer, found 'three'"),
        ({"versions": ["torch"]}, "versions: expected an object, found ['torch']"),
        ({"created": None}, "created: expected a value, found none"),
        ({"format": "\x1b[31mred"}, "format: expected 'adaptycho run 2' or 'adaptycho run 1', found '\\x1b[31mred'"),
    ],
)
def test_facts_of_a_wrong_type_are_named(changes: dict[str, object], said: str, tmp_path: Path, plain: Run) -> None:
    folder = tmp_path / "run"
    shutil.copytree(plain.path, folder)
    rewrite(folder / "run.json", changes)
    with pytest.raises(ValueError, match=f"^{re.escape(str(folder / 'run.json'))}: {re.escape(said)}$"):
        Run.open(folder)


@pytest.mark.parametrize("kind", ["complex64", "float16", "object", "int32"])
def test_arrays_of_another_type_are_named(kind: str, tmp_path: Path, plain: Run) -> None:
    folder = tmp_path / "run"
    shutil.copytree(plain.path, folder)
    path = folder / "subsequences" / "001.h5"
    with h5py.File(path, "a") as file:
        values = file["positions"][...]
        del file["positions"]
        if kind == "object":
            file.create_dataset("positions", values.shape, h5py.string_dtype())
        else:
            file["positions"] = values.astype(kind)
    with pytest.raises(ValueError, match=f"^{path}: positions: expected"):
        finish(Run.open(folder))


def test_counts_that_are_none_do_not_count(tmp_path: Path) -> None:
    target = Run.create(tmp_path / "run", tiny())
    action, generator = Action(torch.full((1, 2, 2), 0.5)), torch.Generator()
    measured = target.microscope.acquire(action, generator=generator)

    class Broken(Faulty):
        def acquire(self, action: Action, *, generator: torch.Generator) -> Measurement:
            return measured

    journal = Journal(Broken(target.microscope, target.path), target.path / "subsequences")
    for bad in (-1.0, math.nan, math.inf):
        measured.patterns[0, 1, 2, 3] = bad
        with pytest.raises(ValueError, match=r"^the microscope: patterns: expected .* in pattern 1; it is kept in .*000\.refused-\d\.h5"):
            journal.acquire(action, generator=generator)
    assert target.recorded == 0
    assert sorted(p.name for p in (target.path / "subsequences").iterdir()) == [f"000.refused-{n}.h5" for n in (1, 2, 3)]


def test_folders_beside_stay_and_links_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.part").mkdir()
    (tmp_path / "run.part" / "thesis.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    for name in ("run", "link", "new/run"):
        assert Run.create(tmp_path / name, tiny()).recorded == 0
    assert (tmp_path / "run.part" / "thesis.txt").read_text() == "mine"
    assert (tmp_path / "link").is_symlink() and (tmp_path / "empty" / "run.json").exists()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match=r"^\.: expected the name of a new folder"):
        Run.create(Path(), tiny())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "here", "link", "new", "run", "run.part"]


def test_two_that_begin_at_once_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = scans.build.simulated

    def overtaken(chosen: Settings) -> Any:
        monkeypatch.setattr(scans.build, "simulated", real)
        Run.create(tmp_path / "run", tiny(scan={"seed": 9}))
        return real(chosen)

    monkeypatch.setattr(scans.build, "simulated", overtaken)
    with pytest.raises(ValueError, match="run: expected a new or empty folder, found something that came there meanwhile"):
        Run.create(tmp_path / "run", tiny())
    assert Run.open(tmp_path / "run").settings.scan.seed == 9
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_field_too_small_to_score_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"geometry\.field: expected at least 11 pixels"):
        Run.create(tmp_path / "run", tiny(geometry={"field": (2.0, 2.0), "object": "auto"}))
    assert not (tmp_path / "run").exists()


def test_a_folder_with_something_in_it_is_not_touched(tmp_path: Path, plain: Run) -> None:
    full, other = tmp_path / "run", tmp_path / "notes"
    shutil.copytree(plain.path, full)
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = digest(tmp_path)
    for path in (full, other, tmp_path / "file"):
        with pytest.raises(ValueError, match=rf"^{path}: expected a new or empty folder for the run, found one with something in it"):
            Run.create(path, tiny())
    assert digest(tmp_path) == before


def test_what_cannot_be_scanned_is_refused_before_there_is_a_folder(tmp_path: Path) -> None:
    for wrong, said in (
        ({"scan": {"subsequences": 30}}, "subsequences: expected 1 to 18"),
        ({"scan": {"microscope": "recorded", "file": str(tmp_path / "none.h5")}}, "none.h5: expected a recording, found none"),
        ({"specimen": {"structure": "XY2"}}, "structure: expected one of"),
        ({"geometry": {"object": 20}}, "object: expected a grid that holds the field"),
    ):
        with pytest.raises(ValueError, match=said):
            Run.create(tmp_path / "run", tiny(**wrong))
        assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    assert Run.create(tmp_path / "run", tiny()).recorded == 0


def test_what_is_not_a_run_is_not_opened(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "none", "no such folder"), (tmp_path, "none in it")):
        with pytest.raises(ValueError, match=rf"^{path}: expected a run folder with settings\.toml, found {found}$"):
            Run.open(path)
    assert not list(tmp_path.iterdir())


def test_report_of_an_unfinished_run(tmp_path: Path, plain: Run) -> None:
    target = Run.create(tmp_path / "run", tiny())
    with pytest.raises(ValueError, match="expected at least one finished sub-sequence to report on, found none"):
        summary.run_page(target)
    loop = execute(target)
    next(loop)
    next(loop)
    page = summary.run_page(Run.open(target.path))
    assert "2 of 4 sub-sequences" in page
    assert "4 of 4 sub-sequences" in summary.run_page(plain)


def test_a_run_on_a_file_named_from_here_is_resumed_from_elsewhere(
    tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recording.parent)
    target = Run.create(tmp_path / "run", tiny(scan={"microscope": "recorded", "file": recording.name}))
    next(execute(target))
    monkeypatch.chdir(tmp_path)
    finish(Run.open(Path("run")))
    assert len(read_states(target)) == len(LENGTHS)


def watch(folder: Path, process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Until the first sub-sequence is there."""
    while not (folder / "subsequences" / "000.h5").exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        yield


@pytest.mark.slow
def test_a_killed_process_is_resumed(tmp_path: Path, plain: Run) -> None:
    options = [f"--geometry.field={[8.0, 6.0]}", "--geometry.object=auto", "--positions=18", "--subsequences=4", "--seed=3"]
    options += ["--reconstruct.iterations=2", "--reconstruct.reference_side=5", "--threads=1"]
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "adaptycho.app.cli", "scan", str(folder), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with process:
        for _ in watch(folder, process):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    target = Run.open(folder)
    assert target.settings == plain.settings
    assert target.recorded >= 1
    finish(target)
    same_run(plain.path, folder)


def test_a_run_whose_prior_is_chosen_is_read_again(tmp_path: Path) -> None:
    """The chosen descent takes as many iterations as it needs, not those of the settings."""
    chosen = override(
        preset("light"),
        {
            "geometry.field": "[6.0, 6.0]",
            "geometry.object": "auto",
            "scan.positions": "9",
            "scan.subsequences": "2",
            "scan.dose": "300",
            "reconstruct.prior": "auto",
            "reconstruct.reference_side": "12",
        },
    )
    run = Run.create(tmp_path / "run", chosen)
    assert len(list(execute(run))) == 2
    assert len(read_states(Run.open(tmp_path / "run"))) == 2


def test_a_prior_that_cannot_be_weighed_leaves_no_folder(tmp_path: Path) -> None:
    chosen = override(preset("light"), {"reconstruct.prior": "atoms", "reconstruct.loss": "intensity"})
    with pytest.raises(ValueError, match="loss: expected amplitude, anscombe or poisson"):
        Run.create(tmp_path / "run", chosen)
    assert not (tmp_path / "run").exists()
