"""Trainings as a user meets them: folders, resuming after a kill, several processes, TensorBoard, and mistakes in one sentence."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from adaptycho import settings as tree
from adaptycho.app.cli import main
from adaptycho.learn import stages, tensorboard, trainings
from adaptycho.learn.loop import read_log
from adaptycho.scan.networks import library, weights
from adaptycho.scan.networks.autoencoder import Autoencoder
from adaptycho.scan.networks.field import Field
from adaptycho.settings import Settings, preset, update

TINY = {
    "geometry": {"field": [6.0, 6.0], "object": "auto"},
    "scan": {"subsequences": 3},
    "practice": {"positions": [12], "pool": 4, "validation": 2},
    "reconstruct": {"iterations": 2, "reference_side": 12},
    "network": {"widths": [8, 8], "image": 64, "hidden": 16, "location": 8, "structure": 8},
    "train": {
        "teacher": "half-way",
        "every": 2,
        "encode_steps": 6,
        "encode_batch": 4,
        "imitate_steps": 6,
        "imitate_batch": 4,
        "reinforce_steps": 6,
        "reinforce_batch": 4,
        # Large enough for every step to change the weights by more than rounding.
        "encode_rate": 1e-3,
        "reinforce_rate": 1e-3,
    },
}
# Ends itself without warning in the middle of an update: at the so-manieth share of a course.
DYING = """
import os, signal, sys
from pathlib import Path
import torch
from adaptycho.learn import stages, trainings
torch.set_num_threads(1)
folder, name, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
real = getattr(stages, name)
def mortal(*arguments, **named):
    global calls
    calls -= 1
    if calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)
setattr(stages, name, mortal)
stages._draw = lambda *arguments: None
trainings.execute(Path(folder), lambda items, total, what: items)
"""


def tiny(**sections: Mapping[str, object]) -> Settings:
    return update(update(preset("light"), TINY, "test"), sections, "test")


def quietly(items: Iterable[Any], total: int, what: str) -> Iterable[Any]:
    return items


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the training; `trained`, which is made before, has some."""
    monkeypatch.setattr(stages, "_draw", lambda *arguments: None)


def told(folder: Path) -> list[dict[str, Any]]:
    """The log without the time."""
    return [{k: v for k, v in e.items() if k != "seconds"} for e in read_log(folder)]


def identical(a: Path, b: Path) -> None:
    names = sorted(p.name for p in a.glob("*.safetensors"))
    assert names == sorted(p.name for p in b.glob("*.safetensors"))
    for name in names:
        one, other = weights.load(a / name), weights.load(b / name)
        assert one.tensors.keys() == other.tensors.keys()
        for key, value in one.tensors.items():
            assert torch.equal(value, other.tensors[key]), (name, key)
    assert told(a) == told(b)


# --- folders


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "field"
    trainings.create(folder, tiny(), stages.ORDER, None)
    return folder, trainings.execute(folder, quietly)


