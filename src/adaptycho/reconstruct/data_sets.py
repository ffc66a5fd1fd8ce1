"""What is the same in every iteration over a data set: checked patterns, their probes and places, and what gives loss and gradient."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from adaptycho.physics.forward import transmission
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct import Loss, kernels, losses
from adaptycho.reconstruct.probes import lookup
from adaptycho.support.threads import Map
from adaptycho.types import Measurement

LANE = 1024  # positions worth a thread: longer data sets are summed in up to four lanes, the same whatever the number of threads
ALIKE = 1.1  # ratio of doses up to which patterns count as equally well exposed


class Patterns(NamedTuple):
    """Positions that are worked on together: probe, place, pattern and what turns its counts into fractions."""

    which: Tensor
    corner: Tensor
    patterns: Tensor
    scale: Tensor


class Lane(NamedTuple):
    """A part of a data set: what gives its loss and gradient, and how much both count.

    Attributes:
        passes: of its positions.
        share: dose of its patterns over the mean dose of the data set; 1 for a loss that is no likelihood.
    """

    passes: kernels.Passes
    share: float


@dataclass(frozen=True, eq=False)
class DataSet:
    """One data set, cut into lanes that may run side by side.

    A likelihood says more of patterns that hold more electrons: where doses differ, patterns of like dose share a lane and count by it.

    Attributes:
        whole: all of it.
        dose: counts of a pattern if nothing missed the detector, on average.
        lanes: its parts.
        illumination: summed probe intensity at each object pixel, of each pattern by its share; empty unless asked for.
    """

    whole: Patterns
    dose: float
    lanes: list[Lane]
    illumination: Float[Tensor, "..."]

    def __len__(self) -> int:
        return len(self.whole.which)

    def gradient(self, potential: Shaped[Tensor, "H W"], lanes: Map, *, real: bool) -> tuple[float, Shaped[Tensor, "H W"]]:
        """Loss and Wirtinger gradient dL/dV* at a potential, both summed over positions; of a real one only the real part."""
        through = transmission(potential)
        # Of a real potential only the real part of -i conj(psi) chi is needed.
        dtype = through.real.dtype if real else through.dtype
        parts: Iterable[tuple[float, Tensor]] = (lanes if len(self.lanes) > 1 else map)(partial(_backwards, through, dtype), self.lanes)
        (loss, back), *others = parts
        for more, further in others:
            loss, back = loss + more, back + further
        return loss, back if real else -1j * back


def prepare(
    setup: Setup, measurement: Measurement, loss: Loss, *, subpixel: int, mask: Tensor | None, illuminated: bool, gain: float = 1.0
) -> list[DataSet]:
    """Checks the data and makes all of each data set ready that is the same in every iteration.

    Args:
        setup: geometry and beam.
        measurement: B data sets.
        loss: that is made smaller.
        subpixel: probes are placed on a lattice of 1/subpixel of a pixel.
        mask: detector pixels to believe; all if None.
        illuminated: whether the illumination is wanted.
        gain: counts that the detector makes of an electron.

    Raises:
        ValueError: patterns of another shape, or none, counts that are none, or positions outside the field.
    """
    used, corner, offset = check(setup, measurement)
    lengths, dose = measurement.lengths, measurement.dose
    probes, which = lookup(setup, measurement.defocus, offset, used, subpixel)
    scale = (1 / dose).to(measurement.positions.dtype)
    weight = (torch.ones(setup.detector) if mask is None else mask).to(measurement.positions)
    found = []
    for i, n in enumerate(lengths.tolist()):
        whole = Patterns(*(x[i, :n].contiguous() for x in (which, corner, measurement.patterns, scale)))
        lanes, light = [], scale.new_zeros(setup.object.shape if illuminated else 0)
        for alike, share in _exposures(dose[i, :n], losses.load(loss).nats is not None):
            some = whole if alike is None else Patterns(*(x[alike] for x in whole))
            cuts = min(4, max(1, len(some.which) // LANE))
            for c in range(cuts):
                part = Patterns(*(x[len(some.which) * c // cuts : len(some.which) * (c + 1) // cuts] for x in some))
                lanes.append(Lane(kernels.passes(probes, *part, weight, loss, setup.binning, gain), share))
            if illuminated:
                light += share * kernels.illumination(probes, some.which, some.corner, setup.object.shape)
        found.append(DataSet(whole, float(dose[i, :n].mean(dtype=torch.float64)), lanes, light))
    return found


def _exposures(dose: Float[Tensor, " K"], likely: bool) -> list[tuple[Tensor | None, float]]:
    """Which patterns are alike in dose, all of them if None, and how much each of them counts."""
    low, high = (float(v) for v in torch.aminmax(dose))
    if not likely or high <= ALIKE * low:
        return [(None, 1.0)]
    kind, mean = ((dose.double() / low).log() / math.log(ALIKE)).round(), dose.mean(dtype=torch.float64)
    every = [(kind == one).nonzero()[:, 0] for one in kind.unique()]
    return [(alike, float(dose[alike].mean(dtype=torch.float64) / mean)) for alike in every]


def check(setup: Setup, measurement: Measurement) -> tuple[Tensor, Tensor, Tensor]:
    """Which positions count (B, K), and where their windows lie (`Setup.place`, B K 2 each).

    Raises:
        ValueError: patterns of another shape, or none, counts that are none, or positions outside the field.
    """
    b, k = measurement.positions.shape[:2]
    lengths, dose, device = measurement.lengths, measurement.dose, measurement.positions.device
    if tuple(measurement.patterns.shape[2:]) != setup.detector:
        raise ValueError(f"patterns: expected the detector's shape {setup.detector}, got {tuple(measurement.patterns.shape[2:])}")
    if bool((lengths < 1).any()):
        raise ValueError("measurement: expected at least one pattern in each data set, got none")
    lengths = lengths.to(device)
    used = torch.arange(k, device=device) < lengths[:, None]
    corner, offset = (x.view(b, k, 2) for x in setup.place(measurement.positions.reshape(-1, 2)))
    room = corner.new_tensor(setup.object.shape) - corner.new_tensor(setup.window.shape)
    outside = ((corner < 0) | (corner > room)).any(-1)  # the compiled loops do not look where they write
    _refuse(outside & used, "positions: expected fractions of the field from 0 to 1", measurement.positions)
    _refuse((dose <= 0) & used, "dose: expected positive counts", dose)
    _refuse_patterns(measurement.patterns, used)
    return used, corner, offset


def _backwards(through: Tensor, dtype: torch.dtype, lane: Lane) -> tuple[float, Tensor]:
    """Loss summed over a lane's positions, and what they send back to the object."""
    back = torch.zeros(through.shape, dtype=dtype, device=through.device)
    loss = lane.passes(through, back)
    return (loss, back) if lane.share == 1 else (lane.share * loss, lane.share * back)


def _refuse_patterns(patterns: Tensor, used: Tensor) -> None:
    """Counts only. Anything else would end in a result that is wrong without a word."""
    if patterns.dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64):
        return
    low, high = torch.aminmax(patterns)
    if not (float(low) >= 0 and float(high) < math.inf):  # nan is neither
        flat = patterns.flatten(2)
        bad = ~((flat >= 0) & (flat < math.inf))
        first = flat.gather(2, bad.long().argmax(-1, keepdim=True))[..., 0]
        _refuse(bad.any(-1) & used, "patterns: expected counts of at least 0", first)


def _refuse(bad: Tensor, expected: str, values: Tensor) -> None:
    if bool(bad.any()):
        b, i = bad.nonzero()[0].tolist()
        raise ValueError(f"{expected}, got {values[b, i].tolist()} for pattern {i} of data set {b}")
