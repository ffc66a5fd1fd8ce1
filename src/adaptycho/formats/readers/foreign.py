"""Readers of other programs' formats, in the order in which they are asked: those that say what they are come before those that fit many.

Each is one module with `name`, `needs`, `can_read` and `opened`. Libraries that only one format needs are loaded when it is opened.
"""

from adaptycho.formats.readers import cxi, dectris, emd, empad, hspy, matlab, nion, ptychodus, rosetta, zspy

FOREIGN = (emd, nion, hspy, zspy, cxi, dectris, matlab, ptychodus, rosetta, empad)
