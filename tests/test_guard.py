"""The limits of a scan: what would break one is refused before an electron is sent, whatever was sent before, and by whom."""

import json
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaptycho.app import cli
from adaptycho.instruments.guard import Guard, Limits, Unfinished
from adaptycho.metrics.dose import local_dose as judged
from adaptycho.physics.exposure import Exposure, grid, highest, local_dose
from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Aberrations, Setup, object_grid
from adaptycho.runs import spent
from adaptycho.runs.execution import execute
from adaptycho.runs.scans import Run
from adaptycho.settings import Settings, preset, update
from adaptycho.types import Action, Measurement

WINDOW = Grid((32, 32), 0.3)
SETUP = Setup((8.0, 6.0), object_grid((8.0, 6.0), WINDOW), WINDOW, (16, 16), semiangle=33.0, energy=60e3)
TINY = {
    "geometry": {"field": [8.0, 6.0], "object": "auto"},
    "scan": {"positions": 18, "subsequences": 3, "seed": 3, "dose": 100.0},
    "reconstruct": {"iterations": 2, "reference_side": 5},
}


def tiny(**changes: dict[str, object]) -> Settings:
    return update(update(preset("light"), TINY, "tiny"), changes, "test")


def exposure(positions: Tensor, electrons: float = 100.0, defocus: float = 0.0) -> Exposure:
    sent = torch.full(positions.shape[:2], electrons)
    return Exposure(positions, sent, torch.full_like(sent, defocus))


# The map.


MEASURED = replace(SETUP, measured_probe=SETUP.probe())


@pytest.mark.parametrize("defocus", [0.0, 80.0])
@pytest.mark.parametrize(
    "setup", [SETUP, MEASURED, replace(SETUP, field=(5.0, 4.0), rotation=30.0)], ids=["calculated", "measured", "turned"]
)
def test_identity_every_electron_is_on_the_map(setup: Setup, defocus: float) -> None:
    positions = torch.rand(2, 7, 2, generator=torch.Generator().manual_seed(1))
    maps, fine = local_dose(setup, exposure(positions, 100.0, defocus)), grid(setup)
    assert maps.shape[1:] == fine.shape
    assert torch.allclose(maps.sum((1, 2)) * fine.pixel**2, torch.tensor([700.0, 700.0], dtype=torch.float64), rtol=1e-9)
    y, x = (torch.arange(n, dtype=torch.float64) for n in fine.shape)
    one = local_dose(setup, exposure(positions[:1, :1], 1.0, defocus))[0] * fine.pixel**2
    centre = torch.stack([(one.sum(1) * y).sum(), (one.sum(0) * x).sum()]) * fine.pixel
    wanted = replace(setup, object=fine, window=Grid((32, 32), fine.pixel), measured_probe=None).to_pixels(positions[0, 0].double())
    assert torch.allclose(centre, wanted * fine.pixel, atol=0.05)  # the window cuts the skirt off, not evenly


@pytest.mark.parametrize("setup", [SETUP, replace(SETUP, aberrations=Aberrations(C10=-90.0, C12=20.0), rotation=20.0, field=(5.0, 4.0))])
def test_independent_the_map_is_the_sum_of_shifted_beams(setup: Setup) -> None:
    """Each beam shifted by itself and added where its window lies, as patterns are simulated."""
    where, map_ = torch.rand(1, 5, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64), grid(setup)
    sent = torch.tensor([[1.0, 5.0, 2.0, 3.0, 0.0]], dtype=torch.float64)
    focus = torch.full((1, 5), setup.aberrations.defocus, dtype=torch.float64)
    found = local_dose(setup, Exposure(where, sent, focus))[0]
    side = 16 * math.ceil(16 * setup.resolution / map_.pixel / 16)  # 16 wavelengths over the semi-angle
    fine = replace(setup, object=map_, window=Grid((side, side), map_.pixel))
    corners, rest = fine.place(where[0])
    wanted = torch.zeros(map_.shape, dtype=torch.float64)
    for (top, left), beam, electrons in zip(corners.tolist(), fine.shift(fine.spectra(focus[0]), rest), sent[0], strict=True):
        wanted[top : top + side, left : left + side] += electrons * beam.abs().square() / map_.pixel**2
    # The windows cut the skirts off in different places: 2e-4 at most.
    assert torch.allclose(found, wanted, atol=1e-3 * float(wanted.max())), float((found - wanted).abs().max() / wanted.max())


