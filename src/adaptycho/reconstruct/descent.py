"""ROP: the potential from diffraction patterns by gradient descent on Eq. 2, many data sets at once.

With psi = P(r - R_p) exp(iV), Psi = F psi and chi = F^H[(dL/dI) Psi], the Wirtinger gradient dL/dV* is `-i conj(psi) chi` summed over
positions: twice its real part is the derivative by Re V, twice its imaginary part that by Im V. For Eq. 2, dL/dI = 2 (I - J).

The normalisation in which the paper's step 5.25e2 holds: probe and patterns of unit sum (counts divided by the dose), orthonormal
transforms, V <- V - alpha dL/dV* with the gradient *summed* over positions. With the 1/P of Eq. 2 the same step would be P times larger. A
constant added to V changes no pattern, so it is free: its gradient is zero, descent from V = 0 leaves it near zero, and comparisons must
remove it (`adaptycho.metrics.align`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from adaptycho.physics.optics import Setup
from adaptycho.reconstruct import Loss, Method, Prior, Stop, conjugate, losses, priors, proximal
from adaptycho.reconstruct.checks import check, check_start
from adaptycho.reconstruct.data_sets import DataSet, prepare
from adaptycho.reconstruct.reconstruction import Made, Reconstruction
from adaptycho.reconstruct.refine import Parameter
from adaptycho.support.threads import Map, workers
from adaptycho.types import Measurement

SOFT = 0.05  # the illumination that scales a step is at least this fraction of its maximum


@dataclass(frozen=True)
class Reconstructor:
    """Regularised optimisation for ptychography, stripped to the object: `reconstructor(measurement)` gives a `Reconstruction`.

    Defaults are the paper's: five plain steps of 5.25e2 on Eq. 2. `best()` gives the settings that reconstruct best.

    Attributes:
        setup: geometry and beam.
        iterations: gradient steps.
        loss: `intensity` (Eq. 2), `amplitude`, `anscombe` or `poisson`; all but the first are safe where no electron was counted.
        step: step size; `auto`, and always with a prior, starts from the loss's curvature and adapts: back and halved when the loss rises,
            a little longer when not.
        scaling: `none`, or `illumination` to divide the step by the summed probe intensity at each pixel.
        momentum: fraction of the last update that is carried on.
        kind: `potential` (real V) or `complex` (with absorption).
        subpixel: probes are placed on a lattice of 1/subpixel of a pixel; bounds the table of shifted probes to subpixel^2 entries.
        prior: what is believed of the potential, `none`, `atoms`, `sparse`, `smooth` or `edges` (`adaptycho.reconstruct.priors`), or `auto`
            for what the measurement itself says (`adaptycho.reconstruct.choice`). With one, every step is scaled by illumination.
        strength: of the prior, in units of the counting noise (`adaptycho.reconstruct.proximal`).
        blob: rms radius in Å of the blobs that `atoms` has the potential made of; 0 for single pixels.
        counts_per_electron: of the detector; noise is that of electrons, by which losses and priors go.
        mask: detector pixels to believe, (Q, Q), zero frequency in the corner, 1 or 0; those of the setup if None.
        refine: what is found out with the object, some of `refine.PARAMETERS`; the step is then always `auto` and scaled by illumination.
            With `auto` probe and defocus, where that foretells patterns better (`adaptycho.reconstruct.seeking`), and of what was refined
            before the same as then.
        modes: of the probe, whose intensities add.
        probe: to begin with instead of the setup's, (modes, N, N), zero position in the corner.
        reach: Å that a refined position may be from where an affine map has it; one wavelength over the semi-angle if None.
        slices: that the object is made of; with several the potential is their sum (`adaptycho.reconstruct.refine.passes`).
        thickness: Å from one slice to the next.
        method: `momentum`, or `conjugate` for conjugate gradients with a line search, for the object alone and without a prior
            (`adaptycho.reconstruct.conjugate`).
        stop: after all `iterations`, or with `held-out` after as many of them as foretell best electrons or patterns that are held back to
            find that out (`adaptycho.reconstruct.stopping`).
    """

    setup: Setup
    iterations: int = 5
    loss: Loss = "intensity"
    step: float | Literal["auto"] = 525.0
    scaling: Literal["none", "illumination"] = "none"
    momentum: float = 0.0
    kind: Literal["potential", "complex"] = "potential"
    subpixel: int = 16
    prior: Prior = "none"
    strength: float = 0.5
    blob: float = 0.25
    counts_per_electron: float = 1.0
    mask: Tensor | None = field(default=None, compare=False)
    refine: tuple[Parameter, ...] | Literal["auto"] = ()
    modes: int = 1
    probe: Tensor | None = field(default=None, compare=False)
    reach: float | None = None
    slices: int = 1
    thickness: float = 0.0
    method: Method = "momentum"
    stop: Stop = "iterations"

    def __post_init__(self) -> None:
        if self.mask is None and self.setup.mask is not None:
            object.__setattr__(self, "mask", self.setup.mask)
        check(self)

    @property
    def known(self) -> bool:
        """Whether one slice of an object is all that is sought, lit by the probe of the setup."""
        return not self.refine and self.probe is None and self.slices == 1

    @property
    def made(self) -> Made:
        """What matters of the settings where a result is gone on from."""
        strength, blob = (self.strength, self.blob) if self.prior != "none" else (0.0, 0.0)
        sought = () if self.refine == "auto" else self.refine
        return Made(self.loss, self.scaling, self.method, self.kind, self.prior, strength, blob, sought, self.modes, self.slices)

    @classmethod
    def best(cls, setup: Setup, *, iterations: int | None = None, **changes: Any) -> "Reconstructor":
        """The settings that reconstruct best: amplitude loss, step scaled by illumination and adapted, momentum.

        Twenty iterations unless told otherwise, and a hundred where more than the object is sought.
        """
        iterations = iterations or (100 if changes.get("refine", ()) not in ((), "auto") else 20)
        settings: dict[str, Any] = {"loss": "amplitude", "step": "auto", "scaling": "illumination", "momentum": 0.7} | changes
        return cls(setup, iterations=iterations, **settings)

    def __call__(self, measurement: Measurement, start: Reconstruction | None = None) -> Reconstruction:
        """Reconstructs B data sets at once, each in its own thread, with `torch.get_num_threads()` of them at work.

        Args:
            measurement: B data sets, ragged or not.
            start: a reconstruction to go on from, of the same patterns or the first of them; from V = 0 if None. What another loss or
                another method cannot use of it is left out.

        Raises:
            ValueError: the data do not suit the setup, or the start does not suit the data or the settings.
        """
        return next(self._descend(measurement, start, None))

    def steps(self, measurement: Measurement, start: Reconstruction | None = None) -> Iterator[Reconstruction]:
        """The same, yielding after every iteration. The last loss belongs to the potential before the step just made."""
        return self._descend(measurement, start, 1)

    def _descend(self, measurement: Measurement, start: Reconstruction | None, stride: int | None) -> Iterator[Reconstruction]:
        """Yields after every `stride` iterations or all of them; the longer, the more of a data set is still in cache at the next one."""
        if self.refine == "auto" and start is not None and start.refined is not None:
            again = replace(self, refine=start.made.refine, modes=max(self.modes, start.made.modes))
            yield from again._descend(measurement, start, stride)
            return
        if self.refine == "auto":
            from adaptycho.reconstruct.seeking import seek  # which reconstructs

            yield from seek(self, measurement)._descend(measurement, start, stride)
            return
        if self.prior == "auto":
            from adaptycho.reconstruct.choice import choose  # which reconstructs

            yield from choose(self, measurement)._descend(measurement, start, stride)
            return
        if self.stop == "held-out":
            from adaptycho.reconstruct.stopping import stop  # which reconstructs

            if start is not None:
                raise ValueError("stop: expected 'iterations' to go on from a reconstruction, which has seen what would be held back")
            yield from stop(self, measurement)._descend(measurement, None, stride)
            return
        stride = stride or self.iterations
        dtype = measurement.positions.dtype.to_complex() if self.kind == "complex" else measurement.positions.dtype
        shape = (len(measurement), *self.setup.object.shape)
        if start is not None:
            check_start(self, start, shape)
        if not self.known:
            from adaptycho.reconstruct.refine.descent import descend  # which compiles

            yield from descend(self, measurement, start, stride)
            return
        with workers():
            courses = [self._begin(*pair, dtype, start) for pair in enumerate(self.prepared(measurement))]
        for _ in range(0, self.iterations, stride):
            with workers() as spread:
                sets, lanes = (spread, map) if len(courses) > 1 else (map, spread)
                list(sets(partial(self._iterate, times=stride, lanes=lanes), courses))
            yield _collect(courses, self)

    def gradient(self, measurement: Measurement, potential: Shaped[Tensor, "B H W"]) -> tuple[Float[Tensor, " B"], Shaped[Tensor, "B H W"]]:
        """Loss per position at a given potential, and its Wirtinger gradient dL/dV* summed over positions, as a step would use it.

        Twice its real part is the derivative of the summed loss by Re V, twice its imaginary part that by Im V; for a real potential only
        the real part is given. Divided by the illumination where the step is.
        """
        with workers() as lanes:
            sets = self.prepared(measurement)
            results = [self._gradient(one, self._light(one), v, lanes) for one, v in zip(sets, potential, strict=True)]
        return torch.tensor([r[0] for r in results], dtype=torch.float64), torch.stack([r[1] for r in results])

    def prepared(self, measurement: Measurement, loss: Loss | None = None) -> list[DataSet]:
        """What is the same in every iteration over each data set, for the loss of the settings or another one."""
        lit = loss is not None or self.scaling == "illumination" or self.step == "auto" or self.prior != "none"
        how, gain = loss or self.loss, self.counts_per_electron
        return prepare(self.setup, measurement, how, subpixel=self.subpixel, mask=self.mask, illuminated=lit, gain=gain)

    def _begin(self, b: int, data: DataSet, dtype: torch.dtype, start: Reconstruction | None) -> "_Course":
        """Data set number b from V = 0, or from where another reconstruction ended."""
        blank = torch.zeros(self.setup.object.shape, dtype=dtype, device=data.whole.scale.device)
        course = _Course(data, self._light(data), blank, blank, self._first_step(data))
        first = blank
        if start is not None:
            first = course.potential = start.potential[b].to(dtype)
            course.losses = start.loss[b].tolist() if start.made.loss == self.loss else []
            if start.made.alike(self.made):  # or velocity and step are of something else
                course.velocity = start.velocity[b].to(dtype)
                if self.step == "auto" or self.method == "conjugate" or self.prior != "none":
                    course.step = float(start.step[b])
                if start.coefficients is not None:
                    first = start.coefficients[b].to(dtype)
                elif start.held is not None and int(start.count[b]) == len(data):  # with more patterns the loss is another one
                    course.held = start.held[0][b].to(dtype), start.held[1][b].to(dtype)
        if self.prior != "none":
            course.regularised = self._regularised(data), proximal.Point(first, course.velocity, course.step)
        if self.method == "conjugate":
            course.line = conjugate.Line(course.potential, course.step, course.velocity, course.held and course.held[1])
        return course

    def _light(self, data: DataSet) -> Tensor:
        """What steps are divided by: the illumination, nowhere none."""
        return data.illumination + SOFT * data.illumination.amax() if data.illumination.ndim == 2 else torch.ones(())

    def _first_step(self, data: DataSet) -> float:
        if self.step != "auto" and self.prior == "none":
            return float(self.step)
        step = losses.load(self.loss).first_step(data.whole.patterns, data.whole.scale)
        return step if self.scaling == "illumination" or self.prior != "none" else step / float(self._light(data).amax())

    def _iterate(self, course: "_Course", times: int, lanes: Map) -> None:
        if course.regularised is not None:
            problem, point = course.regularised
            for _ in range(times):
                course.losses.append(proximal.advance(problem, point, lanes) / len(course.data))
            course.potential, course.velocity, course.step = problem.potential(point.coefficients), point.velocity, point.step
            return
        if course.line is not None:
            light, line = course.light if self.scaling == "illumination" else torch.ones(()), course.line
            for _ in range(times):
                course.losses.append(conjugate.advance(partial(self._unscaled, course.data, lanes), light, line))
            course.potential, course.velocity, course.step = line.potential, line.direction, line.step
            course.held = None if line.before is None else (line.potential, line.before)
            return
        for _ in range(times):
            loss, gradient = self._gradient(course.data, course.light, course.potential, lanes)
            if self.step == "auto":
                if course.held is not None and not loss <= course.losses[-1]:
                    # Downhill it was not (nan is not either): back to where we stood, half a step from there, momentum forgotten.
                    (course.potential, gradient), loss = course.held, course.losses[-1]
                    course.velocity, course.step = torch.zeros_like(course.velocity), course.step / 2
                elif course.held is not None:
                    course.step *= 1.1
                course.held = course.potential, gradient
            course.losses.append(loss)
            course.velocity = self.momentum * course.velocity - course.step * gradient
            course.potential = course.potential + course.velocity

    def _gradient(self, data: DataSet, light: Tensor, potential: Tensor, lanes: Map) -> tuple[float, Tensor]:
        """Loss per position, and the Wirtinger gradient summed over positions (divided by the illumination if asked)."""
        loss, gradient = self._unscaled(data, lanes, potential)
        return loss, gradient / light if self.scaling == "illumination" else gradient

    def _unscaled(self, data: DataSet, lanes: Map, potential: Tensor) -> tuple[float, Tensor]:
        loss, gradient = data.gradient(potential, lanes, real=self.kind == "potential")
        return loss / len(data), gradient

    def _regularised(self, data: DataSet) -> proximal.Problem:
        """The prior, weighed against a data set."""
        penalty, nats = priors.load(self.prior), losses.load(self.loss).nats
        assert nats is not None  # or it was refused
        blob = self.blob / self.setup.object.pixel if penalty.blobs else 0.0
        electrons = data.dose / self.counts_per_electron
        weight = proximal.weight(penalty, self.strength, data.illumination, electrons, nats, blob)
        return proximal.Problem(data, penalty, weight, proximal.metric(data.illumination, blob), blob, self.momentum)


@dataclass
class _Course:
    """One data set on its way."""

    data: DataSet
    light: Tensor
    potential: Tensor
    velocity: Tensor
    step: float
    losses: list[float] = field(default_factory=list)
    held: tuple[Tensor, Tensor] | None = None
    line: conjugate.Line | None = None  # by conjugate gradients
    regularised: tuple[proximal.Problem, proximal.Point] | None = None  # with a prior


def _collect(courses: list[_Course], descent: Reconstructor) -> Reconstruction:
    holding = [c.held for c in courses if c.held is not None]
    points = [c.regularised[1] for c in courses if c.regularised is not None]
    return Reconstruction(
        torch.stack([c.potential for c in courses]),
        torch.tensor([c.losses for c in courses], dtype=torch.float64),
        torch.stack([c.velocity for c in courses]),
        torch.tensor([c.step for c in courses], dtype=torch.float64),
        torch.tensor([len(c.data) for c in courses]),
        # By conjugate gradients those that found nothing lower have none: then all begin anew.
        (torch.stack([h[0] for h in holding]), torch.stack([h[1] for h in holding])) if len(holding) == len(courses) else None,
        torch.stack([p.coefficients for p in points]) if points else None,
        made=descent.made,
    )
