"""Whether an adaptive scan will help a microscopist, told from measured tables with its uncertainty (docs/advise.md).

Reads nothing but a table that comes with the package, so it answers at once; what it does not know, it says.
"""

from adaptycho.advice.answer import advise, lines
from adaptycho.advice.decide import Decision
from adaptycho.advice.place import Place, Question
from adaptycho.advice.table import Estimate, Reading, Row, Table, load, read_off

__all__ = ["Decision", "Estimate", "Place", "Question", "Reading", "Row", "Table", "advise", "lines", "load", "read_off"]
