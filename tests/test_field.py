"""The field policy: what it reads, that it does not care where it is, and where it sends positions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adaptycho.physics.optics import Setup
from adaptycho.scan.episode import run, split_evenly
from adaptycho.scan.networks.field import CHANNELS, STRIDE, Field, Plan, look, outlook, sample, splat
from adaptycho.scan.policies.learned import Learned, even
from adaptycho.settings import build, preset, update
from adaptycho.types import Observation

RESOLUTION = 1.475  # Å, 60 keV and 33 mrad


def seen(
    count: int = 5, taken: int = 7, total: int = 20, field: tuple[float, float] = (20.0, 20.0), batch: int = 2, seed: int = 0
) -> Observation:
    generator = torch.Generator().manual_seed(seed)
    shape = tuple(round(f / 0.308) for f in field)
    return Observation(
        torch.randn(batch, *shape, generator=generator),
        torch.rand(batch, taken, 2, generator=generator),
        torch.full((batch, taken), 1e4),
        field,
        0.4,
        RESOLUTION,
        count,
        total,
        torch.rand(batch, taken, generator=generator) * 0.1,
    )


def alive(widths: tuple[int, ...] = (8, 8), seed: int = 0, **arguments: object) -> Field:
    """A field policy whose last layer is not zero."""
    torch.manual_seed(seed)
    network = Field(widths, **arguments)
    with torch.no_grad():
        network.out.weight.normal_(0, 0.3)
        network.out.bias.normal_(0, 0.3)
    return network.eval()


def coming(observation: Observation) -> Tensor:
    return even(observation.count, observation.field, "hexagonal").float()


# --- what it reads


@pytest.mark.parametrize("field", [(20.0, 20.0), (6.0, 11.0)])
def test_splat_is_a_sum_of_gaussians(field: tuple[float, float]) -> None:
    observation = seen(field=field)
    weights = torch.rand(2, 7, generator=torch.Generator().manual_seed(1))
    found = splat(observation.positions, weights, 0.7, observation, (9, 14))
    for b in range(2):
        for i in range(9):
            for j in range(14):
                y, x = (i + 0.5) / 9 * field[0], (j + 0.5) / 14 * field[1]
                square = (observation.positions[b, :, 0] * field[0] - y) ** 2 + (observation.positions[b, :, 1] * field[1] - x) ** 2
                # Exponents of up to a few hundred, in single precision: 1e-5 where the Gaussian is not negligible.
                assert float(found[b, i, j]) == pytest.approx(
                    float((weights[b] * torch.exp(-square / (2 * 0.49))).sum()), rel=1e-4, abs=1e-6
                )


def test_sample_reads_pixels_at_their_centres() -> None:
    image = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    rows, columns = torch.meshgrid((torch.arange(5) + 0.5) / 5, (torch.arange(8) + 0.5) / 8, indexing="ij")
    centres = torch.stack([rows, columns], -1).reshape(1, -1, 2).expand(2, -1, -1)
    # Coordinates of order 1 in single precision, times up to 8 pixels.
    assert torch.allclose(sample(image, centres), image.flatten(2).transpose(1, 2), atol=1e-5)
    between = torch.tensor([[[2.0 / 5, 0.5 / 8]]]).expand(2, -1, -1)
    assert torch.allclose(sample(image, between)[:, 0], (image[:, :, 1, 0] + image[:, :, 2, 0]) / 2, atol=1e-5)
    beyond = torch.tensor([[[-0.3, 1.2]]]).expand(2, -1, -1)
    assert torch.allclose(sample(image, beyond)[:, 0], image[:, :, 0, -1], atol=1e-5)


@pytest.mark.parametrize("taken", [1, 30])
def test_maps_are_finite_and_padded_to_whole_strides(taken: int) -> None:
    observation = seen(taken=taken, total=40, field=(6.0, 11.0))
    maps = look(observation, coming(observation))
    assert maps.shape[:2] == (2, CHANNELS)
    assert all(n % STRIDE == 0 for n in maps.shape[2:])
    assert bool(maps.isfinite().all())
    assert maps.abs().max() < 20  # a network wants numbers of the order of one


def test_maps_do_not_tell_how_strong_the_phase_is() -> None:
    """Phase times a number, plus the free constant."""
    observation = seen()
    other = Observation(**{**vars(observation), "potential": 0.03 * observation.potential + 0.2})
    # Differences of numbers of order 0.2 with 6e-8 relative error, over 0.03.
    assert torch.allclose(look(observation, coming(observation)), look(other, coming(observation)), atol=1e-4)


def test_maps_work_without_a_dark_field() -> None:
    observation = seen()
    blind = Observation(**{**vars(observation), "scattered": None})
    assert bool(look(blind, coming(blind)).isfinite().all())


# --- where it sends positions


@pytest.mark.parametrize("survey", ["halton", "hexagonal"])
@pytest.mark.parametrize("field", [(20.0, 20.0), (7.0, 12.0)])
def test_untrained_it_proposes_the_even_scan_exactly(survey: str, field: tuple[float, float]) -> None:
    """All its sub-sequences: what has nothing to gain does no harm."""
    network, total, lengths = Field((8, 8), survey=survey), 23, [8, 8, 7]
    first = even(total, field, survey)[:8].float()
    plan, taken = None, first.expand(2, -1, -1)
    for count in lengths[1:]:
        given = seen(count, taken.shape[1], total, field)
        observation = Observation(**{**vars(given), "positions": taken})
        mean, plan = network(observation, plan)
        expected = outlook(first, total, field, survey)[taken.shape[1] : taken.shape[1] + count]
        assert torch.equal(mean, expected.expand(2, -1, -1))
        taken = torch.cat([taken, mean.detach()], 1)
    assert plan.base.shape == (2, total, 2)


def test_outlook_begins_with_the_survey_and_covers_the_field() -> None:
    first = even(30, (20.0, 20.0), "halton")[:10].float()
    whole = outlook(first, 30, (20.0, 20.0), "halton")
    assert torch.equal(whole[:10], first)
    assert whole.shape == (30, 2)
    assert torch.equal(outlook(first, 10, (20.0, 20.0), "halton"), first)
    assert torch.equal(outlook(first, 30, (20.0, 20.0), "hexagonal"), even(30, (20.0, 20.0), "hexagonal").float())


@settings(max_examples=15)
@given(
    count=st.integers(1, 12),
    taken=st.integers(1, 12),
    height=st.floats(4.0, 25.0),
    width=st.floats(4.0, 25.0),
    radius=st.floats(0.3, 4.0),
)
def test_property_any_field_and_any_number(count: int, taken: int, height: float, width: float, radius: float) -> None:
    given_ = seen(count, taken, taken + count, (height, width))
    observation = Observation(**{**vars(given_), "probe": radius})
    network = alive()
    mean, plan = network(observation, None)
    assert mean.shape == (2, count, 2)
    assert bool(mean.isfinite().all())
    assert plan.base.shape == (2, taken + count, 2)
    mean.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


@pytest.mark.parametrize("name", ["light", "paper"])
def test_one_network_scans_with_any_pixels_and_any_field(name: str) -> None:
    """The same displacements, up to what a reconstruction in other pixels is."""
    changes = {"geometry": {"field": [6.0, 9.0], "object": "auto"}, "reconstruct": {"iterations": 2}, "specimen": {"first": 3}}
    chosen = update(preset(name), changes, "test")
    microscope = build.simulated(chosen)
    *_, last = run(microscope, Learned(alive()), build.reconstructor(chosen, microscope.setup), split_evenly(13, 3), seed=0)
    assert last.seen.positions.shape == (1, 13, 2)
    assert bool(last.seen.positions.isfinite().all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_reconstruction_that_diverged_still_gives_positions(bad: float) -> None:
    observation = seen()
    for where in (slice(None), slice(0, 1)):
        potential = observation.potential.clone()
        potential[:, where] = bad
        mean, _ = alive()(Observation(**{**vars(observation), "potential": potential}), None)
        assert bool(mean.isfinite().all())


def test_displacements_are_bounded_in_lengths_not_in_fractions(light: Setup) -> None:
    """An output of one is half a resolution, in a field of any size."""
    network = Field((8, 8))
    with torch.no_grad():
        network.out.bias[1:] = torch.tensor([1.0, -0.5])
    for field in ((20.0, 20.0), (7.0, 12.0)):
        observation = seen(field=field)
        mean, plan = network(observation, None)
        moved = (mean - plan.base[:, 7:]) * torch.tensor(field)
        # Fractions below 1 in single precision, times 20 Å.
        assert torch.allclose(moved, RESOLUTION * torch.tensor([0.5, -0.25]).expand_as(moved), atol=1e-5)


def test_gradients_flow_through_the_displacement_and_not_through_the_placing() -> None:
    network = alive()
    mean, plan = network(seen(), None)
    assert not plan.base.requires_grad
    mean.sum().backward()
    # Only the two outputs that displace.
    assert torch.equal(network.out.weight.grad[0], torch.zeros_like(network.out.weight.grad[0]))
    assert bool((network.out.weight.grad[1:] != 0).any())


def test_positions_go_where_the_odds_are_high() -> None:
    network, count = Field((8, 8), floor=0.1), 60
    observation = seen(count, 12, 72, batch=1)
    even_first = even(72, (20.0, 20.0), "hexagonal")[:12].float()[None]
    observation = Observation(**{**vars(observation), "positions": even_first})
    odds = torch.full((1, 60, 60), -8.0)
    odds[:, :, :30] = 8.0
    plan = Plan(outlook(even_first[0], 72, (20.0, 20.0), "hexagonal"), even_first)
    placed = network.spread(odds, observation, plan)[0]
    # Ten times as dense on the left: 65 of 72, of which the survey is 6; edges take or give a row.
    left = int((placed[:, 1] < 0.5).sum())
    assert 50 <= left <= 60
    # Odds that are the same everywhere leave the even scan as it was.
    assert torch.equal(network.spread(torch.full((1, 60, 60), 3.0), observation, plan)[0], plan.even[12:72])


def test_a_lower_floor_sends_more_positions_to_the_structure() -> None:
    observation = seen(60, 1, 61, batch=1)
    odds = torch.full((1, 60, 60), -8.0)
    odds[:, 20:40, 20:40] = 8.0
    plan = Plan(even(61, (20.0, 20.0), "hexagonal").float(), observation.positions)
    inside = []
    for floor in (0.05, 0.2, 0.8):
        placed = Field((8, 8), floor=floor).spread(odds, observation, plan)[0]
        inside.append(int(((placed - 0.5).abs() < 1 / 6).all(-1).sum()))
    assert inside[0] > inside[1] > inside[2] > 60 / 9 - 4


def test_with_fewer_electrons_more_is_taken_for_even() -> None:
    """Spread of 0.4: uneven with many electrons, no more than noise with a few."""
    odds = torch.full((1, 60, 60), -0.7)
    odds[:, :, :30] = 0.7
    placed = []
    for dose in (1e3, 100.0, 20.0):
        observation = Observation(**{**vars(seen(60, 1, 61, batch=1)), "dose": torch.full((1, 1), dose)})
        plan = Plan(even(61, (20.0, 20.0), "hexagonal").float(), observation.positions)
        network = Field((8, 8), floor=0.0)
        spread = (odds.sigmoid().std() / odds.sigmoid().mean()).item()
        assert network.flat < spread < network.flat * (100 / 20) ** 0.5
        placed.append(bool(torch.equal(network.spread(odds, observation, plan)[0], plan.even[1:])))
    assert placed == [False, False, True]


def test_a_strong_island_counts_with_however_few_electrons() -> None:
    odds = torch.full((1, 60, 60), -4.0)
    odds[:, 20:40, 20:40] = 4.0
    observation = Observation(**{**vars(seen(60, 1, 61, batch=1)), "dose": torch.full((1, 1), 2.0)})
    plan = Plan(even(61, (20.0, 20.0), "hexagonal").float(), observation.positions)
    placed = Field((8, 8)).spread(odds, observation, plan)[0]
    assert int(((placed - 0.5).abs() < 1 / 6).all(-1).sum()) > 3 * 60 / 9


def test_a_power_below_one_is_kinder_to_places_in_doubt() -> None:
    observation = seen(60, 1, 61, batch=1)
    odds = torch.full((1, 60, 60), -2.0)
    odds[:, 20:40, 20:40] = 2.0
    plan = Plan(even(61, (20.0, 20.0), "hexagonal").float(), observation.positions)
    inside = []
    for power in (1.0, 0.5, 0.2):
        placed = Field((8, 8), floor=0.0, power=power, flat=0.0).spread(odds, observation, plan)[0]
        inside.append(int(((placed - 0.5).abs() < 1 / 6).all(-1).sum()))
    assert inside[0] > inside[1] > inside[2] > 60 / 9 - 4


def test_with_a_raster_an_even_density_is_the_raster() -> None:
    """Though nothing counts as even any more."""
    raster = even(60, (20.0, 32.0), "raster").float()
    observation = Observation(**{**vars(seen(48, 12, 60, (20.0, 32.0), batch=1)), "positions": raster[None, :12]})
    network = Field((8, 8), flat=0.0, survey="raster", lattice="raster")
    placed = network.spread(torch.zeros(1, 60, 96), observation, Plan(raster, raster[None, :12]))[0]
    away = torch.cdist(placed * torch.tensor([20.0, 32.0]), raster[12:] * torch.tensor([20.0, 32.0])).min(1).values
    assert float(away.max()) < 0.1 * (20 * 32 / 60) ** 0.5


# --- it does not know where it is


@pytest.mark.parametrize(("widths", "pixels"), [((8, 8, 8), 176), ((8, 8, 8, 8, 8), 448)])
def test_equivariance_under_whole_strides(widths: tuple[int, ...], pixels: int) -> None:
    """A pattern moved by a stride moves what is made of it by a stride, away from the border.

    An output sees 4 (1 + 2 + ...) + 2 2^n pixels either way for n poolings, at most 92; so far from the border, which stays where it is,
    the two are equal up to rounding: double precision through twenty layers.
    """
    network, reach = alive(widths).double(), 92 if len(widths) == 5 else 20
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randn(1, CHANNELS, 32, 32, generator=generator, dtype=torch.float64)
    maps = torch.zeros(2, CHANNELS, pixels, pixels, dtype=torch.float64)
    first = (pixels - 48) // 32 * 16
    maps[0, :, first : first + 32, first : first + 32] = pattern
    maps[1, :, first + STRIDE : first + STRIDE + 32, first : first + 32] = pattern
    with torch.no_grad():
        out = network.network(maps)
    margin = reach + 4
    kept, moved = out[0, :, margin : -margin - STRIDE, margin:-margin], out[1, :, margin + STRIDE : -margin, margin:-margin]
    assert kept.shape[1] >= 32 and kept.std() > 0.01
    assert torch.allclose(kept, moved, atol=1e-10)
    assert not torch.allclose(out[0, :, margin:-margin, margin:-margin], out[1, :, margin:-margin, margin:-margin], atol=1e-2)


def test_a_batch_is_its_specimens_one_by_one() -> None:
    network, observation = alive((16, 16)), seen(batch=3)
    together, _ = network(observation, None)
    for b in range(3):
        one = Observation(**{k: v[b : b + 1] if isinstance(v, Tensor) else v for k, v in vars(observation).items()})
        # The even scan of the first specimen's survey stands for all; here every specimen has a survey of its own.
        plan = Plan(outlook(observation.positions[0], 20, (20.0, 20.0), "halton"), one.positions)
        alone, _ = network(one, plan)
        # Convolutions of a batch may add in another order: single precision.
        assert torch.allclose(together[b], alone[0], atol=1e-5)
