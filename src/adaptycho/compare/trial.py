"""One strategy on one specimen: the scan, the reconstruction, and everything that is measured about both."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from adaptycho import metrics
from adaptycho.compare.strategies import BLIND, lengths, scanner
from adaptycho.metrics.atoms import column_error, vacancy_detection
from adaptycho.metrics.dose import coverage, local_dose, path_length
from adaptycho.metrics.rings import frc_resolution
from adaptycho.metrics.spots import diffractogram_resolution
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.samples.sample import Sample
from adaptycho.scan.episode import State, run
from adaptycho.settings import Settings, build, update
from adaptycho.types import Measurement

Reference = Literal["truth", "full"]
ELECTRONS = 6.241509e6  # in a second, in 1 pA
LOOP = {"iterations": 10}  # of the reconstructions that decisions are made from, where the last one is tuned


@dataclass(frozen=True)
class Plan:
    """How a strategy is used.

    Attributes:
        strategy: its name.
        defocus: in Å; None is the microscope's nominal one.
        reconstruct: changes in the settings' section `reconstruct` for the last reconstruction; empty leaves the loop's own.
    """

    strategy: str
    defocus: float | None = None
    reconstruct: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Trial:
    """A strategy's scan of one specimen.

    Attributes:
        states: after each sub-sequence.
        potential: phase in rad on the object grid, from everything seen.
        seconds: to decide and to reconstruct, summed.
    """

    states: tuple[State, ...]
    potential: Float[Tensor, "1 H W"]
    seconds: dict[str, float]


def scan(plan: Plan, settings: Settings, sample: Sample) -> Trial:
    """Runs the strategy through the loop and reconstructs what it saw."""
    strategy = scanner(plan.strategy, settings, sample, settings.scan.defocus if plan.defocus is None else plan.defocus)
    tuned = bool(plan.reconstruct)
    # Where the last reconstruction is another one, nobody looks at those of a scan that was laid out beforehand.
    loop = (LOOP if plan.strategy not in BLIND else {"iterations": 1}) if tuned else {}
    states = tuple(
        run(sample.microscope, strategy, _descent(settings, sample, loop), lengths(plan.strategy, settings), seed=seed(settings, sample))
    )
    seconds = {name: sum(s.seconds[name] for s in states) for name in ("decide", "reconstruct")}
    if not tuned:
        return Trial(states, states[-1].reconstruction.phase, seconds)
    started = time.perf_counter()
    potential = _descent(settings, sample, dict(plan.reconstruct))(states[-1].seen).phase
    return Trial(states, potential, seconds | {"reconstruct": seconds["reconstruct"] + time.perf_counter() - started})


def score(plan: Plan, settings: Settings, sample: Sample, reference: Reference) -> dict[str, float]:
    """Everything that is measured about one strategy on one specimen, by name (docs/metrics.md).

    Args:
        plan: the strategy and its settings.
        settings: of specimen, dose and number of positions.
        sample: the specimen.
        reference: what scores refer to; without a truth it is the full scan.
    """
    done = scan(plan, settings, sample)
    potential = sample.setup.crop(done.potential)
    against = sample.truth if reference == "truth" and sample.truth is not None else sample.full_scan
    return {
        **_likeness(potential, against, sample),
        **_structure(potential[0], sample),
        "held_out": _held_out(done.potential, sample),
        **_cost(done, settings, sample),
    }


def primary(potential: Float[Tensor, "1 h w"], sample: Sample) -> float:
    """What settings are tuned on: correlation inside the structure, with the truth or else the full scan; a diverged one is worst."""
    reference = sample.truth if sample.truth is not None else sample.full_scan
    value = float(metrics.correlation(potential, reference, mask=sample.inside)[0])
    return value if value == value else -1.0


def descents(
    measurement: Measurement, changes: Mapping[str, Any], stops: Sequence[int], settings: Settings, sample: Sample
) -> Iterator[tuple[int, float]]:
    """Primary score of one reconstruction when it is stopped after some numbers of iterations."""
    descent = _descent(settings, sample, {**changes, "iterations": max(stops)})
    for done, state in enumerate(descent.steps(measurement), 1):
        if done in stops:
            yield done, primary(sample.setup.crop(state.phase), sample)


def seed(settings: Settings, sample: Sample) -> int:
    """Of a scan's randomness: another for each specimen and each seed of the settings."""
    return settings.scan.seed * 10_000_019 + sample.number


