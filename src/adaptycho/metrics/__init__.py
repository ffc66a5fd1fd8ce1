"""What a reconstruction, a scan and a comparison are worth, in numbers (docs/metrics.md)."""

from adaptycho.metrics.image import Window, align, band_limit, correlation, nrmse, ssim, ssim_aligned, worst
from adaptycho.metrics.statistics import bootstrap_interval, relative_improvement

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
