"""The scan: patterns, policies, and the one loop that looks, decides, acquires and reconstructs."""

from typing import Literal

Pattern = Literal["raster", "hexagonal", "random", "halton", "poisson-disk", "jittered", "spiral"]  # adaptycho.scan.patterns
Signal = Literal["dark-field", "phase"]  # that structure is told from: adaptycho.scan.mask
