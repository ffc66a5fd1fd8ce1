"""The TOML file that describes an instrument, which `scan.file` names, and how images of its camera become patterns.

Fields of the classes are the keys of the file.
"""

import json
import math
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from adaptycho.physics.optics import Setup
from adaptycho.support import document
from adaptycho.support.reading import reading, regular
from adaptycho.types import Action

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid")
LARGEST = 30_000  # bytes of a file that describes an instrument
CHARGE = 1.602176634e-19  # of an electron, in C
CLOSE = 0.02  # relative: a calibration of the instrument and the settings agree

Real = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[Real, Field(gt=0, le=1e4)]


@checked(frozen=True, config=STRICT, kw_only=True)
class Frames:
    """How camera frames become patterns.

    Attributes:
        exposure: seconds for each position.
        counts_per_electron: counts that one electron makes in the camera.
        centre: pixel (row, column) of the unscattered beam; the middle of the frame if not given.
        rotation: degrees, counter-clockwise, that turn detector (row, column) into scan (row, column).
        saturation: counts from which on a pixel counts no more; a frame that has as many is refused. Never if not given.
    """

    exposure: Seconds
    counts_per_electron: Annotated[Real, Field(gt=0, le=1e9)] = 1.0
    centre: tuple[int, int] | None = None
    rotation: Annotated[Real, Field(ge=-360, le=360)] = 0.0
    saturation: Annotated[Real, Field(gt=0, le=1e12)] | None = None

    def electrons(self, current: float) -> float:
        """Electrons sent to each position by a beam current in pA."""
        return current * 1e-12 * self.exposure / CHARGE

    def cut(self, frame: np.ndarray, setup: Setup, source: str) -> np.ndarray:
        """The detector of the settings cut out round the unscattered beam, which goes from the centre to the corner pixel.

        Args:
            frame: counts, (H, W).
            setup: of the scan.
            source: opens the sentence of an error.

        Raises:
            ValueError: the frame is no image, too small, or holds what is no count.
        """
        if frame.ndim != 2:
            raise ValueError(f"{source}: expected frames of two dimensions, found {frame.shape}")
        row, column = self.centre or (frame.shape[0] // 2, frame.shape[1] // 2)
        (height, width), top, left = setup.detector, row - setup.detector[0] // 2, column - setup.detector[1] // 2
        if top < 0 or left < 0 or top + height > frame.shape[0] or left + width > frame.shape[1]:
            raise ValueError(
                f"{source}: expected frames that hold {height} x {width} pixels round pixel ({row}, {column}), "
                f"found frames of {frame.shape[0]} x {frame.shape[1]}"
            )
        part = frame[top : top + height, left : left + width].astype(np.float32)
        if not np.isfinite(part).all() or part.min() < 0:
            raise ValueError(f"{source}: expected counts from 0 on, found {'negative' if np.isfinite(part).all() else 'infinite'} ones")
        return np.fft.ifftshift(part)


@dataclass(frozen=True)
class Tally:
    """What an instrument did so far. `a + b` adds up.

    Attributes:
        positions: patterns that were handed over.
        verified: of which it was seen that they were taken where the beam was sent.
        misplaced: exposures thrown away since the beam was found elsewhere after them.
        stale: frames thrown away that were delivered after a move and had ended before it.
        mixed: frames thrown away that may have begun before the beam had arrived, and ended after.
        move: seconds spent on moving the beam.
        expose: seconds spent on waiting for frames.
    """

    positions: int = 0
    verified: int = 0
    misplaced: int = 0
    stale: int = 0
    mixed: int = 0
    move: float = 0.0
    expose: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


def read(file: str | None, kind: type[T]) -> T:
    """What a file says of an instrument.

    Args:
        file: what the setting `scan.file` names.
        kind: a class with the file's keys as fields.

    Raises:
        ValueError: there is none, it is not TOML, or it holds something that is not a key or not allowed.
    """
    if file is None:
        raise ValueError("scan.file: expected a TOML file that describes the instrument, found none")
    path, what = Path(file), "a description of the instrument in TOML"
    regular(path, what)
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path}: expected at most {LARGEST} bytes, found {size}")
    with reading(path, what):
        tree = json.dumps(tomllib.loads(path.read_text(encoding="utf-8")))
    return document.parse(tree, kind, str(path))


def check_fixed(action: Action, setup: Setup, dose: float) -> None:
    """Refuses a request for another defocus or dose than the instrument has.

    Args:
        action: the request.
        setup: of the scan.
        dose: electrons that each position gets.

    Raises:
        ValueError: it asks for one.
    """
    if action.defocus is not None and not math.isclose(action.defocus, setup.aberrations.defocus, abs_tol=1e-3):
        raise ValueError(f"action.defocus: expected the instrument's {setup.aberrations.defocus:g} Å, found {action.defocus:g}")
    if action.dose is not None and not bool(torch.isclose(torch.as_tensor(action.dose).double(), torch.tensor(dose).double()).all()):
        raise ValueError(f"action.dose: expected the instrument's {dose:g} electrons, found another")
