"""Scans by hand: the mask round a structure, survey and crop, and the scan by threshold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from scipy.spatial import cKDTree

from adaptycho import formats
from adaptycho.app import cli
from adaptycho.physics import specimen
from adaptycho.runs import scans, summary
from adaptycho.scan import patterns
from adaptycho.scan.episode import run, split_evenly
from adaptycho.scan.mask import foretold, mask, otsu
from adaptycho.scan.policies.crop import Crop, box
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.scan.policies.threshold import Threshold
from adaptycho.settings import BEST, Settings, build, preset, update
from adaptycho.types import Observation, Scanner

FIELD = (20.0, 10.0)
SHAPE = (40, 20)
QUARTER = (slice(0, 20), slice(0, 10))
ALL = [Crop(), Crop("box"), Crop(signal="phase"), Crop(lattice="raster"), Threshold(), Threshold(rim=1.0), Threshold(signal="phase")]


def clear(count: int = 32, dose: float = 300.0, batch: int = 1, total: int = 128) -> Observation:
    """What an even survey sees of a structure in the upper left quarter of each field, 2 % of the electrons scattered by it."""
    positions = patterns.hexagonal(count, FIELD).float()
    inside = ((positions[:, 0] < 0.5) & (positions[:, 1] < 0.5)).float()
    dark, doses = (v.expand(batch, -1) for v in (0.02 * inside, torch.full((count,), dose)))
    return Observation(torch.zeros(batch, *SHAPE), positions.expand(batch, -1, -1), doses, FIELD, 1.0, 1.5, total - count, total, dark)


def poisson(rate: torch.Tensor, count: int, dose: float, seed: int) -> Observation:
    """What a survey counts of a specimen that scatters some part (h, w) of its electrons."""
    positions = patterns.hexagonal(count, FIELD).float()
    rows, columns = (positions * torch.tensor(SHAPE)).long().T
    counts = torch.poisson(dose * rate[rows, columns], generator=torch.Generator().manual_seed(seed))
    return replace(clear(count, dose), positions=positions[None], scattered=counts[None] / dose)


def propose(scanner: Scanner, seen: Observation) -> torch.Tensor:
    action, _ = scanner(seen, None, generator=torch.Generator())
    return action.positions


def islands(count: int, positions: int, dose: float) -> Settings:
    changes = {
        "specimen": {"count": count, "first": 100, "family": "island", "options": {"filling": [0.15, 0.35]}},
        "reconstruct": BEST,
        "scan": {"dose": dose, "positions": positions},
    }
    return update(preset("light"), changes, "test")


def test_otsu_parts_two_kinds() -> None:
    values = np.array([[0.0, 0.1, 1.0], [0.9, 0.05, 1.1]])
    assert 0.1 < otsu(values) < 0.9
    # Independent: the split of smallest variance within, tried one by one.
    some = np.random.default_rng(0).gamma(2.0, size=50)
    within = [(np.sum(some <= t) * some[some <= t].var() + np.sum(some > t) * some[some > t].var(), t) for t in np.sort(some)[:-1]]
    best = min(within)[1]
    assert best <= otsu(some) < some[some > best].min()


def test_neighbours_foretell_structure_and_not_noise() -> None:
    rate = torch.zeros(SHAPE)
    rate[QUARTER] = 0.02
    even = torch.full(SHAPE, 0.005)

    def nats(of: torch.Tensor, seed: int) -> float:
        seen = poisson(of, 32, 300.0, seed)
        assert seen.scattered is not None
        taken = seen.positions[0].double().numpy() * FIELD
        return foretold(taken, (seen.scattered * seen.dose)[0].double().numpy(), seen.dose[0].double().numpy(), 1.5)

    found, chance = ([nats(of, seed) > 0 for seed in range(200)] for of in (rate, even))
    # As many electrons in both, 48. Measured: 200 and 27 of 200, with a standard error of 5.
    assert sum(found) >= 198
    assert sum(chance) <= 27 + 4 * 5
    # One position has no neighbour, and neighbours just like it tell nothing.
    assert foretold(np.zeros((1, 2)), np.ones(1), np.ones(1), 1.0) == 0
    assert abs(foretold(np.random.default_rng(0).random((9, 2)), np.full(9, 3.0), np.ones(9), 0.3)) < 1e-12


def test_a_clear_dark_field_gives_the_structure() -> None:
    found = mask(clear(200), 0, "dark-field", 0.0)
    truth = np.zeros(SHAPE, dtype=bool)
    truth[QUARTER] = True
    assert found is not None
    assert found[truth].all()
    # Positions are two pixels apart, so the outline is known to one.
    assert not found[~ndimage.binary_dilation(truth)].any()
    grown = mask(clear(200), 0, "dark-field", 2.0)
    assert grown is not None
    # Two radii of 1 Å are four pixels: on to every pixel with its centre no further away.
    pixel = np.array(FIELD) / SHAPE
    assert np.array_equal(grown, ndimage.distance_transform_edt(~found, sampling=pixel) <= 2.0)


@pytest.mark.parametrize(
    ("dark", "why"),
    [
        (None, "no such signal"),
        (0.0, "nothing scattered"),
        (0.02, "alike everywhere"),
    ],
)
@pytest.mark.parametrize("scanner", [Crop(), Crop("box"), Threshold()], ids=lambda s: f"{type(s).__name__}-{getattr(s, 'shape', '')}")
def test_where_nothing_stands_out_the_rest_is_even(scanner: Scanner, dark: float | None, why: str) -> None:
    seen = clear()
    seen = replace(seen, scattered=None if dark is None else torch.full_like(seen.dose, dark))
    assert mask(seen, 0, "dark-field", 0.5) is None, why
    points = torch.cat([seen.positions, propose(scanner, seen)], 1)[0].double().numpy() * FIELD
    quarters = np.bincount((points >= np.array(FIELD) / 2) @ np.array([2, 1]), minlength=4)
    # 128 positions, 32 in each quarter, give or take one of either kind of row at the borders.
    assert abs(quarters - 32).max() <= 2
    # A hexagonal lattice of 128 has neighbours at 1.34 Å. Measured: the closest pair has 0.81 Å; of random positions 0.06.
    assert cKDTree(points).query(points, k=2)[0][:, 1].min() > 0.7


def test_a_film_a_little_thicker_here_than_there_is_no_structure() -> None:
    rate = torch.linspace(0.02, 0.026, SHAPE[1]).expand(SHAPE)
    seen = poisson(rate, 64, 1e5, 0)
    assert seen.scattered is not None
    taken = seen.positions[0].double().numpy() * FIELD
    assert foretold(taken, (seen.scattered * seen.dose)[0].double().numpy(), seen.dose[0].double().numpy(), 1.0) > 100
    assert mask(seen, 0, "dark-field", 0.5) is None


def test_crop_stays_in_the_mask_and_is_even() -> None:
    seen = clear()
    found = mask(seen, 0, "dark-field", 0.5)
    assert found is not None
    points = propose(Crop(), seen)[0].double().numpy()
    assert points.shape == (96, 2)
    rows, columns = (points * SHAPE).astype(int).clip(0, np.array(SHAPE) - 1).T
    assert found[rows, columns].all()
    nearest = cKDTree(points * FIELD).query(points * FIELD, k=2)[0][:, 1]
    hexagonal = np.sqrt(2 / np.sqrt(3) * found.mean() * np.prod(FIELD) / 96)
    # Measured: 0.74 of a perfect lattice's distance for the closest pair, 0.86 on average; random positions have 0.05 and 0.48.
    assert nearest.min() > 0.65 * hexagonal
    assert nearest.mean() > 0.8 * hexagonal


def test_the_box_holds_the_mask_and_the_crop_the_box() -> None:
    seen = clear()
    found = mask(seen, 0, "dark-field", 0.5)
    assert found is not None
    low, high = box(found)
    rows, columns = np.nonzero(found)
    assert (low <= [rows.min() / SHAPE[0], columns.min() / SHAPE[1]]).all()
    assert (high >= [(rows.max() + 1) / SHAPE[0], (columns.max() + 1) / SHAPE[1]]).all()
    for lattice in ("hexagonal", "raster"):
        points = propose(Crop("box", lattice=lattice), seen)[0].double().numpy()
        assert points.shape == (96, 2)
        assert (points > low - 1e-6).all()
        assert (points < high + 1e-6).all()  # single precision
        # It fills the box: no corner of it is more than one and a half lattice distances from a position.
        corners = np.array([[y, x] for y in (low[0], high[0]) for x in (low[1], high[1])]) * FIELD
        spacing = np.sqrt(np.prod((high - low) * FIELD) / 96)
        assert cKDTree(points * FIELD).query(corners)[0].max() < 1.5 * spacing


def test_crop_looks_once_and_threshold_again() -> None:
    seen = replace(clear(), count=40)
    for scanner in (Crop(), Threshold()):
        first, memory = scanner(seen, None, generator=torch.Generator())
        positions = torch.cat([seen.positions, first.positions], 1)
        dose = torch.full(positions.shape[:2], 300.0)
        # By now everything looks otherwise: the structure is in the opposite quarter.
        dark = 0.02 * (positions > 0.5).all(-1).float()
        later = replace(seen, positions=positions, dose=dose, scattered=dark, count=56)
        second, _ = scanner(later, memory, generator=torch.Generator())
        inside = ((second.positions[0] > 0.5).all(-1)).float().mean()
        if isinstance(scanner, Crop):
            assert torch.equal(torch.cat([first.positions, second.positions], 1), propose(Crop(), replace(seen, count=96)))
            assert inside == 0
        else:
            assert inside > 0.6


def test_a_rim_takes_positions_to_the_edge() -> None:
    seen = clear(total=232)
    found = mask(seen, 0, "dark-field", 0.5)
    assert found is not None
    pixel = np.array(FIELD) / SHAPE
    edge = ndimage.distance_transform_edt(found, sampling=pixel) + ndimage.distance_transform_edt(~found, sampling=pixel)

    def share(rim: float) -> float:
        rows, columns = (propose(Threshold(rim=rim), seen)[0].double().numpy() * SHAPE).astype(int).clip(0, np.array(SHAPE) - 1).T
        return float((edge[rows, columns] <= seen.probe).mean())

    assert share(0.0) < share(0.5) < share(2.0)


@pytest.mark.parametrize("scanner", ALL, ids=repr)
def test_nothing_is_random_and_specimens_do_not_mix(scanner: Scanner) -> None:
    dark = torch.rand(3, 32, generator=torch.Generator().manual_seed(1)) * torch.linspace(0, 0.05, 32)
    phase = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 1, 20)
    seen = replace(clear(batch=3), scattered=dark, potential=phase)
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    first, _ = scanner(replace(seen, positions=seen.positions[:, :0], dose=seen.dose[:, :0], scattered=None), None, generator=generator)
    action, _ = scanner(seen, None, generator=generator)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(first.positions[0], first.positions[2])
    assert action.positions.shape == (3, 96, 2)
    assert torch.equal(action.positions, propose(scanner, seen))
    assert not torch.equal(action.positions[0], action.positions[1])
    for b in range(3):
        one = slice(b, b + 1)
        alone = replace(seen, potential=phase[one], positions=seen.positions[one], dose=seen.dose[one], scattered=dark[one])
        assert torch.equal(propose(scanner, alone)[0], action.positions[b])


@settings(max_examples=40)
@given(
    dark=arrays.arrays(np.float32, 9, elements=st.floats(-0.0625, 1, width=32)),
    phase=arrays.arrays(np.float32, SHAPE, elements=st.floats(-1e6, 1e6, width=32), fill=st.just(0.0)),
    positions=arrays.arrays(np.float32, (9, 2), elements=st.floats(0, 1, width=32)),
    dose=st.floats(1e-3, 1e9),
    probe=st.floats(0.05, 50.0),
    scanner=st.sampled_from(ALL),
)
def test_property_whatever_is_seen_gives_positions_in_the_field(
    dark: np.ndarray, phase: np.ndarray, positions: np.ndarray, dose: float, probe: float, scanner: Scanner
) -> None:
    given_dark, places = torch.from_numpy(dark)[None], torch.from_numpy(positions)[None]
    seen = Observation(torch.from_numpy(phase)[None], places, torch.full((1, 9), dose), FIELD, probe, 1.5, 7, 16, given_dark)
    proposed = propose(scanner, seen)
    assert proposed.shape == (1, 7, 2)
    assert bool(((proposed >= 0) & (proposed <= 1)).all())  # nan compares false


@pytest.mark.parametrize("phase", [torch.nan, torch.inf])
def test_a_reconstruction_that_diverged_shows_nothing(phase: float) -> None:
    assert mask(replace(clear(), potential=torch.full((1, *SHAPE), phase)), 0, "phase", 0.5) is None


def test_the_phase_shows_structure_too() -> None:
    phase = torch.zeros(1, *SHAPE)
    phase[0][QUARTER] = torch.rand(20, 10, generator=torch.Generator().manual_seed(0))
    seen = replace(clear(), potential=phase, scattered=None)
    found = mask(seen, 0, "phase", 0.0)
    assert found is not None
    # A quarter of the field. Measured: all of it, and 0.31 of the field in all.
    assert found[QUARTER].mean() > 0.95
    assert found.mean() < 0.36


@pytest.mark.parametrize(("survey", "dose", "least", "recall"), [(16, 300.0, 10, 0.92), (36, 1000.0, 12, 0.92), (64, 1e4, 12, 0.96)])
def test_islands_are_found_by_few_electrons(survey: int, dose: float, least: int, recall: float) -> None:
    chosen = islands(12, survey, dose)
    source = build.simulated(chosen)
    atoms = [build.atoms(chosen, source.setup, number) for number in build.numbers(chosen)]
    truth = source.setup.crop(torch.stack([specimen.structure_mask(a, source.setup.object) for a in atoms]).float()).numpy() > 0.5
    (state,) = run(source, Fixed("hexagonal", 60.0), build.reconstructor(chosen, source.setup), [survey], seed=0)
    probe = source.setup.probe_radius(defocus=60.0)
    seen = Observation(
        state.potential, state.seen.positions, state.seen.dose, source.setup.field, probe, source.setup.resolution, 1, 99, state.scattered
    )
    found = [mask(seen, b, "dark-field", 0.5) for b in range(12)]
    pairs = [(f, t) for f, t in zip(found, truth, strict=True) if f is not None]
    assert len(pairs) >= least
    overlap = [float((f & t).sum() / t.sum()) for f, t in pairs]
    # Measured on 40 islands: 35, 40 and 40 found, with 0.95, 0.95, 0.98 of the structure, in 0.41, 0.35, 0.35 of a field of which it
    # fills 0.33.
    assert float(np.mean(overlap)) > recall
    assert float(np.mean([f.mean() for f, _ in pairs])) < 0.5


@pytest.mark.parametrize(
    ("scanner", "lengths", "electrons"),
    [
        (Crop(), [16, 48], [300.0, 300.0]),
        (Crop(survey=75.0), [64, 48], [75.0, 300.0]),
        (Crop(survey=75.0, dose=25.0), [8, 30], [75.0, 25.0]),
    ],
)
def test_each_step_has_its_dwell(scanner: Scanner, lengths: list[int], electrons: list[float]) -> None:
    chosen = islands(2, 64, 300.0)
    source = build.simulated(chosen)
    *_, last = run(source, scanner, build.reconstructor(chosen, source.setup), lengths, seed=0)
    assert torch.equal(last.seen.dose[1], torch.cat([torch.full((n,), e) for n, e in zip(lengths, electrons, strict=True)]))


def test_end_to_end_both_beat_a_hexagonal_scan_of_islands() -> None:
    chosen = islands(6, 64, 1000.0)
    source = build.simulated(chosen)
    truth = build.truth_in_field(source)
    atoms = [build.atoms(chosen, source.setup, number) for number in build.numbers(chosen)]
    masks = source.setup.crop(torch.stack([specimen.structure_mask(a, source.setup.object) for a in atoms]).float())
    descent = build.reconstructor(chosen, source.setup)

    def correlation(scanner: Scanner, lengths: list[int]) -> float:
        *_, last = run(source, scanner, descent, lengths, seed=0)
        return float(np.mean([np.corrcoef(v[m > 0], t[m > 0])[0, 1] for v, t, m in zip(last.potential, truth, masks, strict=True)]))

    even = correlation(Fixed("hexagonal", 60.0), [64])
    # Measured on 24 islands: 0.637; crop 0.750, its box 0.736, threshold 0.757.
    assert correlation(Crop(defocus=60.0), [16, 48]) > even + 0.07
    assert correlation(Crop("box", defocus=60.0), [16, 48]) > even + 0.06
    assert correlation(Threshold(defocus=60.0), split_evenly(64, 4)) > even + 0.07


@pytest.mark.parametrize(
    ("policy", "option", "value"),
    [("crop", "--crop.shape", "box"), ("crop", "--crop.signal", "phase"), ("threshold", "--threshold.rim", "0.5")],
)
def test_on_the_command_line(policy: str, option: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "run_page", lambda target: "<html></html>")  # takes a second to draw
    what = [
        "--specimen.family",
        "island",
        "--specimen.options",
        "{filling = 0.2}",
        "--beam.defocus",
        "60",
        "--reconstruct.reference_side",
        "8",
    ]
    how = ["--positions", "32", "--subsequences", "4", "--dose", "1000", "--policy", policy, option, value, "--threads", "1"]
    what += ["--reconstruct.reference_side", "8"]
    assert cli.main(["scan", str(tmp_path / "run"), "--preset", "light", "--protocol", "best", *what, *how]) == 0
    asked = [state["requested"] for state in scans.read_states(scans.Run.open(tmp_path / "run"))]
    assert [tuple(p.shape) for p in asked] == [(1, 8, 2)] * 4
    # It looked: the quarter of the field that it went on in is small.
    later = torch.cat(asked[1:], 1)[0]
    assert float((later.amax(0) - later.amin(0)).prod()) < 0.8


@pytest.mark.parametrize("scanner", [Crop(), Crop("box"), Threshold()], ids=["mask", "box", "threshold"])
def test_a_recording_snaps_to_what_was_recorded(scanner: Scanner) -> None:
    chosen = update(Settings(), {"scan": {"microscope": "recorded"}, "reconstruct": {**BEST, "iterations": 2}}, "test")
    source = build.recorded(chosen)
    *_, last = run(source, scanner, build.reconstructor(chosen, source.setup), [16, 24, 24], seed=0)
    assert last.seen.positions.shape == (1, 64, 2)
    recorded = formats.read(formats.example()).measurement.positions[0].double().numpy()
    assert cKDTree(recorded).query(last.seen.positions[0].double().numpy())[0].max() == 0
