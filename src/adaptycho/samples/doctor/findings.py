"""What the doctor found: one finding for each thing that was looked at, in numbers and in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from adaptycho.samples.doctor.disc import Disc
from adaptycho.samples.doctor.linear import Orientation
from adaptycho.samples.doctor.polarity import Polarity
from adaptycho.samples.doctor.trial import Trial
from adaptycho.samples.doctor.virtual import Virtual

Sure = Literal["certain", "likely", "open"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        found: what the patterns say.
        said: what the recording says of it; empty where it says nothing.
        sure: how sure the patterns are: `certain`, `likely`, or `open` if they cannot tell.
        wrong: whether the recording is to be mended.
        mend: options of `adaptycho import` that do so; empty if there is none.
        value: what was found, as numbers for JSON.
    """

    name: str
    found: str
    said: str = ""
    sure: Sure = "certain"
    wrong: bool = False
    mend: str = ""
    value: Any = None


@dataclass(frozen=True, eq=False)
class Mend:
    """How a recording is to be changed.

    Attributes:
        way: the orientation it is to have.
        shift: pixels (y, x) that the patterns are to be moved by.
        detector_pixel: in mrad, if another one.
        scale: factor of the scan's lengths.
        counts_per_electron: if others.
        faulty: detector pixels not to believe, zero frequency in the centre pixel, before the shift.
        kept: patterns to keep.
        roll: places that the patterns are to be moved on by, against the positions.
    """

    way: Orientation
    shift: tuple[int, int]
    detector_pixel: float | None
    scale: float
    counts_per_electron: float | None
    faulty: Bool[np.ndarray, "Q Q2"]
    kept: Bool[Tensor, " N"]
    roll: int


@dataclass(frozen=True, eq=False)
class Findings:
    """All that was found in a recording.

    Attributes:
        findings: one by one.
        mend: how it is to be changed.
        warnings: what else looks wrong (`adaptycho.formats.inspect`).
        mean: mean pattern in counts, zero frequency in the centre pixel.
        disc: in it; None if there is no whole one.
        images: virtual images, where they could be made.
        polarity: of the phase in the orientation found.
        trials: reconstructions by name, the best first.
    """

    findings: tuple[Finding, ...]
    mend: Mend
    warnings: tuple[str, ...]
    mean: Float[np.ndarray, "Q Q2"]
    disc: Disc | None
    images: Virtual | None
    polarity: Polarity | None
    trials: tuple[tuple[str, Trial], ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is to be mended."""
        return not any(one.wrong for one in self.findings)

    @property
    def options(self) -> str:
        """All options of `adaptycho import` that mend what is wrong, together."""
        return " ".join(one.mend for one in self.findings if one.wrong and one.mend)

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "healthy": self.healthy,
            "import_options": self.options,
            "findings": [vars(one) for one in self.findings],
            "warnings": list(self.warnings),
        }


def lines(found: Findings) -> list[str]:
    """The findings in plain words, what is wrong first."""
    ordered: Sequence[Finding] = sorted(found.findings, key=lambda one: (not one.wrong, one.sure == "open"))
    texts = [text for one in ordered for text in _lines(one)]
    texts += [f"note: {text}" for text in found.warnings]
    if found.healthy:
        return [*texts, "Nothing to mend was found."]
    options = f"import it again with: {found.options}" if found.options else ""
    return [*texts, "To mend what is wrong, " + (f"{options}, or let --fix OUT do it." if options else "use --fix OUT.")]


def _lines(one: Finding) -> list[str]:
    mark = "WRONG" if one.wrong else "open " if one.sure == "open" else "ok   "
    text = [f"{mark} {one.name}: {one.found}" + (f"; the recording says {one.said}" if one.said else "")]
    if one.wrong:
        text[0] += " (likely)" if one.sure == "likely" else ""
        text += [f"      mend: {one.mend}"] if one.mend else []
    return text
