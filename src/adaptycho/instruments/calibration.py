"""Whether a microscope does what it is told, found out before the first sub-sequence of a scan.

Two things are compared with what was asked for. *Where*: positions that it reports follow the requested ones through an affine map, after
so many frames (`followed`); and the centre of mass of patterns, a gradient field without curl in the frame of the scan, tells how the
detector is turned against it (`turned`). *When*: between two positions whose patterns differ, each frame is a mixture of both, and its
share of the newer one tells whether it is fresh (`arrived`).

An electron that finds this out is spent like any other: ask through a guard, on a part of the field that may be lost.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.instruments import Microscope
from adaptycho.types import Action, Measurement

LAGS = 4  # frames that an answer may be behind, as looked for
VISITS, MOVES, RASTER = 8, 24, 10
SHARP = 5.0  # standard deviations that the patterns of two positions have to be apart, in one frame


@dataclass(frozen=True)
class Followed:
    """How reported positions follow the requested ones.

    Attributes:
        lag: frames that they are behind.
        scale: reported over requested length, (y, x).
        rotation: degrees, counter-clockwise in (row, column), by which they are turned.
        rest: rms in Å of what no affine map explains.
    """

    lag: int
    scale: tuple[float, float]
    rotation: float
    rest: float


@dataclass(frozen=True)
class Arrived:
    """How soon patterns are those of the new position.

    Attributes:
        lag: frames that all of them are behind.
        stale: fraction of the first frames after a move that are of the position before.
        settled: share of the new position in a first frame that is not stale: less than 1 if the beam still moves.
    """

    lag: int
    stale: float
    settled: float


@dataclass(frozen=True)
class Tolerance:
    """What a scan can go on with.

    Attributes:
        scale: relative.
        rotation: degrees.
        rest: Å.
        stale: fraction of frames.
        settled: share of the new position.
        turned: degrees that the detector may be turned otherwise than the geometry says.
    """

    scale: float = 0.02
    rotation: float = 1.0
    rest: float = 0.3
    stale: float = 0.02
    settled: float = 0.9
    turned: float = 8.0


def check(microscope: Microscope, *, part: float = 1.0, generator: torch.Generator, tolerance: Tolerance | None = None) -> None:
    """Refuses a microscope that is not where, or when, it says it is.

    Args:
        microscope: one of a single specimen.
        part: of the field along each side, from its corner (0, 0), that may be exposed.
        generator: of the positions.
        tolerance: what a scan can go on with.

    Raises:
        ValueError: `calibration: expected ..., found ...`, all that is wrong.
    """
    limits = tolerance or Tolerance()
    where, when = followed(microscope, part=part, generator=generator), arrived(microscope, part=part, generator=generator)
    wrong = []
    if where.lag:
        wrong.append(f"reported positions {where.lag} frames behind")
    if max(abs(s - 1) for s in where.scale) > limits.scale:
        wrong.append(f"a scale of {where.scale[0]:.3f} x {where.scale[1]:.3f}")
    if abs(where.rotation) > limits.rotation:
        wrong.append(f"a scan turned by {where.rotation:.1f} degrees")
    if where.rest > limits.rest:
        wrong.append(f"reported positions {where.rest:.2g} Å off")
    if when.lag:
        wrong.append(f"patterns {when.lag} frames behind")
    elif when.stale > limits.stale:
        wrong.append(f"{100 * when.stale:.0f} % stale frames after a move")
    if when.settled < limits.settled:
        wrong.append(f"a beam that is {100 * when.settled:.0f} % of the way when it is read")
    if not wrong and (angle := turned(microscope, part=part, generator=generator)) is not None:  # frames of other places tell no angle
        told = microscope.setup.rotation
        if abs((angle - told + 90) % 180 - 90) > limits.turned:
            wrong.append(f"a detector turned by {angle:.0f} degrees against the scan (or 180 more) instead of {told:g}")
    if wrong:
        raise ValueError(f"calibration: expected a microscope that is where and when it says, found {', '.join(wrong)}")


def followed(microscope: Microscope, *, part: float = 1.0, generator: torch.Generator) -> Followed:
    """How reported positions follow requested ones."""
    asked = part * (0.1 + 0.8 * torch.rand(1, MOVES, 2, generator=generator))
    told = _take(microscope, asked, generator).positions
    size = torch.tensor(microscope.setup.field, dtype=torch.float64)
    x, y = asked[0].double() * size, told[0].double() * size
    fits = [_affine(x[: len(x) - lag], y[lag:]) for lag in range(LAGS)]
    lag = min(range(LAGS), key=lambda n: fits[n][1])
    (a, b), (c, d) = fits[lag][0].T.tolist()  # y = turn x
    scale = math.hypot(a, c), math.hypot(b, d)
    return Followed(lag, scale, math.degrees(math.atan2(c - b, a + d)), fits[lag][1])


def arrived(microscope: Microscope, *, part: float = 1.0, generator: torch.Generator) -> Arrived:
    """How soon patterns are those of the new position.

    Raises:
        ValueError: no two of nine positions differ enough to tell.
    """
    line = torch.tensor([0.2, 0.5, 0.8]) * part
    places = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    dwelt = _take(microscope, places.repeat_interleave(VISITS, 0)[None], generator).patterns[0].double()
    settled = dwelt.reshape(len(places), VISITS, -1)[:, LAGS:].mean(1)
    apart, several = (settled[:, None] - settled).square() / (settled[:, None] + settled + 1e-9), VISITS - LAGS
    seen = (apart > 0).sum(-1) / several  # what counting noise alone makes of the sum, with a standard deviation of sqrt(2 / several) of it
    strength = apart.sum(-1) - seen
    first, second = divmod(int(strength.argmax()), len(places))
    noise = float(seen[first, second])
    if float(strength[first, second]) < SHARP**2 + 4 * math.sqrt(2 * noise / several):
        even = "an even specimen or too few electrons"
        raise ValueError(f"calibration: expected two positions whose patterns differ, to see when they arrive, found {even}")
    moves = torch.randint(0, 2, (4 * MOVES,), generator=generator)
    frames = _take(microscope, places[torch.where(moves == 1, second, first)][None], generator).patterns[0].double().flatten(1)
    difference = settled[second] - settled[first]
    weight = 1 / (settled[first] + settled[second] + 1e-9)
    share = (((frames - settled[first]) * difference * weight).sum(1) - noise / 2) / strength[first, second]
    wanted = moves.double()
    misses = [float((share[lag:].round().clamp(0, 1) != wanted[: len(wanted) - lag]).double().mean()) for lag in range(LAGS)]
    lag = min(range(LAGS), key=lambda n: misses[n])
    share, wanted = share[lag:], wanted[: len(wanted) - lag]
    moved = wanted[1:] != wanted[:-1]
    new = torch.where(wanted[1:] == 1, share[1:], 1 - share[1:])[moved]
    fresh = new[new >= 0.5]
    return Arrived(lag, float((new < 0.5).double().mean()), float(fresh.mean()) if len(fresh) else 0.0)


def turned(microscope: Microscope, *, part: float = 1.0, generator: torch.Generator) -> float | None:
    """Degrees, counter-clockwise, that turn detector (row, column) into scan (row, column), from 0 up to 180; None if it cannot be seen.

    A centre of mass points along the gradient of the projected potential, seen by the probe: in the frame of the scan its curl vanishes
    (for a thin specimen; Lazić et al. 2016). A half turn more has none either, and is not told apart.
    """
    setup = microscope.setup
    side = torch.tensor([min(part * s, RASTER * setup.resolution / 4) / s for s in setup.field])
    line = torch.arange(RASTER) / (RASTER - 1)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
    found = _take(microscope, ((part - side) / 2 + grid * side).reshape(1, -1, 2), generator)
    patterns = found.patterns[0].double()
    total = patterns.sum((1, 2)).clamp(min=1e-9)
    mass = [(patterns * torch.fft.fftfreq(q, 1 / q).double().reshape(shape)).sum((1, 2)) / total for q, shape in _axes(setup.detector)]
    vy, vx = (m.reshape(RASTER, RASTER) for m in mass)
    steps = [float(s) * f / (RASTER - 1) for s, f in zip(side, setup.field, strict=True)]
    (dy_vy, dx_vy), (dy_vx, dx_vx) = (torch.gradient(v, spacing=steps) for v in (vy, vx))
    curl, divergence = dy_vx - dx_vy, dy_vy + dx_vx
    # Turned by an angle, the curl is cos curl + sin divergence: least in the direction of the smaller eigenvalue.
    both = torch.stack([curl.flatten(), divergence.flatten()])
    values, vectors = torch.linalg.eigh(both @ both.T)
    if float(values[0]) > 0.5 * float(values[1]):
        return None
    cos, sin = vectors[:, 0].tolist()
    return math.degrees(math.atan2(sin, cos)) % 180


def _axes(detector: tuple[int, int]) -> tuple[tuple[int, tuple[int, int]], tuple[int, tuple[int, int]]]:
    return (detector[0], (-1, 1)), (detector[1], (1, -1))


def _affine(x: Float[Tensor, "K 2"], y: Float[Tensor, "K 2"]) -> tuple[Tensor, float]:
    """The map that leads from x to y, but for a constant, and the rms of what it leaves."""
    x, y = x - x.mean(0), y - y.mean(0)
    turn = torch.linalg.lstsq(x, y).solution
    return turn, float((x @ turn - y).square().sum(1).mean().sqrt())


def _take(microscope: Microscope, positions: Tensor, generator: torch.Generator) -> Measurement:
    if microscope.batch != 1:
        raise ValueError(f"calibration: expected a microscope of one specimen, found {microscope.batch}")
    found = microscope.acquire(Action(positions), generator=generator)
    if found.positions.shape != positions.shape:
        raise ValueError(f"calibration: expected {positions.shape[1]} patterns, found {found.positions.shape[1]}")
    return found
