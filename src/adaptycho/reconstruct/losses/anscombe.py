"""Squared difference of amplitudes after 3/8 of an electron was added to both (Anscombe, Biometrika 35, 246, 1948).

The variance of sqrt(n + 3/8) is 1/4 for Poisson counts n of a mean of about one on, where that of sqrt(n) still depends on the mean.
"""

from dataclasses import replace

from adaptycho.reconstruct.losses import amplitude

FUNCTION = replace(amplitude.FUNCTION, background=3 / 8)
