"""Scans by hand in a comparison: equal dose, which options each name stands for, and the best of them found on training specimens."""

from fractions import Fraction

import pytest

from adaptycho import settings
from adaptycho.compare import race, search, strategies, trial
from adaptycho.compare.ledger import Ledger
from adaptycho.compare.strategies import BY_HAND, FOCUSED
from adaptycho.compare.trial import Plan
from adaptycho.samples import sample
from adaptycho.scan.policies.crop import Crop
from adaptycho.scan.policies.threshold import Threshold
from adaptycho.settings import Settings

SMALL = {
    "geometry": {"field": (8.0, 8.0), "object": "auto"},
    "scan": {"positions": 16, "dose": 1e4, "subsequences": 2},
    "specimen": {"family": "island", "options": {"filling": 0.4}},
    "evaluate": {"specimens": 1, "tuning": 1, "defoci": (0.0, 60.0), "dense": 25, "test": (1_200_000, 1_300_000)},
    "reconstruct": {"reference_side": 10},
}


def small(**sections: dict) -> Settings:
    base = settings.update(settings.preset("light"), race.PROTOCOLS["best"].changes, "test")
    return settings.update(settings.update(base, SMALL, "test"), sections, "test")


def judged(cell: Settings, names: list[str], protocol: str = "best") -> race.Cell:
    return race.judge([cell], race.PROTOCOLS[protocol], names, Ledger(), progress=lambda items, total, what: items, workers=1)[0]


def test_comparisons_that_name_no_strategies_have_those_they_had() -> None:
    conventional = ["raster", "hexagonal", "random", "jittered", "halton", "poisson-disk", "spiral", "dense"]
    adaptive = ["heuristic", "greedy", "lattice", "reduction", "process", "adaptive"]
    oracles = ["oracle", "oracle-hexagonal", "oracle-density"]
    best = [*conventional, *adaptive, "adaptive-dense", "auto", *oracles]
    assert race.everything(race.PROTOCOLS["paper"], small()) == [name for name in best if name != "auto"]
    assert race.everything(race.PROTOCOLS["best"], small()) == [*best, *(name + FOCUSED for name in best)]


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize(("positions", "subsequences", "dose"), [(16, 2, 1e4), (17, 4, 300.0), (19, 5, 77.0), (16, 1, 1e4)])
def test_every_name_spends_the_same_dose(name: str, positions: int, subsequences: int, dose: float) -> None:
    cell = small(scan={"positions": positions, "subsequences": subsequences, "dose": dose})
    specimen, lengths = sample.simulated(cell, 5), strategies.lengths(name, cell)
    found = strategies.scanner(name, cell, specimen, 60.0)
    assert isinstance(found, Crop | Threshold)
    survey = found.survey if isinstance(found, Crop) else found.dose
    each = [survey, *[found.dose] * (len(lengths) - 1)]
    sent = sum(n * Fraction(dose if e is None else e) for n, e in zip(lengths, each, strict=True))
    # Exactly, but for the last bit of the electrons of one position.
    assert abs(sent / (Fraction(dose) * positions) - 1) < 2**-52
    done = trial.scan(Plan(name, 60.0), cell, specimen)
    seen = done.states[-1].seen
    # Electrons are kept in single precision.
    assert float(seen.dose.double().sum()) == pytest.approx(dose * positions, rel=2**-23)
    assert seen.positions.shape[1] == sum(lengths)
    if name in strategies.DENSE:
        assert sum(lengths) == 25
    elif name != "crop-dwell":
        assert sum(lengths) == positions


def test_crops_take_two_steps_and_thresholds_all() -> None:
    cell = small(scan={"positions": 64, "subsequences": 4}, evaluate={"dense": 1024})
    lengths = {name: strategies.lengths(name, cell) for name in BY_HAND}
    assert lengths["crop"] == lengths["crop-box"] == lengths["crop-phase"] == [16, 48]
    assert lengths["crop-dense"] == lengths["crop-box-dense"] == [256, 768]
    assert lengths["crop-dwell"] == [64, 48]
    assert lengths["threshold"] == lengths["threshold-rim"] == lengths["threshold-phase"] == [16] * 4
    assert lengths["threshold-dense"] == [256] * 4


def test_names_stand_for_options_and_the_rest_is_of_the_settings() -> None:
    cell = small(crop={"margin": 2.0, "lattice": "raster"}, threshold={"margin": 3.0})
    specimen = sample.simulated(cell, 5)
    made = {name: strategies.scanner(name, cell, specimen, 60.0) for name in BY_HAND}
    assert made["crop"] == Crop(margin=2.0, lattice="raster", defocus=60.0)
    assert made["crop-box"] == Crop("box", margin=2.0, lattice="raster", defocus=60.0)
    assert made["crop-phase"] == Crop(signal="phase", margin=2.0, lattice="raster", defocus=60.0)
    assert made["crop-box-dense"] == Crop("box", margin=2.0, lattice="raster", defocus=60.0, survey=6400.0, dose=6400.0)
    assert made["crop-dwell"] == Crop(margin=2.0, lattice="raster", defocus=60.0, survey=2500.0)
    assert made["threshold-rim"] == Threshold(margin=3.0, rim=0.5, defocus=60.0)
    assert made["threshold-phase"] == Threshold(signal="phase", margin=3.0, defocus=60.0)
    assert made["threshold-dense"] == Threshold(margin=3.0, defocus=60.0, dose=6400.0)


def test_by_hand_is_the_best_of_those_by_hand_on_training_specimens() -> None:
    scores = {
        Plan("raster", 60.0): {3: 0.9},
        Plan("crop", 60.0): {3: 0.5, 5: 0.7},
        Plan("crop", 0.0): {3: 0.65},
        Plan("threshold-rim", 60.0): {3: 0.6},
        Plan("oracle", 60.0): {3: 0.99},
    }
    own = ["raster", "crop", "crop:focused", "threshold-rim", "oracle"]
    plans = {name: search.allowed(scores, name) for name in own}
    found = search.chosen(scores, plans, [*own, "auto", "by-hand", "by-hand:focused"])
    assert found["by-hand"] == search.stopped(Plan("crop", 60.0), 5)
    assert found["by-hand:focused"] == search.stopped(Plan("crop", 0.0), 3)
    assert found["auto"] == search.stopped(Plan("raster", 60.0), 3)


def test_by_hand_needs_one_by_hand_and_to_be_tuned() -> None:
    with pytest.raises(ValueError, match="expected others that 'by-hand' can be one of, found raster, auto, by-hand"):
        judged(small(), ["raster", "auto", "by-hand"])
    with pytest.raises(ValueError, match="expected one that is itself, since nothing is chosen here, found 'by-hand'"):
        judged(small(), ["crop", "by-hand"], "paper")


def test_by_hand_is_what_is_scanned_with() -> None:
    found = judged(small(), ["raster", "crop", "threshold", "by-hand"])
    plan = found.plans["by-hand"]
    assert plan in (found.plans["crop"], found.plans["threshold"])
    assert found.numbers["by-hand"] == found.numbers[plan.strategy]


@pytest.mark.parametrize("name", ["crop-dense", "crop-box-dense", "threshold-dense", "crop-dwell"])
def test_a_recording_has_no_other_dwell(name: str) -> None:
    with pytest.raises(ValueError, match=f"which has no other dwell or truth, found '{name}'"):
        strategies.check(name, small(scan={"microscope": "recorded"}), tuned=False)
    strategies.check("crop-box", small(scan={"microscope": "recorded"}), tuned=False)
