"""A picture of a scan under way: the reconstruction in grey with the positions so far on it, the newest highlighted."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from adaptycho.draw.style import centred, greys

SIZE = 260  # pixels of the longer side, about
NEW, EARLIER, RIM = (255, 154, 0), (159, 211, 255), (0, 0, 0)


def render(potential: Float[Tensor, "h w"], positions: Float[Tensor, "P 2"], newest: int) -> UInt8[np.ndarray, "H W 3"]:
    """Colours of each pixel, the phase between its 0.5th and 99.5th percentile.

    Args:
        potential: phase in rad inside the scan field.
        positions: where the beam was, fractions (y, x) of the field.
        newest: how many of the last positions are highlighted.
    """
    low, high = greys(potential)
    # Not a number, from a descent that has diverged, is black.
    grey = np.nan_to_num(255 * (centred(potential) - low) / (high - low)).clip(0, 255).astype(np.uint8)
    scale = max(1, round(SIZE / max(grey.shape)))
    picture = np.repeat(grey.repeat(scale, 0).repeat(scale, 1)[:, :, None], 3, 2)
    places = (positions.clamp(0, 1) * torch.tensor(picture.shape[:2])).round().long().numpy()
    first = len(places) - newest
    _dots(picture, places[:first], 2.3, EARLIER)
    _dots(picture, places[first:], 3.6, RIM)
    _dots(picture, places[first:], 2.6, NEW)
    return picture


def _dots(picture: UInt8[np.ndarray, "H W 3"], places: np.ndarray, radius: float, colour: tuple[int, int, int]) -> None:
    """Paints discs, cut off at the edge of the picture."""
    reach = np.arange(-int(radius), int(radius) + 1)
    disc = np.stack(np.meshgrid(reach, reach), -1).reshape(-1, 2)
    disc = disc[(disc**2).sum(1) <= radius**2]
    y, x = (places[:, None] + disc).reshape(-1, 2).T
    inside = (y >= 0) & (y < picture.shape[0]) & (x >= 0) & (x < picture.shape[1])
    picture[y[inside], x[inside]] = colour
