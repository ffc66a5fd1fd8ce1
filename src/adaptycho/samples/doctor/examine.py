"""The doctor: tells from patterns and what a recording says of itself what is wrong with its geometry."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from adaptycho.formats import pixels
from adaptycho.formats.frames import outliers
from adaptycho.formats.inspect import describe
from adaptycho.formats.recording import CHUNK, Recording
from adaptycho.physics.forward import record
from adaptycho.physics.grid import fft2
from adaptycho.samples.doctor import disc as discs
from adaptycho.samples.doctor import electrons, facing, frames
from adaptycho.samples.doctor.disc import Disc
from adaptycho.samples.doctor.findings import Finding, Findings, Mend
from adaptycho.samples.doctor.trial import masked

WHOLE = 0.98  # of half the detector that a disc may fill to be measured
SAME_RADIUS = 0.05  # relative
SAME_CENTRE = 1.0, 0.05  # pixels, and of the radius
SAME_GAIN = 2.5  # factor between counts per electron that are told apart


def examine(recording: Recording, *, tell: Callable[[str], None] | None = None) -> Findings:
    """Looks for what is wrong with a recording: detector, disc, orientation, lens, scan, counts.

    Args:
        recording: one scan.
        tell: is told what is being looked at.

    Raises:
        ValueError: the patterns hold no counts.
    """
    say = tell or (lambda text: None)
    setup = recording.setup
    say("detector and patterns")
    detector, mean, faulty, kept = _detector(recording)
    good = ~faulty if setup.mask is None else ~faulty & torch.fft.fftshift(setup.mask.cpu().bool()).numpy()
    found = [detector, frames.judged(kept, recording)]
    say("bright-field disc")
    measured, shift, detector_pixel, told = _disc(recording, mean, good)
    found += told
    nominal = setup.semiangle / (detector_pixel or setup.detector_pixel)
    disc = Disc((0.0, 0.0), nominal, 1.0, 0.0) if measured is None else replace(measured, radius=nominal)
    say("orientation")
    believed = torch.from_numpy(good)
    clean = masked(replace(recording, setup=replace(setup, measured_probe=None)), torch.from_numpy(faulty))
    face = facing.look(clean, disc, believed, kept, shift, detector_pixel, say)
    found += face.findings
    seam, roll = frames.lines_judged(recording, face.images, kept)
    found += seam
    say("counts per electron")
    gain = electrons.counts_per_electron(recording, face.trials[0][1], believed, kept, disc, shift)
    counts, told_counts = _counts(recording, gain)
    found.append(told_counts)
    notes = tuple(w for w in describe(recording)["warnings"] if not any(word in w for word in SAID))
    mend = Mend(face.way, shift, detector_pixel, face.scale, counts, faulty, kept, roll)
    return Findings(tuple(found), mend, notes, mean, measured, face.images, face.polarity, face.trials)


# Of the warnings of `describe`, those that the findings repeat.
SAID = ("disc", "detector pixels spoil", "counts per electron", "patterns jump", "far more or fewer", "hold no counts")


def _detector(recording: Recording) -> tuple[Finding, np.ndarray, np.ndarray, Tensor]:
    """Faulty pixels, the mean pattern without bad patterns, and the patterns to keep."""
    setup, patterns = recording.setup, recording.measurement.patterns[0]
    believed = torch.ones(setup.detector, dtype=torch.bool) if setup.mask is None else setup.mask.cpu().bool()
    centred = torch.fft.fftshift(believed).numpy()

    def looked(kept: np.ndarray) -> tuple[pixels.Moments, np.ndarray]:
        parts = (np.fft.fftshift(p.numpy(force=True), (-2, -1))[k] for p, k in zip(patterns.split(CHUNK), _split(kept), strict=True))
        moments = pixels.moments(parts, setup.detector)
        return moments, pixels.faults(moments, centred).any

    everything = np.ones(len(patterns), bool)
    _, faulty = looked(everything)
    lit = torch.fft.ifftshift(torch.from_numpy(centred & ~faulty))
    sums = torch.cat([(p.to("cpu", torch.float64) * lit).sum((-2, -1)) for p in patterns.split(CHUNK)]).numpy()
    if not (sums > 0).any():
        raise ValueError(f"{recording.path or 'recording'}: patterns: expected counts, found none")
    bad = (sums <= 0) | outliers(sums)
    moments, faulty = looked(~bad)
    found = pixels.faults(moments, centred)
    said = "" if setup.mask is None else f"{int((~believed).sum())} are not to be believed"
    if not faulty.any():
        return Finding("detector pixels", "none faulty", said, value=0), moments.mean, faulty, torch.from_numpy(~bad)
    finding = Finding("detector pixels", found.said(), said, "certain", True, "--mask auto", int(faulty.sum()))
    return finding, moments.mean, faulty, torch.from_numpy(~bad)


def _split(values: np.ndarray) -> list[np.ndarray]:
    return np.split(values, range(CHUNK, len(values), CHUNK))


def _disc(recording: Recording, mean: np.ndarray, good: np.ndarray) -> tuple[Disc | None, tuple[int, int], float | None, list[Finding]]:
    """The disc, the shift that centres the patterns, the detector pixel if it is another, and what is to be said."""
    setup, none = recording.setup, (None, (0, 0), None)
    nominal, half = setup.semiangle / setup.detector_pixel, min(setup.detector) / 2
    probe = setup.probe()
    light = record(setup, fft2(probe[0] if probe.ndim == 3 else probe).abs().square()[None])[0]
    expected = discs.find(torch.fft.fftshift(light).numpy(), np.ones_like(good))
    measured = discs.find(mean, good)
    reach = measured.radius + max(abs(c) for c in measured.centre)
    if measured.contrast < 0.5 or measured.radius < 1.5 or measured.radius > half or reach > half + 2 or nominal > 1.1 * half:
        text = f"no whole disc on the detector (of {nominal:.1f} pixels' radius by the semi-angle)"
        return *none, [Finding("bright-field disc", text, sure="open", value=None)]
    off = tuple(m - e for m, e in zip(measured.centre, expected.centre, strict=True))
    away = math.hypot(*off)
    shift = (-round(off[0]), -round(off[1])) if away > max(SAME_CENTRE[0], SAME_CENTRE[1] * measured.radius) else (0, 0)
    middle = tuple(n // 2 + o for n, o in zip(setup.detector, off, strict=True))
    centre = Finding(
        "disc's centre",
        f"({off[0]:+.2f}, {off[1]:+.2f}) pixels from where the beam should meet the detector",
        wrong=shift != (0, 0),
        mend=f"--centre {middle[0]:.0f},{middle[1]:.0f}",
        value=list(off),
    )
    ratio = measured.radius / expected.radius
    differs = abs(ratio - 1) > SAME_RADIUS and reach <= WHOLE * half + 1
    pixel = setup.detector_pixel / ratio
    width = Finding(
        "disc's radius",
        f"{measured.radius:.2f} pixels: with a semi-angle of {setup.semiangle:.4g} mrad, pixels are {pixel:.4g} mrad"
        + (f" (or, if they are right, --semiangle {setup.semiangle * ratio:.4g})" if differs else ""),
        f"{setup.detector_pixel:.4g} mrad",
        wrong=differs,
        mend=f"--detector-pixel {pixel:.4g}",
        value={"radius_px": measured.radius, "detector_pixel_mrad": pixel, "semiangle_mrad": setup.semiangle * ratio},
    )
    return measured, shift, pixel if differs else None, [centre, width]


def _counts(recording: Recording, gain: tuple[float, float] | None) -> tuple[float | None, Finding]:
    name, said = "counts per electron", f"{recording.counts_per_electron:g}"
    if gain is None:
        return None, Finding(name, "too few patterns, or pixels in the disc, to tell", said, "open")
    value, error = gain
    ratio = value / recording.counts_per_electron
    wrong = not 1 / SAME_GAIN < ratio < SAME_GAIN
    text = f"about {value:.2g} ± {error:.1g} by the scatter of counts"
    finding = Finding(name, text, said, "likely", wrong, f"--counts-per-electron {value:.2g}", {"value": value, "error": error})
    return (float(f"{value:.2g}") if wrong else None), finding
