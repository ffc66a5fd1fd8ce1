"""What a reconstruction may find out beside the object: the probe, and where it was."""

import math
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from adaptycho.reconstruct.descent import Reconstructor

Parameter = Literal["probe", "positions", "affine", "rotation", "defocus", "intensities", "thickness"]
PARAMETERS: tuple[Parameter, ...] = get_args(Parameter)


def check(how: "Reconstructor") -> None:
    """Refuses what cannot be refined.

    Raises:
        ValueError: an unknown parameter, more modes than are known or sought, a probe of another shape, the distance of a single slice, or
            a prior that is to be chosen beside all that.
    """
    if isinstance(how.refine, str):
        raise ValueError(f"refine: expected a tuple of names, such as ('probe', 'positions'), got {how.refine!r}")
    unknown = [name for name in how.refine if name not in PARAMETERS]
    if unknown:
        raise ValueError(f"refine: expected some of {', '.join(PARAMETERS)}, got {unknown[0]!r}")
    window, shape = how.setup.window.shape, None if how.probe is None else tuple(how.probe.shape)
    if shape is not None and (len(shape) not in (2, 3) or shape[-2:] != window or shape[0] < 1):
        raise ValueError(f"probe: expected modes of the window's shape, (modes, {window[0]}, {window[1]}), got {shape}")
    if how.modes < 1:
        raise ValueError(f"modes: expected at least 1, got {how.modes}")
    known = 1 if shape is None or len(shape) == 2 else shape[0]
    if how.modes > known and "probe" not in how.refine:
        raise ValueError(f"modes: expected at most the {known} of a probe that is not refined, got {how.modes}")
    if how.reach is not None and not 0 < how.reach < math.inf:
        raise ValueError(f"reach: expected a positive length in Å, got {how.reach}")
    if "thickness" in how.refine and how.slices == 1:
        raise ValueError("refine: expected thickness only of several slices, got one slice")
    if how.prior == "auto" and not how.known:
        raise ValueError("prior: expected one by name, or none, where more than one slice is sought, got 'auto'")
