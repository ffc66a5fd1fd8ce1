"""Figures without rasterising them, which would take longer than all else: the picture's first pixels say what would be drawn."""

import hashlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import AxesImage


def undrawn() -> None:
    """From now on figures of this process are not rasterised."""
    Figure.draw = _draw  # type: ignore[method-assign]


def _draw(figure: Figure, renderer: Any) -> None:
    pixels = np.asarray(renderer.buffer_rgba())
    mark = np.frombuffer(_digest(figure), np.uint8)
    pixels[:] = 255
    # Reports keep 32 levels of a colour.
    pixels[0, : len(mark), :3] = (mark[:, None] & 15) * 16


def _digest(figure: Any) -> bytes:
    digest = hashlib.sha256()
    for artist in figure.findobj():
        if hasattr(artist, "get_text"):
            digest.update(str(artist.get_text()).encode(errors="backslashreplace"))
        elif hasattr(artist, "get_xydata"):
            digest.update(np.asarray(artist.get_xydata(), np.float32).tobytes())
        elif isinstance(artist, AxesImage):
            digest.update(np.ma.getdata(artist.get_array()).tobytes())
    return digest.digest()
