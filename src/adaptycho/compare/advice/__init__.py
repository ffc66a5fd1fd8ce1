"""Whether an adaptive scan will help a microscopist, told from measured tables with its uncertainty (docs/advise.md).

Reads nothing but a table that comes with the package, so it answers at once; what it does not know, it says.
"""

from adaptycho.compare.advice.answer import advise, lines
from adaptycho.compare.advice.decide import Decision
from adaptycho.compare.advice.place import Place, Question
from adaptycho.compare.advice.read import Reading, read_off
from adaptycho.compare.advice.table import Estimate, Row, Table, load

__all__ = ["Decision", "Estimate", "Place", "Question", "Reading", "Row", "Table", "advise", "lines", "load", "read_off"]
