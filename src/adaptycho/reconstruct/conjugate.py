"""Conjugate gradients with a line search, for the object alone (Polak and Ribiere; van den Broek and Koch, Phys. Rev. B 87, 184108, 2013).

With g the Wirtinger gradient and z = g / D that in the metric of the illumination, a direction is `-z + beta d`, d the one before and

    beta = max(0, <g - g before, z> / <g before, z before>).

Along it the loss is followed by secants until its slope is a small part of what it was. Every look takes loss and gradient, and the
gradient where the search ends is that of the next iteration.
"""

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
class Course:
    """Where a descent by conjugate gradients stands.

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


def advance(evaluate: Evaluate, light: Tensor, course: Course) -> float:
    """Searches along one direction; returns the loss where it began.

    Args:
        evaluate: loss and g at a potential.
        light: D.
        course: that changes.
    """
    loss, gradient = course.here or evaluate(course.potential)
    scaled, direction = gradient / light, course.direction
    if course.before is not None:
        curved = _inner(course.before, course.before / light)
        beta = max(0.0, _inner(gradient - course.before, scaled) / curved) if curved > 0 else 0.0
        direction = beta * direction - scaled
    slope = _inner(gradient, direction)
    if course.before is None or not slope < 0:
        direction, slope = -scaled, -_inner(gradient, scaled)
    course.before, course.direction, course.here = gradient, direction, (loss, gradient)
    if slope < 0:
        _search(evaluate, course, slope)
    return loss


def _search(evaluate: Evaluate, course: Course, slope: float) -> None:
    """Moves to the lowest of the looks along the direction, which begins with some slope."""
    assert course.here is not None
    start, best, at = course.potential, course.here, 0.0
    (near, downhill), look = (0.0, slope), course.step
    for _ in range(LOOKS):
        found = evaluate(start + look * course.direction)
        if found[0] < best[0]:
            best, at = found, look
        now = _inner(found[1], course.direction)
        if abs(now) <= FLAT * abs(slope) and found[0] <= best[0]:
            break
        # Where the line through both slopes is zero; where they do not rise, farther.
        ahead = near - downhill * (look - near) / (now - downhill) if now > downhill else FARTHER * look
        near, downhill, look = look, now, min(max(ahead, look / FARTHER**2), FARTHER * look)
    if at:
        course.potential, course.step, course.here = start + at * course.direction, at, best
    else:
        course.step, course.direction, course.before = look, torch.zeros_like(course.direction), None


def _inner(a: Tensor, b: Tensor) -> float:
    """The real part of the inner product, in double precision."""
    return float((a.conj() * b).real.sum(dtype=torch.float64)) if a.is_complex() else float((a * b).sum(dtype=torch.float64))