def test_a_measured_beam_is_the_one_that_was_measured() -> None:
    where = exposure(torch.tensor([[[0.4, 0.6]]]), 1.0, 40.0)
    assert float(local_dose(MEASURED, where).max()) == pytest.approx(float(local_dose(SETUP, where).max()), rel=0.1)  # of a narrower window


@pytest.mark.parametrize("window", [16, 32, 128])
def test_independent_the_peak_is_that_of_an_airy_pattern_and_bounds_every_place(window: int) -> None:
    """Focused, without aberrations: `pi (alpha / lambda)^2` electrons per Å² of one electron (Born and Wolf, 8.5.2)."""
    narrow = Grid((window, window), 0.3)
    setup = replace(SETUP, window=narrow, object=object_grid(SETUP.field, narrow))
    peak = math.pi * (33e-3 / setup.wavelength) ** 2
    bounds = []
    for shift in torch.rand(20, 2, generator=torch.Generator().manual_seed(2)):
        where = exposure((0.5 + 0.05 * shift)[None, None], 1.0)
        bounds.append(float(highest(setup, local_dose(setup, where))))
    assert peak <= min(bounds)
    assert max(bounds) <= 1.1 * peak


def test_the_judge_s_gaussian_is_lower_as_it_says() -> None:
    positions = torch.rand(1, 30, 2, generator=torch.Generator().manual_seed(1))
    true = float(highest(SETUP, local_dose(SETUP, exposure(positions))))
    assert 0.4 < judged(positions[0], torch.full((30,), 100.0), SETUP.field, SETUP.probe_radius()).peak / true < 1.0


def test_aberrations_and_defocus_lower_it() -> None:
    where = torch.tensor([[[0.5, 0.5]]])
    focused = float(highest(SETUP, local_dose(SETUP, exposure(where))))
    assert float(highest(SETUP, local_dose(SETUP, exposure(where, defocus=60.0)))) < 0.5 * focused
    astigmatic = replace(SETUP, aberrations=Aberrations(C12=50.0))
    assert float(highest(astigmatic, local_dose(astigmatic, exposure(where)))) < 0.7 * focused


def test_a_field_too_large_for_a_map_is_refused() -> None:
    vast = replace(SETUP, field=(3000.0, 3000.0), object=object_grid((3000.0, 3000.0), WINDOW))
    with pytest.raises(ValueError, match=r"safety\.local: expected a field whose dose fits on 6\.7e\+07 pixels, found one"):
        local_dose(vast, exposure(torch.rand(1, 1, 2)))


# The guard.


@dataclass
class Stage:
    """An instrument that counts what it sends by itself."""

    setup: Setup = SETUP
    batch: int = 1
    electrons: float = 100.0
    sent: list[Tensor] = field(default_factory=list)
    failure: BaseException | None = None
    takes: float = 0.0

    def acquire(self, action: Action, *, generator: torch.Generator) -> Measurement:
        self.sent.append(action.positions)
        time.sleep(self.takes)
        if self.failure is not None:
            raise self.failure
        positions = action.positions.clamp(0, 1)
        dose = torch.full(positions.shape[:2], self.electrons)
        return Measurement(positions, torch.ones(*positions.shape[:2], 16, 16), dose, torch.zeros_like(dose))

    def reference(self) -> None: ...

    def close(self) -> None: ...


@dataclass
class Parked(Stage):
    """One that blanks its beam."""

    dose: float = 100.0
    parked: int = 0

    def park(self) -> bool:
        self.parked += 1
        return True


def asked(*positions: tuple[float, float]) -> Action:
    return Action(torch.tensor([positions]))


def take(guard: Guard, action: Action) -> Measurement:
    return guard.acquire(action, generator=torch.Generator())


