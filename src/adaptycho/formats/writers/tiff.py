"""Writes an image as TIFF in single precision, with its pixel size as ImageJ reads it."""

from pathlib import Path

import numpy as np
import tifffile

from adaptycho.support import targets
from adaptycho.support.atomic import whole

NANOMETRE = 10.0  # Å


def write(path: Path, image: np.ndarray, pixel: float, *, overwrite: bool = False) -> None:
    """Writes an image.

    Args:
        path: the file to write.
        image: (y, x), numbers as they are, such as a phase in rad.
        pixel: its pixel in Å; written as pixels for each nm, since TIFF's own units are inches and centimetres.
        overwrite: whether an existing file may be replaced.

    Raises:
        ValueError: it cannot be written, or the name is taken.
    """
    targets.new_file(path, overwrite=overwrite)
    density = NANOMETRE / pixel
    with whole(path, new=not overwrite) as part:
        tifffile.imwrite(
            part, np.asarray(image, np.float32), imagej=True, resolution=(density, density), metadata={"unit": "nm", "axes": "YX"}
        )
