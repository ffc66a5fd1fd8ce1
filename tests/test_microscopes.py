"""Every kind of microscope keeps one contract, and one that another package brings, and that knows no reference, scans like those here."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from adaptycho import formats
from adaptycho.app import cli
from adaptycho.formats import Recording
from adaptycho.instruments import Capabilities, Session
from adaptycho.instruments.contract import Contract, broken
from adaptycho.physics.optics import Setup
from adaptycho.runs import journal, scans, summary
from adaptycho.runs.execution import execute
from adaptycho.runs.journal import Journal
from adaptycho.runs.scans import Run, read_states
from adaptycho.settings import Settings, build, microscopes, override, preset, update
from adaptycho.settings.microscopes import BUILT_IN, GROUP, Kind, Subject
from adaptycho.types import Action, Measurement

TINY = {
    "geometry": {"field": [8.0, 6.0], "object": "auto"},
    "scan": {"positions": 18, "subsequences": 3, "seed": 3},
    "reconstruct": {"iterations": 2, "reference_side": 5},
}


def tiny(**changes: dict[str, object]) -> Settings:
    return update(update(preset("light"), TINY, "tiny"), changes, "test")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = tiny(reconstruct={"reference_side": 12})
    source = build.simulated(chosen)
    path = tmp_path_factory.mktemp("recordings") / "small.h5"
    formats.write(path, Recording(source.setup, build.full_scan(chosen, source), title="small"))
    return path


@pytest.fixture(params=BUILT_IN, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def chosen(kind: Kind, recording: Path) -> Settings:
    count = 2 if kind.capabilities.specimens else 1
    return tiny(scan={"microscope": kind.name, "file": str(recording)}, specimen={"count": count})


@pytest.fixture
def session(kind: Kind, chosen: Settings) -> Iterator[Session]:
    opened = kind.open(chosen)
    yield opened
    opened.close()


def asked(batch: int, count: int) -> Tensor:
    """The same positions for every specimen, all over the field."""
    return torch.rand(1, count, 2, generator=torch.Generator().manual_seed(5)).expand(batch, -1, -1)


def acquire(session: Session, positions: Tensor, seed: int = 1, **action: float) -> Measurement:
    return session.acquire(Action(positions, **action), generator=torch.Generator().manual_seed(seed))


def test_it_is_what_it_says_before_it_is_opened(kind: Kind, chosen: Settings, session: Session) -> None:
    assert microscopes.of(chosen) is microscopes.find(kind.name) is kind
    seen = kind.look(chosen)
    assert (seen.batch, seen.setup.detector, seen.setup.field_shape) == (session.batch, session.setup.detector, session.setup.field_shape)
    assert seen.setup.field == session.setup.field
    assert seen.setup.detector_pixel == session.setup.detector_pixel
    assert seen.title
    assert seen.counts_per_electron > 0
    assert all(path.is_file() for path in kind.files(chosen).values())


class TestContract(Contract):
    """What every kind keeps that comes along."""

    seeded = True

    @pytest.fixture(autouse=True)
    def subject(self, kind: Kind, chosen: Settings) -> None:
        self.kind, self.chosen, self.capabilities, self.echoes = kind, chosen, kind.capabilities, kind.capabilities.anywhere  # type: ignore[misc]

    def open(self) -> Session:
        return self.kind.open(self.chosen)

    def quiet(self) -> Session:
        return self.kind.open(update(self.chosen, {"instrument": {"noise": False}}, "test"))

    def test_data_sets_of_the_scan(self, session: Session) -> None:
        for part in acquire(session, asked(session.batch, 7)).split():
            formats.check(part, session.setup, "what was acquired")  # also that doses are positive, and all is finite


def test_positions_come_back_where_they_were(kind: Kind, session: Session) -> None:
    positions = asked(session.batch, 9)
    found = acquire(session, positions).positions
    if kind.capabilities.anywhere:
        assert torch.equal(found, positions)
        return
    held = session.measurement.positions  # type: ignore[attr-defined]
    size = torch.tensor(session.setup.field)
    distances = torch.cdist(positions * size, held * size)
    assert torch.equal(found, held.gather(1, distances.argmin(2)[..., None].expand(-1, -1, 2)))
    assert bool((found != positions).any())


def test_the_seed_alone_decides(kind: Kind, session: Session) -> None:
    positions = asked(session.batch, 6)
    one, same, other = (acquire(session, positions, seed) for seed in (1, 1, 2))
    assert torch.equal(one.patterns, same.patterns)
    assert torch.equal(one.patterns, other.patterns) == kind.capabilities.windows  # what was recorded stays


@pytest.mark.parametrize("name", ["defocus", "dose"])
def test_what_may_be_changed_is_changed_and_what_may_not_is_refused(kind: Kind, session: Session, name: str) -> None:
    positions = asked(session.batch, 2)
    if getattr(kind.capabilities, name):
        assert torch.equal(getattr(acquire(session, positions, **{name: 321.0}), name), torch.full((session.batch, 2), 321.0))
    else:
        with pytest.raises(ValueError, match=rf"action\.{name}: expected the recorded"):
            acquire(session, positions, **{name: 321.0})


def test_the_reference_shows_what_is_inside_the_field(kind: Kind, chosen: Settings) -> None:
    session = kind.open(update(chosen, {"reconstruct": {"reference_side": 12}}, "test"))
    found = session.reference()
    assert found is not None
    assert found.shape == (session.batch, *session.setup.field_shape)
    truth = build.truth_in_field(build.simulated(update(chosen, {"scan": {"microscope": "simulated"}}, "test")))  # also what was recorded
    alike = torch.corrcoef(torch.cat([found, truth]).flatten(1))[: len(found), len(found) :]
    assert float(alike.diagonal().min()) > 0.8  # two iterations reach 0.85 to 0.88
    assert bool((alike - torch.diag(alike.diagonal()) < 0.2).all())  # of another specimen, -0.1


class Wrong(Contract):
    """One of a microscope that is wrong in one way."""

    def __init__(self, chosen: Settings, fault: Callable[[Measurement], Any]) -> None:
        self.chosen, self.fault = chosen, fault

    def open(self) -> Session:
        return Faulty(build.simulated(self.chosen), self.fault)

    def quiet(self) -> Session:
        return Faulty(build.simulated(update(self.chosen, {"instrument": {"noise": False}}, "test")), self.fault)


@dataclass
class Faulty:
    """A simulated microscope whose answers something happens to."""

    inner: Any
    fault: Callable[[Measurement], Any]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def acquire(self, action: Action, *, generator: torch.Generator) -> Any:
        return self.fault(self.inner.acquire(action, generator=generator))


def shuffled(found: Measurement, *names: str) -> Measurement:
    return replace(found, **{name: getattr(found, name).roll(1, 1) for name in names})


BREACHES: dict[str, tuple[Callable[[Measurement], Any], str]] = {
    "late patterns": (lambda m: shuffled(m, "patterns"), "order_of_patterns: patterns: expected them in the order"),
    "all in another order": (lambda m: shuffled(m, "patterns", "positions"), "positions_come_back: positions: expected those"),
    "one too few": (lambda m: m.take(torch.arange(max(1, m.positions.shape[1] - 1))), r"shapes_and_types: positions: expected \(1, 7, 2\)"),
    "double precision": (lambda m: replace(m, dose=m.dose.double()), "shapes_and_types: dose: type: expected torch.float32"),
    "negative": (lambda m: replace(m, patterns=m.patterns - 1), "numbers: patterns: expected finite counts"),
    "outside": (lambda m: replace(m, positions=m.positions + 0.5), "bounds: positions: expected them inside"),
    "nothing": (lambda m: None, "numbers: acquire: expected a Measurement, found NoneType"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_of_the_contract_is_found(name: str) -> None:
    fault, said = BREACHES[name]
    assert any(re.match(said, line) for line in broken(Wrong(tiny(), fault)))


def test_the_contract_is_tried_where_processes_ignore_interruptions() -> None:
    """As those do that were started in the background; it would go on for ever."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Wrong(tiny(), lambda found: found).test_cancelled()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_that_keeps_it_is_not_blamed() -> None:
    assert broken(Wrong(tiny(), lambda found: found)) == []
    assert len(broken(Contract())) > 5  # nothing to open


