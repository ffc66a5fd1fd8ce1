"""What a reconstruction, a scan and a comparison are worth, in numbers (docs/metrics.md)."""

from adaptycho.metrics.image import (
    Window,
    align,
    band_limit,
    bootstrap_interval,
    correlation,
    nrmse,
    relative_improvement,
    ssim,
    ssim_aligned,
    worst,
)

__all__ = [
    "Window",
    "align",
    "band_limit",
    "bootstrap_interval",
    "correlation",
    "nrmse",
    "relative_improvement",
    "ssim",
    "ssim_aligned",
    "worst",
]
