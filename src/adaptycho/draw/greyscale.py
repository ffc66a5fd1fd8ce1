"""A phase as a picture of 16 bits, pixel by pixel, with a scale bar drawn into it: for figures that are to be made elsewhere."""

import math
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from adaptycho.draw.style import STYLE, centred, greys, scale_bar
from adaptycho.support import targets
from adaptycho.support.atomic import whole

DEPTH = 2**16 - 1
SMALLEST = 256  # pixels of the shorter side, so that the bar can be read; smaller images are enlarged by a whole number
LARGEST = 4096  # pixels of the longer side that one is enlarged to
MOST = 2**15  # pixels of a side that are drawn on at all
DPI = 100


def write(path: Path, image: Float[Tensor, "h w"], pixel: float, *, overwrite: bool = False) -> None:
    """Writes a picture (.png), grey from the 0.5th to the 99.5th percentile; these and the pixel are said in its text.

    Args:
        path: the file to write.
        image: phase in rad.
        pixel: of the image in Å.
        overwrite: whether an existing file may be replaced.

    Raises:
        ValueError: it cannot be written, the name is taken, or the image is too large for a picture.
    """
    targets.new_file(path, overwrite=overwrite)
    if max(image.shape) > MOST:
        raise ValueError(f"{path}: expected at most {MOST} pixels a side for a picture, found {max(image.shape)}; a .tif takes more")
    low, high = greys(image)
    grey = DEPTH * ((np.nan_to_num(centred(image), nan=low) - low) / (high - low)).clip(0, 1)
    times = max(1, min(math.ceil(SMALLEST / min(grey.shape)), LARGEST // max(grey.shape)))
    grey = grey.repeat(times, 0).repeat(times, 1)
    height, width = grey.shape
    ink, cover = _bar(grey.shape, (height * pixel / times, width * pixel / times))
    said = PngInfo()
    for key, value in {"pixel_A": pixel / times, "enlarged": times, "black_rad": low, "white_rad": high}.items():
        said.add_text(key, f"{value:.9g}")
    said.add_text("phase", "less its median")
    picture = Image.fromarray(np.rint(grey * (1 - cover) + ink * cover).astype(np.uint16))
    with whole(path, new=not overwrite) as part, part.open("wb") as stream:
        picture.save(stream, format="png", pnginfo=said)


def _bar(shape: tuple[int, ...], size: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The scale bar alone, in grey, and how much of each pixel it covers."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(shape[1] / DPI, shape[0] / DPI), dpi=DPI)
        figure.patch.set_alpha(0)
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set(xlim=(0, size[1]), ylim=(size[0], 0))
        axis.axis("off")
        scale_bar(axis, size)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = np.asarray(canvas.buffer_rgba())[: shape[0], : shape[1]]
    return DEPTH / 255 * drawn[..., 0], drawn[..., 3] / 255