# Another package's.


@dataclass
class Stage:
    """An instrument in all but its patterns, which are the counts of an even disc."""

    setup: Setup
    batch: int = 1
    known: Tensor | None = None
    random: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(1))
    opened: ClassVar[list["Stage"]] = []
    closed: ClassVar[list["Stage"]] = []
    faults: ClassVar[list[Callable[[Measurement], Any]]] = []  # what becomes of the next answers

    def acquire(self, action: Action, *, generator: torch.Generator) -> Measurement:
        positions = action.positions.clamp(0, 1)
        outside = self.setup.dark_field().bool()
        patterns = torch.poisson(torch.where(outside, 0.0, 20.0).expand(1, positions.shape[1], -1, -1), generator=self.random)
        dose = torch.full(positions.shape[:2], 20.0 * float((~outside).sum()))
        found = Measurement(positions, patterns, dose, torch.zeros_like(dose))
        return self.faults.pop(0)(found) if self.faults else found

    def reference(self) -> Tensor | None:
        return self.known

    def close(self) -> None:
        self.closed.append(self)


def opened(chosen: Settings) -> Stage:
    stage = Stage(build.setup(chosen))
    Stage.opened.append(stage)
    return stage


STAGE = Kind(name="stage", capabilities=Capabilities(), open=opened)
WRONG = Kind(name="another", capabilities=Capabilities(), open=opened)
FINE = Kind(
    name="fine", capabilities=Capabilities(), open=lambda chosen: opened(update(chosen, {"geometry": {"field": [9.0, 6.0]}}, "fine"))
)
TOLD = Kind(
    name="told",
    capabilities=Capabilities(defocus=True, dose=True),
    open=lambda chosen: opened(told(chosen)),
    subject=lambda chosen: Subject("an unknown crystal", build.setup(told(chosen))),
    files=lambda chosen: {"input": Path(chosen.scan.file or "")},
)


