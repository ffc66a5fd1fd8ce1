"""Rewards against independent sums, scikit-image's map, and cases whose answer is known."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.metrics import structural_similarity

from adaptycho import metrics
from adaptycho.learn import rewards
from adaptycho.learn.reward import Result, reward
from adaptycho.learn.similarity import local_ssim
from adaptycho.settings.learning import REWARDS, Reward

FIELD = (12.0, 16.0)


def rand(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def outcome(batch: int = 2, count: int = 30, shape: tuple[int, int] = (40, 52), dtype: torch.dtype = torch.float64) -> Result:
    return Result(
        potential=rand(1, batch, *shape, dtype=dtype),
        positions=rand(2, batch, count, 2, dtype=dtype),
        field=FIELD,
        scattered=rand(3, batch, count, dtype=dtype),
        reference=rand(4, batch, *shape, dtype=dtype),
        base=rand(5, batch, count, 2, dtype=dtype),
    )


def window_mean(image: np.ndarray, centre: np.ndarray, width: float) -> float:
    """Average under a Gaussian round a fraction of the field, pixel by pixel."""
    y, x = np.meshgrid(*((np.arange(n) + 0.5) / n for n in image.shape), indexing="ij")
    distance = ((y - centre[0]) * FIELD[0]) ** 2 + ((x - centre[1]) * FIELD[1]) ** 2
    return float(np.average(image, weights=np.exp(-distance / (2 * width**2))))


def test_the_shared_reward_is_the_mean_phase_of_an_agent() -> None:
    result = outcome()
    expected = result.potential.numpy().sum((1, 2)) / 30
    # Sums of 2080 terms in another order.
    np.testing.assert_allclose(reward("shared", result).numpy(), np.repeat(expected[:, None], 30, 1), rtol=1e-13)


@given(count=st.integers(1, 60), seed=st.integers(0, 1 << 30))
def test_voronoi_rewards_add_up_to_the_shared_one(count: int, seed: int) -> None:
    result = replace(outcome(count=count), positions=rand(seed, 2, count, 2))
    # Every pixel has one owner: sums of 2080 terms in another order.
    torch.testing.assert_close(reward("voronoi", result).sum(1), reward("shared", result)[:, 0], rtol=1e-13, atol=0)


def test_the_voronoi_reward_is_the_phase_of_the_nearest_pixels() -> None:
    result = outcome()
    y, x = ((np.arange(n) + 0.5) / n for n in (40, 52))
    centres = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2) * FIELD
    for image, places, value in zip(result.potential, result.positions, reward("voronoi", result), strict=True):
        owner = cKDTree(places.numpy() * FIELD).query(centres)[1]
        expected = np.bincount(owner, image.flatten().numpy(), minlength=30) / 30
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-13)  # sums in another order


def test_a_larger_cell_of_a_bright_field_earns_more() -> None:
    # Four in a row on a phase of one: each is paid for its cell's area, until the second leaves the first more room.
    even = torch.tensor([[[0.5, 0.125], [0.5, 0.375], [0.5, 0.625], [0.5, 0.875]]])
    moved = even.clone()
    moved[0, 1, 1] = 0.5
    result = Result(torch.ones(1, 8, 16), even, (8.0, 16.0), torch.zeros(1, 4))
    assert reward("voronoi", result).tolist() == [[8.0] * 4]  # 128 pixels / 4 cells / 4 positions
    # Bisectors at 5 and 9 pixels instead of 4 and 8.
    assert reward("voronoi", replace(result, positions=moved)).tolist() == [[10.0, 8.0, 6.0, 8.0]]


def test_the_map_is_scikit_images_edges_included() -> None:
    image, reference = rand(6, 2, 33, 47) * 0.4 + 2, rand(7, 2, 33, 47)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    for x, y, found in zip(image.numpy(), reference.numpy(), local_ssim(image, reference).numpy(), strict=True):
        expected = structural_similarity(x, y, data_range=y.max() - y.min(), **options)[1]
        # Variances of 0.01 as differences of squares up to 6: eps * 600, with a factor of 10 for the sums.
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_mean_of_the_map_is_the_metric_in_single_precision() -> None:
    # The constant phase is free: contrast of 0.2 rad on 3 rad, whose squares leave no digits for variances.
    image, reference = 0.2 * rand(8, 4, 65, 65, dtype=torch.float32) + 3, 0.2 * rand(9, 4, 65, 65, dtype=torch.float32) + 3
    found = local_ssim(image, reference)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, 5:-5, 5:-5].mean((1, 2)).double(), metrics.ssim(image, reference), rtol=0, atol=1e-6)
    # Ten operations on numbers whose ratio is at most one, eps of 1.2e-7 each.
    torch.testing.assert_close(found.double(), local_ssim(image.double(), reference.double()), rtol=0, atol=1.2e-6)


def test_window_credit_is_the_similarity_under_a_gaussian_round_the_base_point() -> None:
    result = outcome()
    assert result.reference is not None and result.base is not None
    likeness = local_ssim(result.potential, result.reference).numpy()
    for width in (0.5, 1.2):
        expected = [[window_mean(m, c, width) for c in centres] for m, centres in zip(likeness, result.base.numpy(), strict=True)]
        np.testing.assert_allclose(reward("window", result, width=width).numpy(), expected, atol=1e-13)  # 2080 terms of order one


def test_structure_credit_weights_similarity_with_local_contrast() -> None:
    result = outcome()
    assert result.reference is not None and result.base is not None
    for b, reference in enumerate(result.reference.numpy()):
        smooth = [ndimage.gaussian_filter(v, 1.5, truncate=3.5) for v in (reference, reference**2)]
        spread = np.sqrt(smooth[1] - smooth[0] ** 2)
        likeness = local_ssim(result.potential, result.reference)[b].numpy()
        expected = [window_mean(likeness * spread / spread.mean(), c, 1.2) for c in result.base[b].numpy()]
        np.testing.assert_allclose(reward("structure", result)[b].numpy(), expected, atol=1e-12)  # as above, squares subtracted


def test_structure_pays_nothing_for_vacuum() -> None:
    reference = torch.zeros(1, 60, 60)
    reference[:, 15:45, :20] = rand(10, 1, 30, 20, dtype=torch.float32)
    base = torch.tensor([[[0.5, 0.15], [0.5, 0.85]]])
    result = Result(reference, base, (20.0, 20.0), torch.zeros(1, 2), reference, base)
    atoms, vacuum = reward("structure", result)[0].tolist()
    # From x = 17 Å the structure, blurred by 5 px, ends 8.7 Å = 7 sigma away: exp(-26) of its weight. Perfect copies are alike everywhere.
    # What is left is rounding: variances are differences of squares of the mean, 0.08^2, so their roots are sqrt(2 eps) 0.08 = 4e-5 instead
    # of 0, over a mean spread of 0.06.
    assert atoms > 1 and vacuum == pytest.approx(0, abs=1e-3)
    # Rounding in single precision over 3600 pixels.
    torch.testing.assert_close(reward("window", result), torch.ones(1, 2), rtol=0, atol=1e-5)


def test_error_removed_is_nothing_for_nothing_and_everything_for_the_reference() -> None:
    result = outcome()
    assert result.reference is not None and result.base is not None
    # A constant phase says nothing: differences of squares of order one.
    flat = reward("error", replace(result, potential=torch.full_like(result.potential, 0.7)))
    torch.testing.assert_close(flat, torch.zeros(2, 30, dtype=torch.float64), rtol=0, atol=1e-14)
    # The scale k leaves (1 - k)^2 of the squared error, wherever one looks; the constant is free.
    squares = (result.reference - result.reference.mean((1, 2), keepdim=True)).square().numpy()
    whole = [[window_mean(m, c, 1.2) for c in centres] for m, centres in zip(squares, result.base.numpy(), strict=True)]
    for k in (1.0, 0.5, 2.0, 3.0):
        found = reward("error", replace(result, potential=k * result.reference + 3))
        np.testing.assert_allclose(found.numpy(), (1 - (1 - k) ** 2) * np.array(whole), atol=1e-13)  # rounding of order one


def test_the_scattered_reward_is_what_the_detector_saw() -> None:
    result = replace(outcome(), reference=None, base=None)
    assert torch.equal(reward("scattered", result), result.scattered)


@pytest.mark.parametrize("name", ["window", "error", "structure"])
def test_fixed_windows_do_not_move_with_the_agents(name: Reward) -> None:
    result = outcome()
    assert result.base is not None
    before = reward(name, result)
    assert torch.equal(reward(name, replace(result, positions=rand(11, 2, 30, 2))), before)
    # Without base points the windows are where the beam was.
    assert torch.equal(reward(name, replace(result, base=None, positions=result.base)), before)
    # Outside the field is at its edge.
    stray = torch.tensor([[[-0.3, 0.4], [1.2, 1.1]]], dtype=torch.float64).expand(2, -1, -1)
    small = replace(result, positions=stray, scattered=result.scattered[:, :2], base=stray)
    assert torch.equal(reward(name, small), reward(name, replace(small, base=stray.clamp(0, 1))))


@pytest.mark.parametrize("name", ["window", "error", "structure"])
def test_damage_is_charged_to_those_next_to_it(name: Reward) -> None:
    result = replace(outcome(), potential=rand(4, 2, 40, 52) * 0.9)  # close to the reference
    assert result.base is not None
    potential = result.potential.clone()
    # A spot with as much added as taken away, so that the image's mean stays.
    potential[:, 20:22, 30] += 0.8
    potential[:, 20:22, 31] -= 0.8
    lost = reward(name, result) - reward(name, replace(result, potential=potential))
    where = torch.tensor([21 / 40 * FIELD[0], 31 / 52 * FIELD[1]], dtype=torch.float64)
    distance = (result.base * torch.tensor(FIELD) - where).norm(dim=-1)
    # The similarity map changes up to 5 px = 1.5 Å away and diagonally 2.2 Å; 1.2 Å windows reach 4 sigma further with exp(-8) of the peak.
    assert float(lost[distance > 7].abs().max()) < 1e-3 * float(lost.max())
    assert float(lost[distance < 1.5].min()) > 0.1 * float(lost.max())


@given(
    name=st.sampled_from(REWARDS),
    count=st.integers(1, 20),
    shape=st.tuples(st.integers(2, 30), st.integers(2, 30)),
    width=st.floats(1e-3, 1e3),
)
def test_every_agent_of_every_specimen_has_a_reward_of_its_own(name: Reward, count: int, shape: tuple[int, int], width: float) -> None:
    result = outcome(3, count, shape, torch.float32)
    assert result.reference is not None and result.base is not None
    values = reward(name, result, width=width)
    assert values.shape == (3, count) and values.dtype == torch.float32 and bool(values.isfinite().all())
    singles = [
        Result(*(v[b : b + 1] for v in (result.potential, result.positions)), FIELD, *(v[b : b + 1] for v in optional))
        for b in range(3)
        for optional in [(result.scattered, result.reference, result.base)]
    ]
    # Batched products may sum in another order: single precision, up to 900 pixels of order one.
    torch.testing.assert_close(values, torch.cat([reward(name, r, width=width) for r in singles]), rtol=1e-5, atol=1e-5)


@given(width=st.floats(1e-3, 1e3), offset=st.floats(-3, 3))
def test_a_perfect_copy_earns_one_in_any_window(width: float, offset: float) -> None:
    result = outcome()
    assert result.reference is not None
    perfect = replace(result, potential=result.reference + offset, reference=result.reference + offset)
    # The map is one up to the rounding of variances of 0.08 round a constant of at most 4.
    torch.testing.assert_close(reward("window", perfect, width=width), torch.ones(2, 30, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["shared", "voronoi", "window", "error", "structure"])
def test_a_diverged_specimen_leaves_the_others_alone(name: Reward) -> None:
    result = outcome()
    potential = result.potential.clone()
    potential[0] = math.nan
    values, sound = reward(name, replace(result, potential=potential)), reward(name, result)
    assert not bool(values[0].isfinite().any()) and torch.equal(values[1], sound[1])


def test_errors_say_what_was_expected() -> None:
    result = outcome()
    with pytest.raises(ValueError, match="reward: expected one of shared, voronoi, window, error, structure, scattered, got 'fame'"):
        reward("fame", result)
    for name in ("window", "error", "structure"):
        with pytest.raises(ValueError, match=f"reference: expected .* for reward {name}, got none"):
            reward(name, replace(result, reference=None))
    with pytest.raises(ValueError, match="reference: expected images, got a constant"):
        reward("window", replace(result, reference=torch.ones_like(result.potential)))
    with pytest.raises(ValueError, match="width: expected a positive length in Å, got 0"):
        reward("window", result, width=0.0)


def test_every_reward_is_a_file_of_its_name() -> None:
    assert {path.stem for path in Path(rewards.__path__[0]).glob("*.py")} - {"__init__"} == set(REWARDS)
