"""Image metrics against scikit-image, numpy and cases whose answer is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import normalized_root_mse, structural_similarity

from adaptycho import metrics
from adaptycho.metrics.image import nrmse, worst


def images(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_ssim_is_scikit_images_in_both_forms() -> None:
    image, reference = images(0, 65, 40), images(1, 65, 40) * 0.3
    x, y = image.numpy(), reference.numpy()
    span = y.max() - y.min()
    gauss = structural_similarity(x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=span)
    # The same arithmetic with the two images swapped: rounding only.
    assert float(metrics.ssim(image, reference)) == pytest.approx(gauss, abs=1e-13)
    assert float(metrics.ssim(image, reference, window="uniform")) == pytest.approx(structural_similarity(x, y, data_range=span), abs=1e-13)


def test_ssim_is_the_published_formula() -> None:
    image, reference = images(2, 40, 40), images(3, 40, 40)
    x, y = image.numpy(), reference.numpy()
    c1, c2 = ((k * (y.max() - y.min())) ** 2 for k in (0.01, 0.03))

    def mean(v: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(v, 1.5, truncate=3.5)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    quality = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    # Windows that stick out of the image (5 px) do not count. Rounding of products of order one.
    assert float(metrics.ssim(image, reference)) == pytest.approx(quality[5:-5, 5:-5].mean(), abs=1e-12)


def test_ssim_of_an_image_with_itself_is_one_and_of_noise_about_zero() -> None:
    reference = images(4, 130, 130)
    assert float(metrics.ssim(reference, reference)) == pytest.approx(1, abs=1e-12)  # rounding
    # Uncorrelated zero-mean noise: the structure term averages about (11 px window: 14 400 / ~ 28 independent windows) 500 values of
    # spread 1 / sqrt(28) = 0.19: standard error 0.0085, four of them 0.034; the mean terms agree because both means are 0 within noise.
    assert abs(float(metrics.ssim(images(5, 130, 130) - 0.5, reference - 0.5))) < 0.034


def test_a_batch_is_scored_one_by_one() -> None:
    image, reference = images(6, 2, 3, 20, 30), images(7, 2, 3, 20, 30)
    for score in (metrics.ssim, metrics.ssim_aligned, metrics.correlation):
        batch = score(image, reference)
        assert batch.shape == (2, 3)
        singles = torch.stack([score(a, b) for a, b in zip(image.flatten(0, 1), reference.flatten(0, 1), strict=True)])
        # Sums over 600 pixels may be taken in another order.
        torch.testing.assert_close(batch.flatten(), singles, rtol=0, atol=1e-13)


@settings(max_examples=30, deadline=None)
@given(
    scale=st.floats(0.01, 100),
    constant=st.floats(-10, 10),
    slopes=st.tuples(st.floats(-10, 10), st.floats(-10, 10)),
    shape=st.tuples(st.integers(11, 40), st.integers(11, 40)),
)
def test_alignment_undoes_scale_constant_and_ramp(
    scale: float, constant: float, slopes: tuple[float, float], shape: tuple[int, int]
) -> None:
    reference = images(8, *shape)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape), indexing="ij")
    image = scale * reference + constant + slopes[0] * y + slopes[1] * x
    # A part scale of at least 0.01 is left of sums up to 30: eps * 30 / 0.01 with a factor of 50 for the sums over 1600 pixels.
    torch.testing.assert_close(metrics.align(image, reference), reference, rtol=0, atol=4e-11)
    assert float(metrics.ssim_aligned(image, reference)) == pytest.approx(1, abs=1e-9)


def test_alignment_is_least_squares() -> None:
    reference = images(9, 33, 21)
    image = 0.3 * reference + images(10, 33, 21)
    y, x = torch.meshgrid(torch.arange(33.0), torch.arange(21.0), indexing="ij")
    columns = np.stack([image.numpy().ravel(), np.ones(33 * 21), y.numpy().ravel(), x.numpy().ravel()], 1)
    fit = columns @ np.linalg.lstsq(columns, reference.numpy().ravel())[0]
    # Condition number about 100 (pixel coordinates up to 33), times eps, times sums of order 10.
    np.testing.assert_allclose(metrics.align(image, reference).numpy().ravel(), fit, atol=1e-12)


def test_alignment_does_not_turn_contrast_round() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 20, dtype=torch.float64), torch.linspace(-1, 1, 30, dtype=torch.float64), indexing="ij")
    bumps = torch.cos(9 * y) * torch.cos(7 * x)
    reference = bumps + 2 + y
    aligned = metrics.align(-bumps, reference)
    # cos(9y) cos(7x) on a symmetric grid is orthogonal to the ramps: what remains is the mean and the ramp y. Rounding of order one.
    torch.testing.assert_close(aligned, bumps.mean() + 2 + y, rtol=0, atol=1e-13)
    torch.testing.assert_close(metrics.align(torch.full_like(reference, 0.1), reference), aligned, rtol=0, atol=1e-13)


def test_type_follows_the_image() -> None:
    image = images(11, 20, 20).float()
    assert metrics.align(image, image).dtype == torch.float32 and metrics.band_limit(image, 1.0, 0.2).dtype == torch.float32


def test_correlation_is_pearsons() -> None:
    image, reference = images(12, 25, 35), images(13, 25, 35)
    expected = np.corrcoef(image.numpy().ravel(), reference.numpy().ravel())[0, 1]
    # 875 terms of order 0.1 over a sum of order 100.
    assert float(metrics.correlation(image, reference)) == pytest.approx(expected, abs=1e-14)
    assert float(metrics.correlation(3 - 2 * reference, reference)) == pytest.approx(-1, abs=1e-13)
    assert float(metrics.correlation(torch.full_like(reference, 0.1), reference)) == 0


def test_a_diverged_image_scores_nan_and_leaves_the_others_alone() -> None:
    reference = images(14, 3, 20, 20)
    image = reference.clone()
    image[1, 3, 4] = math.inf
    for score in (metrics.ssim, metrics.ssim_aligned, metrics.correlation):
        values = score(image, reference)
        assert bool(values[1].isnan())
        torch.testing.assert_close(values[[0, 2]], torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-12)  # rounding


def test_relative_improvement() -> None:
    assert metrics.relative_improvement(0.5, 0.4) == pytest.approx(0.25)  # one rounding
    assert metrics.relative_improvement(torch.tensor([0.5, 0.2]), torch.tensor([0.4, 0.4])).tolist() == pytest.approx([0.25, -0.5])


def test_bootstrap_interval_is_the_normal_one_for_many_values() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(15), dtype=torch.float64)
    low, high = metrics.bootstrap_interval(values, generator=torch.Generator().manual_seed(16))
    error = float(values.std(correction=0)) / 20
    # A 2.5 % quantile of 10 000 normal means has a standard error of sqrt(0.025 * 0.975 / 1e4) / 0.058 = 0.027 of theirs: four times that.
    assert (low - float(values.mean())) / error == pytest.approx(-1.96, abs=0.11)
    assert (high - float(values.mean())) / error == pytest.approx(1.96, abs=0.11)
    again = metrics.bootstrap_interval(values, generator=torch.Generator().manual_seed(16))
    narrow = metrics.bootstrap_interval(values, generator=torch.Generator().manual_seed(16), level=0.5)
    assert again == (low, high) and low < narrow[0] < narrow[1] < high


def test_bootstrap_of_one_value_has_no_width() -> None:
    assert metrics.bootstrap_interval(torch.tensor([0.25]), generator=torch.Generator().manual_seed(0)) == (0.25, 0.25)


@pytest.mark.parametrize("shape", [(65, 64), (130, 65)])
def test_band_limit_keeps_waves_below_and_removes_waves_above(shape: tuple[int, int]) -> None:
    pixel = 0.154
    y = torch.arange(shape[0], dtype=torch.float64)[:, None] / shape[0]
    x = torch.arange(shape[1], dtype=torch.float64)[None, :] / shape[1]
    slow, fast = torch.cos(2 * math.pi * (3 * y + 2 * x)), torch.cos(2 * math.pi * (-20 * y + 9 * x))
    k_slow = math.hypot(3 / shape[0], 2 / shape[1]) / pixel
    k_fast = math.hypot(20 / shape[0], 9 / shape[1]) / pixel
    # Fourier transforms of order-one values: eps times their logarithmic depth.
    torch.testing.assert_close(metrics.band_limit(0.7 + slow + fast, pixel, (k_slow + k_fast) / 2), 0.7 + slow, rtol=0, atol=1e-13)
    torch.testing.assert_close(metrics.band_limit(slow + fast, pixel, k_slow), slow, rtol=0, atol=1e-13)
    # A raised cosine is one half at its middle.
    torch.testing.assert_close(metrics.band_limit(slow, pixel, k_slow, softness=0.5), slow / 2, rtol=0, atol=1e-13)


def test_errors_say_what_was_expected() -> None:
    image = images(17, 20, 20)
    with pytest.raises(ValueError, match=r"expected the reference's shape \(20, 21\), got \(20, 20\)"):
        metrics.ssim(image, images(17, 20, 21))
    with pytest.raises(ValueError, match="at least 11 pixels"):
        metrics.ssim(image[:10], image[:10])
    with pytest.raises(ValueError, match="got a constant"):
        metrics.ssim(image, torch.ones_like(image))
    with pytest.raises(ValueError, match="at least one value"):
        metrics.bootstrap_interval(torch.zeros(0), generator=torch.Generator())
    with pytest.raises(ValueError, match="probability"):
        metrics.bootstrap_interval(torch.zeros(2), generator=torch.Generator(), level=95)
    with pytest.raises(ValueError, match="positive frequency"):
        metrics.band_limit(image, 1.0, 0.0)
    with pytest.raises(ValueError, match="softness"):
        metrics.band_limit(image, 1.0, 0.2, softness=-1)


def masks(seed: int, *shape: int) -> torch.Tensor:
    """A rectangle with holes, different for each image."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[..., 4:-7, 6:-3] = True
    return mask & (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.8)


