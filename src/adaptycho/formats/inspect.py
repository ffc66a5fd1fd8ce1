"""Describes a recording: what it holds, what its patterns say about the beam, and what looks wrong.

`describe` gives numbers with their units in the key names, ready for JSON; `lines` gives the same as text for people.
"""

import math
from typing import Any

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from adaptycho.formats.recording import CHUNK, Recording
from adaptycho.physics.optics import EDGE, Setup
from adaptycho.types import Measurement

RADIUS_TOLERANCE = 0.1  # relative, of the bright-field disc against the semi-angle
OVERLAP_WANTED = 0.5  # linear overlap of neighbouring probes below which a reconstruction becomes doubtful
COUNTS_TOLERANCE = 0.2  # how much more than its dose a pattern may hold on average


def describe(recording: Recording) -> dict[str, Any]:
    """Numbers of a recording and warnings about it, ready for JSON.

    Defocus and probe are those the patterns were taken at: the median of the recorded defocus, which need not be the nominal one. The dose
    per area is everything sent over the scan field, which is the box of the positions in imported files; `dose_area` says which it is.
    The area lit is the object within the probe radius that holds 90 % of the intensity around any position. `measured_per_unknown` is
    N_k/N_u: recorded detector pixels over unknowns, the real and the imaginary part of each lit object pixel.
    """
    setup, data = recording.setup, recording.measurement
    mean, total, empty = _sums(data.patterns[0])
    n, q = data.positions.shape[1], setup.detector
    step = _step(setup, data)
    # Stored in single precision: what lies below a thousandth of an Å is rounding.
    defocus = round(float(np.median(data.defocus[0].cpu().double().numpy())), 3)
    half, most = (2 * setup.probe_radius(share, defocus=defocus) for share in (0.5, 0.9))
    lit = _lit(setup, data, most / 2)
    sent = float(data.dose.sum(dtype=torch.float64)) / recording.counts_per_electron
    facts: dict[str, Any] = {
        "file": None if recording.path is None else str(recording.path),
        "title": recording.title,
        "source": recording.source,
        "licence": recording.licence,
        "patterns": n,
        "pattern_px": list(q),
        "dtype": str(data.patterns.dtype).removeprefix("torch."),
        "energy_keV": None if setup.energy is None else setup.energy / 1e3,
        "wavelength_A": setup.wavelength,
        "semiangle_mrad": setup.semiangle,
        "defocus_A": defocus,
        "pixel_A": setup.window.pixel,
        "window_px": list(setup.window.shape),
        "window_A": list(setup.window.extent),
        "field_A": list(setup.field),
        "object_px": list(setup.object.shape),
        "rotation_deg": setup.rotation,
        "detector_pixel_mrad": setup.detector_pixel,
        "measured_probe": setup.measured_probe is not None,
        **_disc(mean, setup.detector_pixel),
        "step_A": step,
        "probe_diameter_50_A": half,
        "probe_diameter_90_A": most,
        "overlap_50": None if step is None else 1 - step / half,
        "overlap_90": None if step is None else 1 - step / most,
        "measured_px": n * q[0] * q[1],
        "unknowns": 2 * lit,
        "measured_per_unknown": n * q[0] * q[1] / (2 * lit),
        "counts": total,
        "counts_per_pattern": total / n,
        "counts_per_electron": recording.counts_per_electron,
        "electrons": total / recording.counts_per_electron,
        "dose_e_per_A2": sent / (setup.field[0] * setup.field[1]),
        "dose_area": "box of the positions" if _spans(data.positions[0]) else "scan field",
        "empty_patterns": empty,
    }
    return facts | {"warnings": _warnings(facts, float(data.dose.mean()))}


def lines(description: dict[str, Any]) -> list[str]:
    """A description as text, one fact a line, warnings last."""
    d = description
    focus = d["defocus_A"]
    word = "underfocus" if focus > 0 else "overfocus" if focus < 0 else "in focus"
    beam = "" if d["energy_keV"] is None else f"{d['energy_keV']:g} keV, "
    step = "one position" if d["step_A"] is None else f"{d['step_A']:.4g} Å between nearest positions (median)"
    texts = [
        f"file                {d['file'] or 'none (in memory)'}",
        *(f"{key:<20}{d[key]}" for key in ("title", "source", "licence") if d[key]),
        f"patterns            {d['patterns']} of {_by(d['pattern_px'])} pixels, {d['dtype']}",
        f"beam                {beam}wavelength {d['wavelength_A']:.5g} Å, semi-angle {d['semiangle_mrad']:.4g} mrad",
        f"defocus             {abs(focus):.6g} Å {word}" + (", probe measured" if d["measured_probe"] else ", probe calculated"),
        f"pixel               {d['pixel_A']:.4g} Å, window {_by(d['window_px'])} pixels = {_by(d['window_A'])} Å",
        f"field               {_by(d['field_A'])} Å, object {_by(d['object_px'])} pixels",
        f"rotation            {d['rotation_deg']:g} degrees, detector to scan, counter-clockwise",
        f"detector pixel      {d['detector_pixel_mrad']:.4g} mrad",
        f"bright-field disc   radius {d['disc_radius_px']:.1f} pixels = {d['disc_radius_mrad']:.3g} mrad, centre "
        f"({d['disc_offset_px'][0]:+.1f}, {d['disc_offset_px'][1]:+.1f}) pixels from zero frequency",
        f"scan step           {step}",
        f"probe diameter      {d['probe_diameter_50_A']:.4g} Å holds 50 %, {d['probe_diameter_90_A']:.4g} Å holds 90 % of the intensity",
    ]
    if d["step_A"] is not None:
        texts.append(f"linear overlap      {d['overlap_50']:.0%} of the 50 % diameter, {d['overlap_90']:.0%} of the 90 % diameter")
    texts += [
        f"N_k/N_u             {d['measured_px']} measured / {d['unknowns']} unknown (real and imaginary part) "
        f"= {d['measured_per_unknown']:.3g}",
        f"counts              {d['counts']:.6g}, {d['counts_per_pattern']:.5g} per pattern, {d['empty_patterns']} patterns empty",
        f"electrons           {d['electrons']:.4g} at {d['counts_per_electron']:g} counts each, "
        f"dose {d['dose_e_per_A2']:.4g} e/Å^2 over the {d['dose_area']}",
    ]
    return texts + [f"warning: {text}" for text in d["warnings"]]


