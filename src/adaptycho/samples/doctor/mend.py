"""Changes a recording as the doctor says."""

import dataclasses

import torch

from adaptycho.formats.recording import Recording, check_recording
from adaptycho.samples.doctor.findings import Findings
from adaptycho.samples.doctor.trial import masked, posed, scaled


def corrected(recording: Recording, found: Findings) -> Recording:
    """The recording with everything mended that was found wrong; the same recording if nothing was.

    Raises:
        ValueError: the recording that results is none (`adaptycho.formats.recording.check_recording`).
    """
    if found.healthy:
        return recording
    mend = found.mend
    clean = masked(recording, torch.from_numpy(mend.faulty))
    data = clean.measurement
    if mend.roll:
        data = dataclasses.replace(data, patterns=data.patterns.roll(mend.roll, 1))
    if not bool(mend.kept.all()):
        data = data.take(mend.kept.nonzero()[:, 0].to(data.positions.device))
    known = dataclasses.replace(clean, measurement=data)
    made = scaled(posed(known, mend.way, shift=mend.shift, detector_pixel=mend.detector_pixel), mend.scale)
    if mend.counts_per_electron:
        made = dataclasses.replace(made, counts_per_electron=mend.counts_per_electron)
    check_recording(made, str(recording.path or "recording"))
    return made
