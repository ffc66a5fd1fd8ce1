"""ROP: the potential from diffraction patterns by gradient descent on Eq. 2, many data sets at once.

With psi = P(r - R_p) exp(iV), Psi = F psi and chi = F^H[(dL/dI) Psi], the Wirtinger gradient dL/dV* is `-i conj(psi) chi` summed over
positions: twice its real part is the derivative by Re V, twice its imaginary part that by Im V. For Eq. 2, dL/dI = 2 (I - J).

The normalisation in which the paper's step 5.25e2 holds: probe and patterns of unit sum (counts divided by the dose), orthonormal
transforms, V <- V - alpha dL/dV* with the gradient *summed* over positions. With the 1/P of Eq. 2 the same step would be P times larger. A
constant added to V changes no pattern, so it is free: its gradient is zero, descent from V = 0 leaves it near zero, and comparisons must
remove it (`adaptycho.metrics.align`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from adaptycho.physics.forward import transmission
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct import LOSSES, Loss, kernels, losses
from adaptycho.reconstruct.probes import lookup
from adaptycho.support.notebook import card
from adaptycho.support.threads import Map, workers
from adaptycho.types import Measurement

LANE = 1024  # positions worth a thread: longer data sets are summed in up to four lanes, the same whatever the number of threads
SOFT = 0.05  # the illumination that scales a step is at least this fraction of its maximum


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A potential and how it came about; handed back as `start`, the descent goes on from it.

    Attributes:
        potential: sigma V in rad on the object grid; complex if absorption is reconstructed. The constant phase is free.
        loss: loss before each iteration so far, per position.
        velocity: last update, which momentum carries on.
        step: step in use, one for each data set.
        count: number of patterns it was made from.
        held: where an automatic step would go back to, potential and gradient, if there was one.
    """

    potential: Shaped[Tensor, "B H W"]
    loss: Float[Tensor, "B I"]
    velocity: Shaped[Tensor, "B H W"]
    step: Float[Tensor, " B"]
    count: Int[Tensor, " B"]
    held: tuple[Shaped[Tensor, "B H W"], Shaped[Tensor, "B H W"]] | None = None

    @property
    def phase(self) -> Float[Tensor, "B H W"]:
        """Real part of the potential in rad."""
        return self.potential.real if self.potential.is_complex() else self.potential

    def _repr_html_(self) -> str:
        """As a notebook shows it: the first data set's phase."""
        facts = {
            "data sets": f"{len(self.potential)}",
            "object": f"{self.potential.shape[1]} x {self.potential.shape[2]} pixels",
            "iterations": f"{self.loss.shape[1]}",
            "loss": f"{float(self.loss[0, 0]):.4g} to {float(self.loss[0, -1]):.4g} per position",
        }
        return card("Reconstruction (phase in rad)", facts, self.phase[0].detach().cpu().numpy())