def test_a_mask_of_everything_changes_nothing() -> None:
    image, reference = images(18, 2, 25, 31), images(19, 2, 25, 31)
    everything = torch.ones(25, 31, dtype=torch.bool)
    for score in (metrics.ssim, metrics.ssim_aligned, metrics.correlation, metrics.align, nrmse):
        assert torch.equal(score(image, reference, mask=everything), score(image, reference))


def test_what_lies_outside_the_mask_does_not_matter() -> None:
    image, reference = images(20, 3, 30, 30), images(21, 3, 30, 30)
    mask = masks(22, 3, 30, 30)
    other = torch.where(mask, image, 5 * images(23, 3, 30, 30))
    for score in (metrics.correlation, nrmse):
        assert torch.equal(score(image, reference, mask=mask), score(other, reference, mask=mask))
        assert not torch.allclose(score(image, reference), score(other, reference))
        # One by one, and with one mask for all. Sums over 400 pixels may be taken in another order.
        for b in range(3):
            torch.testing.assert_close(
                score(image, reference, mask=mask)[b], score(image[b], reference[b], mask=mask[b]), atol=1e-13, rtol=0
            )
        torch.testing.assert_close(score(image, reference, mask=mask[0])[0], score(image, reference, mask=mask)[0], atol=1e-13, rtol=0)


