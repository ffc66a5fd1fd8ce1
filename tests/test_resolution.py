"""Resolution: ring correlation of half sets with known signal-to-noise, lattices of known finest spot, and noise that has none."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from adaptycho.metrics.image import band_limit
from adaptycho.metrics.rings import FEWEST, ONE_SEVENTH, frc, frc_resolution, half_bit
from adaptycho.metrics.spots import FALSE, diffractogram, diffractogram_resolution, spots

SPACING = 3.16  # Å, of MoS2
PIXEL = 0.308


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def basis(rotation: float, *, a: float = SPACING, b: float = SPACING, angle: float = 60.0) -> torch.Tensor:
    """Reciprocal basis with vectors as long as the hexagonal one's, 60° apart unless told."""
    first, second = math.radians(rotation), math.radians(rotation + angle)
    k, q = 2 / (math.sqrt(3) * a), 2 / (math.sqrt(3) * b)
    return torch.tensor([[k * math.sin(first), k * math.cos(first)], [q * math.sin(second), q * math.cos(second)]], dtype=torch.float64)


def crystal(lattice: torch.Tensor, finest: float, shape: tuple[int, int], pixel: float, *, seed: int = 0) -> torch.Tensor:
    """Waves of amplitude 2 and random phase at every lattice point whose spacing is not below `finest`."""
    y, x = (torch.arange(n, dtype=torch.float64) * pixel for n in shape)
    out = torch.zeros(shape, dtype=torch.float64)
    phases = torch.rand(31, 31, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for h in range(-15, 16):
        for k in range(-15, 16):
            f = h * lattice[0] + k * lattice[1]
            if (h, k) > (0, 0) and float(f.norm()) <= 1.001 / finest:
                out += 2 * torch.cos(2 * math.pi * (f[0] * y[:, None] + f[1] * x + phases[h, k]))
    return out


def shells(a: float = SPACING) -> list[float]:
    """Spacings of a hexagonal lattice's shells, coarse to fine."""
    return [math.sqrt(3) / 2 * a / math.sqrt(n) for n in (1, 3, 4, 7, 9, 12, 13, 16, 19)]


# Fourier ring correlation


def test_frc_is_the_plain_loop() -> None:
    h, w = 20, 27
    image, reference = noise(0, h, w), noise(1, h, w) + 0.3 * noise(0, h, w)

    def spectrum(v: np.ndarray) -> np.ndarray:
        # A Hann window that is zero one pixel outside, and the plane that fits best under it.
        window = np.outer(*(np.sin(math.pi * np.arange(1, n + 1) / (n + 1)) ** 2 for n in (h, w)))
        y, x = np.mgrid[:h, :w]
        planes = np.stack([np.ones(h * w), y.ravel(), x.ravel()], 1)
        root = np.sqrt(window.ravel())
        fit = planes @ np.linalg.lstsq(planes * root[:, None], v.ravel() * root)[0]
        return np.fft.fft2((v - fit.reshape(h, w)) * window)

    f, g = spectrum(image.numpy()), spectrum(reference.numpy())
    expected, power = [], []
    for ring in range(1, 10):
        cross, first, second, number = 0.0, 0.0, 0.0, 0
        for i in range(h):
            for j in range(w):
                k = math.hypot(np.fft.fftfreq(h)[i], np.fft.fftfreq(w)[j]) * min(h, w)
                if ring - 0.5 <= k < ring + 0.5:
                    cross += (f[i, j] * np.conj(g[i, j])).real
                    first, second, number = first + abs(f[i, j]) ** 2, second + abs(g[i, j]) ** 2, number + 1
        expected.append(cross / math.sqrt(first * second))
        power.append(second / number)
    rings = frc(image, reference, 0.5)
    assert rings.frequency.tolist() == pytest.approx([r / (20 * 0.5) for r in range(1, 10)])
    # Sums of order 10 to 100 over 60 pixels.
    assert rings.correlation.tolist() == pytest.approx(expected, abs=1e-12)
    assert rings.power.tolist() == pytest.approx(power, rel=1e-12)


@pytest.mark.parametrize("shape", [(64, 64), (65, 48)])
def test_unrelated_images_scatter_as_the_number_of_coefficients_says(shape: tuple[int, int]) -> None:
    n = 400
    rings = frc(noise(2, n, *shape), noise(3, n, *shape), 1.0)
    asked = rings.count >= FEWEST
    assert int(asked.sum()) > 15
    spread = rings.correlation.square().mean(0) * 2 * rings.count
    # The mean of n squared normal numbers scatters by sqrt(2 / n) = 0.071: four times that. Independence of the mean: 1 / sqrt(n).
    torch.testing.assert_close(spread[asked], torch.ones_like(spread[asked]), rtol=0, atol=4 * math.sqrt(2 / n))
    means = rings.correlation.mean(0) * (2 * rings.count).sqrt()
    assert float(means[asked].abs().max()) < 4 / math.sqrt(n)


@pytest.mark.parametrize("snr", [0.2, 1.0, 5.0])
def test_two_halves_correlate_as_their_signal_to_noise_says(snr: float) -> None:
    n = 200
    signal = noise(4, n, 64, 64)
    first, second = (signal + noise(seed, n, 64, 64) / math.sqrt(snr) for seed in (5, 6))
    rings = frc(first, second, 1.0)
    expected = snr / (snr + 1)
    asked = rings.count >= 8
    # A correlation of m = 2 count real numbers scatters by (1 - c^2) / sqrt(m) and is too small by c (1 - c^2) / (2 m).
    m = 2 * rings.count[asked]
    error = (1 - expected**2) / m.sqrt() / math.sqrt(n)
    bias = expected * (1 - expected**2) / (2 * m)
    assert bool(((rings.correlation.mean(0)[asked] - expected + bias).abs() < 4 * error).all())


def test_resolution_is_where_the_curve_crosses_the_threshold() -> None:
    # Signal with the power exp(-(k/q)^2), noise of power 1/50: c = s / (s + 1) with s = 50 exp(-(k/q)^2), 1/7 at s = 1/6.
    n, size, q = 40, 128, 0.12
    ky, kx = torch.fft.fftfreq(size, dtype=torch.float64)[:, None], torch.fft.fftfreq(size, dtype=torch.float64)
    amplitude = torch.exp(-(ky**2 + kx**2) / (2 * q**2))
    signal = torch.fft.ifft2(torch.fft.fft2(noise(7, n, size, size)) * amplitude).real
    first, second = (signal + noise(seed, n, size, size) / math.sqrt(50) for seed in (8, 9))
    found = frc_resolution(first, second, 0.2, threshold="one-seventh")
    expected = 0.2 / (q * math.sqrt(math.log(6 * 50)))
    # Rings there hold 38 coefficients, so that the curve scatters by 0.11 and crosses early rather than late; it falls by that in two rings
    # of 1/128. Early by less than four rings of 37, on the mean.
    assert float(found.mean()) == pytest.approx(expected, rel=4 / 37)
    # Half a bit asks for s = 0.2071 and more in rings of few coefficients: coarser in nearly every image, in all on the mean.
    coarser = frc_resolution(first, second, 0.2)
    assert float(coarser.mean()) > float(found.mean()) and bool((coarser >= found - 1e-12).all())


@pytest.mark.parametrize("cutoff", [0.3, 0.6, 1.1])
def test_a_blurred_image_is_resolved_to_its_cutoff(cutoff: float) -> None:
    sharp = noise(10, 8, 128, 128)
    blurred = band_limit(sharp, PIXEL, cutoff)[:, :80, :90] + 0.01 * noise(11, 8, 80, 90)
    found = 1 / frc_resolution(blurred, sharp[:, :80, :90], PIXEL)
    # The window spreads the edge over two rings of 1 / 80 px to either side.
    torch.testing.assert_close(found, torch.full_like(found, cutoff), rtol=0, atol=2 / (80 * PIXEL))


def test_ring_correlation_of_a_crystal_is_not_asked_for_between_its_spots() -> None:
    perfect = crystal(basis(17.0), shells()[8], (65, 65), PIXEL)
    finest = shells()[3]
    image = crystal(basis(17.0), finest, (65, 65), PIXEL) + 0.5 * noise(12, 65, 65)
    # The next shell is at 0.91 Å; spots are two elements, 0.1 Å⁻¹, in radius.
    assert 1 / finest < 1 / float(frc_resolution(image, perfect, PIXEL)) < 1 / shells()[4]


def test_limits_of_the_ring_correlation() -> None:
    image = noise(13, 3, 40, 50)
    other = noise(14, 3, 40, 50)
    # Nothing below the threshold: Nyquist. Everything below: the first ring of four coefficients.
    assert frc_resolution(image, 3 * image + 1, 0.4).tolist() == pytest.approx([0.8] * 3)
    rings = frc(image, other, 0.4)
    first = float(rings.frequency[rings.count >= FEWEST][0])
    assert frc_resolution(image, -image, 0.4).tolist() == pytest.approx([1 / first] * 3)
    assert float(frc_resolution(torch.ones(40, 50), image[0], 0.4)) == pytest.approx(1 / first)
    # A ramp that both share is not likeness. Rounding of values of order 100.
    y = torch.linspace(0, 100, 40, dtype=torch.float64)[:, None]
    torch.testing.assert_close(frc(image + y, other + y, 0.4).correlation, rings.correlation, rtol=0, atol=1e-11)
    image[1, 0, 0] = math.nan
    assert frc_resolution(image, other, 0.4).isnan().tolist() == [False, True, False]
    # One coefficient cannot tell; with very many, half a bit is a signal-to-noise ratio of (sqrt(2) - 1) / 2 in each half, 0.2071.
    assert half_bit(torch.tensor([1.0, 1e16], dtype=torch.float64)).tolist() == pytest.approx([1.0, 0.2071 / 1.2071])
    assert pytest.approx(0.142857, abs=1e-6) == ONE_SEVENTH


# Diffractograms


@pytest.mark.parametrize("shape", [(65, 65), (64, 80), (130, 40)])
def test_a_wave_is_a_spot_at_its_frequency(shape: tuple[int, int]) -> None:
    wave = torch.tensor([0.41, -0.87], dtype=torch.float64)
    y, x = (torch.arange(n, dtype=torch.float64) * PIXEL for n in shape)
    image = 3 + 0.2 * y[:, None] + torch.cos(2 * math.pi * (wave[0] * y[:, None] + wave[1] * x) + 1)
    power, (dy, dx) = diffractogram(image, PIXEL)
    assert power.shape == (2 * shape[0], 2 * shape[1]) and (dy, dx) == (1 / (2 * shape[0] * PIXEL), 1 / (2 * shape[1] * PIXEL))
    top = (power == power.max()).nonzero()[0]
    place = torch.stack([(top[0] - shape[0]) * dy, (top[1] - shape[1]) * dx])
    place = place * torch.sign(place[0])
    assert bool(((place - wave).abs() <= torch.tensor([dy, dx]) / 2).all())
    # A point of a real image's spectrum and the one opposite are equal.
    torch.testing.assert_close(power[1:, 1:], power[1:, 1:].flip(0, 1), rtol=1e-9, atol=float(power.max()) * 1e-13)
    # Stripes are no lattice; they count by themselves. The parabola through three pixels of a Hann peak is good to a tenth of a pixel.
    found = spots(image + 0.1 * noise(15, *shape), PIXEL)
    assert found.lattice is None and found.finest.tolist() == [True]
    assert bool(((found.frequencies[0] - wave).abs() < 0.1 * torch.tensor([dy, dx])).all())
    assert found.resolution == float(found.d[0]) == pytest.approx(1 / float(wave.norm()), rel=0.01)


@pytest.mark.parametrize(("shape", "pixel"), [((65, 65), 0.308), ((130, 130), 0.154), ((65, 90), 0.308)])
@pytest.mark.parametrize("last", [1, 3, 5, 7])
def test_a_lattice_is_resolved_to_its_last_shell(shape: tuple[int, int], pixel: float, last: int) -> None:
    finest = shells()[last]
    for rotation in (0.0, 7.0, 23.0):
        truth = basis(rotation)
        # A spot has the power (A/2 sum w)^2, noise sigma^2 sum w^2: at A = 2 and sigma = 8 on 65 x 65 pixels a ratio of 65^2 / 64 / 2.25 or
        # 29; the threshold is about 5. Seen through that noise |k| is off by some hundredths of an element of 1 / 20 Å⁻¹.
        image = crystal(truth, finest, shape, pixel, seed=last) + 8 * math.sqrt(shape[0] * shape[1] / 65**2) * noise(40 + last, *shape)
        for lattice in (None, truth):
            found = spots(image, pixel, lattice=lattice)
            assert found.resolution == pytest.approx(finest, rel=0.01)
            assert bool((found.d.diff() <= 1e-12).all())
            torch.testing.assert_close(found.d, 1 / found.frequencies.norm(dim=1))
            # Shells are further apart than a ring is wide.
            assert int(found.finest.sum()) >= 2
            assert bool(((found.d[found.finest] - finest).abs() < 0.02 * finest).all())
            # Every spot is a node of the lattice: its indices are whole numbers, to some hundredths of the distance between spots.
            indices = found.frequencies @ torch.linalg.inv(truth)
            assert float((indices - indices.round()).abs().max()) < (0.15 if lattice is None else 1e-9)
        assert float(diffractogram_resolution(image, pixel)) == spots(image, pixel).resolution


@pytest.mark.parametrize(("a", "b", "angle"), [(2.46, 2.46, 60.0), (3.3, 2.6, 90.0), (2.6, 3.4, 78.0), (4.2, 4.2, 90.0), (3.9, 2.4, 71.0)])
def test_any_lattice_is_found_in_any_orientation(a: float, b: float, angle: float) -> None:
    for rotation in (3.0, 40.0, 100.0):
        truth = basis(rotation, a=a, b=b, angle=angle)
        image = crystal(truth, 0.9, (65, 65), PIXEL, seed=int(rotation)) + 4 * noise(int(rotation), 65, 65)
        found = spots(image, PIXEL).lattice
        assert found is not None
        # The same lattice: the basis in terms of the other is a matrix of whole numbers with determinant one.
        change = found @ torch.linalg.inv(truth)
        assert float((change - change.round()).abs().max()) < 0.05
        assert abs(abs(float(torch.linalg.det(change))) - 1) < 0.05


def _islands(n: int, seed: int) -> torch.Tensor:
    """Flat polygons and half planes with sharp or soft edges, and a little noise: streaks, but no spots."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:65, :65] - 32.0
    images = []
    for sides in random.choice([1, 2, 3, 4, 6], n):
        turn, size, (cy, cx) = random.uniform(0, 2 * math.pi), random.uniform(12, 26), random.uniform(-10, 10, 2)
        angles = turn + 2 * math.pi * np.arange(sides) / sides
        inside = np.min([size - (y - cy) * math.sin(t) - (x - cx) * math.cos(t) for t in angles], 0)
        images.append(
            1 / (1 + np.exp(-inside / random.choice([0.3, 1.0, 2.0]))) + random.choice([0.02, 0.1]) * random.standard_normal((65, 65))
        )
    return torch.from_numpy(np.stack(images))


@pytest.mark.parametrize("kind", ["white", "oblong", "probe", "smooth", "islands"])
def test_noise_and_islands_have_no_resolution(kind: str) -> None:
    n = 100
    if kind == "islands":
        images = _islands(n, 5)
    else:
        width = {"white": 0.0, "oblong": 0.0, "probe": 1.0, "smooth": 2.5}[kind]
        images = torch.from_numpy(ndimage.gaussian_filter(noise(16, n, 65, 100 if kind == "oblong" else 65).numpy(), (0, width, width)))
    coarsest = 65 * PIXEL / 3.5
    blind = diffractogram_resolution(images, PIXEL)
    given = torch.cat([diffractogram_resolution(images[i::5], PIXEL, lattice=basis(12.0 * i)) for i in range(5)])
    # Promised is one in a hundred (three, of islands with a lattice they do not have); four standard errors of that many among n more.
    for found, promised in ((blind, FALSE), (given, 3 * FALSE if kind == "islands" else FALSE)):
        assert int((found < coarsest - 1e-9).sum()) <= n * promised + 4 * math.sqrt(n * promised)
        assert bool((found <= coarsest + 1e-9).all())


def test_a_faint_beat_does_not_make_the_lattice_denser() -> None:
    truth = basis(11.0)
    # Spots half-way between the lattice's, a tenth as bright in amplitude, as where a scan's grid beats with a crystal.
    image = crystal(truth, 1.0, (65, 65), PIXEL) + 0.1 * crystal(truth / 2, 1.0, (65, 65), PIXEL) + 0.5 * noise(17, 65, 65)
    found = spots(image, PIXEL).lattice
    assert found is not None
    assert found.norm(dim=1).tolist() == pytest.approx([1 / shells()[0]] * 2, rel=0.02)


def test_one_spot_of_a_ring_is_not_enough() -> None:
    truth = basis(5.0)
    y, x = torch.arange(65, dtype=torch.float64)[:, None] * PIXEL, torch.arange(65, dtype=torch.float64) * PIXEL
    lone = 3 * truth[0]
    image = crystal(truth, shells()[2], (65, 65), PIXEL) + 2 * torch.cos(2 * math.pi * (lone[0] * y + lone[1] * x)) + 4 * noise(18, 65, 65)
    found = spots(image, PIXEL, lattice=truth)
    assert found.resolution == pytest.approx(shells()[2], rel=1e-6)
    # It is listed all the same.
    assert float(found.d.min()) == pytest.approx(shells()[4], rel=1e-6) and not bool(found.finest[found.d < 1].any())


def test_batches_failures_and_the_coarsest_value() -> None:
    truth = basis(20.0)
    good = crystal(truth, shells()[3], (65, 70), PIXEL) + 4 * noise(19, 65, 70)
    images = torch.stack([good, noise(20, 65, 70), torch.full((65, 70), 0.3, dtype=torch.float64), good]).reshape(2, 2, 65, 70)
    images[1, 1, 7, 8] = math.nan
    for lattice in (None, truth):
        found = diffractogram_resolution(images.float(), PIXEL, lattice=lattice, coarsest=9.0)
        assert found.shape == (2, 2) and found.dtype == torch.float64
        assert found.flatten().tolist() == pytest.approx([shells()[3], 9.0, 9.0, math.nan], rel=0.01, nan_ok=True)
        one = spots(images[1, 1], PIXEL, lattice=lattice)
        assert len(one.d) == 0 and math.isnan(one.resolution)
    assert float(diffractogram_resolution(images[1, 0], PIXEL)) == pytest.approx(65 * PIXEL / 3.5)
    # What the constant and a steep ramp add is taken away before the window. The plane is removed to rounding, 1e-13 of the ramp.
    ramp = 50 * torch.linspace(-1, 1, 70, dtype=torch.float64)
    assert spots(good + ramp, PIXEL).resolution == pytest.approx(spots(good, PIXEL).resolution, rel=1e-6)
    assert diffractogram_resolution(images[:0], PIXEL).shape == (0, 2)
    # The smallest images have room for a handful of peaks or none.
    for shape in ((11, 11), (12, 40), (65, 11)):
        for lattice in (None, truth):
            found = diffractogram_resolution(noise(22, 5, *shape), PIXEL, lattice=lattice)
            assert bool((found <= min(shape) * PIXEL / 3.5 + 1e-9).all()) and bool((found >= 2 * PIXEL).all())


def test_errors_say_what_was_expected() -> None:
    image = noise(21, 20, 20)
    with pytest.raises(ValueError, match=r"reference's shape \(20, 19\), got \(20, 20\)"):
        frc(image, image[:, 1:], 1.0)
    with pytest.raises(ValueError, match="at least 11 pixels"):
        diffractogram(image[:10], 1.0)
    with pytest.raises(ValueError, match="pixel: expected a positive length"):
        diffractogram_resolution(image, 0.0)
    with pytest.raises(ValueError, match="two independent rows"):
        spots(image, 1.0, lattice=torch.tensor([[0.1, 0.2], [0.2, 0.4]]))
