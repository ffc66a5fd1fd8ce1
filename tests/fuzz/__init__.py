"""A seeded fuzzer: valid inputs, damaged on purpose, given to the commands that read them; `python tests/fuzzing.py` runs it.

A case is a folder with valid input (`templates`), one mutation of it (`raw`, `text`, `arrays`, `hdf5`, `tensors`, `places`) and one
command (`kinds`). The command runs in a child of a process that has everything loaded (`child`), and is judged on four counts (`verdict`):

(a) it exits with 0, or with 2 and exactly one line `adaptycho: ...` on stderr; nothing it prints holds control characters; what it
    prints with `--json` is one object without NaN.
(b) it ends within 10 s and grows by less than 2 GiB.
(c) what was in the folder before is there afterwards, unchanged, hidden files and names that look temporary included; new names are those
    that the command is documented to write. Only files that a command owns (`Command.changes`) may change.
(d) its answer is not a wrong one. Every mutation carries what is expected of a right program:

    `refused`  exit 2: what was given cannot be meant (a missing key, text for a number, NaN, a semi-angle of 1e10 mrad).
    `same`     the result of the unmutated input: the mutation says nothing (an unknown attribute, another compression, a decoy).
    `either`   one of the two: what a program wrote for itself (a run, weights, a checkpoint) and that is not as it was written must not
               be taken for something else.
    `doubted`  refused, or accepted with a warning: allowed by the format, but hardly meant (positions in metres).
    `free`     any answer that is sound: another value that may be meant (another title, counts, or file of measured numbers).

    Whatever is expected, an exit with 0 has to leave sound results: counts that are finite and not negative, doses that are positive,
    positions inside the field, and no NaN in a potential without a null in what is printed.

Results are compared as numbers: JSON without times, arrays of every file that was written, figures by what is drawn in them. Figures are
rasterised in one case of sixteen only, since that takes longer than everything else.
"""