def test_masked_ssim_is_the_mean_of_scikit_images_map() -> None:
    image, reference = images(24, 40, 33), images(25, 40, 33)
    mask = masks(26, 40, 33)
    x, y = image.numpy(), reference.numpy()
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": y.max() - y.min(), "full": True}
    expected = structural_similarity(x, y, **options)[1][5:-5, 5:-5][mask.numpy()[5:-5, 5:-5]].mean()
    # The same arithmetic with the two images swapped: rounding only.
    assert float(metrics.ssim(image, reference, mask=mask)) == pytest.approx(expected, abs=1e-13)
    aligned = metrics.align(image, reference, mask=mask)
    assert float(metrics.ssim_aligned(image, reference, mask=mask)) == float(metrics.ssim(aligned, reference, mask=mask))


def test_masked_alignment_and_error_are_least_squares_on_the_mask() -> None:
    reference = images(27, 33, 21)
    image = 0.3 * reference + images(28, 33, 21)
    mask = masks(29, 33, 21)
    m = mask.numpy().ravel()
    y, x = torch.meshgrid(torch.arange(33.0), torch.arange(21.0), indexing="ij")
    plane = np.stack([np.ones(33 * 21), y.numpy().ravel(), x.numpy().ravel()], 1)
    columns = np.concatenate([image.numpy().ravel()[:, None], plane], 1)
    wanted = reference.numpy().ravel()
    fit = columns @ np.linalg.lstsq(columns[m], wanted[m])[0]
    flat = wanted - plane @ np.linalg.lstsq(plane[m], wanted[m])[0]
    # Condition number about 100 (pixel coordinates up to 33), times eps, times sums of order 10; outside the mask a little further off.
    np.testing.assert_allclose(metrics.align(image, reference, mask=mask).numpy().ravel(), fit, atol=1e-11)
    # scikit-image divides by the rms of its first argument: give it what is left of the reference, and an image that is off by as much.
    expected = normalized_root_mse(flat[m], flat[m] + (fit - wanted)[m])
    assert float(nrmse(image, reference, mask=mask)) == pytest.approx(expected, abs=1e-12)


