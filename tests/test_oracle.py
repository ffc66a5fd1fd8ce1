"""Scans that know the truth: where they go, and that nothing conventional comes near."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from adaptycho import metrics
from adaptycho.physics import specimen
from adaptycho.scan import patterns
from adaptycho.scan.episode import run, split_evenly
from adaptycho.scan.oracles import DensityOracle, HalfWay
from adaptycho.scan.place import pulled
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.settings import BEST, build, preset, update
from adaptycho.types import Observation, Scanner

FIELD = (20.0, 10.0)


def propose(scanner: Scanner, lengths: list[int], batch: int = 2) -> list[torch.Tensor]:
    """What a scanner asks for in each sub-sequence, if positions are reported as requested."""
    positions, memory, asked = torch.zeros(batch, 0, 2), None, []
    for k in lengths:
        seen = Observation(torch.zeros(batch, 40, 20), positions, torch.ones(positions.shape[:2]), FIELD, 0.4, 1.5, k, sum(lengths))
        action, memory = scanner(seen, memory, generator=torch.Generator())
        asked.append(action.positions)
        positions = torch.cat([positions, action.positions], 1)
    return asked


def columns(*specimens: list[list[float]]) -> list[torch.Tensor]:
    return [torch.tensor(s).reshape(-1, 2) for s in specimens]


def test_positions_go_part_of_the_way_to_the_nearest_column_in_angstrom() -> None:
    points = torch.tensor([[0.5, 0.5], [0.1, 0.9]])
    # 2 Å below and 2.5 Å to the right of the first point, though in fractions the second is further.
    sites = torch.tensor([[0.6, 0.5], [0.5, 0.75]])
    moved = pulled(points, sites, FIELD, 0.5)
    assert torch.allclose(moved[0], torch.tensor([0.55, 0.5]))
    # 8 and 8.1 Å down, 4 and 1.5 Å across: the second.
    assert torch.allclose(moved[1], (points[1] + sites[1]) / 2)
    assert torch.equal(pulled(points, sites, FIELD, 0.0), points)
    assert torch.equal(pulled(points, torch.zeros(0, 2), FIELD, 0.5), points)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_the_first_sub_sequences_are_left_alone(after: int) -> None:
    sites = columns([[0.3, 0.3], [0.8, 0.6]], [])
    asked = propose(HalfWay(sites, after=after), [5, 7, 4])
    base = patterns.halton(16)
    for number, (points, even) in enumerate(zip(asked, base.split([5, 7, 4]), strict=True)):
        wanted = even if number < after else pulled(even, sites[0].double(), FIELD, 0.5)
        assert torch.allclose(points[0], wanted.float(), atol=1e-6)  # single precision
        assert torch.allclose(points[1], even.float(), atol=1e-6)  # no columns, no pull


def test_each_sub_sequence_of_a_hexagonal_scan_sees_the_whole_field() -> None:
    asked = propose(HalfWay(columns([], []), base="hexagonal"), [16, 48])
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        quarter = (asked[0][0, :, 0] >= 0.5) == bool(y)
        # 16 positions: 4 in each quarter, less those on the border.
        assert int((quarter & ((asked[0][0, :, 1] >= 0.5) == bool(x))).sum()) >= 2
    together, hexagonal = torch.cat(asked, 1)[0].numpy(), patterns.hexagonal(64, FIELD).numpy()
    distance, which = cKDTree(together).query(hexagonal)
    assert distance.max() < 1e-6  # single precision
    assert len(set(which)) == 64


def test_positions_pulled_out_of_the_field_stay_at_its_edge() -> None:
    asked = propose(HalfWay(columns([[-2.0, 0.5]], [[0.5, 3.0]]), after=0, pull=1.0), [9])
    assert bool((asked[0][0, :, 0] == 0).all() and (asked[0][1, :, 1] == 1).all())


def test_a_density_holds_its_share_of_the_positions() -> None:
    density = torch.zeros(2, 40, 20)
    density[0, :20, :10] = 5.0
    asked = torch.cat(propose(DensityOracle(density, floor=0.2), [20, 20, 20, 20]), 1)
    inside = int(((asked[0] < 0.5).all(1)).sum())
    # 80 % and a quarter of the rest: 68 of 80; a few of the even ones lie on the border.
    assert abs(inside - 68) <= 4
    # The rest is spread over the other three quarters.
    for y, x in ((0, 1), (1, 0), (1, 1)):
        assert 2 <= int((((asked[0] >= 0.5) == torch.tensor([y, x], dtype=torch.bool)).all(1)).sum()) <= 8
    # A specimen without structure is scanned evenly.
    assert abs(int(((asked[1] < 0.5).all(1)).sum()) - 20) <= 4


def test_each_part_of_a_density_scan_sees_the_whole_field() -> None:
    density = torch.ones(2, 40, 20)
    first = propose(DensityOracle(density, floor=0.0), [20, 60])[0][0]
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        quarter = (first[:, 0] >= 0.5) == bool(y)
        assert int((quarter & ((first[:, 1] >= 0.5) == bool(x))).sum()) >= 3


def test_wrong_truths_are_refused() -> None:
    with pytest.raises(ValueError, match="columns: expected"):
        propose(HalfWay(columns([])), [3])
    with pytest.raises(ValueError, match="density: expected"):
        propose(DensityOracle(torch.ones(3, 40, 20)), [3])


def test_end_to_end_half_way_beats_everything_under_the_papers_protocol() -> None:
    changes = {"specimen": {"count": 4}, "reconstruct": {"reference_side": 40, "reference_step": 50.0 * (100 / 40) ** 2}}
    chosen = update(preset("light"), changes, "test")
    source = build.simulated(chosen)
    sites = []
    for number in build.numbers(chosen):
        place = build.atoms(chosen, source.setup, number).positions[:, 1::-1] / np.array(source.setup.field) + 0.5
        sites.append(torch.from_numpy(np.unique(place.round(4), axis=0)).float())
    reference, descent = build.reference(chosen, source), build.reconstructor(chosen, source.setup)

    def ssim(scanner: Scanner) -> float:
        *_, last = run(source, scanner, descent, split_evenly(250, 5), seed=0)
        return float(metrics.ssim(last.potential, reference, window="uniform").mean())

    random, raster = ssim(Fixed("random")), ssim(Fixed("raster"))
    # Measured on 8 specimens: random 0.294, raster 0.351, half-way 0.434, hexagonal half-way from the start 0.487.
    assert ssim(HalfWay(sites)) > 1.3 * random
    assert ssim(HalfWay(sites)) > raster
    assert ssim(HalfWay(sites, base="hexagonal", after=0)) > 1.45 * random


def test_end_to_end_density_beats_a_raster_on_islands() -> None:
    changes = {
        "specimen": {"count": 4, "family": "island", "options": {"filling": 0.25}},
        "reconstruct": BEST,
        "scan": {"dose": 1e3, "positions": 64},
    }
    chosen = update(preset("light"), changes, "test")
    source = build.simulated(chosen)
    grid, truth = source.setup.object, build.truth_in_field(source)
    atoms = [build.atoms(chosen, source.setup, number) for number in build.numbers(chosen)]
    masks = source.setup.crop(torch.stack([specimen.structure_mask(a, grid, 1.5) for a in atoms]).float())
    descent = build.reconstructor(chosen, source.setup)

    def correlation(scanner: Scanner) -> float:
        *_, last = run(source, scanner, descent, split_evenly(64, 4), seed=0)
        inside = [np.corrcoef(v[m > 0], t[m > 0])[0, 1] for v, t, m in zip(last.potential, truth, masks, strict=True)]
        return float(np.mean(inside))

    # Measured on 8 specimens: 0.78 against 0.66.
    assert correlation(DensityOracle(masks, defocus=100.0)) > correlation(Fixed("raster", 100.0)) + 0.06
