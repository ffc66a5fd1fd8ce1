"""The calibration doctor: what is wrong with a recording's geometry, from its patterns, and what mends it (docs/how-to/calibrate.md).

It lives among samples and not among formats because it reconstructs: files know nothing of reconstructions.
"""

from adaptycho.samples.doctor.examine import examine
from adaptycho.samples.doctor.findings import Finding, Findings, lines
from adaptycho.samples.doctor.mend import corrected

__all__ = ["Finding", "Findings", "corrected", "examine", "lines"]