def test_the_error_is_what_correlation_leaves() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24, dtype=torch.float64), torch.linspace(-1, 1, 30, dtype=torch.float64), indexing="ij")
    reference = torch.cos(9 * y) * torch.cos(7 * x)  # orthogonal to the ramps on this grid
    noise = images(30, 24, 30)
    noise = noise + noise.flip(0) + noise.flip(1) + noise.flip(0, 1)  # and so is anything even
    r = float(metrics.correlation(reference + noise, reference))
    assert 0 < r < 1
    # A copy with another scale and plane has no error (sqrt(eps) where 0 is a difference); contrast the wrong way round knows nothing.
    assert float(nrmse(reference + noise, reference)) == pytest.approx(math.sqrt(1 - r * r), abs=1e-12)
    assert float(nrmse(0.2 * reference - 3 + y - 2 * x, reference)) == pytest.approx(0, abs=1e-7)
    for knows_nothing in (-reference, torch.full_like(reference, 0.3), y):
        assert float(nrmse(knows_nothing, reference)) == pytest.approx(1, abs=1e-12)
    assert math.isnan(float(nrmse(reference, 1 + y)))


def test_the_worst_decile_is_where_the_damage_is() -> None:
    reference = images(31, 50, 50)
    image = reference.clone()
    assert float(worst(image, reference)) == pytest.approx(1, abs=1e-9)  # rounding of an aligned copy
    # 1600 pixels have their window inside; a spoilt 6 x 6 patch touches (6 + 10)^2 = 256 of them, more than a tenth.
    image[20:26, 20:26] = images(32, 6, 6)
    values = [float(worst(image, reference, fraction=f)) for f in (0.02, 0.1, 0.5, 1.0)]
    assert values == sorted(values) and values[1] < 0.9 < values[2]
    # All of it is the plain mean; rounding.
    assert values[3] == pytest.approx(float(metrics.ssim_aligned(image, reference)), abs=1e-12)
    aligned = metrics.align(image, reference).numpy()
    span = float(reference.max() - reference.min())
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": span, "full": True}
    quality = np.sort(structural_similarity(reference.numpy(), aligned, **options)[1][5:-5, 5:-5].ravel())
    assert values[1] == pytest.approx(quality[:160].mean(), abs=1e-12)
    with pytest.raises(ValueError, match="fraction"):
        worst(image, reference, fraction=0)


def test_too_small_a_mask_scores_nan() -> None:
    image, reference = images(33, 2, 20, 20), images(34, 2, 20, 20)
    mask = torch.zeros(2, 20, 20, dtype=torch.bool)
    mask[1, 8:12, 8:12] = True
    for score in (metrics.ssim, metrics.ssim_aligned, metrics.correlation, nrmse):
        values = score(image, reference, mask=mask)
        assert bool(values[0].isnan()) and not bool(values[1].isnan())
    # On a single row the ramp across it is left open: the flattest is taken.
    line = torch.zeros(20, 20, dtype=torch.bool)
    line[10] = True
    assert bool(metrics.align(image, reference, mask=line).isfinite().all())
    with pytest.raises(ValueError, match=r"mask: expected shape \(2, 20, 20\) or \(20, 20\), got \(20, 19\)"):
        metrics.correlation(image, reference, mask=line[:, 1:])


def test_a_diverged_image_has_no_error_and_no_worst_part() -> None:
    reference = images(35, 3, 20, 20)
    image = reference.clone()
    image[1, 3, 4] = math.nan
    for score, perfect in ((nrmse, 0.0), (worst, 1.0)):
        values = score(image, reference)
        assert bool(values[1].isnan())
        # sqrt(eps) where 0 is a difference.
        torch.testing.assert_close(values[[0, 2]], torch.full((2,), perfect, dtype=torch.float64), rtol=0, atol=1e-7)
