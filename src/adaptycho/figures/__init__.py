"""Figures of an evaluation: quality against dose, positions and time, and reconstructions with their diffractograms (Fig. 4).

Every function takes results and returns a matplotlib figure that belongs to nobody (no pyplot, no global state), at most 7 inches wide and
with no letter below 7 pt at that size.
"""

from adaptycho.figures.diffractograms import Reconstruction, diffractograms
from adaptycho.figures.gains import Gain, gains
from adaptycho.figures.looks import Look, looks
from adaptycho.figures.overlay import overlay
from adaptycho.figures.quality import Point, quality
from adaptycho.figures.times import times

__all__ = ["Gain", "Look", "Point", "Reconstruction", "diffractograms", "gains", "looks", "overlay", "quality", "times"]
