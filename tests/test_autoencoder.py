"""The autoencoder: shapes, what preparing an image keeps and removes, and that it learns."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import resize
from torch import Tensor

from adaptycho.scan.networks.autoencoder import Autoencoder, Encoder, loss, prepare


def lattices(count: int, pixels: int, *, generator: torch.Generator) -> Tensor:
    """Triangular lattices of 10 pixels' row distance: any orientation, any place."""
    y, x = torch.meshgrid(*[torch.arange(float(pixels))] * 2, indexing="ij")
    angle = torch.rand(count, 1, 1, generator=generator) * 2 * math.pi
    a, b = (torch.rand(2, count, 1, 1, generator=generator) * 2 * math.pi).unbind()
    images = torch.zeros(count, pixels, pixels)
    for turn, phase in enumerate((a, b, b - a)):
        along = angle + turn * math.pi / 3
        images += torch.cos(2 * math.pi / 10 * (y * along.sin() + x * along.cos()) + phase)
    return images


@pytest.mark.parametrize(("size", "latent"), [(128, (512, 2, 2)), (512, (512, 8, 8))])
def test_the_paper_s_shapes(size: int, latent: tuple[int, int, int]) -> None:
    network = Autoencoder(size=size)
    assert network.latent == network.encoder.latent == latent
    with torch.no_grad():
        z = network.encoder(torch.zeros(1, 2, size, size))
        assert z.shape == (1, *latent)
        assert network.decoder(z).shape == (1, 2, size, size)
    assert [p.shape[0] for n, p in network.encoder.named_parameters() if "weight" in n] == [16, 32, 64, 128, 256, 512]
    assert [p.shape[1] for n, p in network.decoder.named_parameters() if "weight" in n] == [256, 128, 64, 32, 16, 2]
    assert {p.shape[2:] for p in network.parameters() if p.ndim == 4} == {(3, 3)}


@pytest.mark.parametrize(
    ("channels", "size", "message"),
    [
        ((), 64, "channels: expected at least one layer"),
        ((4, 0), 64, r"channels: expected .* got \[4, 0\]"),
        ((4, 4, 4), 60, "size: expected a multiple of 8 pixels for 3 layers, got 60"),
        ((4,), 0, "size: expected a multiple of 2 pixels"),
    ],
)
def test_what_cannot_be_built(channels: tuple[int, ...], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Autoencoder(channels, size)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 90), st.integers(2, 90)),
    scale=st.floats(-30, 30).map(lambda e: 10.0**e),
    constant=st.floats(-100, 100),
    seed=st.integers(0, 1000),
)
def test_property_prepared_images_are_standardised(shape: tuple[int, int, int], scale: float, constant: float, seed: int) -> None:
    """Whatever size, strength and free constant: the same standardised image."""
    phase = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    images = prepare(phase, 64)
    assert images.shape == (len(phase), 2, 64, 64)
    assert torch.equal(images[:, 1], torch.zeros_like(images[:, 1]))
    # Sums of 4096 numbers near 1 in float64.
    assert torch.allclose(images[:, 0].mean((1, 2)), torch.zeros(len(phase), dtype=torch.float64), atol=1e-12)
    assert torch.allclose(images[:, 0].square().mean((1, 2)), torch.ones(len(phase), dtype=torch.float64), rtol=1e-12)
    # A constant up to 100 costs two of sixteen digits, and up to three more where a tiny image happens to be nearly flat.
    assert torch.allclose(prepare((phase + constant) * scale, 64), images, atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [(65, 65), (65, 40), (200, 200)])
