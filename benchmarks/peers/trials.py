"""The settings that each package is tuned with, as many for each and chosen from first trials of the same kind; see `run_*.py`."""

from typing import Any

LOW = 1e4  # electrons: below, settings for noisy patterns

TRIALS: dict[str, list[dict[str, Any]]] = {
    "ours": [{}, {"momentum": 0.5}, {"loss": "poisson"}],
    "ptychi": [
        {"engine": "rpie", "batch": 32, "step": 1.0, "probe_step": 1.0},
        {"engine": "rpie", "batch": 16, "step": 0.5, "probe_step": 0.5},
        {"engine": "lsqml", "batch": 32, "step": 1.0, "probe_step": 1.0},
    ],
    "quantem": [
        {"batch": 64, "step": 0.05, "probe_step": 0.01},
        {"batch": 32, "step": 0.02, "probe_step": 0.01},
        {"batch": 32, "step": 0.05, "probe_step": 0.01},
    ],
    "py4dstem": [{"step": 0.5, "floor": 0.05, "batch": 64}, {"step": 0.5, "floor": 0.05, "batch": 32}, {"step": 0.5, "floor": 0.05}],
    "ptyrad": [
        {"batch": 32, "step": 0.02, "probe_step": 0.01},
        {"batch": 32, "step": 0.01, "probe_step": 0.01},
        {"batch": 64, "step": 0.05, "probe_step": 0.02},
    ],
    "ptylab": [
        {"engine": "mPIE", "step": 0.25, "probe_step": 0.25},
        {"engine": "mPIE", "step": 0.5, "probe_step": 0.25},
        {"engine": "mPIE", "step": 0.25, "alpha": 0.02, "probe_step": 0.1},
    ],
}
NOISY: dict[str, list[dict[str, Any]]] = {
    "ours": [{}, {"prior": "atoms"}, {"prior": "auto"}],
    "ptychi": [
        {"engine": "rpie", "batch": 32, "step": 0.5, "probe_step": 0.1},
        {"engine": "rpie", "batch": 64, "step": 0.2, "probe_step": 0.1},
        {"engine": "autodiff", "batch": 64, "step": 0.02, "probe_step": 0.01},
    ],
    "quantem": [
        {"batch": 64, "step": 0.05, "probe_step": 0.01},
        {"batch": 64, "step": 0.02, "probe_step": 0.005, "blur": 0.5},
        {"batch": 256, "step": 0.05, "probe_step": 0.01, "blur": 1.0},
    ],
    "py4dstem": [
        {"step": 0.5, "floor": 0.05, "batch": 64},
        {"step": 0.2, "floor": 0.05, "batch": 64, "blur": 0.1},
        {"step": 0.5, "floor": 0.05, "batch": 64, "blur": 0.2},
    ],
    "ptyrad": [
        {"batch": 32, "step": 0.01, "probe_step": 0.01},
        {"batch": 64, "step": 0.01, "probe_step": 0.005, "blur": 0.4},
        {"batch": 64, "step": 0.02, "probe_step": 0.01, "blur": 0.6},
    ],
    "ptylab": [
        {"engine": "mPIE", "step": 0.25, "probe_step": 0.1},
        {"engine": "mPIE", "step": 0.1, "probe_step": 0.05},
        {"engine": "mPIE", "step": 0.03, "probe_step": 0.03},
    ],
}


def trials(package: str, electrons: float) -> list[dict[str, Any]]:
    """The settings to try, what is best for a few hundred positions first."""
    return (NOISY if electrons < LOW else TRIALS)[package]
