"""How long the command takes that an answer ends with, from what such commands took.

Measured on two cores of a server, of which others used one and more: scans of 64 to 4,096 positions took 14 to 41 s, comparisons of 150 to
3,231 positions 0.6 to 2.5 s for each scan.
"""

from collections.abc import Sequence

from adaptycho.compare.strategies import DENSE
from adaptycho.settings.sections import Evaluate

START = 15.0  # s, until the program is loaded, the specimen made and the report written
SCAN = 6e-3  # s for each position of a scan, in all its sub-sequences
COMPARED = 1e-3  # s likewise in a comparison, which scans without writing and mostly takes shorter reconstructions
ROUNDS = 2  # that each strategy is tried in on training specimens after every defocus: the other reconstruction, there and in focus


def scan_seconds(positions: int) -> float:
    """Of `adaptycho scan`."""
    return START + SCAN * positions


def evaluate_seconds(strategies: Sequence[str], defoci: int, positions: int, dense: int) -> float:
    """Of `adaptycho evaluate --protocol best` on one core."""
    usual = Evaluate()
    scans = usual.tuning * (defoci + ROUNDS) + usual.specimens
    return START + COMPARED * scans * sum(dense if name.partition(":")[0] in DENSE else positions for name in strategies)


def duration(seconds: float) -> str:
    """About how long, in the unit that one would say it in."""
    for unit, size in (("hour", 3600.0), ("minute", 60.0)):
        if seconds >= 0.9 * size:
            count = round(seconds / size)
            return f"about {count} {unit}{'' if count == 1 else 's'}"
    return f"about {10 * max(1, round(seconds / 10))} seconds"