@dataclass(frozen=True)
class Reconstructor:
    """Regularised optimisation for ptychography, stripped to the object: `reconstructor(measurement)` gives a `Reconstruction`.

    Defaults are the paper's: five plain steps of 5.25e2 on Eq. 2. `best()` gives the settings that reconstruct best.

    Attributes:
        setup: geometry and beam.
        iterations: gradient steps.
        loss: `intensity` (Eq. 2), `amplitude` or `poisson`; the last two are safe where no electron was counted.
        step: step size; `auto` starts from the loss's curvature and adapts: back and halved when the loss rises, a little longer when not.
        scaling: `none`, or `illumination` to divide the step by the summed probe intensity at each pixel.
        momentum: fraction of the last update that is carried on.
        kind: `potential` (real V) or `complex` (with absorption).
        subpixel: probes are placed on a lattice of 1/subpixel of a pixel; bounds the table of shifted probes to subpixel^2 entries.
        mask: detector pixels to believe, (Q, Q), zero frequency in the corner, 1 or 0; all if None.
    """

    setup: Setup
    iterations: int = 5
    loss: Loss = "intensity"
    step: float | Literal["auto"] = 525.0
    scaling: Literal["none", "illumination"] = "none"
    momentum: float = 0.0
    kind: Literal["potential", "complex"] = "potential"
    subpixel: int = 16
    mask: Tensor | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {self.loss!r}")
        for name in ("iterations", "subpixel"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.step != "auto" and not self.step > 0:
            raise ValueError(f"step: expected a positive number or 'auto', got {self.step!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number from 0 to below 1, got {self.momentum}")
        if self.mask is not None and tuple(self.mask.shape) != self.setup.detector:
            raise ValueError(f"mask: expected the detector's shape {self.setup.detector}, got {tuple(self.mask.shape)}")

    @classmethod
    def best(cls, setup: Setup, *, iterations: int = 20, **changes: Any) -> "Reconstructor":
        """The settings that reconstruct best: amplitude loss, step scaled by illumination and adapted, momentum."""
        settings: dict[str, Any] = {"loss": "amplitude", "step": "auto", "scaling": "illumination", "momentum": 0.7} | changes
        return cls(setup, iterations=iterations, **settings)

    def __call__(self, measurement: Measurement, start: Reconstruction | None = None) -> Reconstruction:
        """Reconstructs B data sets at once, each in its own thread, with `torch.get_num_threads()` of them at work.

        Args:
            measurement: B data sets, ragged or not.
            start: a reconstruction to go on from, with the same settings and of the same or fewer patterns; from V = 0 if None.
        """
        return next(self._descend(measurement, start, self.iterations))

    def steps(self, measurement: Measurement, start: Reconstruction | None = None) -> Iterator[Reconstruction]:
        """The same, yielding after every iteration. The last loss belongs to the potential before the step just made."""
        return self._descend(measurement, start, 1)

    def _descend(self, measurement: Measurement, start: Reconstruction | None, stride: int) -> Iterator[Reconstruction]:
        """Yields after every `stride` iterations; the longer, the more of a data set is still in cache at its next iteration."""
        dtype = measurement.positions.dtype.to_complex() if self.kind == "complex" else measurement.positions.dtype
        shape = (len(measurement), *self.setup.object.shape)
        if start is not None and tuple(start.potential.shape) != shape:
            raise ValueError(f"start: expected a potential of shape {shape}, got {tuple(start.potential.shape)}")
        with workers():
            problems = self._prepare(measurement)
        blank = torch.zeros(shape[1:], dtype=dtype, device=measurement.positions.device)
        for b, problem in enumerate(problems):
            problem.potential, problem.velocity, problem.step = blank, blank, self._first_step(problem)
            if start is not None:
                problem.potential, problem.velocity = start.potential[b].to(dtype), start.velocity[b].to(dtype)
                problem.losses = start.loss[b].tolist()
            if start is not None and start.held is not None and self.step == "auto":
                problem.step = float(start.step[b])
                if int(start.count[b]) == len(problem.whole.which):  # with more patterns the loss is another one
                    problem.held = start.held[0][b].to(dtype), start.held[1][b].to(dtype)
        for _ in range(0, self.iterations, stride):
            with workers() as spread:
                sets, lanes = (spread, map) if len(problems) > 1 else (map, spread)
                list(sets(partial(self._iterate, times=stride, lanes=lanes), problems))
            yield _collect(problems)

    def gradient(self, measurement: Measurement, potential: Shaped[Tensor, "B H W"]) -> tuple[Float[Tensor, " B"], Shaped[Tensor, "B H W"]]:
        """Loss per position at a given potential, and its Wirtinger gradient dL/dV* summed over positions, as a step would use it.

        Twice its real part is the derivative of the summed loss by Re V, twice its imaginary part that by Im V; for a real potential only
        the real part is given. Divided by the illumination where the step is.
        """
        results = []
        with workers() as lanes:
            problems = self._prepare(measurement)
            for problem, v in zip(problems, potential, strict=True):
                problem.potential = v
                results.append(self._gradient(problem, lanes))
        return torch.tensor([r[0] for r in results], dtype=torch.float64), torch.stack([r[1] for r in results])

    def _prepare(self, measurement: Measurement) -> list["_DataSet"]:
        """Checks the data and makes all of each data set ready that is the same in every iteration."""
        b, k = measurement.positions.shape[:2]
        lengths, dose, device = measurement.lengths, measurement.dose, measurement.positions.device
        if tuple(measurement.patterns.shape[2:]) != self.setup.detector:
            raise ValueError(f"patterns: expected the detector's shape {self.setup.detector}, got {tuple(measurement.patterns.shape[2:])}")
        if bool((lengths < 1).any()):
            raise ValueError("measurement: expected at least one pattern in each data set, got none")
        lengths = lengths.to(device)
        used = torch.arange(k, device=device) < lengths[:, None]
        corner, offset = (x.view(b, k, 2) for x in self.setup.place(measurement.positions.reshape(-1, 2)))
        room = corner.new_tensor(self.setup.object.shape) - corner.new_tensor(self.setup.window.shape)
        outside = ((corner < 0) | (corner > room)).any(-1)  # the compiled loops do not look where they write
        _refuse(outside & used, "positions: expected fractions of the field from 0 to 1", measurement.positions)
        _refuse((dose <= 0) & used, "dose: expected positive counts", dose)
        _refuse_patterns(measurement.patterns, used)
        probes, which = lookup(self.setup, measurement.defocus, offset, used, self.subpixel)
        scale = (1 / dose).to(measurement.positions.dtype)
        weight = (torch.ones(self.setup.detector) if self.mask is None else self.mask).to(measurement.positions)
        problems = []
        for i, n in enumerate(lengths.tolist()):
            whole = _Patterns(*(x[i, :n].contiguous() for x in (which, corner, measurement.patterns, scale)))
            cuts = min(4, max(1, n // LANE))
            lanes = [_Patterns(*(x[n * c // cuts : n * (c + 1) // cuts] for x in whole)) for c in range(cuts)]
            problem = _DataSet(whole, [kernels.passes(probes, *lane, weight, self.loss, self.setup.binning) for lane in lanes])
            if self.scaling == "illumination" or self.step == "auto":
                total = kernels.illumination(probes, whole.which, whole.corner, self.setup.object.shape)
                problem.illumination = total + SOFT * total.amax()
            problems.append(problem)
        return problems

    def _first_step(self, problem: "_DataSet") -> float:
        if self.step != "auto":
            return float(self.step)
        step = losses.load(self.loss).first_step(problem.whole.patterns, problem.whole.scale)
        return step if self.scaling == "illumination" else step / float(problem.illumination.amax())

    def _iterate(self, problem: "_DataSet", times: int, lanes: Map) -> None:
        for _ in range(times):
            loss, gradient = self._gradient(problem, lanes)
            if self.step == "auto":
                if problem.held is not None and not loss <= problem.losses[-1]:
                    # Downhill it was not (nan is not either): back to where we stood, half a step from there, momentum forgotten.
                    (problem.potential, gradient), loss = problem.held, problem.losses[-1]
                    problem.velocity, problem.step = torch.zeros_like(problem.velocity), problem.step / 2
                elif problem.held is not None:
                    problem.step *= 1.1
                problem.held = problem.potential, gradient
            problem.losses.append(loss)
            problem.velocity = self.momentum * problem.velocity - problem.step * gradient
            problem.potential = problem.potential + problem.velocity

    def _gradient(self, problem: "_DataSet", lanes: Map) -> tuple[float, Tensor]:
        """Loss per position, and the Wirtinger gradient summed over positions (divided by the illumination if asked)."""
        through = transmission(problem.potential)
        # Of a real potential only the real part of -i conj(psi) chi is needed.
        dtype = through.dtype if self.kind == "complex" else through.real.dtype
        (loss, back), *others = (lanes if len(problem.lanes) > 1 else map)(partial(_backwards, through, dtype), problem.lanes)
        for more, further in others:
            loss, back = loss + more, back + further
        gradient = -1j * back if self.kind == "complex" else back
        return loss / len(problem.whole.which), gradient / problem.illumination if self.scaling == "illumination" else gradient


class _Patterns(NamedTuple):
    """Positions that are worked on together: probe, place, pattern and what turns its counts into fractions."""

    which: Tensor
    corner: Tensor
    patterns: Tensor
    scale: Tensor


@dataclass
class _DataSet:
    """One data set while it is worked on, cut into lanes that may run side by side."""

    whole: _Patterns
    lanes: list[kernels.Passes]
    illumination: Tensor = field(default_factory=lambda: torch.ones(()))
    potential: Tensor = field(default_factory=lambda: torch.zeros(()))
    velocity: Tensor = field(default_factory=lambda: torch.zeros(()))
    step: float = 0.0
    losses: list[float] = field(default_factory=list)
    held: tuple[Tensor, Tensor] | None = None


def _backwards(through: Tensor, dtype: torch.dtype, passes: kernels.Passes) -> tuple[float, Tensor]:
    """Loss summed over a lane's positions, and what they send back to the object."""
    back = torch.zeros(through.shape, dtype=dtype, device=through.device)
    return passes(through, back), back


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


def _collect(problems: list[_DataSet]) -> Reconstruction:
    holding = [p.held for p in problems if p.held is not None]
    return Reconstruction(
        torch.stack([p.potential for p in problems]),
        torch.tensor([p.losses for p in problems], dtype=torch.float64),
        torch.stack([p.velocity for p in problems]),
        torch.tensor([p.step for p in problems], dtype=torch.float64),
        torch.tensor([len(p.whole.which) for p in problems]),
        (torch.stack([h[0] for h in holding]), torch.stack([h[1] for h in holding])) if holding else None,
    )