def told(chosen: Settings) -> Settings:
    return update(chosen, {"geometry": {"field": json.loads(Path(chosen.scan.file or "").read_text())}}, "told")


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"stage": "STAGE", "wrong": "WRONG", "fine": "FINE", "told": "TOLD", "number": "TINY", "gone": "GONE", "simulated": "WRONG"}
    points = [EntryPoint(name, f"{__name__}:{value}", GROUP) for name, value in names.items()]
    monkeypatch.setattr("adaptycho.support.plugins.entry_points", lambda group: points if group == GROUP else [])
    monkeypatch.setattr(Stage, "opened", [])
    monkeypatch.setattr(Stage, "closed", [])
    monkeypatch.setattr(Stage, "faults", [])


def staged(**changes: dict[str, object]) -> Settings:
    return update(tiny(scan={"microscope": "stage"}), changes, "test")


@pytest.mark.usefixtures("brought")
def test_one_that_is_brought_scans_reports_and_goes_on(tmp_path: Path) -> None:
    target = Run.create(tmp_path / "run", staged())
    states = [state for _, state in zip(range(2), execute(target), strict=False)]
    assert (len(states), len(Stage.opened)) == (2, 2)  # looked at, and used
    assert "There are no scores" in summary.run_page(Run.open(target.path))
    assert len(Stage.opened) == 2  # a report needs no microscope
    again = Run.open(target.path)
    assert again.recorded == 2
    *_, last = execute(again)
    assert last.number == 3
    assert torch.equal(last.seen.patterns[:, :12], states[-1].seen.patterns)  # read, not taken again
    assert Stage.closed == Stage.opened
    assert len(Stage.closed) == 3
    names = {path.name for path in target.path.iterdir()}
    assert names == {"settings.toml", "run.json", "subsequences", "states", "result.h5"}
    for state in read_states(again):
        assert all(np.isnan(values).all() and values.shape == (1,) for values in state["scores"].values())
    page = summary.run_page(again)
    assert "Scanned: stage. The heuristic scan took 3 of 3 sub-sequences." in page
    assert "SSIM" not in page
    assert ">nan<" not in page


@pytest.mark.usefixtures("brought")
def test_it_is_closed_also_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Run.create(tmp_path / "run", staged())
    Stage.faults.append(fails)
    with pytest.raises(OSError, match="the beam is down"):
        list(execute(target))
    assert Stage.closed == Stage.opened
    with pytest.raises(ValueError, match=r"scan\.defocus: expected none for an instrument, whose defocus stays, found 5 Å"):
        Run.create(tmp_path / "defocused", staged(scan={"defocus": 5.0}))
    monkeypatch.setattr(scans, "whole_folder", lambda path: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="the disk is full"):
        Run.create(tmp_path / "full", staged())
    assert Stage.closed == Stage.opened
    assert len(Stage.closed) == 4


