"""Figures of an evaluation: quality against dose, positions and time, and reconstructions with their diffractograms (Fig. 4).

Every function takes results and returns a matplotlib figure that belongs to nobody (no pyplot, no global state), at most 7 inches wide and
with no letter below 7 pt at that size.
"""

from adaptycho.draw.figures.diffractograms import Reconstruction, diffractograms
from adaptycho.draw.figures.gains import Gain, gains
from adaptycho.draw.figures.looks import Look, looks
from adaptycho.draw.figures.overlay import overlay
from adaptycho.draw.figures.quality import Point, quality
from adaptycho.draw.figures.times import times

__all__ = ["Gain", "Look", "Point", "Reconstruction", "diffractograms", "gains", "looks", "overlay", "quality", "times"]
