"""Pictures for the page, a pixel for each pixel of the arrays: the page enlarges them and draws positions and scale bar on top."""

import io
from typing import Literal

import matplotlib
import numpy as np
from PIL import Image

from adaptycho.draw.style import centred, greys
from adaptycho.physics.exposure import in_field, local_dose
from adaptycho.runs.monitor.frames import exposure_of, read_phase
from adaptycho.runs.monitor.watch import Watch

Kind = Literal["phase", "dose"]
ABOVE = (213, 94, 0)  # where the limit of the dose is exceeded
WIDEST = 1024  # pixels along a side


def picture(watch: Watch, kind: Kind, specimen: int, number: int) -> tuple[bytes, float, float]:
    """A picture as PNG, and the values at both ends of its scale: phase in rad less its median, or electrons per Å².

    Args:
        watch: the run.
        kind: what to show.
        specimen: of which specimen, from 0.
        number: after which sub-sequence, from 0.

    Raises:
        ValueError: the file is damaged.
    """
    if kind == "phase":
        phase = read_phase(watch.run, number)[specimen]
        low, high = greys(phase)
        levels = np.nan_to_num((centred(phase) - low) / (high - low)).clip(0, 1)
        return _png((255 * levels).round().astype(np.uint8)), low, high
    setup = watch.run.setup
    spread = in_field(setup, local_dose(setup, exposure_of(watch.frames[: number + 1], specimen)))[0].numpy().clip(0)
    high = max(float(spread.max()), watch.limit or 0.0) or 1.0
    colours = (255 * matplotlib.colormaps["cividis"](spread / high)[..., :3]).round().astype(np.uint8)
    if watch.limit is not None:
        colours[spread > watch.limit] = ABOVE
    return _png(colours), 0.0, high


def _png(values: np.ndarray) -> bytes:
    step = -(-max(values.shape[:2]) // WIDEST)
    file = io.BytesIO()
    Image.fromarray(values[::step, ::step]).save(file, format="png", compress_level=1)
    return file.getvalue()
