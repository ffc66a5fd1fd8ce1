"""Every kind of microscope keeps one contract, and one that another package brings, and that knows no reference, scans like those here."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from adaptycho import formats
from adaptycho.app import cli
from adaptycho.formats import Recording
from adaptycho.instruments import Capabilities, Session
from adaptycho.physics.optics import Setup
from adaptycho.runs import scans, summary
from adaptycho.runs.scans import Run, execute, read_states
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


@pytest.mark.parametrize("count", [1, 7, 65])
def test_shapes_and_numbers(session: Session, count: int) -> None:
    found = acquire(session, asked(session.batch, count))
    assert found.positions.shape == (session.batch, count, 2)
    assert found.patterns.shape == (session.batch, count, *session.setup.detector)
    assert found.dose.shape == found.defocus.shape == (session.batch, count)
    assert found.positions.dtype == found.dose.dtype == found.defocus.dtype == torch.float32
    assert found.patterns.min() >= 0
    for part in found.split():
        formats.check(part, session.setup, "what was acquired")  # also that doses are positive, and all is finite


def test_patterns_come_in_the_order_of_the_requests_and_twice_if_asked_twice(kind: Kind, chosen: Settings) -> None:
    quiet = kind.open(update(chosen, {"instrument": {"noise": False}}, "test"))
    positions = asked(quiet.batch, 5)
    order = torch.tensor([3, 0, 0, 4])
    whole, some = acquire(quiet, positions), acquire(quiet, positions[:, order])
    assert torch.equal(some.positions, whole.positions[:, order])
    # Transforms of other batches differ by rounding: single precision of the brightest pixel.
    assert torch.allclose(some.patterns.float(), whole.patterns[:, order].float(), atol=1e-5 * float(whole.patterns.max()))
    assert not torch.allclose(whole.patterns[:, 0].float(), whole.patterns[:, 3].float())


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


def test_outside_the_field_the_beam_stays_inside(session: Session) -> None:
    outside = torch.tensor([[-0.2, 0.5], [1.3, 1.1], [0.5, -4.0]]).expand(session.batch, -1, -1)
    found = acquire(session, outside)
    assert 0 <= found.positions.min() <= found.positions.max() <= 1
    assert torch.equal(found.positions, acquire(session, outside.clamp(0, 1)).positions)


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


def test_the_reference_is_the_phase_of_the_field(session: Session, chosen: Settings) -> None:
    found = session.reference()
    assert found is not None
    assert found.shape == (session.batch, *session.setup.field_shape)
    assert torch.equal(found, build.reference(chosen, session))  # type: ignore[arg-type]


# Another package's.


@dataclass
class Stage:
    """An instrument in all but its patterns, which are the counts of an even disc."""

    setup: Setup
    batch: int = 1
    broken: bool = False
    random: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(1))
    opened: ClassVar[list["Stage"]] = []
    closed: ClassVar[list["Stage"]] = []

    def acquire(self, action: Action, *, generator: torch.Generator) -> Measurement:
        if self.broken:
            raise OSError("the beam is down")
        positions = action.positions.clamp(0, 1)
        outside = self.setup.dark_field().bool()
        patterns = torch.poisson(torch.where(outside, 0.0, 20.0).expand(1, positions.shape[1], -1, -1), generator=self.random)
        dose = patterns.sum((-2, -1))
        return Measurement(positions, patterns, dose, torch.zeros_like(dose))

    def reference(self) -> None:
        return None

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
    monkeypatch.setattr(microscopes, "entry_points", lambda group: points if group == GROUP else [])
    monkeypatch.setattr(Stage, "opened", [])
    monkeypatch.setattr(Stage, "closed", [])


def staged(**changes: dict[str, object]) -> Settings:
    return update(tiny(scan={"microscope": "stage"}), changes, "test")


@pytest.mark.usefixtures("brought")
def test_one_that_is_brought_scans_reports_and_goes_on(tmp_path: Path) -> None:
    target = Run.create(tmp_path / "run", staged())
    states = [state for _, state in zip(range(2), execute(target), strict=False)]
    assert (len(states), len(Stage.opened)) == (2, 1)
    assert "There are no scores" in summary.run_page(Run.open(target.path))
    assert len(Stage.opened) == 1  # a report needs no microscope
    again = Run.open(target.path)
    assert again.recorded == 2
    *_, last = execute(again)
    assert last.number == 3
    assert torch.equal(last.seen.patterns[:, :12], states[-1].seen.patterns)  # read, not taken again
    assert Stage.closed == Stage.opened
    assert len(Stage.closed) == 2
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
    Stage.opened[0].broken = True
    with pytest.raises(OSError, match="the beam is down"):
        list(execute(target))
    assert Stage.closed == Stage.opened
    with pytest.raises(ValueError, match=r"scan\.defocus: expected none for an instrument, whose defocus stays, found 5 Å"):
        Run.create(tmp_path / "defocused", staged(scan={"defocus": 5.0}))
    monkeypatch.setattr(scans, "whole_folder", lambda path: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="the disk is full"):
        Run.create(tmp_path / "full", staged())
    assert Stage.closed == Stage.opened
    assert len(Stage.closed) == 3


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
    monkeypatch.setattr(microscopes, "entry_points", lambda group: pytest.fail("looked"))
    for kind in BUILT_IN:
        assert microscopes.of(override(preset("light"), {"scan.microscope": kind.name})) is kind
