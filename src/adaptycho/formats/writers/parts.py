"""What writers share: patterns a part at a time, what patterns and positions are in Å and mrad, and what a format has no place for."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from adaptycho.formats.recording import Recording, check_recording, together
from adaptycho.physics.optics import Aberrations
from adaptycho.support import targets

ALIKE = 1e-6  # relative: two pixels, or two doses, that differ by less are one


class Left(NamedTuple):
    """What a file does not say.

    Attributes:
        options: of `import`, which say it when the file is read.
        lost: what no option says.
    """

    options: tuple[str, ...]
    lost: tuple[str, ...]


def check(path: Path, recording: Recording, overwrite: bool) -> None:
    """Refuses what cannot be written: the name is taken or none, or the recording makes no sense."""
    targets.new_file(path, overwrite=overwrite)
    check_recording(recording, str(path))


def patterns(recording: Recording, order: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """The patterns a part at a time, each with the number of its first, zero frequency in the centre pixel Q // 2.

    Args:
        recording: of which.
        order: numbers of the patterns (N,) in the order in which they are wanted; as they are without.
    """
    held = recording.measurement.patterns[0]
    size = together(held[0].numel())
    for first in range(0, len(held), size):
        wanted = slice(first, first + size) if order is None else torch.from_numpy(order[first : first + size]).to(held.device)
        yield first, np.fft.fftshift(held[wanted].cpu().numpy(), (-2, -1))


def shape(recording: Recording) -> tuple[int, int, int]:
    """Number of patterns, and their rows and columns."""
    count, rows, columns = recording.measurement.patterns.shape[1:]
    return count, rows, columns


def kind(recording: Recording) -> np.dtype:
    """The number type of the patterns."""
    found: np.dtype = recording.measurement.patterns[0, :0].cpu().numpy().dtype
    return found


def positions(recording: Recording) -> np.ndarray:
    """Where the probe was, (N, 2) as (y, x) in Å in the scan's own axes."""
    where: np.ndarray = recording.measurement.positions[0].cpu().double().numpy() * np.array(recording.setup.field)
    return where


def angles(recording: Recording) -> tuple[float, float]:
    """Angles (y, x) in mrad of a detector pixel."""
    y, x = (1e3 * recording.setup.wavelength * recording.setup.binning * step for step in recording.setup.window.reciprocal_pixel)
    return y, x


def mask(recording: Recording) -> np.ndarray | None:
    """Detector pixels to believe, true or false, zero frequency in the centre; None for all."""
    return None if recording.mask is None else np.fft.fftshift(recording.mask.cpu().numpy().astype(bool))


def probe(recording: Recording) -> np.ndarray | None:
    """A measured probe (N, N), zero position in the centre; None where there is none, or its pixels are not the patterns'."""
    setup = recording.setup
    if setup.measured_probe is None or not measured(recording):
        return None
    found = setup.measured_probe[0] if setup.measured_probe.ndim == 3 else setup.measured_probe
    shifted: np.ndarray = np.fft.fftshift(found.cpu().numpy())
    return shifted


def measured(recording: Recording) -> bool:
    """Whether the detector takes in the window of the probe, pixel by pixel, as other programs have it."""
    return recording.setup.binning == 1 and recording.setup.window.shape == recording.setup.detector


def alike(values: np.ndarray) -> bool:
    """Whether numbers are all the same."""
    return bool(np.ptp(values) <= ALIKE * np.abs(values).max())


def left_out(recording: Recording, kept: frozenset[str]) -> Left:
    """What a file does not say that keeps no more than the named facts besides patterns and positions."""
    setup, measurement = recording.setup, recording.measurement
    dose, defocus = (values[0].cpu().double().numpy() for values in (measurement.dose, measurement.defocus))
    y, x = angles(recording)
    options = {
        "energy": f"--wavelength {setup.wavelength:.9g}" if setup.energy is None else f"--energy {setup.energy / 1e3:.9g}keV",
        "semiangle": f"--semiangle {setup.semiangle:.9g}",
        "detector_pixel": f"--detector-pixel {y:.9g}" + ("" if alike(np.array([y, x])) else f",{x:.9g}"),
        "defocus": f"--defocus {setup.aberrations.defocus:.9g}" if setup.aberrations.defocus else "",
        "rotation": f"--rotation {setup.rotation:.9g}" if setup.rotation else "",
        "dose": f"--dose {dose.mean():.9g}",
        "counts_per_electron": f"--counts-per-electron {recording.counts_per_electron:.9g}" if recording.counts_per_electron != 1 else "",
    }
    lost = {
        "doses": "" if alike(dose) else "the dose of each pattern",
        "defoci": "" if alike(np.append(defocus, setup.aberrations.defocus)) else "the defocus of each pattern",
        "aberrations": "" if setup.aberrations == Aberrations(C10=setup.aberrations.C10) else "aberrations",
        "mask": "the mask" if recording.mask is not None else "",
        "probe": "the measured probe" if setup.measured_probe is not None else "",
        "window": "" if measured(recording) else f"the window of {setup.window.shape} pixels",
    }
    said, unsaid = ({key: text for key, text in each.items() if text and key not in kept} for each in (options, lost))
    return Left(tuple(said.values()), tuple(unsaid.values()))