PEAK = float(highest(SETUP, local_dose(SETUP, exposure(torch.tensor([[[0.5, 0.5]]])))))
LIMITS = [
    (
        Limits(outside=0.5),
        asked((0.5, 1.2)),
        r"safety\.outside: expected at most 0\.5 Å outside the scan field, found 1\.2; nothing",
    ),
    (Limits(jump=3.0), asked((0.2, 0.5), (0.7, 0.5)), r"safety\.jump: expected at most 3 Å from one position to the next, found 4;"),
    (Limits(dose=250.0), asked((0.1, 0.1), (0.5, 0.5), (0.9, 0.9)), r"safety\.dose: expected at most 250 electrons in all, found 300 with"),
    (
        Limits(local=1.5 * PEAK),
        asked((0.5, 0.5), (0.5, 0.5)),
        r"safety\.local: expected at most .* per Å² anywhere, found .* with",
    ),
]


@pytest.mark.parametrize(("limits", "action", "said"), LIMITS, ids=["outside", "jump", "dose", "local"])
def test_what_would_break_a_limit_is_refused_before_anything_is_sent(limits: Limits, action: Action, said: str) -> None:
    stage = Parked()
    guard = Guard(stage, limits)
    with pytest.raises(ValueError, match=said):
        take(guard, action)
    assert stage.sent == []
    take(guard, asked((0.5, 0.5)))  # what breaks none is not
    assert len(stage.sent) == 1


def test_what_was_sent_before_counts() -> None:
    guard = Guard(Parked(), Limits(dose=250.0, local=1.5 * PEAK, jump=3.0))
    take(guard, asked((0.5, 0.5)))
    with pytest.raises(ValueError, match=r"safety\.local"):
        take(guard, asked((0.5, 0.5)))
    with pytest.raises(ValueError, match=r"safety\.jump: .*found 4"):
        take(guard, asked((1.0, 0.5)))
    take(guard, asked((0.75, 0.5)))
    with pytest.raises(ValueError, match=r"safety\.dose: .*found 300"):
        take(guard, asked((0.6, 0.9)))
    again = Guard(Parked(), Limits(dose=250.0), spent=[exposure(torch.tensor([[[0.5, 0.5], [0.75, 0.5]]]))])
    with pytest.raises(ValueError, match=r"safety\.dose: .*found 300"):
        take(again, asked((0.6, 0.9)))


def test_a_request_that_failed_counts_as_sent_and_the_beam_is_parked() -> None:
    stage = Parked(failure=RuntimeError("the socket is gone"))
    guard = Guard(stage, Limits(dose=150.0))
    before = stage.parked
    with pytest.raises(ValueError, match="the microscope: expected 1 patterns, found RuntimeError: the socket is gone"):
        take(guard, asked((0.5, 0.5)))
    assert stage.parked == before + 1
    with pytest.raises(ValueError, match=r"safety\.dose: .*found 200"):
        take(guard, asked((0.5, 0.5)))
    stage.failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        take(Guard(stage, Limits()), asked((0.5, 0.5)))


def test_one_that_sends_more_than_it_tells_is_believed_no_more() -> None:
    stage = Parked(electrons=140.0)
    guard = Guard(stage, Limits(dose=250.0))
    take(guard, asked((0.5, 0.5)))
    with pytest.raises(ValueError, match=r"found 280"):
        take(guard, asked((0.1, 0.5)))


def test_the_electrons_have_to_be_known() -> None:
    with pytest.raises(ValueError, match=r"safety\.electrons: expected the electrons sent to each position, .*, found none"):
        Guard(Stage(), Limits(dose=100.0))
    assert Guard(Stage(), Limits(dose=100.0), electrons=30.0).outlook(asked((0.5, 0.5))).dose == 30.0
    assert math.isnan(Guard(Stage(), Limits(jump=100.0)).outlook(asked((0.5, 0.5))).dose)
    assert Guard(Stage(), Limits(dose=100.0), electrons=30.0).outlook(replace(asked((0.5, 0.5)), dose=70.0)).dose == 70.0


def test_the_beam_that_nobody_parks_counts_while_it_waits() -> None:
    now, noted = [0.0], []
    limits = Limits(dose=300.0)
    guard = Guard(
        Stage(), limits, electrons=100.0, waiting=10.0, note=lambda what, asked: noted.append((asked, what)), clock=lambda: now[0]
    )
    take(guard, asked((0.5, 0.5)))
    now[0] = 8.0
    take(guard, asked((0.1, 0.5)))  # 100 + 80 while waiting + 100
    assert [(asked, float(what.total)) for asked, what in noted] == [(True, 100.0), (False, 80.0), (True, 100.0)]
    assert noted[1][1].positions.tolist() == [[[0.5, 0.5]]]
    with pytest.raises(ValueError, match=r"safety\.dose: .*found 380"):
        take(guard, asked((0.9, 0.5)))
    parked = Guard(Parked(), limits, waiting=10.0, clock=lambda: now[0])
    take(parked, asked((0.5, 0.5)))
    now[0] = 1e6
    take(parked, asked((0.1, 0.5)))


