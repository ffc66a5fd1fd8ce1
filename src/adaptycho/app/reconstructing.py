"""What `reconstruct` does: decides what the data can, descends, and writes what comes of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from adaptycho import draw, formats
from adaptycho.app.refining import told
from adaptycho.app.tasks import Progress
from adaptycho.draw import report
from adaptycho.reconstruct.choice import choose
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.reconstruction import Reconstruction
from adaptycho.reconstruct.seeking import REFINED, seek
from adaptycho.reconstruct.stopping import stopping
from adaptycho.reconstruct.uncertainty import check as check_uncertainty
from adaptycho.reconstruct.uncertainty import uncertainty
from adaptycho.runs import patterns, results
from adaptycho.settings import Settings, build
from adaptycho.support import targets
from adaptycho.types import Measurement


def reconstruct(
    file: Path,
    out: Path,
    chosen: Settings,
    progress: Progress,
    device: str = "cpu",
    given: formats.Given | None = None,
    *,
    start: Path | None = None,
    snapshots: int = 0,
    uncertain: bool = False,
) -> dict[str, Any]:
    """Reconstructs a recording; writes the potential and a picture.

    Args:
        file: the recording.
        out: where to.
        chosen: settings.
        progress: shown.
        device: where to compute.
        given: what is said of the recording beside what it says itself.
        start: a result or a snapshot of the same recording to go on from.
        snapshots: iterations after each of which what there is is written too, beside, named by the iterations of its loss; 0 writes none.
        uncertain: whether to find out how uncertain the phase is at every pixel, too; not where the patterns choose no prior.
    """
    targets.named(out)
    picture = out.with_suffix(".png")
    if out == picture:
        raise ValueError(f"{out}: expected a name such as {out.with_suffix('.h5')} for the potential, found that of the picture beside it")
    for path in (out, picture):
        targets.new_file(path)
    recording = patterns.read(file, given)
    setup, measurement = recording.setup, recording.measurement
    descent, source = build.reconstructor(chosen, setup, recording.counts_per_electron), results.origin(setup, measurement)
    known = None if start is None else results.read_state(start, setup, measurement.positions.shape[1], source)
    before = 0 if known is None else known.loss.shape[1]
    if uncertain:  # of a probe that is right
        descent = replace(descent, refine=() if descent.refine == "auto" else descent.refine)
        check_uncertainty(descent, measurement)
    most = max(descent.iterations, REFINED) if descent.refine == "auto" else descent.iterations
    for done in range(snapshots, most, snapshots) if snapshots else ():
        targets.new_file(beside(out, before + done))  # as many as there may be, before anything is decided that takes long
    known, measurement = None if known is None else known.to(device), measurement.to(device)
    descent = _decided(descent, measurement, known, progress)
    more = _uncertain(descent, before, measurement, progress) if uncertain and descent.prior != "none" else {}
    for done, found in enumerate(progress(descent.steps(measurement, known), descent.iterations, "iterations"), 1):
        result = found
        if snapshots and done % snapshots == 0 and done < descent.iterations:
            results.write_state(beside(out, before + done), setup, result, source)
    results.write_state(out, setup, result, source, more)
    phase = setup.crop(result.phase)[0].cpu()
    report.save_png(picture, draw.phase(phase, setup.field, recording.title, *(error[0].cpu() for error in more.values())))
    prior = {"prior": descent.prior, "strength": descent.strength, "blob": descent.blob} if descent.prior != "none" else {"prior": "none"}
    refined = {} if result.refined is None else {"refined": told(result.refined, recording.setup.field)}
    return {"file": str(out), "picture": str(picture), "loss": [round(v, 9) for v in result.loss[0].tolist()], **prior, **refined}


def _decided(descent: Reconstructor, measurement: Measurement, start: Reconstruction | None, progress: Progress) -> Reconstructor:
    """With everything that the data decide: whether the probe is refined, which prior, when to stop.

    Raises:
        ValueError: what was to be held back has been seen.
    """
    if descent.stop == "held-out" and start is not None:
        raise ValueError("reconstruct.stop: expected iterations to go on from a result, which has seen what would be held back")
    if descent.refine == "auto" and (start is None or start.refined is None):
        (descent,) = progress((seek(descent, measurement) for _ in range(1)), 1, "trying whether to refine the probe")
    if descent.prior == "auto":
        (descent,) = progress((choose(descent, measurement) for _ in range(1)), 1, "choosing a prior")
    if descent.stop == "held-out":
        *_, descent = progress(stopping(descent, measurement), descent.iterations, "finding where to stop")
    return descent


def _uncertain(descent: Reconstructor, before: int, measurement: Measurement, progress: Progress) -> dict[str, Tensor]:
    """Standard error of the phase in the field after all iterations, some of which were made before, by the name that it has in a file."""
    descent = replace(descent, iterations=before + descent.iterations)
    (found,) = progress((uncertainty(descent, measurement) for _ in range(1)), 1, "finding out how uncertain it is")
    return {"uncertainty_in_field": descent.setup.crop(found)}


def beside(out: Path, done: int) -> Path:
    """The name of what there is after some iterations."""
    return out.with_name(f"{out.stem}-{done:04d}{out.suffix}")