def test_interpolation_is_that_of_another_package(size: tuple[int, int], generator: torch.Generator) -> None:
    """Against skimage's cubic splines on smooth images; the two kinds of cubic interpolation differ a little."""
    y, x = torch.meshgrid(torch.arange(size[0]) / size[0], torch.arange(size[1]) / size[1], indexing="ij")
    phase = torch.cos(9 * x + 4 * y) + 0.5 * torch.sin(7 * y)
    other = resize(phase.numpy(), (64, 64), order=3, mode="edge", anti_aliasing=False)
    other = (other - other.mean()) / other.std()
    # Cubic convolution is exact to second order: wrong by less than (k h)^3, h the coarser pixel. A pixel's shift would make k h.
    tolerance = (9 / min(64, *size)) ** 3
    assert np.abs(prepare(phase[None], 64)[0, 0].numpy() - other)[2:-2, 2:-2].max() < tolerance


@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 0.1234567, 1e30, 1e-30])
def test_a_constant_image_is_empty(value: float) -> None:
    assert torch.equal(prepare(torch.full((2, 65, 33), value), 64), torch.zeros(2, 2, 64, 64))


def test_images_do_not_depend_on_their_neighbours(generator: torch.Generator) -> None:
    phase = torch.randn(3, 40, 30, generator=generator)
    phase[1] *= 1e3
    together = prepare(phase, 64)
    for i in range(3):
        # Rounding of sums of 4096 float32 numbers.
        assert torch.allclose(prepare(phase[i : i + 1], 64)[0], together[i], atol=1e-5)


def test_what_diverged_is_finite(generator: torch.Generator) -> None:
    phase = torch.randn(3, 40, 30, generator=generator)
    good = prepare(phase, 64)
    phase[1], phase[2, 3, 4] = torch.nan, torch.inf
    images = prepare(phase, 64)
    assert torch.equal(images[1], torch.zeros(2, 64, 64))
    assert images.isfinite().all()
    assert torch.allclose(images[0], good[0], atol=1e-5)


def test_a_complex_potential_fills_both_channels(generator: torch.Generator) -> None:
    real, imaginary = torch.randn(2, 2, 40, 30, generator=generator)
    images = prepare(torch.complex(real, imaginary), 64)
    # Rounding of sums of 4096 float32 numbers.
    assert torch.allclose(images[:, 0], prepare(real, 64)[:, 0], atol=1e-5)
    assert torch.allclose(images[:, 1], prepare(imaginary, 64)[:, 0], atol=1e-5)


def test_the_loss_is_the_mean_square(generator: torch.Generator) -> None:
    network, images = Autoencoder((4, 8), 16), torch.randn(3, 2, 16, 16, generator=generator)
    by_hand = (network(images) - images).square().sum() / (3 * 2 * 16 * 16)
    assert torch.isclose(loss(network, images), by_hand, rtol=1e-5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    # Unit variance in one channel of two.
    assert float(loss(network, prepare(images[:, 0], 16)).detach()) == pytest.approx(0.5, rel=1e-5)


def test_batch_is_one_by_one(generator: torch.Generator) -> None:
    network, images = Autoencoder((4, 8, 8), 64), torch.randn(3, 2, 64, 64, generator=generator)
    with torch.no_grad():
        for i in range(3):
            # Sums of up to 72 products of order 1 in another order, float32.
            assert torch.allclose(network(images)[i], network(images[i : i + 1])[0], atol=1e-5)


def test_the_encoder_s_latent_depends_on_everything() -> None:
    """Each pixel of both channels reaches the latent, and the last layer is not dead."""
    torch.manual_seed(0)
    images = torch.randn(1, 2, 64, 64, requires_grad=True)
    Encoder((4, 8, 16), 64)(images).square().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).all()


def test_it_learns(generator: torch.Generator) -> None:
    """100 steps on lattices never seen twice: below half of what an empty image has, on new ones too.

    Measured: 0.016, where an empty image has 0.5.
    """
    torch.manual_seed(0)
    network = Autoencoder((8, 16, 32, 32), 64)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(100):
        value = loss(network, prepare(lattices(12, 40, generator=generator), 64))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    with torch.no_grad():
        unseen = loss(network, prepare(lattices(48, 40, generator=generator), 64))
    print(f"loss on unseen lattices: {float(unseen):.3f}")
    assert float(unseen) < 0.25
