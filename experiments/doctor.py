"""What `adaptycho inspect --doctor` finds in recordings whose geometry is spoilt on purpose: one JSON line for each case.

`python experiments/doctor.py [FOLDER] [--seeds 5] [--threads 2]`

- `recorded`: the rotavirus data, the shipped part and, where FOLDER holds them, all 10,160 patterns: rotation 0, no counts per electron,
  and a defocus of 0 or 50,000 Å instead of what was fitted by hand (122.5 ± 2 degrees, 130,000 ± 8,000 Å, 4 to 6.5 counts).
- `right`: simulated islands of MoS2 with nothing wrong; whatever is found wrong is a false alarm.
- `orientation`: the detector turned by quarters and mirrored, the defocus's sign right and wrong: all sixteen.
- `turned`: the rotation wrong by 10 degrees. `centre`: the disc off by (3, -4) pixels. `step`: all lengths of the scan 30 % too large.
- `hot`: one pixel of 65,535 counts. `film`: an amorphous one, right. `rolled`: it, with the series late by 3 patterns.
  `pixel`: the detector's pixel 15 % too large.

`found` is whether the doctor names what is wrong and nothing else, and finds nothing wrong once it has mended it.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
from torch import Tensor

from adaptycho import formats, settings
from adaptycho.formats import Recording
from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Aberrations, object_grid
from adaptycho.samples import doctor
from adaptycho.samples.doctor.linear import turned
from adaptycho.settings import build
from adaptycho.types import Action

ROWS, COLUMNS, STEP, DEFOCUS = 24, 32, 0.625, 60.0
CLOSE = 2.5, 0.07  # degrees, and of the defocus


def raster(seed: int, family: str = "island", dose: float = 1e4) -> Recording:
    """A raster of a specimen of MoS2 at 60 keV, 33 mrad and 60 Å underfocus."""
    changes = {
        "specimen": {"family": family, "first": 2_600_000 + seed},
        "beam": {"defocus": DEFOCUS},
        "geometry": {
            "field": ((ROWS - 1) * STEP, (COLUMNS - 1) * STEP), "pixel": 0.308, "object": "auto", "window": 32, "detector": 32,
        },
        "scan": {"dose": dose},
    }  # fmt: skip
    microscope = build.simulated(settings.update(settings.Settings(), changes, "experiment"))
    axes = torch.linspace(0, 1, ROWS), torch.linspace(0, 1, COLUMNS)
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, 2)
    return Recording(microscope.setup, microscope.acquire(Action(positions), generator=torch.Generator().manual_seed(seed)))


def quarters(patterns: Tensor, count: int) -> Tensor:
    """Patterns turned counter-clockwise by so many quarter turns about zero frequency, which is in the corner."""
    for _ in range(count % 4):
        patterns = patterns.transpose(-2, -1).flip(-2).roll(1, -2)
    return patterns


def spoilt(
    recording: Recording, *, quarter: int = 0, mirrored: bool = False, focus: float | None = None, rotation: float = 0.0
) -> Recording:
    """The recording with other detector axes, and another defocus (Å) and rotation said of it; without a measured probe."""
    setup, data = recording.setup, recording.measurement
    focus = setup.aberrations.defocus if focus is None else focus
    patterns = quarters(data.patterns.transpose(-2, -1) if mirrored else data.patterns, quarter).contiguous()
    setup = replace(
        setup, measured_probe=None, aberrations=Aberrations(C10=-focus), rotation=rotation,
        object=object_grid(setup.field, setup.window, rotation),
    )  # fmt: skip
    return replace(recording, setup=setup, measurement=replace(data, patterns=patterns, defocus=torch.full_like(data.defocus, focus)))


def judged(recording: Recording, truth: dict[str, Any], wrong: set[str]) -> dict[str, Any]:
    """Whether what is wrong is found, what it is found to be, and how long it took."""
    started = time.perf_counter()
    found = doctor.examine(recording)
    seconds = time.perf_counter() - started
    way, named = found.mend.way, {one.name for one in found.findings if one.wrong}
    close = (
        way.mirrored == truth.get("mirrored", False)
        and abs(turned(way.rotation - truth.get("rotation", 0.0))) < CLOSE[0]
        and abs(way.defocus / truth.get("defocus", DEFOCUS) - 1) < CLOSE[1]
    )
    again = doctor.examine(doctor.corrected(recording, found)).healthy if named else True
    return {
        "found": named == wrong and close and again, "named": sorted(named), "healthy_after": again, "mirrored": way.mirrored,
        "rotation": round(way.rotation, 2), "defocus": round(way.defocus, 1), "options": found.options, "seconds": round(seconds, 1),
    }  # fmt: skip


def recorded(folder: Path | None) -> Iterator[dict[str, Any]]:
    """The rotavirus data, with what was found by hand left out."""
    for name, source in (("shipped", formats.example()), ("all", folder)):
        if source is None:
            continue
        known = formats.read(source)
        truth = {"rotation": known.setup.rotation, "defocus": known.setup.aberrations.defocus}
        for focus in (0.0, 50_000.0):
            started = time.perf_counter()
            found = doctor.examine(replace(spoilt(known, focus=focus), counts_per_electron=1.0))
            values = {one.name: one.value for one in found.findings}
            yield {
                "case": "recorded", "data": name, "said_defocus": focus, "seconds": round(time.perf_counter() - started, 1),
                "rotation": values["rotation"], "defocus": values["defocus"], "counts_per_electron": values["counts per electron"],
                "by_hand": truth, "options": found.options,
            }  # fmt: skip
        yield {"case": "recorded", "data": name, "as it is": doctor.lines(doctor.examine(known))[-1]}


def simulated(seed: int) -> Iterator[dict[str, Any]]:
    """Everything that is done to one island."""
    right = raster(seed)
    yield {"case": "right"} | judged(right, {}, set())
    for mirrored in (False, True):
        for quarter in range(4):
            for sign in (1, -1):
                # Mirrored, the axes are exchanged first, so that the turn is undone the other way round.
                rotation = turned(90.0 * quarter * (1 if mirrored else -1))
                wrong = {"detector's axes"} if mirrored else set()
                wrong |= {"rotation"} if quarter else set()
                wrong |= {"defocus"} if sign < 0 else set()
                case = {"case": "orientation", "quarter": quarter, "is_mirrored": mirrored, "sign": sign}
                truth = {"mirrored": mirrored, "rotation": rotation}
                yield case | judged(spoilt(right, quarter=quarter, mirrored=mirrored, focus=sign * DEFOCUS), truth, wrong)
    yield {"case": "turned"} | judged(spoilt(right, rotation=10.0), {}, {"rotation"})
    data, setup = right.measurement, right.setup
    moved = replace(data, patterns=data.patterns.roll((3, -4), (-2, -1)))
    yield {"case": "centre"} | judged(replace(right, measurement=moved), {}, {"disc's centre"})
    hot = data.patterns.clone()
    hot[..., 5, 9] = 65535
    yield {"case": "hot"} | judged(replace(right, measurement=replace(data, patterns=hot)), {}, {"detector pixels"})
    field = setup.field[0] * 1.3, setup.field[1] * 1.3
    wide = replace(setup, field=field, object=object_grid(field, setup.window))
    yield {"case": "step"} | judged(replace(right, setup=wide), {}, {"scan step"})
    window = Grid(setup.window.shape, setup.window.pixel / 1.15)
    coarse = replace(setup, window=window, object=object_grid(setup.field, window))
    film = raster(seed, "amorphous")
    late = replace(film.measurement, patterns=film.measurement.patterns.roll(3, 1))
    yield {"case": "film"} | judged(film, {}, set())
    yield {"case": "rolled"} | judged(replace(film, measurement=late), {}, {"lines"})
    yield {"case": "pixel"} | judged(replace(right, setup=coarse), {}, {"disc's radius"})


def main() -> None:
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for line in recorded(chosen.folder):
        print(json.dumps(line | {"threads": chosen.threads}), flush=True)
    for seed in range(chosen.seeds):
        for line in simulated(seed):
            print(json.dumps(line | {"seed": seed, "threads": chosen.threads}), flush=True)


if __name__ == "__main__":
    main()
