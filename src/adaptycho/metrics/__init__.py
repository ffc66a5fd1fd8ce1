"""What a reconstruction, a scan and a comparison are worth, in numbers."""

from adaptycho.metrics.image import (
    Window,
    align,
    band_limit,
    bootstrap_interval,
    correlation,
    relative_improvement,
    ssim,
    ssim_aligned,
)

__all__ = [
    "Window",
    "align",
    "band_limit",
    "bootstrap_interval",
    "correlation",
    "relative_improvement",
    "ssim",
    "ssim_aligned",
]
