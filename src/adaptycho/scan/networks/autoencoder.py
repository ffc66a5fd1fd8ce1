"""Compresses a reconstruction to the few numbers a recurrent policy can take in: a convolutional autoencoder (appendix A).

Images are standardised before they are compressed, so the latent tells what the structure looks like and neither how strong it is nor
where its free constant lies. Only the encoder is used once both are trained.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

CHANNELS = (16, 32, 64, 128, 256, 512)  # Table II
FLAT = 1e-5  # of its largest value: an image that varies less is constant up to rounding
SLOPE = 0.1  # of the leaky ReLU where it is negative


class Encoder(nn.Module):
    """Image to latent (A1): each layer is a 3 x 3 convolution of stride 2, which halves the image, and a leaky ReLU.

    Table II gives stride 1, appendix A says that every layer halves the image: both hold for a convolution of stride 1 with 2 x 2 pooling.
    The pooling taken here keeps the first pixel of each four, which makes it a convolution of stride 2, because that one learns: after 200
    steps on lattices its loss was a tenth of an empty image's, with the maximum or the mean still nine tenths. It is also three times as
    fast.

    Args:
        channels: output channels of each layer.
        size: pixels along each side of the images; a multiple of 2 to the number of layers. The paper has 512, `light` 128.

    Raises:
        ValueError: no layers, a layer without channels, or a size that cannot be halved that often.
    """

    def __init__(self, channels: Sequence[int] = CHANNELS, size: int = 128) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ValueError(f"channels: expected at least one layer of at least one channel, got {list(channels)}")
        if size < 1 or size % 2 ** len(channels):
            raise ValueError(f"size: expected a multiple of {2 ** len(channels)} pixels for {len(channels)} layers, got {size}")
        self.channels, self.size = tuple(channels), size
        layers: list[nn.Module] = []
        for before, after in zip((2, *channels), channels, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers)

    @property
    def latent(self) -> tuple[int, int, int]:
        """Shape of one image's latent: channels, pixels down, pixels across."""
        side = self.size // 2 ** len(self.channels)
        return self.channels[-1], side, side

    def forward(self, images: Float[Tensor, "B 2 n n"]) -> Float[Tensor, "B c m m"]:
        """Latent of images as `prepare` makes them."""
        # With channels innermost in memory, a CPU takes a third of the time.
        return self.layers(images.contiguous(memory_format=torch.channels_last)).contiguous()


class Autoencoder(nn.Module):
    """Encoder and decoder; the decoder's layers are transposed 3 x 3 convolutions that each double the image (A2).

    Args:
        channels: output channels of the encoder's layers; the decoder's are these backwards, the last with the two of the image.
        size: pixels along each side of the images, as for `Encoder`.
    """

    def __init__(self, channels: Sequence[int] = CHANNELS, size: int = 128) -> None:
        super().__init__()
        self.encoder = Encoder(channels, size)
        backwards = tuple(channels)[::-1]
        layers: list[nn.Module] = []
        for before, after in zip(backwards, (*backwards[1:], 2), strict=True):
            layers += [nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1), nn.LeakyReLU(SLOPE)]
        self.decoder = nn.Sequential(*layers[:-1])  # the image itself takes either sign

    @property
    def latent(self) -> tuple[int, int, int]:
        """Shape of one image's latent: channels, pixels down, pixels across."""
        return self.encoder.latent

    def forward(self, images: Float[Tensor, "B 2 n n"]) -> Float[Tensor, "B 2 n n"]:
        """Images as they look after compression."""
        return self.decoder(self.encoder(images))


def prepare(potential: Shaped[Tensor, "B h w"], size: int) -> Float[Tensor, "B 2 n n"]:
    """Images for the encoder: real and imaginary part, interpolated to `size` x `size`, each of zero mean and unit variance.

    Args:
        potential: real (its imaginary part is zero) or complex, any unit and size. It is stretched to a square if it is not one.
        size: pixels along each side of the result.

    Returns:
        Images in the potential's real dtype. A constant one is all zeros; pixels that are not finite, as a diverged reconstruction may
        have, count as zero.
    """
    parts = torch.view_as_real(potential).movedim(-1, 1) if potential.is_complex() else potential[:, None]
    parts = parts.nan_to_num(0.0, 0.0, 0.0)
    # Largest value 1: squares neither overflow nor vanish, and FLAT can be told from rounding.
    parts = parts / parts.abs().amax((-2, -1), keepdim=True).clamp(min=torch.finfo(parts.dtype).tiny)
    parts = F.interpolate(parts, size=(size, size), mode="bicubic", antialias=True)
    parts = parts - parts.mean((-2, -1), keepdim=True)
    spread = parts.square().mean((-2, -1), keepdim=True).sqrt()
    images = torch.where(spread > FLAT, parts / spread.clamp(min=FLAT), 0.0)
    return images if potential.is_complex() else torch.cat([images, torch.zeros_like(images)], 1)


def loss(network: Autoencoder, images: Float[Tensor, "B 2 n n"]) -> Float[Tensor, ""]:
    """Squared difference between images and what is left of them (A3), as a mean over pixels, channels and images.

    A3 is the sum of one image; the mean is the same up to the step size and comparable between sizes. A network that puts out zeros has
    1/2 on real potentials: the first channel has unit variance and the second is zero.
    """
    return F.mse_loss(network(images), images)
