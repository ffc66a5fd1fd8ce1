"""Damages files of other programs and reads them: `python tests/foreign_damage.py --count 3000 --seed 0` prints how they ended.

Whatever was done, a reader gives patterns or one printable sentence with "expected" and "found", soon, and takes no more memory than is
free for it.
"""

import argparse
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np

from adaptycho.formats.readers.foreign import FOREIGN
from foreign_files import WRITERS

SLOWEST = 45.0  # seconds: a file that is never read to an end takes 2 of processor time, and a machine may be busy
LARGEST = 2**29  # bytes that memory may grow by: an array of that size may always be read
FLIPS = (1, 2, 8, 64)


def flip(content: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(len(content), size=rng.choice(FLIPS)):
        content[place] ^= 1 << int(rng.integers(8))


def cut(content: bytearray, rng: np.random.Generator) -> None:
    del content[int(rng.integers(len(content))) :]


def grow(content: bytearray, rng: np.random.Generator) -> None:
    place = int(rng.integers(len(content)))
    content[place:place] = rng.bytes(int(rng.integers(1, 64)))


def hollow(content: bytearray, rng: np.random.Generator) -> None:
    place, size = int(rng.integers(len(content))), int(rng.integers(1, 512))
    end = min(place + size, len(content))
    content[place:end] = bytes(end - place)


def fill(content: bytearray, rng: np.random.Generator) -> None:
    """Large numbers where sizes, addresses and counts are."""
    place = int(rng.integers(len(content))) & ~7
    content[place : place + 8] = b"\xff" * int(rng.choice((1, 2, 4, 7, 8)))


def digits(content: bytearray, rng: np.random.Generator) -> None:
    """Other numbers and words in text: headers, JSON and XML."""
    places = [i for i, c in enumerate(content[:65536]) if 48 <= c < 58]
    if places:
        place = int(rng.choice(places))
        content[place : place + 1] = (b"", b"9" * 12, b"-1", b"null", b"1e999", b'"x"', b"[" * 2000)[int(rng.integers(7))]


def swap(content: bytearray, rng: np.random.Generator) -> None:
    size = int(rng.integers(8, 256))
    a, b = (int(i) for i in rng.integers(max(len(content) - size, 1), size=2))
    content[a : a + size], content[b : b + size] = content[b : b + size], content[a : a + size]


DAMAGE = (flip, flip, flip, cut, grow, hollow, fill, fill, digits, swap)


def damaged(folder: Path, rng: np.random.Generator) -> str:
    """Changes one of the files in a folder, more often the head of a large one; returns how."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path, way = files[int(rng.integers(len(files)))], DAMAGE[int(rng.integers(len(DAMAGE)))]
    content = bytearray(path.read_bytes())
    head = content[: 2**14] if len(content) > 2**15 and rng.random() < 0.7 else content
    rest = content[len(head) :]
    if head:
        way(head, rng)
    path.write_bytes(head + rest)
    return way.__name__


def outcome(path: Path) -> tuple[str, str]:
    """How reading ends: `read`, `refused` or `unknown`, or else what is wrong, with the sentence."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with warnings.catch_warnings(action="error"):
            ended, sentence = "unknown", ""
            for reader in FOREIGN:
                if reader.can_read(path):
                    with reader.opened(path) as raw:
                        found = raw.patterns
                        found.check_size(found.shape)
                        values = np.asarray(found.values[tuple(slice(None) for _ in found.shape)])
                        sound = values.shape == found.shape and values.ndim in (3, 4) and values.dtype.kind in "iuf"
                        ended = "read" if sound else "odd patterns"
                    break
    except ValueError as error:
        sentence = str(error)
        sound = ": expected " in sentence and "found" in sentence and sentence.isprintable() and len(sentence) < 1500
        ended = "refused" if sound else "odd sentence"
    except BaseException as error:  # is what is looked for
        ended, sentence = f"raised {type(error).__name__}", str(error)
    if time.monotonic() - started > SLOWEST:
        ended = "slow"
    if 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > LARGEST:
        ended = "large"
    return ended, sentence


def tried(count: int, seed: int, only: str | None = None) -> tuple[Counter[tuple[str, str, str]], float]:
    """Formats, damage and how reading ended, with the number of cases, and the seconds of the slowest; what is bad is printed."""
    found: Counter[tuple[str, str, str]] = Counter()
    slowest = 0.0
    names = [only] if only else list(WRITERS)
    with tempfile.TemporaryDirectory() as place:
        templates = {}
        for name in names:
            folder = Path(place) / name
            folder.mkdir()
            templates[name] = (folder, WRITERS[name](folder).name)
        for number in range(count):
            rng = np.random.default_rng((seed, number))
            name = names[number % len(names)]
            folder, file = templates[name]
            copy = Path(place) / f"case-{number}"
            shutil.copytree(folder, copy)
            ways = [damaged(copy, rng) for _ in range(int(rng.integers(1, 3)))]
            started = time.monotonic()
            ended, sentence = outcome(copy / file)
            slowest = max(slowest, time.monotonic() - started)
            found[name, "+".join(ways), ended] += 1
            if ended not in ("read", "refused", "unknown"):
                print(f"case {number} of {seed}: {name}, {ways}: {ended}: {sentence[:300]}", file=sys.stderr)
            with suppress(OSError):
                shutil.rmtree(copy)
    return found, slowest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Reads damaged files of other programs.")
    parser.add_argument("--count", type=int, default=3000, help="cases to try")
    parser.add_argument("--seed", type=int, default=0, help="of the cases")
    parser.add_argument("--only", choices=list(WRITERS), help="one format")
    asked = parser.parse_args()
    began = time.monotonic()
    cases, slowest = tried(asked.count, asked.seed, asked.only)
    ends: Counter[str] = Counter()
    for (_, _, end), times in cases.items():
        ends[end] += times
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{asked.count} cases in {time.monotonic() - began:.0f} s: {dict(ends)}; slowest {slowest:.1f} s, memory {largest:.0f} MiB at most"
    )
    sys.exit(any(end not in ("read", "refused", "unknown") for end in ends))
