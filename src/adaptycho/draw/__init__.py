"""Pictures of scans: where the beam went, what was seen there, what it cost.

Every function takes results and returns a matplotlib figure that belongs to nobody (no pyplot, no global state); reports and the README
show them.
"""

from adaptycho.draw.charts import curves, ranks
from adaptycho.draw.images import COLUMNS, comparison, phase, strip
from adaptycho.draw.scan import Scan, Stage, mean_dose
from adaptycho.draw.style import label, styles

__all__ = [
    "COLUMNS",
    "Scan",
    "Stage",
    "comparison",
    "curves",
    "label",
    "mean_dose",
    "phase",
    "ranks",
    "strip",
    "styles",
]