def _by(pair: list[float]) -> str:
    return f"{pair[0]:.6g} x {pair[1]:.6g}"


def _sums(patterns: torch.Tensor) -> tuple[np.ndarray, float, int]:
    """The mean pattern with zero frequency in the centre, the sum of all counts, the number of patterns without any."""
    mean, empty = torch.zeros(patterns.shape[1:], dtype=torch.float64), 0
    for part in patterns.split(CHUNK):
        part = part.to("cpu", torch.float64)
        mean += part.sum(0)
        empty += int((part.sum((-2, -1)) == 0).sum())
    return torch.fft.fftshift(mean / len(patterns)).numpy(), float(mean.sum()), empty


def _disc(mean: np.ndarray, mrad: float) -> dict[str, Any]:
    """Radius and centre of the bright-field disc: the pixels above half of the disc's own median level, taken as a filled circle."""
    level = np.percentile(mean, 99)
    for _ in range(10):  # the median of what lies above half the level: settles in two or three rounds
        level = np.median(mean[mean >= level / 2])
    y, x = np.nonzero(mean >= level / 2)
    radius = math.sqrt(len(y) / math.pi)
    offset = [float(y.mean() - mean.shape[0] // 2), float(x.mean() - mean.shape[1] // 2)]
    return {"disc_radius_px": radius, "disc_radius_mrad": radius * mrad, "disc_offset_px": offset}


def _step(setup: Setup, data: Measurement) -> float | None:
    where = data.positions[0].cpu().double().numpy() * np.array(setup.field)
    if len(where) < 2:
        return None
    nearest, _ = cKDTree(where).query(where, k=2)
    return float(np.median(nearest[:, 1]))


def _spans(positions: torch.Tensor) -> bool:
    """Whether the scan field is no more than the box around the positions, as in files that do not say where else the beam could go."""
    return bool((positions.amin(0) <= EDGE).all() and (positions.amax(0) >= 1 - EDGE).all())


def _lit(setup: Setup, data: Measurement, radius: float) -> int:
    """Object pixels within `radius` Å of any position."""
    dark = np.ones(setup.object.shape, bool)
    where = setup.to_pixels(data.positions[0].cpu().double()).round().long().numpy()
    dark[tuple(np.clip(where, 0, np.array(dark.shape) - 1).T)] = False
    return int((distance_transform_edt(dark) * setup.object.pixel <= radius).sum())


def _warnings(d: dict[str, Any], dose: float) -> list[str]:
    found = []
    room = min(d["pattern_px"]) / 2 * d["detector_pixel_mrad"]
    if d["semiangle_mrad"] > room:
        found.append(f"the detector ends at {room:.3g} mrad, inside the semi-angle of {d['semiangle_mrad']:.3g} mrad")
    elif abs(d["disc_radius_mrad"] / d["semiangle_mrad"] - 1) > RADIUS_TOLERANCE:
        found.append(
            f"the bright-field disc measures {d['disc_radius_mrad']:.3g} mrad, the semi-angle is {d['semiangle_mrad']:.3g} mrad: "
            "check the semi-angle and the detector pixel"
        )
    if math.hypot(*d["disc_offset_px"]) > max(2.0, 0.1 * d["disc_radius_px"]):
        found.append("the bright-field disc is off zero frequency: check where the centre of the patterns is, or descan")
    if d["overlap_90"] is not None and d["overlap_90"] < OVERLAP_WANTED:
        found.append(f"neighbouring probes overlap by {max(d['overlap_90'], 0):.0%}; ptychography wants {OVERLAP_WANTED:.0%} or more")
    if d["measured_per_unknown"] < 1:
        found.append("there are fewer measured pixels than unknown ones")
    if d["probe_diameter_90_A"] > min(d["window_A"]):
        found.append("the probe is wider than its window and wraps around")
    if d["counts_per_pattern"] > (1 + COUNTS_TOLERANCE) * dose:
        found.append(f"patterns hold {d['counts_per_pattern']:.4g} counts on average, more than their dose of {dose:.4g}")
    if d["empty_patterns"]:
        found.append(f"{d['empty_patterns']} patterns hold no counts")
    return found
