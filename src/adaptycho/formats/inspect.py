"""Describes a recording: what it holds, what its patterns say about the beam, and what looks wrong.

`describe` gives numbers with their units in the key names, ready for JSON; `lines` gives the same as text for people.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from adaptycho.formats import pixels
from adaptycho.formats.frames import outliers
from adaptycho.formats.recording import Recording, together
from adaptycho.physics.optics import EDGE, Setup
from adaptycho.types import Measurement

RADIUS_TOLERANCE = 0.1  # relative, of the bright-field disc against the semi-angle
OVERLAP_WANTED = 0.5  # linear overlap of neighbouring probes below which a reconstruction becomes doubtful
LARGEST = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32)  # number types that a detector fills
MOST_LISTED = 100  # patterns by their numbers
GAIN_TOLERANCE = 2.0  # times more counts per electron than are said
COUNTS_TOLERANCE = 0.2  # how much more than its dose a pattern may hold on average


def describe(recording: Recording) -> dict[str, Any]:
    """Numbers of a recording and warnings about it, ready for JSON.

    Defocus and probe are those the patterns were taken at: the median of the recorded defocus, which need not be the nominal one. The dose
    per area is everything sent over the scan field, which is the box of the positions in imported files; `dose_area` says which it is.
    The area lit is the object within the probe radius that holds 90 % of the intensity around any position. `measured_per_unknown` is
    N_k/N_u: recorded detector pixels over unknowns, the real and the imaginary part of each lit object pixel.
    """
    setup, data = recording.setup, recording.measurement
    seen = _look(setup, data.patterns[0])
    total, empty = float(seen.sums.sum()), int((seen.sums == 0).sum())
    believed, faults = seen.believed, seen.faults
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
        **_disc(np.where(faults.any, 0, seen.moments.mean), setup.detector_pixel),
        "masked_px": int((~believed).sum()),
        "faulty_px": {kind: int(getattr(faults, kind).sum()) for kind in ("hot", "dead", "stuck")},
        "step_A": step,
        "probe_diameter_50_A": half,
        "probe_diameter_90_A": most,
        "overlap_50": None if step is None else 1 - step / half,
        "overlap_90": None if step is None else 1 - step / most,
        "measured_px": (measured := n * int(believed.sum())),
        "unknowns": 2 * lit,
        "measured_per_unknown": measured / (2 * lit),
        "counts": total,
        "counts_per_pattern": total / n,
        "counts_per_electron": recording.counts_per_electron,
        "counts_per_electron_seen": pixels.gain(seen.moments),
        "electrons": total / recording.counts_per_electron,
        "dose_e_per_A2": sent / (setup.field[0] * setup.field[1]),
        "dose_area": "box of the positions" if _spans(data.positions[0]) else "scan field",
        "empty_patterns": empty,
        "outlying_patterns": np.flatnonzero(outliers(seen.sums)).tolist()[:MOST_LISTED],
        "saturated_patterns": seen.saturated,
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
        f"detector pixel      {d['detector_pixel_mrad']:.4g} mrad" + (f", {d['masked_px']} left out of account" if d["masked_px"] else ""),
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


class _Look(NamedTuple):
    """Sum of each pattern, what each pixel does, which are to be believed and which are faulty, and how many patterns are saturated."""

    sums: np.ndarray
    moments: pixels.Moments
    believed: np.ndarray
    faults: pixels.Faults
    saturated: int


def _look(setup: Setup, patterns: torch.Tensor) -> _Look:
    """Looks at all patterns, a part at a time, with zero frequency in the centre."""
    step = together(math.prod(setup.detector))
    believed = np.ones(setup.detector, bool) if setup.mask is None else torch.fft.fftshift(setup.mask.cpu().bool()).numpy()

    def parts(believed: np.ndarray) -> Iterator[np.ndarray]:
        for part in patterns.split(step):
            yield np.where(believed, np.fft.fftshift(part.numpy(force=True), (-2, -1)), 0)

    sums = np.concatenate([part.sum((1, 2), dtype=np.float64) for part in parts(believed)])
    usual = np.split(~outliers(sums), range(step, len(sums), step))
    moments = pixels.moments((part[some] for part, some in zip(parts(believed), usual, strict=True)), setup.detector)
    faults, saturated = pixels.faults(moments, believed), 0
    if patterns.dtype in LARGEST:
        full = torch.iinfo(patterns.dtype).max
        saturated = sum(int((part == full).any((1, 2)).sum()) for part in parts(believed & ~faults.any))
    return _Look(sums, moments, believed, faults, saturated)


def _disc(mean: np.ndarray, mrad: float) -> dict[str, Any]:
    """Radius of the bright-field disc, and where its middle is."""
    radius, middle = pixels.disc(mean)
    offset = [middle[0] - mean.shape[0] // 2, middle[1] - mean.shape[1] // 2]
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
        found.append(
            "the bright-field disc is off zero frequency: check where the centre of the patterns is (import with --centre "
            "ROW,COLUMN or --centre auto), or descan"
        )
    if d["overlap_90"] is not None and d["overlap_90"] < OVERLAP_WANTED:
        found.append(f"neighbouring probes overlap by {max(d['overlap_90'], 0):.0%}; ptychography wants {OVERLAP_WANTED:.0%} or more")
    if d["measured_per_unknown"] < 1:
        found.append("there are fewer measured pixels than unknown ones")
    if d["probe_diameter_90_A"] > min(d["window_A"]):
        found.append("the probe is wider than its window and wraps around")
    if d["counts_per_pattern"] > (1 + COUNTS_TOLERANCE) * dose:
        found.append(f"patterns hold {d['counts_per_pattern']:.4g} counts on average, more than their dose of {dose:.4g}")
    if d["empty_patterns"]:
        found.append(
            f"{d['empty_patterns']} patterns hold no counts"
            + (" (--drop empty)" if d["empty_patterns"] > max(4, d["patterns"] / 20) else "")
        )
    if any(d["faulty_px"].values()):
        counted = ", ".join(f"{count} {kind}" for kind, count in d["faulty_px"].items() if count)
        found.append(f"{counted} detector pixels spoil a reconstruction: --mask auto leaves them out, or --mask FILE")
    if d["outlying_patterns"]:
        numbers = ", ".join(map(str, d["outlying_patterns"][:5]))
        found.append(f"{len(d['outlying_patterns'])} patterns hold far more or fewer counts than the others ({numbers}...): --drop bad")
    if d["saturated_patterns"]:
        found.append(f"{d['saturated_patterns']} patterns have pixels at the largest number that {d['dtype']} holds: they are saturated")
    seen = d["counts_per_electron_seen"]
    if seen is not None and seen > GAIN_TOLERANCE * d["counts_per_electron"]:
        found.append(
            f"variance over mean says about {seen:.2g} counts per electron, not {d['counts_per_electron']:g}: --counts-per-electron"
        )
    return found
