"""One data set on its way: object and probe by gradient steps side by side, and every few of them a Newton step of the geometry.

The step is the one without refinement (`adaptycho.reconstruct.descent`), adapted and with momentum, in a metric that bounds the curvature
by object and by probe: the illumination, and the number of patterns, for a phase object lets all light through. With a prior a step of the
object is followed by the prior's own (`adaptycho.reconstruct.proximal`).
"""

import math
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Complex, Float, Shaped
from torch import Tensor

from adaptycho.physics.forward import transmission
from adaptycho.physics.grid import fft2, ifft2
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct import proximal
from adaptycho.reconstruct.descent import SOFT
from adaptycho.reconstruct.priors.penalty import Penalty
from adaptycho.reconstruct.refine import geometry, passes
from adaptycho.support.threads import Map

PROBE_FROM, GEOMETRY_FROM = 3, 6  # iterations that the object has had by then
EVERY = 3  # iterations, that the geometry moves
GROWTH = 1.1  # of a step that led downhill
LEAD = 3.0  # times the Newton step of an affine map: the object has settled to the old one and would hold it back


@dataclass(frozen=True, eq=False)
class Point:
    """All that the loss depends on.

    Attributes:
        object: the potential of each slice, or the coefficients that a prior has it made of.
        probe: modes at the nominal defocus.
        affine: map of distances from the middle of the field.
        free: displacement of each position beyond that, in pixels.
        level: logarithm of each pattern's amplitude.
        defocus: in Å, found so far.
        thickness: from one slice to the next, in Å.
    """

    object: Shaped[Tensor, "*slices H W"]
    probe: Complex[Tensor, "M N N2"]
    affine: Float[Tensor, "2 2"]
    free: Float[Tensor, "K 2"]
    level: Float[Tensor, " K"]
    defocus: float = 0.0
    thickness: float = 0.0


@dataclass(frozen=True)
class Believed:
    """A prior, weighed against the patterns.

    Attributes:
        penalty: on the coefficients.
        weight: of it against the loss summed over positions.
        blob: rms radius in pixels of what a coefficient stands for; 0 for a pixel.
    """

    penalty: Penalty
    weight: float
    blob: float


