"""Conjugate gradients with a line search, for the object alone (Polak and Ribiere; van den Broek and Koch, Phys. Rev. B 87, 184108, 2013).

With g the Wirtinger gradient and z = g / D that in the metric of the illumination, a direction is `-z + beta d`, d the one before and

    beta = max(0, <g - g before, z> / <g before, z before>).

Along it the loss is followed by secants until its slope is a small part of what it was. Every look takes loss and gradient, and the
gradient where the search ends is that of the next iteration.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Shaped
from torch import Tensor

FLAT = 0.1  # of the first slope, at which a line counts as searched
LOOKS = 5  # along a line, at most
FARTHER = 4.0  # times the last look, that the next may be at

Evaluate = Callable[[Tensor], tuple[float, Tensor]]


@dataclass
class Line:
    """Where a descent by conjugate gradients stands, and along which line it goes.

    Attributes:
        potential: V.
        step: along the last direction, where the next search begins.
        direction: d; zero to begin with.
        before: g where the last line was begun, if there was one.
        here: loss and g at the potential, if known.
    """

    potential: Shaped[Tensor, "H W"]
    step: float
    direction: Shaped[Tensor, "H W"]
    before: Shaped[Tensor, "H W"] | None = None
    here: tuple[float, Tensor] | None = field(default=None, repr=False)


def advance(evaluate: Evaluate, light: Tensor, line: Line) -> float:
    """Searches along one direction; returns the loss where it began.

    Args:
        evaluate: loss and g at a potential.
        light: D.
        line: that changes.
    """
    loss, gradient = line.here or evaluate(line.potential)
    scaled, direction = gradient / light, line.direction
    if line.before is not None:
        curved = _inner(line.before, line.before / light)
        beta = max(0.0, _inner(gradient - line.before, scaled) / curved) if curved > 0 else 0.0
        direction = beta * direction - scaled
    slope = _inner(gradient, direction)
    if line.before is None or not slope < 0:
        direction, slope = -scaled, -_inner(gradient, scaled)
    line.before, line.direction, line.here = gradient, direction, (loss, gradient)
    if slope < 0:
        _search(evaluate, line, slope)
    return loss


def _search(evaluate: Evaluate, line: Line, slope: float) -> None:
    """Moves to the lowest of the looks along the direction, which begins with some slope."""
    assert line.here is not None
    start, best, at = line.potential, line.here, 0.0
    (near, downhill), look = (0.0, slope), line.step
    for _ in range(LOOKS):
        found = evaluate(start + look * line.direction)
        if found[0] < best[0]:
            best, at = found, look
        now = _inner(found[1], line.direction)
        if not (math.isfinite(found[0]) and math.isfinite(now)):  # absorption may grow beyond all bounds
            look /= FARTHER**2
            continue
        if abs(now) <= FLAT * abs(slope) and found[0] <= best[0]:
            break
        # Where the line through both slopes is zero; where they do not rise, farther.
        ahead = near - downhill * (look - near) / (now - downhill) if now > downhill else FARTHER * look
        near, downhill, look = look, now, min(max(ahead, look / FARTHER**2), FARTHER * look)
    if at:
        line.potential, line.step, line.here = start + at * line.direction, at, best
    else:
        line.step, line.direction, line.before = look, torch.zeros_like(line.direction), None


def _inner(a: Tensor, b: Tensor) -> float:
    """The real part of the inner product, in double precision."""
    return float((a.conj() * b).real.sum(dtype=torch.float64)) if a.is_complex() else float((a * b).sum(dtype=torch.float64))
