"""What may still be said of a recording whose file says everything: which detector pixels not to believe."""

import dataclasses
import math
import warnings
from pathlib import Path

import numpy as np
import torch

from adaptycho.formats import beside, pixels
from adaptycho.formats.given import Doubt, Given
from adaptycho.formats.recording import Recording, together


def amended(recording: Recording, given: Given, path: Path, known: str) -> Recording:
    """The recording with what is given.

    Args:
        recording: as it was read.
        given: a mask, or nothing.
        path: of the file, to open sentences with.
        known: name of its format.

    Raises:
        ValueError: other options are given, which would go unheard, or the mask is none.
    """
    others = {key: value for key, value in given.typed().items() if key != "mask"}
    if others:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in others)
        expected = f"expected to be left out, since these facts come from the file, which is in the format {known}"
        raise ValueError(f"{path}: {flags}: {expected}, found {', '.join(map(str, others.values()))}")
    if given.mask is None:
        return recording
    setup, patterns = recording.setup, recording.measurement.patterns[0]
    if isinstance(given.mask, str) and given.mask == "auto":
        parts = (torch.fft.fftshift(part, (-2, -1)).numpy(force=True) for part in patterns.split(together(math.prod(setup.detector))))
        found = pixels.faults(pixels.moments(parts, setup.detector))
        if not (text := found.said()):
            return recording
        warnings.warn(f"{path}: mask: {text} detector pixels are left out of account", Doubt, stacklevel=2)
        believed = ~found.any
    else:
        believed = beside.mask(given.mask, setup.detector, str(path))
    mask = torch.from_numpy(np.fft.ifftshift(believed))
    mask = mask if setup.mask is None else mask & setup.mask.bool()
    kept = torch.where(mask, patterns, torch.zeros((), dtype=patterns.dtype))[None]
    return dataclasses.replace(
        recording,
        setup=dataclasses.replace(setup, mask=mask),
        measurement=dataclasses.replace(recording.measurement, patterns=kept),
    )