def test_what_a_run_leaves_behind(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, found = trained
    log = read_log(folder)
    assert {p.name for p in folder.iterdir()} >= {"settings.toml", "run.json", "log.jsonl", "curve.png", "pictures"}
    assert tree.load(folder / "settings.toml") == tiny()
    assert json.loads((folder / "run.json").read_text())["courses"] == ["imitate", "reinforce"]  # a field policy needs no autoencoder
    for course in ("imitate", "reinforce"):
        steps = [e["step"] for e in log if e["course"] == course and "loss" in e]
        validated = [e["step"] for e in log if e["course"] == course and "validation" in e]
        assert (steps, validated) == ([1, 2, 3, 4, 5, 6], [0, 2, 4, 6])
        for step in validated:
            assert (folder / "pictures" / f"{course}-{step:05d}.png").stat().st_size > 1000
    scores = {e["step"]: e["validation"]["score"] for e in log if e["course"] == "reinforce" and "validation" in e}
    assert found["validation"]["score"] == max(scores.values()) == scores[found["step"]]
    assert found["weights"] == str(folder / "reinforce.safetensors")
    # The second course begins where the first was best.
    first = {e["step"]: e["validation"]["score"] for e in log if e["course"] == "imitate" and "validation" in e}
    assert scores[0] == max(first.values())


def test_the_card_says_where_weights_come_from(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, found = trained
    card = weights.load(folder / "reinforce.safetensors").card
    assert (card["kind"], card["course"], card["step"]) == ("field", "reinforce", found["step"])
    assert tree.validate(card["settings"], "card") == tiny()
    assert isinstance(library.load(folder / "reinforce.safetensors"), Field)


def test_a_finished_run_is_left_as_it_is(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, found = trained
    before = {p: p.read_bytes() for p in (*folder.glob("*.safetensors"), folder / "log.jsonl")}
    assert trainings.execute(folder, quietly) == found
    assert {p: p.read_bytes() for p in before} == before


def test_a_scan_that_diverged_has_no_score_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = stages.examine, iter([math.nan, 0.1, math.nan, 0.05])

    def examine(*arguments: Any) -> dict[str, float]:
        return real(*arguments) | {"score": next(calls)}

    monkeypatch.setattr(stages, "examine", examine)
    trainings.create(tmp_path / "run", tiny(train={"imitate_steps": 6, "reinforce_steps": 0}), ("imitate",), None)
    found = trainings.execute(tmp_path / "run", quietly)
    assert [e["validation"]["score"] for e in read_log(tmp_path / "run") if "validation" in e] == [None, 0.1, None, 0.05]
    assert (found["step"], found["validation"]["score"]) == (2, 0.1)
    assert weights.load(tmp_path / "run" / "imitate.safetensors").card["step"] == 2


def test_what_an_autoencoder_has_learnt_goes_into_a_policy(tmp_path: Path) -> None:
    settings = tiny(network={"kind": "recurrent"}, train={"imitate_steps": 2})
    trainings.create(tmp_path / "a", settings, ("autoencoder",), None)
    learnt = Path(trainings.execute(tmp_path / "a", quietly)["weights"])
    trainings.create(tmp_path / "b", settings, ("imitate",), learnt)
    policy = library.load(Path(trainings.execute(tmp_path / "b", quietly)["weights"]))
    network = library.load(learnt)
    assert isinstance(network, Autoencoder)
    for name, value in network.encoder.state_dict().items():
        assert torch.equal(policy.encoder.state_dict()[name], value)


# --- resuming


@pytest.mark.slow
def test_after_a_kill_a_training_comes_to_the_same_weights(tmp_path: Path) -> None:
    """Killed in the middle of the fourth update, two updates after a checkpoint, one of them in the log."""
    kinds = {
        "imitate": ({}, ("imitate",)),
        "recurrent": ({"network": {"kind": "recurrent"}, "train": {"baseline": "pair"}}, stages.ORDER),
    }

    def die(kind: str) -> None:
        command = [sys.executable, "-c", DYING, str(tmp_path / kind), kinds[kind][1][-1], "8"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == -signal.SIGKILL, done.stderr

    for kind, (changes, courses) in kinds.items():
        for folder in (tmp_path / kind, tmp_path / f"{kind}-whole"):
            trainings.create(folder, tiny(**changes), courses, None)
    with ThreadPoolExecutor(len(kinds)) as pool:
        list(pool.map(die, kinds))
    for kind, (_, courses) in kinds.items():
        last = courses[-1]
        before = [e for e in told(tmp_path / kind) if e["course"] == last]
        assert before[-1]["step"] == 3, before
        assert weights.load(tmp_path / kind / f"{last}.checkpoint.safetensors").card["step"] == 2
        trainings.execute(tmp_path / kind, quietly)
        trainings.execute(tmp_path / f"{kind}-whole", quietly)
        identical(tmp_path / kind, tmp_path / f"{kind}-whole")
        # It was worth comparing: the last steps moved the weights.
        checkpoint = weights.load(tmp_path / kind / f"{last}.checkpoint.safetensors")
        assert checkpoint.card["step"] == 6
        assert any(bool((v != 0).any()) for k, v in checkpoint.tensors.items() if k.endswith("exp_avg")), kind


def test_a_kill_before_the_first_checkpoint_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also between the best weights and the checkpoint of the same step: the weights that are there are not what was begun with."""
    from adaptycho.learn import checkpoint

    for name in ("a", "b"):
        trainings.create(tmp_path / name, tiny(train={"imitate_rate": 3e-3}), ("imitate",), None)
    with monkeypatch.context() as patch:

        def cut(*arguments: Any) -> None:
            raise KeyboardInterrupt

        scores = iter([0.1, 0.2])
        patch.setattr(checkpoint, "write", cut)
        real = stages.examine
        patch.setattr(stages, "examine", lambda *arguments: real(*arguments) | {"score": next(scores)})
        with pytest.raises(KeyboardInterrupt):
            trainings.execute(tmp_path / "a", quietly)
    assert weights.load(tmp_path / "a" / "imitate.safetensors").card["step"] == 2
    assert not (tmp_path / "a" / "imitate.checkpoint.safetensors").exists()
    for name in ("a", "b"):
        trainings.execute(tmp_path / name, quietly)
    identical(tmp_path / "a", tmp_path / "b")


def test_progress_is_told_what_is_left(tmp_path: Path) -> None:
    totals: list[tuple[str, int, int]] = []

    def stopping(items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
        for done, item in enumerate(items, 1):
            yield item
            if what == "imitate" and item["step"] == 5 and not totals:
                totals.append((what, total, done))
                raise KeyboardInterrupt
        totals.append((what, total, done))

    trainings.create(tmp_path / "run", tiny(), ("imitate", "reinforce"), None)
    with pytest.raises(KeyboardInterrupt):
        trainings.execute(tmp_path / "run", stopping)
    trainings.execute(tmp_path / "run", stopping)
    assert totals == [("imitate", 6, 5), ("imitate", 2, 2), ("reinforce", 6, 6)]


# --- several processes


@pytest.mark.slow
def test_two_processes_make_the_same_update_as_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each weight's gradient is the sum of two shares, which does not depend on their order: the same to the last bit."""
    for processes in (1, 2):
        chosen = tiny(train={"processes": processes, "reinforce_steps": 2, "imitate_steps": 2})
        trainings.create(tmp_path / str(processes), chosen, ("imitate", "reinforce"), None)
        trainings.execute(tmp_path / str(processes), quietly)
    capfd.readouterr()
    identical(tmp_path / "1", tmp_path / "2")


# --- TensorBoard


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_what_is_in_the_log(tmp_path: Path) -> None:
    """Also when a run was interrupted: nothing twice."""
    folder = tmp_path / "run"
    trainings.create(folder, tiny(train={"tensorboard": True}), ("imitate", "reinforce"), None)

    def stopping(items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
        for item in items:
            yield item
            if item["step"] == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainings.execute(folder, stopping)
    trainings.execute(folder, quietly)
    for course in ("imitate", "reinforce"):
        log = [e for e in read_log(folder) if e["course"] == course]
        shown = events(folder / "tensorboard" / course)
        for name in ("loss", "gradient", "validation/score", "validation/ssim"):
            group, _, leaf = name.rpartition("/")
            entries = [(e["step"], (e[group] if group else e)[leaf]) for e in log if (group or name) in e]
            assert [step for step, _ in shown[name]] == [step for step, _ in entries]
            # Six digits in the log, single precision in the events.
            assert [v for _, v in shown[name]] == pytest.approx([v for _, v in entries], rel=1e-5)


def test_without_tensorboard_or_fabric_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptycho.learn import distributed

    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    monkeypatch.setattr(distributed, "find_spec", lambda name: None)
    for train, said in (
        ({"tensorboard": True}, "train.tensorboard: expected TensorBoard"),
        ({"processes": 2}, "train.processes: expected"),
    ):
        with pytest.raises(ValueError, match=said):
            trainings.create(tmp_path / "run", tiny(train=train), ("imitate",), None)
    assert not (tmp_path / "run").exists()


# --- the command line


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(tree.dump(tiny(train={"imitate_steps": 2, "reinforce_steps": 2})), encoding="utf-8")
    return path


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Exit code 2, one line on stderr, nothing on stdout."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("adaptycho: ")
    assert "Traceback" not in err
    return err


def test_train_all(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", "all", "--settings", str(file), "--out", str(run), "--json", "--train.seed", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["weights"] == str(run / "reinforce.safetensors")
    assert set(found["validation"]) == {"score", "ssim", "ssim_aligned", "correlation_inside"}
    assert tree.load(run / "settings.toml").train.seed == 3
    assert main(["train", "resume", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(["train", "resume", str(run)]) == 0
    assert capsys.readouterr().out.startswith("validation: score ")
    assert str(run) in refused(["train", "all", "--settings", str(file), "--out", str(run)], capsys)


def test_courses_one_after_the_other_by_hand(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["train", "imitate", "--settings", str(file), "--out", str(first)]) == 0
    weights_file = str(first / "imitate.safetensors")
    assert main(["train", "reinforce", "--settings", str(file), "--weights", weights_file, "--out", str(second)]) == 0
    start, before = read_log(second)[0], read_log(first)
    best = max(e["validation"]["score"] for e in before if "validation" in e)
    assert (start["course"], start["step"], start["validation"]["score"]) == ("reinforce", 0, best)
    capsys.readouterr()


@pytest.mark.parametrize("recipe", tree.RECIPES)
def test_every_recipe_can_be_begun(recipe: str, tmp_path: Path) -> None:
    for name in tree.PRESETS:
        wanted = tree.recipe(recipe, preset(name))
        trainings.create(tmp_path / name, wanted, stages.ORDER, None)
        assert tree.load(tmp_path / name / "settings.toml") == wanted


MISTAKES = {
    "recipe": (["--recipe", "clever"], "'clever'"),
    "setting": (["--train.imitate_steps", "-3"], "train.imitate_steps: expected greater than or equal to 0"),
    "no steps": (["--train.imitate_steps", "0"], "expected steps of some course"),
    "no weights": (["--weights", "nowhere.safetensors"], "nowhere.safetensors: expected a file of weights, found none"),
    "processes": (["--train.processes", "3"], "train.shares: expected a multiple of 3 processes, found 2"),
    "shares": (["--train.shares", "3"], "train.imitate_batch: expected a multiple of train.shares, 3, found 4"),
    "bank": (["--train.imitate_bank", "3"], "train.imitate_bank: expected 0 for a field network whose teacher is half-way, found 3"),
    "many shares": (["--train.shares", "65", "--train.imitate_batch", "65"], "train.shares: expected at most 64, found 65"),
    "slices": (["--specimen.slices", "2"], "specimen.slices: expected 1 slice to practise on, found 2"),
    "absorption": (["--specimen.absorption", "0.1"], "specimen.absorption: expected 0 to practise on, found 0.1"),
    "nobody's columns": (["--scan.microscope", "recorded"], "train.teacher: expected even or structure on a recording"),
    "wide windows": (
        ["--scan.microscope", "recorded", "--train.teacher", "even", "--practice.window", "[8, 17]"],
        "practice.window: expected at least 17 columns",
    ),
    "pool": (["--practice.pool", "1"], "practice.pool: expected at least 2 specimens"),
    "survey only": (["--scan.subsequences", "1"], "scan.subsequences: expected a survey and at least one more, found 1"),
    "few positions": (
        ["--practice.positions", "[12, 2]"],
        "practice.positions: expected at least one for each of 3 sub-sequences, found 2",
    ),
    "teacher": (["--network.kind", "recurrent", "--train.teacher", "structure"], "train.teacher: expected even or half-way"),
    "numbers": (["--network.kind", "recurrent", "--practice.positions", "[12, 9]"], "practice.positions: expected one number"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_no_folder(
    name: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, said = MISTAKES[name]
    assert said in refused(["train", "imitate", "--settings", str(file), "--out", "run", *arguments], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": "pair", "reinforce_batch": 6}, "train.reinforce_batch: expected pairs in each of 2 shares"),
        ({"baseline": "batch", "reinforce_batch": 2}, "train.reinforce_batch: expected at least two in each of 2 shares"),
    ],
)
def test_a_baseline_needs_company(changes: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        trainings.create(tmp_path / "run", tiny(train=changes), ("reinforce",), None)
    trainings.create(tmp_path / "run", tiny(train={**changes, "baseline": "none"}), ("reinforce",), None)


def test_a_share_needs_different_specimens(tmp_path: Path) -> None:
    changes = {"baseline": "pair", "reinforce_batch": 12}
    with pytest.raises(ValueError, match=r"practice\.scored: expected at least 3 specimens for a share of train\.reinforce_batch, found 2"):
        trainings.create(tmp_path / "run", tiny(practice={"scored": 2, "pool": 4}, train=changes), ("reinforce",), None)
    trainings.create(tmp_path / "run", tiny(practice={"scored": 3, "pool": 4}, train=changes), ("reinforce",), None)


def test_weights_of_another_kind_are_refused(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, foreign = tmp_path / "field.safetensors", tmp_path / "foreign.safetensors"
    weights.save(path, Field((8, 8)), library.described(Field((8, 8))))
    weights.save(foreign, Field((8, 8)), {"kind": "oracle"})
    out = ["--settings", str(file), "--out", str(tmp_path / "run")]
    recurrent = ["--network.kind", "recurrent"]
    assert "expected weights of the kind recurrent (network.kind), found field" in refused(
        ["train", "imitate", "--weights", str(path), *recurrent, *out], capsys
    )
    assert "to start an autoencoder from" in refused(["train", "autoencoder", "--weights", str(path), *out], capsys)
    assert "expected the card of a network" in refused(["train", "imitate", "--weights", str(foreign), *out], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "run.json: expected JSON, found something else"),
        ('{"format": "something else"}', "run.json: format: expected 'adaptycho training 1', found 'something else'"),
        ("[]", "run.json: expected an object"),
        ('{"format": "adaptycho training 1"}', "run.json: courses: expected a value, found none"),
        ('{"format": "adaptycho training 1", "courses": []}', "run.json: courses: expected List should have at least 1 item"),
        (
            '{"format": "adaptycho training 1", "courses": ["sleep"]}',
            "run.json: courses.0: expected 'autoencoder', 'imitate' or 'reinforce'",
        ),
        ('{"format": "adaptycho training 1", "courses": ["imitate"], "start": 1}', "run.json: start: expected"),
    ],
)
def test_resume_wants_the_folder_of_a_training(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected the folder of a training" in refused(["train", "resume", str(tmp_path / "nothing")], capsys)
    (tmp_path / "run.json").write_text(text)
    (tmp_path / "settings.toml").write_text(tree.dump(tiny()), encoding="utf-8")
    assert said in refused(["train", "resume", str(tmp_path)], capsys)


def test_a_training_goes_on_as_it_began_or_not_at_all(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Other settings, other weights to start from, a checkpoint from elsewhere or of another course, a changed byte."""
    source, found = trained
    folder, other = tmp_path / "run", tmp_path / "other"
    trainings.create(other, tiny(train={"seed": 1, "imitate_steps": 2, "reinforce_steps": 0}), ("imitate",), Path(found["weights"]))
    trainings.execute(other, quietly)
    settings, step = folder / "settings.toml", folder / "imitate.checkpoint.safetensors"
    last = step.with_name("reinforce.checkpoint.safetensors")

    def harm(name: str) -> None:
        if name == "settings":
            settings.write_text(tree.dump(tiny(train={"seed": 5})), encoding="utf-8")
        elif name == "elsewhere":
            shutil.copy(other / step.name, step)
        elif name == "course":
            shutil.copy(step, last)
        elif name == "log":
            log = folder / "log.jsonl"
            log.write_text(log.read_text().replace('"step": 2', '"step": "two"'))
        else:
            raw = bytearray(step.read_bytes())
            raw[-3] ^= 1
            step.write_bytes(raw)

    for name, said in (
        ("settings", f"{settings}: expected the settings that {folder} began with, found others"),
        ("elsewhere", f"{step}: expected a checkpoint of this training's course imitate, found one from elsewhere"),
        ("course", f"{last}: expected a checkpoint of this training's course reinforce, found one from elsewhere"),
        ("byte", f"{step}: expected"),
        ("log", f"{folder / 'log.jsonl'}: line 3: step: expected a valid integer, found 'two'"),
    ):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        harm(name)
        with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
            trainings.execute(folder, quietly)
    begun = other / "start.safetensors"
    begun.write_bytes(begun.read_bytes() + b" ")
    with pytest.raises(ValueError, match=f"^{begun}: expected the weights that the training began with, found others"):
        trainings.execute(other, quietly)


def test_a_training_without_checksums_is_gone_on_with(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """As older versions left it: no checksum of settings, no course and run in the checkpoint."""
    source, found = trained
    folder = tmp_path / "run"
    shutil.copytree(source, folder)
    facts = json.loads((folder / "run.json").read_text())
    del facts["settings"]
    (folder / "run.json").write_text(json.dumps(facts))
    for path in folder.glob("*.checkpoint.safetensors"):
        loaded = weights.load(path)
        weights.write(path, loaded.tensors, {k: v for k, v in loaded.card.items() if k in ("step", "best", "seconds")})
    with pytest.warns(UserWarning, match="of an older version, without checksums"):
        again = trainings.execute(folder, quietly)
    assert again == found | {"weights": str(folder / "reinforce.safetensors")}


def test_a_folder_beside_a_training_stays(tmp_path: Path) -> None:
    (tmp_path / "run.part").mkdir()
    (tmp_path / "run.part" / "thesis.txt").touch()
    (tmp_path / "taken").touch()
    with pytest.raises(ValueError, match="taken: expected a new or empty folder, found"):
        trainings.create(tmp_path / "taken", tiny(), ("imitate",), None)
    trainings.create(tmp_path / "run", tiny(), ("imitate",), None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.part", "taken"]
    assert (tmp_path / "run.part" / "thesis.txt").exists()