@pytest.mark.usefixtures("brought")
def test_a_run_that_nobody_begins_leaves_it_closed(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", staged())
    assert Stage.closed == Stage.opened
    assert len(Stage.closed) == 1


@pytest.mark.usefixtures("brought")
def test_a_finished_run_is_taken_up_without_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = Run.create(tmp_path / "run", staged())
    assert not target.finished
    for _ in execute(target):
        assert not target.finished
    assert target.finished
    used = len(Stage.opened)
    before = {path: path.read_bytes() for path in target.path.rglob("*.h5")}
    assert cli.main(["resume", str(target.path)]) == 0
    assert "18 positions in 3 sub-sequences: no reference for scores" in capsys.readouterr().out
    assert len(Stage.opened) == used
    assert before == {path: path.read_bytes() for path in target.path.rglob("*.h5")}
    (target.path / "states" / "002.h5").unlink()
    assert not target.finished
    assert cli.main(["resume", str(target.path)]) == 0
    assert (len(Stage.opened), target.finished) == (used + 1, True)


@pytest.mark.usefixtures("brought")
def test_one_that_is_not_as_the_settings_say_has_to_tell(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"scan\.microscope: expected fine to have 1 x 32 x 32 .* field of 26 x 19 .*, found 1 x .* 29 x 19"
    ):
        Run.create(tmp_path / "run", staged(scan={"microscope": "fine"}))
    assert Stage.closed == Stage.opened
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "field.json"
    file.write_text("[9.0, 6.0]")
    target = Run.create(tmp_path / "run", staged(scan={"microscope": "told", "file": str(file), "defocus": 5.0}))
    list(execute(target))
    assert "Scanned: an unknown crystal." in summary.run_page(target)
    assert read_states(target)[0]["potential"].shape == (1, 29, 19)
    file.write_text("[8.0, 6.0]")
    with pytest.raises(ValueError, match=r"run\.json: input: expected field\.json as it was when the run began"):
        list(execute(Run.open(target.path)))


def same(found: Measurement) -> Measurement:
    return found


def fails(found: Measurement) -> Measurement:
    raise OSError("the beam is down")


def turned(name: str, value: float) -> Callable[[Measurement], Measurement]:
    """Another value at the second position."""

    def fault(found: Measurement) -> Measurement:
        values = getattr(found, name).clone()
        values[:, 1] = value
        return replace(found, **{name: values})

    return fault


def parts(found: Measurement) -> list[Tensor]:
    return [found.positions, found.patterns, found.dose, found.defocus]


FAULTS: dict[str, tuple[Callable[[Measurement], Measurement], str]] = {
    "no dose": (turned("dose", 0.0), r"dose: expected a positive dose for each pattern, found 1 without \(the first at index 1\)"),
    "outside": (turned("positions", 1.5), r"positions: expected positions inside the scan field of 8 x 6 Å, found \(12, 9\) Å at index 1"),
    "negative": (turned("patterns", -1.0), "patterns: expected counts of at least 0, found -1 in pattern 1"),
    "not finite": (turned("patterns", float("nan")), "patterns: expected finite counts, found NaN or infinity in pattern 1"),
    "specimens": (
        lambda m: Measurement(*(x.expand(2, *x.shape[1:]) for x in parts(m))),
        r"patterns: .* \(1, 6, 32, 32\).*\(2, 6, 32, 32\)",
    ),
    "few": (lambda m: Measurement(*(x[:, :1] for x in parts(m))), r"patterns: .* \(1, 6, 32, 32\), .* got \(1, 1, 32, 32\)"),
    "many": (lambda m: m + m, r"patterns: .* \(1, 6, 32, 32\), .* got \(1, 12, 32, 32\)"),
    "detector": (lambda m: replace(m, patterns=m.patterns[..., :16]), r"patterns: .* \(1, 6, 32, 32\), .* got \(1, 6, 32, 16\)"),
    "padded": (lambda m: replace(m, lengths=torch.tensor([5])), r"lengths: expected 6 patterns of each specimen, got \[5\]"),
}


@pytest.mark.usefixtures("brought")
@pytest.mark.parametrize(("fault", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_an_answer_that_could_not_be_read_back_is_kept_beside_and_asked_for_again(
    fault: Callable[[Measurement], Measurement], said: str, tmp_path: Path
) -> None:
    answers: list[Measurement] = []
    target = Run.create(tmp_path / "run", staged())
    Stage.faults.extend([same, *[lambda found: answers.append(fault(found)) or answers[-1]] * 2])
    for number in (1, 2):
        with pytest.raises(
            ValueError, match=rf"^the microscope: {said}.*; it is kept in .*001\.refused-{number}\.h5, which no scan reads$"
        ):
            list(execute(Run.open(target.path) if number == 2 else target))
        assert Run.open(target.path).recorded == 1
    *_, last = execute(Run.open(target.path))
    assert (last.number, Run.open(target.path).recorded) == (3, 3)
    assert "took 3 of 3 sub-sequences" in summary.run_page(Run.open(target.path))
    for number, answer in enumerate(answers, 1):
        with h5py.File(target.path / "subsequences" / f"001.refused-{number}.h5") as file:
            assert re.search(said, file.attrs["refused"])
            for name in ("positions", "dose", "defocus"):
                assert np.array_equal(file[name][()], getattr(answer, name).numpy())
            assert np.array_equal(np.fft.ifftshift(file["patterns"][()], (-2, -1)), answer.patterns.numpy(), equal_nan=True)


@pytest.mark.usefixtures("brought")
def test_what_cannot_be_kept_is_refused_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Run.create(tmp_path / "run", staged())
    Stage.faults.append(lambda found: None)
    with pytest.raises(ValueError, match=r"^the microscope: expected a Measurement, got NoneType; nothing was kept$"):
        list(execute(target))
    assert list((target.path / "subsequences").iterdir()) == []
    monkeypatch.setattr(journal, "write_arrays", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    Stage.faults.append(turned("dose", 0.0))
    with pytest.raises(ValueError, match=r"dose: expected a positive dose .*; nothing was kept \(the disk is full\)$"):
        list(execute(Run.open(target.path)))


@pytest.mark.usefixtures("brought")
def test_blank_patterns_and_half_precision_are_answers_too(tmp_path: Path) -> None:
    target = Run.create(tmp_path / "run", staged())
    Stage.faults.append(lambda found: replace(found, patterns=torch.zeros_like(found.patterns, dtype=torch.uint16)))
    Stage.faults.append(lambda found: replace(found, dose=found.dose.bfloat16()))
    assert [state.number for _, state in zip(range(2), execute(target), strict=False)] == [1, 2]
    *_, last = execute(Run.open(target.path))
    assert (last.number, int(last.seen.patterns[:, :6].sum())) == (3, 0)
    assert bool((last.seen.dose[:, 6:12] == last.seen.dose[:, :6].bfloat16()).all())
    assert read_states(target)[0]["measurement"].patterns.dtype == torch.uint16


@pytest.mark.usefixtures("brought")
def test_positions_that_are_none_are_not_sent_to_the_microscope(tmp_path: Path) -> None:
    stage = opened(staged())
    for wrong, said in (
        (torch.full((1, 6, 2), float("nan")), r"shape \(1, 6, 2\), not all finite"),
        (torch.rand(2, 6, 2), r"shape \(2, 6, 2\)"),
    ):
        Stage.faults.append(lambda found: pytest.fail("exposed"))
        with pytest.raises(ValueError, match=rf"^action\.positions: expected finite numbers of shape \(1, K, 2\), got {said}$"):
            Journal(stage, tmp_path).acquire(Action(wrong), generator=torch.Generator())


@pytest.mark.usefixtures("brought")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (torch.zeros(1, 4, 4), r"float32 of shape \(1, 4, 4\)"),
        (torch.full((1, 26, 19), float("inf")), r"float32 of shape \(1, 26, 19\), not all finite"),
        (torch.zeros(1, 26, 19, dtype=torch.int64), r"int64 of shape \(1, 26, 19\)"),
        (np.zeros((1, 26, 19)), "ndarray"),
    ],
    ids=["shape", "finite", "integers", "array"],
)
def test_a_reference_that_could_not_be_read_back_is_not_kept(wrong: Any, said: str, tmp_path: Path) -> None:
    target = Run.create(tmp_path / "run", staged())
    target.microscope.known = wrong  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=rf"^the microscope: reference: expected finite .* of shape \(1, 26, 19\), got {said}$"):
        list(execute(target))
    assert not target.referenced
    assert target.recorded == 0
    again = Run.open(target.path)
    again.microscope.known = torch.rand(1, 26, 19)  # type: ignore[attr-defined]
    *_, last = execute(again)
    assert last.number == 3
    assert np.isfinite(read_states(again)[-1]["scores"]["correlation"]).all()


@pytest.mark.usefixtures("brought")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"setup": {"geometry": {"field": [9.0, 6.0]}}}, "1 x 32 x 32 .* field of 29 x 19"),
        ({"setup": {"beam": {"semiangle": 20.0}}}, ".* and 20 mrad"),
        ({"batch": 2}, "2 x 32 x 32"),
    ],
    ids=["field", "beam", "batch"],
)
def test_one_that_is_not_what_its_subject_tells_is_refused(
    wrong: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "field.json"
    file.write_text("[8.0, 6.0]")
    chosen = staged(scan={"microscope": "told", "file": str(file)})
    target = Run.create(tmp_path / "run", chosen)
    target.close()
    other = build.setup(update(chosen, wrong.get("setup", {}), "test"))
    monkeypatch.setattr(f"{__name__}.told", lambda settings: settings)
    lying = replace(TOLD, open=lambda settings: Stage(other, wrong.get("batch", 1)))
    monkeypatch.setattr(f"{__name__}.TOLD", lying)
    refused = rf"^scan\.microscope: expected told to have 1 x 32 x 32 .* field of 26 x 19 .*, as its subject tells, found {said}"
    with pytest.raises(ValueError, match=refused):
        list(execute(Run.open(target.path)))
    with pytest.raises(ValueError, match=refused):
        Run.create(tmp_path / "other", chosen)
    assert (target.recorded, (tmp_path / "other").exists()) == (0, False)


@pytest.mark.usefixtures("brought")
def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--microscope", "stage", "--geometry.field", "[8.0, 6.0]", "--geometry.object", "auto", "--positions", "12", "--threads", "1"]
    assert cli.main(["scan", str(tmp_path / "run"), *words, "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out, parse_constant=pytest.fail)["scores"] == {"ssim": None, "ssim_aligned": None, "correlation": None}
    assert Run.open(tmp_path / "run").settings.reconstruct.loss == "amplitude"  # as for all that is not simulated
    assert cli.main(["resume", str(tmp_path / "run")]) == 0
    assert "12 positions in 5 sub-sequences: no reference for scores" in capsys.readouterr().out
    assert cli.main(["scan", str(tmp_path / "other"), *words, "--dose", "300"]) == 2
    assert "--scan.dose: expected none with an instrument, which has its own, found 300" in capsys.readouterr().err
    for refused in (["evaluate", "--out", str(tmp_path / "e")], ["train", "imitate", "--out", str(tmp_path / "t")]):
        assert cli.main([*refused, "--scan.microscope", "stage"]) == 2
        assert "scan.microscope: expected simulated or recorded to compare or train on, found stage" in capsys.readouterr().err
    assert Stage.closed == Stage.opened


@pytest.mark.usefixtures("brought")
def test_what_is_not_there_or_no_microscope_is_refused() -> None:
    for named in ("simulated", "stage"):
        assert override(preset("light"), {"scan.microscope": named}).scan.microscope == named
    assert microscopes.find("simulated").verb == "Simulated"  # what comes along goes first
    there = "expected simulated, recorded, fine, gone, number, stage, told or wrong, found 'stages'"
    with pytest.raises(ValueError, match=rf"command line: scan\.microscope: {there}"):
        override(preset("light"), {"scan.microscope": "stages"})
    with pytest.raises(ValueError, match=rf"^scan\.microscope: {there}$"):
        microscopes.find("stages")
    for name, sentence in {
        "wrong": rf"{GROUP}: expected {__name__}:WRONG to be a microscope called 'wrong', found a microscope called 'another'",
        "number": rf"{GROUP}: expected {__name__}:TINY to be a microscope called 'number', found a dict",
        "gone": rf"{GROUP}: expected {__name__}:GONE to load for 'gone', found AttributeError: .*GONE",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            microscopes.find(name)


def test_names_that_come_along_are_known_without_looking_at_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaptycho.support.plugins.entry_points", lambda group: pytest.fail("looked"))
    for kind in BUILT_IN:
        assert microscopes.of(override(preset("light"), {"scan.microscope": kind.name})) is kind
