"""Names that settings, commands and the code behind them share: what a specimen, a scan or a loss can be."""

from typing import Literal, get_args

Family = Literal["crystal", "vacancies", "island", "edge", "particles", "boundary", "amorphous"]  # adaptycho.specimen
Pattern = Literal["raster", "hexagonal", "random", "halton", "poisson-disk", "jittered", "spiral"]  # adaptycho.patterns
Loss = Literal["intensity", "amplitude", "poisson"]  # adaptycho.kernels
LOSSES: tuple[Loss, ...] = get_args(Loss)
