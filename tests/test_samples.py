"""Specimens and windows with what is known about them: where windows lie, that knowledge agrees, and that a batch is its samples."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from adaptycho import formats
from adaptycho.formats import Recording
from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Setup
from adaptycho.samples import sample, windows
from adaptycho.samples.batch import together
from adaptycho.settings import BEST, Settings, build, preset, update
from adaptycho.types import Action, Measurement

LIGHT = {"geometry": {"field": [12.0, 9.0], "object": "auto"}, "reconstruct": {"iterations": 2, "reference_side": 12}}


def settings(family: str = "crystal", **sections: dict) -> Settings:
    return update(update(preset("light"), LIGHT, "test"), {"specimen": {"family": family, "options": {}}, **sections}, "test")


def raster(rows: int, columns: int) -> Recording:
    """Positions 2 Å apart; each pattern holds its own number."""
    setup = Setup((2.0 * (rows - 1), 2.0 * (columns - 1)), Grid((200, 200), 0.5), Grid((16, 16), 0.5), (8, 8), 20.0, energy=80e3)
    axes = torch.arange(rows) / (rows - 1), torch.arange(columns) / (columns - 1)
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, 2)
    count = rows * columns
    patterns = torch.arange(count, dtype=torch.int32)[None, :, None, None].expand(1, count, 8, 8).clone()
    return Recording(setup, Measurement(positions, patterns, torch.ones(1, count), torch.zeros(1, count)))


def numbers(measurement: Measurement) -> list[int]:
    return measurement.patterns[0, :, 0, 0].tolist()


# --- windows


@examples(max_examples=20)
@given(st.integers(2, 9), st.integers(2, 9))
def test_property_the_halves_of_a_checkerboard_are_all_of_it_and_no_neighbours(rows: int, columns: int) -> None:
    recording = raster(rows, columns)
    black, white = (numbers(half) for half in windows.checkerboard(recording.setup, recording.measurement))
    assert sorted(black + white) == list(range(rows * columns))
    assert black == [i for i in range(rows * columns) if (i // columns + i % columns) % 2 == 0]


def test_what_is_no_raster_has_no_halves() -> None:
    recording = raster(4, 4)
    positions = recording.measurement.positions.clone()
    positions[0, 5:7] += 0.1
    with pytest.raises(ValueError, match="expected a regular raster to split into a checkerboard"):
        windows.checkerboard(recording.setup, dataclasses.replace(recording.measurement, positions=positions))


def test_corner_windows_are_the_corners() -> None:
    recording = raster(7, 9)
    found = [numbers(windows.cut(recording, windows.corner(recording, n, 3)).measurement) for n in range(windows.CORNERS)]
    tops, lefts = (0, 4), (0, 6)
    assert found == [[9 * (top + i) + left + j for i in range(3) for j in range(3)] for top in tops for left in lefts]
    with pytest.raises(ValueError, match="expected a raster of at least 8 x 8 positions to cut windows from, found 7"):
        windows.corner(recording, 0, 8)


@examples(max_examples=20)
@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 2**31))
def test_property_a_random_window_has_its_shape_and_lies_where_it_may(tall: int, wide: int, seed: int) -> None:
    recording = raster(7, 9)
    rows, columns = windows.lines(recording.measurement)
    generator = torch.Generator().manual_seed(seed)
    where = windows.drawn(rows, columns[3:], (tall + 1, wide), generator=generator)
    found = windows.lines(windows.cut(recording, where).measurement)
    assert (len(found[0]), len(found[1])) == (tall + 1, wide)
    assert where.columns[0] >= columns[3]


def test_windows_of_the_grid_are_of_one_size_and_each_is_there_once() -> None:
    found = windows.grid((0.0, 1.0), (0.25, 1.0))
    assert len(set(found)) == len(found) == 11 * 7
    spans = [span for where in found for span in (where.rows, where.columns)]
    assert {high - low for low, high in spans} == {windows.WIDE / windows.STEPS}
    assert min(where.columns[0] for where in found) == 0.25
    assert found != sorted(found, key=lambda where: (where.rows, where.columns))  # neighbours do not follow each other
    assert windows.grid((0.0, 0.3), (0.0, 1.0)) == []


def test_other_patterns_of_a_window_are_cut_again_whenever_they_are_asked_for() -> None:
    """What a scan may not see is as large as what it may: a pool of windows keeps only what is scanned."""
    chosen = update(Settings(), {"scan": {"microscope": "recorded"}, "reconstruct": {**BEST, "iterations": 1}}, "test")
    whole, cuts = formats.read(formats.example()), []

    def window() -> Recording:
        cuts.append(windows.cut(whole, windows.corner(whole, 3, 12)))
        return cuts[-1]

    found = sample.half(chosen, 5, window, (12, 12), 0)
    assert len(cuts) == 1
    one, again = found.held_out, found.held_out
    assert len(cuts) == 3 and one is not again and torch.equal(one.patterns, again.patterns)
    assert torch.equal(one.positions, windows.checkerboard(cuts[0].setup, cuts[0].measurement)[1].positions)
    assert found.full_scan is found.full_scan and len(cuts) == 4
    assert float(found.inside.float().mean()) == pytest.approx(0.5, abs=0.01)  # up to pixels at exactly the median
    assert found.truth is None and found.sites is None and found.columns.shape == (0, 2)


# --- specimens


def test_a_specimen_is_that_of_its_number() -> None:
    chosen = settings("island", scan={"dose": 300.0})
    found, alone = sample.simulated(chosen, 7), build.simulated(update(chosen, {"specimen": {"first": 7, "count": 1}}, "test"))
    assert torch.equal(found.microscope.potential, alone.potential) and found.microscope.dose == 300.0
    assert torch.equal(found.full_scan, build.reference(found.settings, alone))
    assert torch.equal(found.truth, build.truth_in_field(alone))
    assert not torch.equal(found.truth, sample.simulated(chosen, 8).truth)


def test_nothing_is_scanned_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Settings] = []
    real = build.full_scan
    monkeypatch.setattr(build, "full_scan", lambda chosen, microscope: asked.append(chosen) or real(chosen, microscope))
    found = sample.simulated(settings(), 3)
    assert found.inside.any() and len(found.columns) and found.sites is not None and found.held_out and not asked
    assert found.full_scan is not None and found.full_scan is not None and len(asked) == 1


@pytest.mark.parametrize("family", ["crystal", "island", "vacancies", "particles"])
def test_all_that_is_known_of_atoms_agrees(family: str) -> None:
    """Sites are the columns inside the field, columns lie inside the structure, and what is there sticks out of the true phase."""
    found = sample.simulated(settings(family), 3)
    sites, field = found.sites, torch.tensor(found.setup.field)
    assert sites is not None and len(sites.present) > 2
    # Columns are single-precision fractions of 12 Å, and the field begins at its first pixel's edge, at most half a pixel off.
    apart = torch.cdist(sites.present, (found.columns * field).double()).min(1).values
    assert float(apart.max()) < 0.75 * found.setup.object.pixel
    rows, across = (sites.present / found.setup.object.pixel).long().T
    assert bool(found.inside[rows, across].all())
    assert found.truth[0][rows, across].mean() > 1.5 * found.truth.mean()


def test_an_amorphous_film_has_columns_but_none_to_be_found() -> None:
    found = sample.simulated(settings("amorphous"), 3)
    assert found.sites is None and len(found.columns) > 100


# --- batches


def test_a_batch_is_its_samples() -> None:
    """What is known is stacked, and silent scans of all are those one by one."""
    chosen = settings("island", instrument={"noise": False})
    some = [sample.simulated(chosen, n) for n in (3, 9, 3)]
    batch = together(some, some[0].setup)
    assert batch.numbers == (3, 9, 3) and len(batch) == batch.microscope.batch == 3
    where = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(0))
    patterns = batch.microscope.acquire(Action(where), generator=torch.Generator()).patterns
    for b, one in enumerate(some):
        alone = one.microscope.acquire(Action(where[b : b + 1]), generator=torch.Generator()).patterns
        assert torch.equal(patterns[b], alone[0])
        assert torch.equal(batch.inside[b], one.inside) and torch.equal(batch.full_scan[b], one.full_scan[0])
    assert batch.truth is not None
    # Single precision of sums of about a thousand pixels of up to 2 rad.
    assert float(batch.truth.mean((1, 2)).abs().max()) < 1e-5
    difference = batch.truth - torch.cat([one.truth for one in some])
    assert float((difference - difference.mean((1, 2), keepdim=True)).abs().max()) < 1e-5


def test_windows_are_scanned_together_in_one_geometry() -> None:
    chosen = update(Settings(), {"scan": {"microscope": "recorded"}, "reconstruct": {**BEST, "iterations": 1}}, "test")
    some = [sample.recorded(chosen, n) for n in (0, 1)]
    batch = together(some, some[1].setup)
    assert batch.setup == some[1].setup and batch.truth is None
    assert all(torch.equal(batch.microscope.measurement[b].patterns, one.microscope.measurement.patterns) for b, one in enumerate(some))
