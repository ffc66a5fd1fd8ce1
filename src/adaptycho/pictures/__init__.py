"""Pictures of scans: where the beam went, what was seen there, what it cost.

Every function takes results and returns a matplotlib figure that belongs to nobody (no pyplot, no global state); reports and the README
show them.
"""

from adaptycho.pictures.charts import curves, ranks
from adaptycho.pictures.images import COLUMNS, comparison, phase, strip
from adaptycho.pictures.scan import Scan, Stage, mean_dose
from adaptycho.pictures.style import label, styles

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
