"""Settings of the registered environments, from an easy scan to recorded data."""

from collections.abc import Mapping
from typing import Any

from adaptycho.settings import BEST, Settings, preset, update

_ALIGNED: dict[str, Any] = {"family": "crystal", "options": {"rotation": 0.0}}
_LOW_DOSE: dict[str, Any] = {"positions": 64, "subsequences": 4, "dose": 1e3, "defocus": 100.0}
_CAREFUL: dict[str, Any] = BEST | {"iterations": 10}

# Changes from the light preset, in order of difficulty.
ENVIRONMENTS: dict[str, dict[str, dict[str, Any]]] = {
    "Clean": {"specimen": _ALIGNED, "instrument": {"noise": False}},
    "Noisy": {"specimen": _ALIGNED, "scan": {"dose": 1e4}},
    "Jittered": {"specimen": _ALIGNED, "scan": {"dose": 1e4}, "instrument": {"jitter": 0.2}},
    "Contaminated": {"specimen": _ALIGNED | {"contamination": 0.1}, "scan": {"dose": 1e4}, "instrument": {"jitter": 0.2}},
    "Oriented": {"specimen": _ALIGNED},
    "Rotated": {"specimen": {"family": "crystal"}},
    "Islands": {"specimen": {"family": "island"}, "scan": _LOW_DOSE, "reconstruct": _CAREFUL},
    "Particles": {"specimen": {"family": "particles"}, "scan": _LOW_DOSE, "reconstruct": _CAREFUL},
    "Recorded": {
        "scan": {"microscope": "recorded", "positions": 100, "subsequences": 5, "columns": (0.0, 0.625)},
        "reconstruct": _CAREFUL,
    },
}


def identifier(name: str) -> str:
    """Under which an environment is registered."""
    return f"adaptycho/{name}-v0"


def resolve(settings: Settings | str | None, changes: Mapping[str, Any] | None = None) -> Settings:
    """Settings of an environment.

    Args:
        settings: the settings themselves, the name of an environment, or None for the light preset.
        changes: of some of them, as a nested mapping: `{"scan": {"dose": 300}}`.

    Raises:
        ValueError: there is no such environment, or the changes hold something that is not a setting or not allowed.
    """
    if isinstance(settings, str):
        if settings not in ENVIRONMENTS:
            raise ValueError(f"settings: expected an environment among {', '.join(ENVIRONMENTS)}, got {settings!r}")
        settings = update(preset("light"), ENVIRONMENTS[settings], settings)
    chosen = preset("light") if settings is None else settings
    return update(chosen, changes, "changes") if changes else chosen
