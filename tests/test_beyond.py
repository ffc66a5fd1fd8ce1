"""The measurements beyond the paper: what their scripts work out themselves."""

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from ase.data import covalent_radii

from adaptycho import settings as tree
from adaptycho.compare.ledger import Ledger
from adaptycho.compare.trial import seed
from adaptycho.metrics import statistics
from adaptycho.physics.optics import Setup
from adaptycho.samples import sample
from adaptycho.scan.episode import run, scattered, split_evenly
from adaptycho.scan.policies.learned import Learned
from adaptycho.settings import Settings, build
from adaptycho.types import Action, Observation

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
TINY = {
    "geometry": {"field": [6.0, 6.0], "object": "auto"},
    "scan": {"positions": 12, "subsequences": 3},
    "practice": {"positions": [12], "pool": 2, "scored": 2},
    "reconstruct": {"iterations": 2, "reference_side": 12},
    "train": {"reinforce_batch": 4, "reinforce_steps": 2, "credit": "window", "baseline": "pair"},
    "evaluate": {"specimens": 2, "test": [1_200_000, 1_300_000]},
}


def script(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def generalise() -> ModuleType:
    return script("generalise")


@pytest.fixture(scope="module")
def ablate() -> ModuleType:
    return script("ablate")


@pytest.fixture(scope="module")
def engine() -> ModuleType:
    return script("engine")


def tiny(**sections: dict[str, object]) -> Settings:
    return tree.update(tree.update(tree.preset("light"), TINY, "test"), sections, "test")


def same(value: float, count: int = 25) -> torch.Tensor:
    return torch.full((count,), value, dtype=torch.float64)


def drawn(mean: float, spread: float, count: int, number: int) -> torch.Tensor:
    """Scores whose mean and spread are exactly these."""
    found = torch.randn(count, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
    return mean + spread * (found - found.mean()) / found.std()


# What is kept of a gain.


def test_what_is_kept_is_the_ratio_of_the_gains(generalise, generator):
    here, there = [same(0.5), same(0.4), same(0.6)], [same(0.6), same(0.4), same(0.65)]
    kept = generalise.kept(generalise.gain, here, there, generator=generator)
    assert (kept.mean, kept.low, kept.high) == pytest.approx((0.5, 0.5, 0.5))  # 25 % of 50 %
    kept = generalise.kept(generalise.share, here, there, generator=generator)
    assert (kept.mean, kept.low, kept.high) == pytest.approx((0.625, 0.625, 0.625))  # a half of 0.8


def test_the_share_of_the_oracle_is_that_of_the_judge(generalise, generator):
    scores = [drawn(m, 0.02, 12, i) for i, m in enumerate((0.5, 0.4, 0.62))]
    expected = statistics.oracle_fraction(*scores, generator=generator).mean
    assert float(generalise.share(torch.stack(scores, 1).mean(0, keepdim=True))) == pytest.approx(expected)


def test_the_interval_is_as_wide_as_independent_specimens_make_it(generalise, generator):
    """Against the propagation of errors, for gains far from zero with small errors."""
    count, base = 25, same(1.0)
    here, there = [drawn(1.3, 0.05, count, 1), base], [drawn(1.5, 0.05, count, 2), base]
    kept = generalise.kept(generalise.gain, here, there, generator=generator)
    error = 0.6 * math.hypot(0.05 / 0.3, 0.05 / 0.5) / math.sqrt(count)
    assert kept.mean == pytest.approx(0.6)
    # 2.06 is Student's t for 24 degrees of freedom; 10,000 samples put an end of the interval within 3 % of its half-width.
    assert kept.high - kept.low == pytest.approx(2 * 2.06 * error, rel=0.1)


def test_crystals_here_and_there_are_drawn_separately(generalise, generator):
    """Drawn together, a case against itself would have no interval."""
    scores = [drawn(0.5, 0.02, 20, 1), drawn(0.4, 0.02, 20, 2)]
    kept = generalise.kept(generalise.gain, scores, scores, generator=generator)
    assert kept.mean == pytest.approx(1.0)
    assert kept.low < 0.95 < 1.05 < kept.high


def test_nothing_is_kept_of_a_gain_that_may_be_none(generalise, generator):
    nothing = [drawn(0.4, 0.05, 20, 1), drawn(0.4, 0.05, 20, 2)]
    assert generalise.kept(generalise.gain, [same(0.5), same(0.4)], nothing, generator=generator) is None
    assert generalise.kept(generalise.gain, [same(0.5), same(0.0)], [same(0.5), same(0.4)], generator=generator) is None


# The cases.


def test_every_case_is_another_scan(generalise, tmp_path):
    found = generalise.cases(tmp_path, 3)
    assert len(found) == 1 + len(generalise.sheets()) + len(generalise.CONDITIONS)
    assert len({tree.dump(s) for s in found.values()}) == len(found)
    assert all(s.evaluate.specimens == 3 for s in found.values())
    assert list(generalise.cases(tmp_path, 3, ["dose / 10"])) == ["MoS2", "dose / 10"]
    with pytest.raises(ValueError, match="found nothing such"):
        generalise.cases(tmp_path, 3, ["nothing such"])


def test_positions_are_as_dense_in_other_fields(generalise, tmp_path):
    for name, s in generalise.cases(tmp_path, 3).items():
        area = s.geometry.field[0] * s.geometry.field[1]
        if "field" in name:
            assert s.scan.positions / area == pytest.approx(250 / 400, rel=1e-2)
            assert s.reconstruct.reference_side**2 / area == pytest.approx(10_000 / 400, rel=1e-2)


def test_atoms_of_the_sheets_are_bonds_apart(generalise, tmp_path):
    """Within 12 % of the covalent radii's sum, as the settings read the files."""
    generalise.cases(tmp_path, 1)
    for name, unit in generalise.sheets().items():
        if unit is None:
            continue
        read = build.specimen.structure(tmp_path / "structures" / f"{name}.xyz")
        read.set_pbc((True, True, False))
        many = read.repeat((3, 3, 1))
        distances = many.get_all_distances(mic=True)
        np.fill_diagonal(distances, np.inf)
        i, j = np.unravel_index(distances.argmin(), distances.shape)
        assert distances[i, j] == pytest.approx(covalent_radii[many.numbers[[i, j]]].sum(), rel=0.12), name
        assert distances.min(1) == pytest.approx(distances.min(), rel=0.05), name  # no atom has been forgotten or misplaced


# What is taken away from a policy.


def see(settings: Settings, potential: torch.Tensor, count: int = 4) -> Observation:
    nothing = torch.zeros(len(potential), 0)
    return Observation(potential, torch.zeros(len(potential), 0, 2), nothing, tuple(settings.geometry.field), 0.4, 1.5, count, 12)


def test_a_pattern_does_not_look(ablate, generator):
    dark, bright = (see(tiny(), p) for p in (torch.zeros(2, 20, 20), torch.rand(2, 20, 20, generator=generator)))
    dark, bright = (replace(seen, positions=torch.rand(2, 4, 2, generator=generator), dose=torch.ones(2, 4)) for seen in (dark, bright))
    where = torch.rand(12, 2, generator=generator)
    for policy, wanted in ((ablate.Still(where), where[4:8]), (Learned(ablate.Pattern(where[4:8])), where[4:8])):
        first, second = (policy(seen, None, generator=generator)[0].positions for seen in (dark, bright))
        assert torch.equal(first, second)
        assert torch.equal(first, wanted.expand(2, -1, -1))


def test_a_pattern_is_learned_from_its_seed(ablate):
    start, scores = ablate.learn_pattern(tiny(), 1, steps=0)
    assert scores == []
    assert start.shape == (12, 2)
    once, again, other = (ablate.learn_pattern(tiny(), n, steps=2)[0] for n in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    # The survey stays; of the others, Adam's first steps are about as long as the rate.
    moved = (once - start).abs()
    assert not bool(moved[:4].any())
    assert bool((moved[4:] > 0).all())
    assert float(moved.max()) < 2.5 * ablate.RATE


class Wandering:
    """A scanner that goes where the reconstruction says, and keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []

    def __call__(self, seen, memory, *, generator):
        self.seen.append(seen)
        row = seen.potential.flatten(1)[:, : 2 * seen.count].unflatten(1, (seen.count, 2))
        return Action((0.5 + 0.3 * torch.sin(7 * row + torch.arange(float(seen.count))[:, None])).clamp(0, 1)), None


def test_a_forgetful_policy_sees_the_latest_patterns_only(ablate, monkeypatch):
    settings = tiny()
    specimen = sample.simulated(settings, 3)
    looked, states = Wandering(), []
    keep = ablate.advance
    monkeypatch.setattr(ablate, "field_policy", lambda path: looked)
    monkeypatch.setattr(ablate, "advance", lambda *a, **k: states.append(keep(*a, **k)) or states[-1])
    ablate.forgetful(settings, specimen, Path("none"))
    assert looked.seen[0].positions.shape[1] == 0
    descent = build.reconstructor(settings, specimen.setup)
    for before, seen in zip(states, looked.seen[1:], strict=False):
        assert torch.equal(seen.positions, before.latest.positions)
        assert torch.equal(seen.dose, before.latest.dose)
        assert torch.equal(seen.scattered, scattered(before.latest, specimen.setup))
        assert torch.equal(seen.potential, specimen.setup.crop(descent(before.latest).phase))
        assert (seen.count, seen.total) == (4, 12)
    # After two sub-sequences this is another observation than that of everything; what is scored still has everything.
    assert not torch.allclose(looked.seen[2].potential, states[1].potential, atol=1e-3 * float(states[1].potential.std()))
    assert states[-1].seen.positions.shape[1] == 12


def test_exchanged_positions_are_those_of_the_next_specimen(ablate, monkeypatch):
    monkeypatch.setattr(ablate, "field_policy", lambda path: Wandering())
    settings = tiny()
    first = settings.evaluate.test[0]
    specimen = sample.simulated(settings, first)
    lengths, descent = split_evenly(12, 3), build.reconstructor(settings, specimen.setup)
    *_, own = run(specimen.microscope, Wandering(), descent, lengths, seed=seed(settings, specimen))
    # Of one test specimen the next is itself; of two it is the other, and the last one's next is the first.
    alone = tiny(evaluate={"specimens": 1})
    assert torch.equal(ablate.exchanged(alone, specimen, Path("none")), own.potential)
    assert not torch.equal(ablate.exchanged(settings, specimen, Path("none")), own.potential)
    other = sample.simulated(settings, first + 1)
    *_, there = run(other.microscope, ablate.Still(own.seen.positions[0]), descent, lengths, seed=seed(settings, other))
    assert torch.equal(ablate.exchanged(settings, other, Path("none")), there.potential)


def test_extra_weights_have_a_name(ablate):
    name, paths = ablate.named(["voronoi=a", "b"])
    assert name == "voronoi"
    assert [p.name for p in paths] == ["a", "b"]
    with pytest.raises(ValueError, match="expected NAME=FILE"):
        ablate.named(["a"])


# Another program.


@pytest.mark.parametrize("size", [(20.0, 20.0), (15.1, 18.3)])
def test_their_phase_is_read_at_our_pixels(engine, light: Setup, generator, size):
    setup = replace(light, field=size)
    phase = torch.randn(setup.object.shape, generator=generator, dtype=torch.float64)
    origin = setup.to_pixels(torch.zeros(1, 2, dtype=torch.float64))[0].numpy()
    # Splines go through their nodes; 1e-9 is their rounding.
    assert torch.allclose(engine.in_field(setup, phase.numpy(), origin)[0], setup.crop(phase), atol=1e-9)
    moved = torch.nn.functional.pad(phase, (3, 0, 5, 0)).numpy()
    assert torch.allclose(engine.in_field(setup, moved, origin + np.array([5, 3]))[0], setup.crop(phase), atol=1e-9)


def work(engine: ModuleType, folder: Path) -> object:
    """Two policies, and nothing measured."""
    files = []
    for name in ("first", "second"):
        files.append(folder / name)
        files[-1].write_text(name)
    return engine.Work("paper", engine.cases()["paper"], tuple(files), folder, Ledger(), folder / "python")


def enter(engine: ModuleType, made: object, number: int, scan: str, name: str, score: float) -> None:
    numbers = dict.fromkeys(("ssim", "ssim_aligned", "correlation"), score)
    made.ledger.add([{"key": engine.row_key(made, number, scan, name), "numbers": numbers}])


def test_the_gain_is_that_of_the_mean_over_policies(engine, tmp_path):
    made = work(engine, tmp_path)
    scores = {"random": 0.4, "raster": 0.5, "halton": 0.8, "adaptive 1": 0.7, "adaptive 2": 0.5}
    for number in range(3):
        for scan, score in scores.items():
            enter(engine, made, number, scan, "theirs", score)
    found = engine.line(made, range(3), "theirs")["ssim"]
    assert found["learned"] == pytest.approx(0.6)
    assert [found[f"over_{n}"][0] for n in ("random", "raster", "halton")] == pytest.approx([0.5, 0.2, -0.25])
    json.dumps(found, allow_nan=False)


def test_their_settings_are_chosen_for_all_scans_alike(engine, tmp_path, monkeypatch):
    """Not by the learned scans alone, however many policies there are, and not by one that diverges elsewhere."""
    made = work(engine, tmp_path)
    monkeypatch.setattr(engine, "theirs", lambda *a: None)
    good, learned_best, diverges = (0.5, 0.05, 20), (1.0, 0.05, 20), (1.0, 1.0, 100)
    for number in range(engine.TUNING):
        for scan in made.scans:
            learned = scan.startswith("adaptive")
            for candidate in [(a, b, c) for a in engine.STEPS for b in engine.FLOORS for c in engine.STOPS]:
                score = {good: 0.5, learned_best: 0.6 if learned else 0.45, diverges: 0.55 if learned else math.nan}.get(candidate, 0.3)
                enter(engine, made, number, scan, engine.label(candidate), score)
    assert engine.choose(made) == good


def test_other_weights_are_another_file(engine, tmp_path):
    made = work(engine, tmp_path)
    names = {made.file(1, scan) for scan in made.scans}
    assert len(names) == 5
    (tmp_path / "first").write_text("trained again")
    assert made.file(1, "adaptive 1") not in names
    assert made.file(1, "adaptive 2") in names