def test_a_microscope_that_does_not_answer_is_parked_and_a_late_answer_kept() -> None:
    stage = Parked(takes=0.15)
    guard = Guard(stage, Limits(seconds=0.1))
    before = stage.parked
    with pytest.raises(Unfinished, match=r"safety\.seconds: expected the microscope to answer within 0\.1 s, found a late answer") as late:
        take(guard, asked((0.5, 0.5)))
    assert stage.parked > before
    assert late.value.answer is not None
    stage.takes = 0.4
    with pytest.raises(Unfinished, match="found no answer"):
        take(guard, asked((0.5, 0.5)))
    stage.takes = 0.0
    assert take(guard, asked((0.5, 0.5))).patterns.shape == (1, 1, 16, 16)


# Runs.


def test_a_run_stops_at_its_limit_and_says_so_again(tmp_path: Path) -> None:
    target = Run.create(tmp_path / "run", tiny(safety={"dose": 1300.0}))
    for start in (target, Run.open(target.path)):
        with pytest.raises(ValueError, match=r"^safety\.dose: expected at most 1300 electrons in all, found 1800 with this request;"):
            list(execute(start))
        assert Run.open(target.path).recorded == 2
    lines = [json.loads(line) for line in (target.path / "exposures.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [0, 1]


def test_a_limit_changes_nothing_that_it_does_not_refuse(tmp_path: Path) -> None:
    plain, guarded = (
        Run.create(tmp_path / name, tiny(**safety)) for name, safety in (("a", {}), ("b", {"safety": {"dose": 1e9, "local": 1e9}}))
    )
    for one, other in zip(execute(plain), execute(guarded), strict=True):
        assert torch.equal(one.seen.patterns, other.seen.patterns)
        assert torch.equal(one.potential, other.potential)
    assert not (plain.path / "exposures.jsonl").exists()


def test_what_a_killed_process_asked_for_counts(tmp_path: Path) -> None:
    target = Run.create(tmp_path / "run", tiny(safety={"dose": 2000.0}))
    next(iter(execute(target)))
    file = target.path / "exposures.jsonl"
    spent.write(file, 1, exposure(torch.full((1, 6, 2), 0.5)))  # and then it was killed
    with file.open("a") as torn:
        torn.write('{"number": 1, "positi')
    with pytest.raises(ValueError, match=r"safety\.dose: expected at most 2000 electrons in all, found 2400 with this request"):
        list(execute(Run.open(target.path)))
    assert Run.open(target.path).recorded == 2
    assert len(spent.unsettled(file, 2)) == 1
    file.write_text('{"number": 0, "positions": 3}\n')
    with pytest.raises(ValueError, match=r"exposures\.jsonl: expected what the run sent, found a damaged line 1$"):
        list(execute(Run.open(target.path)))
    file.write_text("")
    with pytest.raises(ValueError, match=r"exposures\.jsonl: expected all that the run sent, found no request for sub-sequence 0"):
        list(execute(Run.open(target.path)))


WORDS = ["--geometry.field", "[8.0, 6.0]", "--geometry.object", "auto", "--positions", "18", "--subsequences", "3", "--dose", "100"]
WORDS += ["--policy", "raster", "--reconstruct.reference_side", "5"]


def test_a_dry_run_exposes_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert cli.main(["scan", str(run), "--dry-run", "--json", *WORDS]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["positions"][0]), found["dose"], found["outside"]) == (6, 600.0, 0.0)
    assert found["local"] > 0
    assert cli.main(["scan", str(run), "--dry-run", *WORDS]) == 0
    assert "6 positions, up to" in capsys.readouterr().out
    assert cli.main(["scan", str(run), "--dry-run", *WORDS, "--safety.local", "1"]) == 2
    assert "safety.local: expected at most 1 electrons per Å² anywhere" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
