"""What a reconstructor cannot be told."""

import math
from typing import TYPE_CHECKING

from adaptycho.reconstruct import LOSSES, METHODS, PRIORS, STOPS, losses
from adaptycho.reconstruct.reconstruction import Reconstruction
from adaptycho.reconstruct.refine import PARAMETERS

if TYPE_CHECKING:
    from adaptycho.reconstruct.descent import Reconstructor


def check(how: "Reconstructor") -> None:
    """Refuses settings that are out of range, or that do not go together.

    Raises:
        ValueError: it names the setting, what was expected and what was found.
    """
    if how.loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {how.loss!r}")
    for name in ("iterations", "subpixel", "slices"):
        if getattr(how, name) < 1:
            raise ValueError(f"{name}: expected at least 1, got {getattr(how, name)}")
    if how.step != "auto" and not how.step > 0:
        raise ValueError(f"step: expected a positive number or 'auto', got {how.step!r}")
    if not 0 <= how.momentum < 1:
        raise ValueError(f"momentum: expected a number from 0 to below 1, got {how.momentum}")
    if how.prior not in PRIORS:
        raise ValueError(f"prior: expected one of {', '.join(PRIORS)}, got {how.prior!r}")
    if not 0 < how.counts_per_electron < math.inf:
        raise ValueError(f"counts_per_electron: expected a positive number, got {how.counts_per_electron}")
    for name in ("strength", "blob", "thickness"):
        if not 0 <= getattr(how, name) < math.inf:
            raise ValueError(f"{name}: expected a finite number of at least 0, got {getattr(how, name)}")
    if how.prior not in ("none", "auto") and losses.load(how.loss).nats is None:
        raise ValueError(
            f"loss: expected amplitude, anscombe or poisson, which the prior {how.prior!r} can be weighed against, got {how.loss!r}"
        )
    if how.prior != "none" and how.kind != "potential":
        raise ValueError(f"prior: expected 'none' for a complex potential, got {how.prior!r}")
    if how.mask is not None and tuple(how.mask.shape) != how.setup.detector:
        raise ValueError(f"mask: expected the detector's shape {how.setup.detector}, got {tuple(how.mask.shape)}")
    if how.method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {how.method!r}")
    if how.method == "conjugate" and (sought := _besides(how) or ("a prior" if how.prior != "none" else "")):
        raise ValueError(f"method: expected momentum with {sought}, got 'conjugate', which seeks one slice of an object and nothing else")
    if how.stop not in STOPS:
        raise ValueError(f"stop: expected one of {', '.join(STOPS)}, got {how.stop!r}")
    _check_sought(how)


def _check_sought(how: "Reconstructor") -> None:
    """What is found out with the object."""
    if isinstance(how.refine, str) and how.refine != "auto":
        raise ValueError(f"refine: expected a tuple of names, such as ('probe', 'positions'), got {how.refine!r}")
    names = () if how.refine == "auto" else how.refine
    unknown = [name for name in names if name not in PARAMETERS]
    if unknown:
        raise ValueError(f"refine: expected some of {', '.join(PARAMETERS)}, got {unknown[0]!r}")
    window, shape = how.setup.window.shape, None if how.probe is None else tuple(how.probe.shape)
    if shape is not None and (len(shape) not in (2, 3) or shape[-2:] != window or shape[0] < 1):
        raise ValueError(f"probe: expected modes of the window's shape, (modes, {window[0]}, {window[1]}), got {shape}")
    if how.modes < 1:
        raise ValueError(f"modes: expected at least 1, got {how.modes}")
    known = 1 if shape is None or len(shape) == 2 else shape[0]
    if how.modes > known and "probe" not in names and how.refine != "auto":
        raise ValueError(f"modes: expected at most {known}, or refine with 'probe' among the names, got {how.modes}")
    if how.reach is not None and not 0 < how.reach < math.inf:
        raise ValueError(f"reach: expected a positive length in Å, got {how.reach}")
    if "thickness" in names and how.slices == 1:
        raise ValueError("refine: expected thickness only of several slices, got one slice")
    if how.prior == "auto" and (sought := _besides(how)):
        raise ValueError(f"prior: expected one by name, or none, with {sought}, got 'auto', which is for one slice and a known probe")


def _besides(how: "Reconstructor") -> str:
    """What is sought besides one slice of an object lit by the probe of the setup, in words; nothing where that is all."""
    if how.slices > 1:
        return f"{how.slices} slices"
    if how.probe is not None:
        return "a probe of its own"
    return "" if how.refine in ((), "auto") else f"{', '.join(how.refine)} refined"


def check_start(how: "Reconstructor", start: Reconstruction, shape: tuple[int, ...]) -> None:
    """Refuses a reconstruction that cannot be gone on from.

    Args:
        how: what would go on.
        start: from where.
        shape: of the potential, (B, H, W).

    Raises:
        ValueError: another shape, or something was found that would be thrown away.
    """
    if tuple(start.potential.shape) != shape:
        raise ValueError(f"start: expected a potential of shape {shape}, got {tuple(start.potential.shape)}")
    made, names = start.made, ", ".join(start.made.refine)
    if made.kind == "complex" and how.kind == "potential":
        raise ValueError("start: expected a real potential to go on from, got a complex one: kind has to be 'complex'")
    if made.slices not in (1, how.slices):
        raise ValueError(f"start: expected {how.slices} slices or a single one, got {made.slices}")
    if start.refined is not None and how.known:
        raise ValueError(f"start: expected nothing that was refined, as refine is empty, got {names or 'a probe of its own'}")
    if start.refined is not None and (count := start.refined.probe.shape[1]) > how.modes:
        raise ValueError(f"start: expected at most the {how.modes} modes of the settings, got {count}")