@dataclass(frozen=True, eq=False)
class Problem:
    """What stays the same.

    Attributes:
        lanes: the patterns, in parts that may be worked on side by side.
        change: factor of the probe's transform at each defocus that patterns were taken with.
        distance: of each reported position from the middle of the object, in pixels.
        reach: pixels that a position may be from where the affine map has it.
        room: pixels from the middle of the object within which a probe's window lies inside it.
        setup: geometry and beam.
        refine: what is refined.
        momentum: fraction of the last update that is carried on.
        believed: of the object beforehand, if anything.
    """

    lanes: list[tuple[slice, passes.Seen]]
    change: Complex[Tensor, "U N N2"]
    distance: Float[Tensor, "K 2"]
    reach: float
    room: Float[Tensor, "2 2"]
    setup: Setup
    refine: frozenset[str]
    momentum: float
    believed: Believed | None = None

    def __len__(self) -> int:
        return len(self.distance)

    def offset(self, point: Point) -> Float[Tensor, "K 2"]:
        """Of each position from the middle of the object, in pixels."""
        return (self.distance @ point.affine.T + point.free).clamp(self.room[0], self.room[1])

    def potential(self, point: Point) -> Shaped[Tensor, "*slices H W"]:
        """Of each slice."""
        return point.object if self.believed is None else proximal.blurred(point.object, self.believed.blob)

    def light(self, point: Point) -> passes.Light:
        """The probes at a point."""
        spectra = fft2(point.probe) * self.change[:, None]
        middle = self.distance.new_tensor(self.setup.object.shape) / 2
        apart = None
        if point.object.ndim == 3:
            turn = point.thickness * _apart(self.setup).to(point.probe.real)
            apart = torch.polar(torch.ones_like(turn), turn)
        return passes.light(spectra, self.offset(point) + middle, point.level.exp(), apart)

    def gradient(self, point: Point, lanes: Map) -> tuple[float, Tensor, Tensor]:
        """Loss, and its Wirtinger gradients by object and by probe (zeros if that is known), summed over patterns."""
        through, lit, refined = transmission(self.potential(point)), self.light(point), "probe" in self.refine
        work = partial(_backwards, through, point.object.is_complex(), refined)
        (loss, to_object, to_probe), *others = (lanes if len(self.lanes) > 1 else map)(work, [(s, lit.part(c)) for c, s in self.lanes])
        for more, further, last in others:
            loss, to_object, to_probe = loss + more, to_object + further, to_probe + last
        to_object = -1j * to_object if point.object.is_complex() else to_object
        if self.believed is not None:
            to_object = proximal.blurred(to_object, self.believed.blob)
        by_probe = ifft2((to_probe * self.change.conj()[:, None]).sum(0)) if refined else torch.zeros_like(point.probe)
        return loss, to_object, by_probe

    def tangents(self, point: Point, lanes: Map) -> tuple[Tensor, Tensor]:
        """Slopes and curvatures of each pattern's loss along y and x in pixels, defocus and distance of slices in Å, log amplitude."""
        through, lit = transmission(self.potential(point)), self.light(point)
        directions, apart = _directions(self.setup).to(through.real), _apart(self.setup).to(through.real)[None]
        wanted = [i for i, names in enumerate((PLACES, PLACES, {"defocus"}, {"thickness"})) if names & self.refine]
        work = partial(_along, through, directions[[i for i in wanted if i < 3]], apart if 3 in wanted else apart[:0])
        parts = (lanes if len(self.lanes) > 1 else map)(work, [(s, lit.part(c)) for c, s in self.lanes])
        some, bends = (torch.cat(x) for x in zip(*parts, strict=True))
        at = torch.tensor([*wanted, 4], device=some.device)
        slopes, curvatures = some.new_zeros(len(some), 5), some.new_zeros(len(some), 5, 5)
        slopes[:, at] = some
        curvatures[:, at[:, None], at] = bends
        return slopes, curvatures

    def power(self, point: Point) -> Float[Tensor, " K"]:
        """Of each pattern's probe, by how much the pattern counts."""
        return (2 * point.level).exp() * torch.cat([seen.share for _, seen in self.lanes])

    def illumination(self, point: Point) -> Float[Tensor, "H W"]:
        """Summed probe intensity at each object pixel, to the next pixel."""
        h, w = self.setup.object.shape
        centre = (self.offset(point) + self.distance.new_tensor([h, w]) / 2).round().long()
        density = torch.zeros(h, w, dtype=point.probe.real.dtype, device=point.probe.device)
        density.view(-1).index_add_(0, centre[:, 0] * w + centre[:, 1], self.power(point))
        spot = torch.fft.fftshift(point.probe.abs().square().sum(0))
        padded = torch.zeros_like(density)
        padded[: spot.shape[0], : spot.shape[1]] = spot
        padded = padded.roll((-(spot.shape[0] // 2), -(spot.shape[1] // 2)), (0, 1))
        return torch.fft.irfft2(torch.fft.rfft2(density) * torch.fft.rfft2(padded), s=(h, w)).clamp(min=0)

    def metric(self, point: Point) -> Float[Tensor, "H W"]:
        """By what a step of the object is divided."""
        light = self.illumination(point)
        return light + SOFT * light.amax() if self.believed is None else proximal.metric(light, self.believed.blob)

    def penalty(self, point: Point) -> float:
        """What the prior adds to the loss, summed over patterns."""
        if self.believed is None:
            return 0.0
        value = self.believed.penalty.value
        return self.believed.weight * sum(float(value(x).sum()) for x in point.object.view(-1, *point.object.shape[-2:]))

    def proximal(self, object_: Shaped[Tensor, "*slices H W"], step: float, metric: Float[Tensor, "H W"]) -> Shaped[Tensor, "*slices H W"]:
        """Where the prior takes the object after a step."""
        if self.believed is None:
            return object_
        flat, room = object_.view(-1, *object_.shape[-2:]), step * self.believed.weight / 2 / metric
        return torch.stack([self.believed.penalty.proximal(x, room) for x in flat]).view(object_.shape)


PLACES = {"positions", "affine", "rotation"}
MOVING = PLACES | {"defocus", "intensities", "thickness"}


@dataclass
class Course:
    """Where the descent stands.

    Attributes:
        problem: what stays the same.
        point: where it stands.
        step: in units of the metric.
        velocity: last updates of object and probe.
        losses: per position, before each iteration so far.
        total: loss and penalty where it was last downhill, per position.
        held: the last point that was downhill, with its gradients.
        trust: fraction of the geometry's Newton step that is taken.
        moved: whether the last iteration took one.
    """

    problem: Problem
    point: Point
    step: float
    velocity: tuple[Tensor, Tensor]
    losses: list[float] = field(default_factory=list)
    total: float = math.inf
    held: tuple[Point, Tensor, Tensor] | None = None
    trust: float = 1.0
    moved: bool = False


def advance(course: Course, lanes: Map) -> None:
    """One iteration."""
    problem, point, number = course.problem, course.point, len(course.losses)
    loss, by_object, by_probe = problem.gradient(point, lanes)
    loss /= len(problem)
    total = loss + problem.penalty(point) / len(problem)
    if course.held is not None and not total <= course.total:
        # Downhill it was not: back to where we stood, half a step from there, momentum forgotten.
        (point, by_object, by_probe), loss = course.held, course.losses[-1]
        course.velocity = torch.zeros_like(course.velocity[0]), torch.zeros_like(course.velocity[1])
        if course.moved:
            course.trust /= 2
        else:
            course.step /= 2
    else:
        if course.moved:
            course.trust = min(1.0, GROWTH * course.trust)
        course.step *= GROWTH if course.held is not None else 1.0
        course.held, course.total = (point, by_object, by_probe), total
    course.losses.append(loss)
    metric = problem.metric(point)
    scaled = by_object / metric, by_probe / float(problem.power(point).sum())
    u, v = (problem.momentum * old - course.step * new for old, new in zip(course.velocity, scaled, strict=True))
    if number < PROBE_FROM:
        v = torch.zeros_like(v)
    reached = problem.proximal(point.object + u, course.step, metric)
    course.velocity = u if problem.believed is None else reached - point.object, v
    point = replace(point, object=reached, probe=point.probe + v)
    course.moved = bool(MOVING & problem.refine) and number >= GEOMETRY_FROM and number % EVERY == 0
    course.point = _moved(problem, point, course.trust, lanes) if course.moved else point


def _moved(problem: Problem, point: Point, trust: float, lanes: Map) -> Point:
    """After a step of the geometry."""
    deepest = problem.setup.resolution / (1e-3 * problem.setup.semiangle)
    found = geometry.move(*problem.tangents(point, lanes), problem.distance, problem.refine, deepest)
    turn = trust * found.defocus * _directions(problem.setup)[2].to(point.probe.device)
    return replace(
        point,
        probe=ifft2(fft2(point.probe) * torch.polar(torch.ones_like(turn), turn).to(point.probe.dtype)) if found.defocus else point.probe,
        affine=point.affine + LEAD * trust * found.affine,
        free=(point.free + trust * found.free).clamp(-problem.reach, problem.reach),
        level=point.level + trust * found.level.to(point.level),
        defocus=point.defocus + trust * found.defocus,
        thickness=max(0.0, point.thickness + trust * found.thickness),
    )


def _directions(setup: Setup) -> Float[Tensor, "3 N N2"]:
    """By what the phase of the probe's transform changes: per pixel along y and x, and per Å of defocus."""
    ky, kx = setup.window.frequencies()
    pixel = setup.window.pixel
    parts = -2 * math.pi * ky * pixel, -2 * math.pi * kx * pixel, math.pi * setup.wavelength * (ky**2 + kx**2)
    return torch.stack([p.expand(setup.window.shape) for p in parts])


def _apart(setup: Setup) -> Float[Tensor, "N N2"]:
    """By what the phase of the propagator changes per Å between slices."""
    ky, kx = setup.window.frequencies()
    return -math.pi * setup.wavelength * (ky**2 + kx**2)


def _backwards(through: Tensor, complex_: bool, refined: bool, part: tuple[passes.Seen, passes.Light]) -> tuple[float, Tensor, Tensor]:
    """Loss of a lane, and what it sends back to object and probe."""
    seen, lit = part
    to_object = torch.zeros_like(through if complex_ else through.real)
    to_probe = torch.zeros_like(lit.spectra if refined else lit.spectra[:0])
    return passes.gradient(seen, lit, through, to_object, to_probe), to_object, to_probe


def _along(through: Tensor, directions: Tensor, apart: Tensor, part: tuple[passes.Seen, passes.Light]) -> tuple[Tensor, Tensor]:
    """Slopes and curvatures of a lane."""
    return passes.tangents(*part, through, directions, apart)