def _descent(settings: Settings, sample: Sample, changes: Mapping[str, Any]) -> Reconstructor:
    return build.reconstructor(update(settings, {"reconstruct": dict(changes)}, "evaluate"), sample.setup, sample.counts_per_electron)


def _likeness(potential: Float[Tensor, "1 h w"], against: Float[Tensor, "1 h w"], sample: Sample) -> dict[str, float]:
    pixel, inside = sample.setup.object.pixel, sample.inside
    values = {
        "ssim": metrics.ssim(potential, against),
        "ssim_uniform": metrics.ssim(potential, against, window="uniform"),
        "ssim_aligned": metrics.ssim_aligned(potential, against),
        "ssim_worst": metrics.worst(potential, against),
        "nrmse": metrics.nrmse(potential, against),
        "correlation": metrics.correlation(potential, against),
        "ssim_inside": metrics.ssim(potential, against, mask=inside),
        "ssim_aligned_inside": metrics.ssim_aligned(potential, against, mask=inside),
        "nrmse_inside": metrics.nrmse(potential, against, mask=inside),
        "correlation_inside": metrics.correlation(potential, against, mask=inside),
        "frc_half_bit": frc_resolution(potential, against, pixel, threshold="half-bit"),
        "frc_one_seventh": frc_resolution(potential, against, pixel, threshold="one-seventh"),
    }
    if sample.sites is not None:  # without a lattice there are no spots
        values["resolution"] = diffractogram_resolution(potential, pixel)
    return {name: float(v[0]) for name, v in values.items()}


def _structure(image: Float[Tensor, "h w"], sample: Sample) -> dict[str, float]:
    """How well columns are placed, and vacancies found where there are some."""
    sites, pixel = sample.sites, sample.setup.object.pixel
    if sites is None:
        return {}
    columns = column_error(image, sites.present, pixel)
    found = {"column_error": columns.error, "columns_missed": 1 - columns.found, "columns_invented": columns.false}
    if bool((sites.occupancy < 1).any()):
        found["vacancy_f1"] = vacancy_detection(image, sites.positions, sites.occupancy, sites.kind, pixel).f1
    return found


def _held_out(potential: Float[Tensor, "1 H W"], sample: Sample) -> float:
    """Squared error of the amplitudes that the potential predicts for patterns no scan saw, over that of an empty field."""
    descent = Reconstructor(sample.setup, loss="amplitude")
    found, empty = (float(descent.gradient(sample.held_out, v)[0]) for v in (potential, potential * 0))
    return found / empty


def _cost(done: Trial, settings: Settings, sample: Sample) -> dict[str, float]:
    """Dose, coverage and time. The times to move and to expose follow from the settings of the instrument, the others were measured."""
    seen, field = done.states[-1].seen, sample.setup.field
    positions, dose = seen.positions[0], seen.dose[0] / sample.counts_per_electron
    radius = sample.setup.probe_radius(defocus=float(seen.defocus[0, -1]))
    local, cover = local_dose(positions, dose, field, radius), coverage(positions, field, radius)
    instrument = settings.instrument
    seconds = done.seconds | {
        "move": len(positions) * instrument.settle,
        "expose": float(dose.sum()) / (instrument.current * ELECTRONS),
    }
    return {
        "dose_total": local.total,
        "dose_mean": local.mean,
        "dose_peak": local.peak,
        "dose_p95": local.p95,
        "coverage": cover.fraction,
        "covering_radius": cover.covering_radius,
        "path_length": path_length(positions, field),
        **{f"seconds_{name}": value for name, value in seconds.items()},
        "seconds": sum(seconds.values()),
    }
