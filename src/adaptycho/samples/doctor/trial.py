"""Short reconstructions of the middle of a scan: which of several geometries explains the patterns best."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from adaptycho.formats.recording import Recording
from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Aberrations, Setup, object_grid
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.samples.doctor.linear import Orientation
from adaptycho.types import Measurement

PIXELS = 1 << 21  # of all the patterns together that are reconstructed: seconds
FEWEST = 16  # patterns that are
ITERATIONS = 20


@dataclass(frozen=True, eq=False)
class Trial:
    """What became of a geometry.

    Attributes:
        way: it was tried with.
        loss: per position after the last iteration.
        phase: in rad, inside the part of the field, in the scan's orientation.
        part: what it was made from.
        potential: on the object grid.
    """

    way: Orientation
    loss: float
    phase: Float[Tensor, "h w"]
    part: Recording
    potential: Float[Tensor, "1 H W"]


def posed(recording: Recording, way: Orientation, *, shift: tuple[int, int] = (0, 0), detector_pixel: float | None = None) -> Recording:
    """The recording with another geometry.

    Astigmatism is taken over where the probe is calculated. A measured probe goes with the defocus, and is left out where the detector's
    axes, centre or pixel change: it was measured in their frame.

    Args:
        recording: as it was read.
        way: the new defocus, rotation, and whether the detector's rows and columns are exchanged.
        shift: pixels (y, x) that the patterns are moved by; what leaves on one side is nothing on the other.
        detector_pixel: in mrad, if another one.
    """
    setup, data = recording.setup, recording.measurement
    patterns = _moved(data.patterns, shift)
    detector, shape = setup.detector, setup.window.shape
    probe, mask = setup.measured_probe, setup.mask
    if shift != (0, 0):
        mask = _moved(torch.ones(detector) if mask is None else mask, shift)  # what moved in from outside was not measured
    if way.mirrored:
        mask = None if mask is None else mask.T.contiguous()
        patterns, detector, shape = patterns.transpose(-2, -1).contiguous(), detector[::-1], shape[::-1]
    if way.mirrored or shift != (0, 0) or detector_pixel is not None:
        probe = None
    pixel = setup.window.pixel * (setup.detector_pixel / detector_pixel if detector_pixel else 1.0)
    window = Grid((shape[0], shape[1]), pixel)
    a, b = way.astigmatism
    change = way.defocus - setup.aberrations.defocus
    lens = replace(setup, measured_probe=probe, mask=None)
    lens = lens.with_defocus(way.defocus) if change else lens
    if (a or b) and probe is None:
        lens = replace(lens, aberrations=_astigmatic(lens, a, b))
    posed_setup = replace(
        lens,
        window=window,
        detector=(detector[0], detector[1]),
        rotation=way.rotation,
        object=object_grid(setup.field, window, way.rotation),
        mask=mask,
    )
    return replace(recording, setup=posed_setup, measurement=replace(data, patterns=patterns, defocus=data.defocus + change))


def middle(recording: Recording, kept: Bool[Tensor, " N"], pixels: int = PIXELS) -> Recording:
    """The patterns around the middle of the field that a trial has time for."""
    setup, data = recording.setup, recording.measurement
    where = (data.positions[0].cpu().double() - 0.5) * torch.tensor(setup.field, dtype=torch.float64)
    count = max(FEWEST, pixels // math.prod(setup.window.shape))
    out = where.abs().amax(1)
    out[~kept] = math.inf
    chosen = out.topk(min(count, int(kept.sum())), largest=False).indices.sort().values
    part = data.take(chosen.to(data.positions.device))
    low, high = part.positions[0].amin(0), part.positions[0].amax(0)
    size = tuple(max(float(v), setup.window.pixel) for v in (high - low).cpu() * torch.tensor(setup.field))
    positions = ((part.positions - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    smaller = replace(setup, field=(size[0], size[1]), object=object_grid((size[0], size[1]), setup.window, setup.rotation))
    return replace(recording, setup=smaller, measurement=Measurement(positions, part.patterns, part.dose, part.defocus))


def attempt(part: Recording, way: Orientation, *, iterations: int = ITERATIONS, scale: float = 1.0) -> Trial:
    """Reconstructs a part with another orientation, and its scan's lengths times a factor."""
    tried = scaled(posed(part, way), scale)
    found = Reconstructor.best(tried.setup, iterations=iterations)(tried.measurement)
    return Trial(way, float(found.loss[0].min()), tried.setup.crop(found.phase)[0], tried, found.potential)


def scaled(recording: Recording, scale: float) -> Recording:
    """The recording with all lengths of its scan times a factor."""
    setup = recording.setup
    field = setup.field[0] * scale, setup.field[1] * scale
    return replace(recording, setup=replace(setup, field=field, object=object_grid(field, setup.window, setup.rotation)))


def masked(recording: Recording, faulty: Bool[Tensor, "Q Q2"]) -> Recording:
    """The recording with some detector pixels, zero frequency in the centre, not believed and emptied."""
    if not bool(faulty.any()):
        return recording
    setup, data = recording.setup, recording.measurement
    good = torch.fft.ifftshift(~faulty).to(data.patterns.device)
    mask = good.float() if setup.mask is None else setup.mask.to(good.device) * good
    patterns = data.patterns * good.to(data.patterns.dtype)
    return replace(recording, setup=replace(setup, mask=mask), measurement=replace(data, patterns=patterns))


def _astigmatic(setup: Setup, along: float, across: float) -> Aberrations:
    """C12 of an astigmatism of the defocus, (y^2 - x^2) and 2 y x: -C12 cos 2 phi12 is along -1 x, with phi from the x axis."""
    return replace(setup.aberrations, C12=math.hypot(along, across), phi12=0.5 * math.atan2(-across, along))


def _moved(patterns: Tensor, shift: tuple[int, int]) -> Tensor:
    """Patterns moved on the detector, with nothing where they came from."""
    if shift == (0, 0):
        return patterns
    centred = torch.fft.fftshift(patterns, (-2, -1))
    moved = torch.zeros_like(centred)
    (a, b), (c, d) = (
        (slice(max(s, 0), n + min(s, 0)), slice(max(-s, 0), n + min(-s, 0))) for s, n in zip(shift, centred.shape[-2:], strict=True)
    )
    moved[..., a, c] = centred[..., b, d]
    return torch.fft.ifftshift(moved, (-2, -1))
