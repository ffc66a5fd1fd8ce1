"""The descent on object, probe and geometry together, of many data sets at once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from adaptycho.physics.optics import Setup
from adaptycho.reconstruct import losses, priors, proximal
from adaptycho.reconstruct.data_sets import LANE, check
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.reconstruction import Reconstruction
from adaptycho.reconstruct.refine import modes, passes
from adaptycho.reconstruct.refine.course import Believed, Course, Point, Problem, advance
from adaptycho.reconstruct.refine.state import Refined
from adaptycho.support.threads import Map, workers
from adaptycho.types import Measurement

REACH = 1.0  # wavelengths over the convergence semi-angle, that a position may be off unless told otherwise
MOST_FOCI = 256  # a probe is kept at each


def descend(how: Reconstructor, measurement: Measurement, start: Reconstruction | None, stride: int) -> Iterator[Reconstruction]:
    """Yields after every `stride` iterations.

    Raises:
        ValueError: the data do not suit the setup, or the start does not suit the data.
    """
    check(how.setup, measurement)
    with workers():  # or rounding would depend on the number of threads
        courses = [_begin(how, measurement, b, start) for b in range(len(measurement))]
    for _ in range(0, how.iterations, stride):
        with workers() as spread:
            sets, lanes = (spread, map) if len(courses) > 1 else (map, spread)
            list(sets(partial(_iterate, times=stride, lanes=lanes), courses))
            found = _collect(how, courses, measurement)
        yield found


def foretold(how: Reconstructor, held: Measurement) -> Callable[[Reconstruction], float]:
    """What gives the loss of a measurement at a reconstruction that was not shown it (`adaptycho.reconstruct.stopping`)."""
    with workers():
        courses = [_begin(how, held, b, None) for b in range(len(held))]

    def loss(found: Reconstruction) -> float:
        alike = found.refined is not None and found.refined.positions.shape == held.positions.shape
        with workers() as lanes:
            total = 0.0
            for b, course in enumerate(courses):
                point = _resumed(course, how, b, found, alike=alike).point
                total += course.problem.gradient(point, lanes)[0] / len(course.problem)
        return total

    return loss


def _iterate(course: Course, times: int, lanes: Map) -> None:
    for _ in range(times):
        advance(course, lanes)


def _begin(how: Reconstructor, measurement: Measurement, b: int, start: Reconstruction | None) -> Course:
    """Data set number b from V = 0 and the probe that is known, or from where another reconstruction ended."""
    setup, one = how.setup, measurement[b]
    positions, dose, device = one.positions[0], one.dose[0], one.positions.device
    real = positions.dtype
    values, focus = torch.unique(one.defocus[0].double(), return_inverse=True)
    if len(values) > MOST_FOCI:
        raise ValueError(f"defocus: expected at most {MOST_FOCI} values among patterns that are refined together, got {len(values)}")
    ky, kx = setup.window.frequencies(device=device)
    turn = torch.pi * setup.wavelength * (ky**2 + kx**2) * (values - setup.aberrations.defocus)[:, None, None]
    change = torch.polar(torch.ones_like(turn), turn).to(real.to_complex())
    weight = (torch.ones(setup.detector) if how.mask is None else how.mask).to(positions)
    share = dose / dose.mean() if losses.load(how.loss).nats is not None else torch.ones_like(dose)
    seen = passes.Seen(
        one.patterns[0].contiguous(), (1 / dose).to(real), share.to(real), focus, weight, how.loss, setup.binning, how.counts_per_electron
    )
    cuts = min(4, max(1, len(focus) // LANE))
    lanes = [seen.part(slice(len(focus) * c // cuts, len(focus) * (c + 1) // cuts)) for c in range(cuts)]
    distance = setup.to_pixels(positions.double()) - positions.new_tensor(setup.object.shape).double() / 2
    room = torch.tensor(
        [[n // 2 - h / 2 - 0.49, h - n + n // 2 - h / 2 + 0.49] for h, n in zip(setup.object.shape, setup.window.shape, strict=True)]
    )
    reach = (REACH * setup.resolution if how.reach is None else how.reach) / setup.object.pixel
    problem = Problem(lanes, change, distance, reach, room.T.to(distance), setup, frozenset(how.refine), how.momentum)
    shape = (how.slices, *setup.object.shape) if how.slices > 1 else setup.object.shape
    blank = torch.zeros(shape, dtype=real.to_complex() if how.kind == "complex" else real, device=device)
    probe = _first(how, b, device).to(change.dtype)
    none = torch.zeros(len(focus), dtype=real, device=device)
    point = Point(blank, probe, torch.eye(2).to(distance), torch.zeros_like(distance), none, thickness=how.thickness)
    if how.prior != "none":
        problem = replace(problem, believed=_believed(how, problem, point, dose))
    step = losses.load(how.loss).first_step(seen.patterns, seen.scale)
    course = Course(problem, point, step, (blank, torch.zeros_like(probe)))
    return course if start is None else _resumed(course, how, b, start)


def _believed(how: Reconstructor, problem: Problem, point: Point, dose: Float[Tensor, " K"]) -> Believed:
    """The prior of the settings, weighed against the patterns."""
    penalty, nats = priors.load(how.prior), losses.load(how.loss).nats
    assert nats is not None  # or it was refused
    blob = how.blob / how.setup.object.pixel if penalty.blobs else 0.0
    electrons = float(dose.mean(dtype=torch.float64)) / how.counts_per_electron
    weight = proximal.weight(penalty, how.strength, problem.illumination(point), electrons, nats, blob)
    return Believed(penalty, weight, blob)


def _first(how: Reconstructor, b: int, device: torch.device) -> Complex[Tensor, "M N N2"]:
    """The probe to begin with: the one that was given, or that of the setup, of unit sum."""
    probe = how.probe
    if probe is None:
        known = how.setup.probe().to(device)
        probe = known if known.ndim == 2 else known[b]
    probe = probe.to(device, torch.complex128).reshape(-1, *how.setup.window.shape)
    return modes.first(probe / probe.abs().square().sum().sqrt(), max(how.modes, len(probe)))


def _resumed(course: Course, how: Reconstructor, b: int, start: "Reconstruction", *, alike: bool = True) -> Course:
    """From where another reconstruction ended; patterns that it had not seen, or all if not alike, are where they are reported to be."""
    first, distance = course.point, course.problem.distance
    like = first.object
    same, done = start.made.alike(how.made), start.refined
    course.losses = start.loss[b].tolist() if start.made.loss == how.loss else []
    known = start.coefficients if same and start.coefficients is not None else start.slices
    object_ = (start.potential / how.slices if known is None else known)[b].to(like).expand(like.shape)
    if done is None:
        course.point = replace(first, object=object_)
        return course
    probe, velocity = (x[b].to(course.point.probe) for x in (done.probe, done.velocity))
    if len(probe) != len(course.point.probe):
        probe = modes.first(probe, len(course.point.probe))
        velocity = torch.zeros_like(probe)
    affine, count = done.affine[b].to(distance), min(int(start.count[b]), len(distance)) if alike else 0
    free, level = course.point.free.clone(), course.point.level.clone()
    middle = distance.new_tensor(how.setup.object.shape) / 2
    free[:count] = how.setup.to_pixels(done.positions[b, :count].to(distance)) - middle - distance[:count] @ affine.T
    level[:count] = done.intensities[b, :count].to(level).log() / 2
    course.point = Point(object_, probe, affine, free, level, float(done.defocus[b]), float(done.thickness[b]))
    if same:
        course.velocity, course.step = (start.velocity[b].to(like), velocity), float(start.step[b])
    return course


def _collect(how: Reconstructor, courses: list[Course], measurement: Measurement) -> Reconstruction:
    setup = how.setup
    mixed = [modes.orthogonal(c.point.probe, c.velocity[1]) for c in courses]
    positions, intensities = measurement.positions.clone(), torch.ones_like(measurement.dose)
    for b, c in enumerate(courses):
        positions[b, : len(c.problem)] = _fractions(setup, c.problem.offset(c.point)).to(positions)
        intensities[b, : len(c.problem)] = (2 * c.point.level).exp().to(intensities)
    refined = Refined(
        torch.stack([p for p, _ in mixed]),
        positions,
        measurement.positions,
        intensities,
        torch.stack([c.point.affine for c in courses]),
        torch.tensor([c.point.defocus for c in courses], dtype=torch.float64),
        torch.tensor([c.point.thickness for c in courses], dtype=torch.float64),
        torch.stack([v for _, v in mixed]),
    )
    potential = torch.stack([c.problem.potential(c.point) for c in courses])
    several = potential.ndim == 4
    believed = how.prior != "none"
    return Reconstruction(
        potential.sum(1) if several else potential,
        torch.tensor([c.losses for c in courses], dtype=torch.float64),
        torch.stack([c.velocity[0] for c in courses]),
        torch.tensor([c.step for c in courses], dtype=torch.float64),
        measurement.lengths.clone(),
        coefficients=torch.stack([c.point.object for c in courses]) if believed else None,
        slices=potential if several else None,
        refined=refined,
        made=how.made,
    )


def _fractions(setup: Setup, offset: Float[Tensor, "K 2"]) -> Float[Tensor, "K 2"]:
    """Of the scan field, from pixels beyond the middle of the object: the inverse of `Setup.to_pixels`."""
    axes = setup.to_pixels(torch.tensor([[1.5, 0.5], [0.5, 1.5]], dtype=torch.float64)) - torch.tensor(setup.object.shape) / 2
    return offset @ torch.linalg.inv(axes).to(offset) + 0.5
