"""Whether the gain is an artefact of our reconstruction: the same patterns reconstructed by another program, scored alike.

    python experiments/engine.py --case paper  --weights A/reinforce.safetensors ... --theirs theirs/bin/python --out FOLDER
    python experiments/engine.py --case island --weights S/imitate.safetensors ...   --theirs theirs/bin/python --out FOLDER

`theirs` is an environment with py4DSTEM (experiments/README.md). The scans are simulated here, through the one loop with our reconstruction
behind the decisions, and written as files; `independent/run_scans.py` reconstructs each of them there. `paper` is the paper's protocol on
MoS2; `island` has specimens that fill a quarter of the field, 64 positions of 1,000 electrons, every scan at the same defocus.

Their step, its scaling and the number of iterations are chosen on training specimens by the mean score over all scans alike, learned and
conventional, and are then the same for all. Ours are those of the protocols, `paper` and `best`. One JSON line for each reconstruction:
scores and the relative gains of the learned scan, the mean over policies, with intervals over specimens.
"""

import argparse
import hashlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learned import listed, seeded
from scipy import ndimage
from torch import Tensor

from adaptycho import metrics
from adaptycho import settings as tree
from adaptycho.compare import trial
from adaptycho.compare.ledger import Ledger, Row, key
from adaptycho.compare.work import conditions
from adaptycho.metrics import statistics
from adaptycho.physics.optics import Setup
from adaptycho.samples import sample
from adaptycho.samples.sample import Sample
from adaptycho.settings import Settings, build

PROGRAM = Path(__file__).parent / "independent" / "run_scans.py"
STEPS, FLOORS, STOPS = (0.5, 1.0), (0.05, 1.0), (5, 10, 20, 50, 100)
TUNING = 2  # training specimens that their settings are chosen on
BASES = ("random", "raster", "halton")


@dataclass(frozen=True)
class Case:
    """What is scanned.

    Attributes:
        settings: of specimen and scan.
        defocus: of every scan in Å.
        scores: what is printed; the first decides on their settings.
    """

    settings: Settings
    defocus: float
    scores: tuple[str, ...]


def cases() -> dict[str, Case]:
    """The two by name."""
    light = tree.preset("light")
    paper = tree.update(light, {"scan": {"positions": 250, "subsequences": 5}, "reconstruct": tree.PAPER}, "paper")
    scan = {"positions": 64, "dose": 1000.0, "subsequences": 4}
    specimen = {"family": "island", "options": {"filling": 0.25}}
    island = tree.update(light, {"scan": scan, "specimen": specimen, "reconstruct": tree.BEST}, "island")
    return {
        "paper": Case(paper, 0.0, ("ssim", "ssim_aligned", "correlation")),
        "island": Case(island, 90.0, ("correlation_inside",)),
    }


@dataclass(frozen=True)
class Work:
    """One case with its scans, files and results.

    Attributes:
        name: of the case.
        case: what is scanned.
        weights: of the learned policies.
        folder: for the files of scans.
        ledger: of scores.
        theirs: the Python that has the other program.
    """

    name: str
    case: Case
    weights: tuple[Path, ...]
    folder: Path
    ledger: Ledger
    theirs: Path

    @property
    def scans(self) -> dict[str, Path | None]:
        """Every scan by name, with the weights of those that are learned."""
        return {**dict.fromkeys(BASES), **{f"adaptive {i}": path for i, path in enumerate(self.weights, 1)}}

    def file(self, number: int, scan: str) -> Path:
        """Of a scan's patterns: another for other settings or weights."""
        path = self.scans[scan]
        what = key(conditions(self.case.settings), self.case.defocus, hashed(path) if path else "")
        return self.folder / f"{number}-{scan.replace(' ', '-')}-{what[:8]}.npz"


def hashed(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def take(work: Work, specimen: Sample, scan: str) -> None:
    """Takes a scan, writes its patterns, and scores our reconstructions of them."""
    path, target, case = work.scans[scan], work.file(specimen.number, scan), work.case
    settings = tree.update(case.settings, {"scan": {"weights": None if path is None else str(path)}}, "engine")
    seen = trial.scan(trial.Plan("adaptive" if path else scan, case.defocus), settings, specimen).states[-1].seen
    setup = specimen.setup
    rows = []
    for protocol, changes in (("paper", tree.PAPER), ("best", tree.BEST)):
        if protocol == "paper" and work.name != "paper":
            continue
        descent = build.reconstructor(tree.update(settings, {"reconstruct": changes}, "engine"), setup)
        rows.append(scored(work, specimen, scan, f"adaptycho, {protocol}", setup.crop(descent(seen).phase)))
    assert setup.energy is not None  # presets have electrons
    part = target.with_suffix(".part.npz")
    np.savez_compressed(
        part,
        patterns=torch.fft.fftshift(seen.patterns[0], dim=(-2, -1)).numpy(),
        positions=(seen.positions[0].double() * torch.tensor(setup.field, dtype=torch.float64)).numpy(),
        probe=torch.fft.fftshift(setup.probe(case.defocus)).numpy(),
        pixel=setup.object.pixel,
        energy=setup.energy,
        semiangle=setup.semiangle,
    )
    part.rename(target)
    work.ledger.add(rows)


def row_key(work: Work, number: int, scan: str, engine: str) -> str:
    """Of a score."""
    return key("engine", work.file(number, scan).name, engine)


def scored(work: Work, specimen: Sample, scan: str, engine: str, phase: Tensor) -> Row:
    """Scores of a phase inside the field (1, h, w): `ssim` against our full scan, `correlation` against the truth."""
    assert specimen.truth is not None
    found = {
        "correlation": metrics.correlation(phase, specimen.truth),
        "correlation_inside": metrics.correlation(phase, specimen.truth, mask=specimen.inside),
    }
    if work.name == "paper":
        found |= {"ssim": metrics.ssim(phase, specimen.full_scan), "ssim_aligned": metrics.ssim_aligned(phase, specimen.full_scan)}
    numbers = {name: float(v[0]) for name, v in found.items()}
    return {
        "key": row_key(work, specimen.number, scan, engine),
        "scan": scan,
        "specimen": specimen.number,
        "engine": engine,
        "numbers": numbers,
    }


def in_field(setup: Setup, phase: np.ndarray, origin: np.ndarray) -> Tensor:
    """Their phase at the pixels that `Setup.crop` keeps, (1, h, w); `origin` is the pixel of the field's corner (0, 0) in their array."""
    h, w = setup.field_shape
    zero, first = setup.to_pixels(torch.tensor([[0.0, 0.0], [0.5 / h, 0.5 / w]], dtype=torch.float64))
    start = (torch.floor(first + 0.5) - zero).numpy() + origin  # `crop` rounds to whole pixels of our array
    where = np.meshgrid(*(np.arange(n) + s for n, s in zip((h, w), start, strict=True)), indexing="ij")
    return torch.from_numpy(ndimage.map_coordinates(phase.astype(float), where, order=5, mode="nearest"))[None]


def theirs(work: Work, numbers: Sequence[int], settings: Sequence[tuple[float, float, int]]) -> None:
    """Takes what scans are missing, has them reconstructed there with some settings (step, floor, iterations), and scores all."""
    labels = {s: label(s) for s in settings}
    for number in numbers:
        wanted = [*labels.values(), *OURS[work.name]]
        missing = [scan for scan in work.scans if any(row_key(work, number, scan, e) not in work.ledger for e in wanted)]
        if not missing:
            continue
        specimen = sample.simulated(work.case.settings, number)
        for scan in missing:
            if not work.file(number, scan).exists() or any(row_key(work, number, scan, e) not in work.ledger for e in OURS[work.name]):
                take(work, specimen, scan)
        files = {scan: work.file(number, scan) for scan in missing}
        steps, floors, stops = ([f"{v:g}" for v in sorted(set(values))] for values in zip(*settings, strict=True))
        command = [work.theirs, PROGRAM, *files.values(), "--steps", *steps, "--floors", *floors, "--stops", *stops]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        for scan, file in files.items():
            with np.load(file.with_suffix(".theirs.npz")) as found:
                for s, name in labels.items():
                    phase = in_field(specimen.setup, found[f"{s[0]:g} {s[1]:g} {s[2]}"], found["origin"])
                    work.ledger.add([scored(work, specimen, scan, name, phase)])


OURS = {"paper": ("adaptycho, paper", "adaptycho, best"), "island": ("adaptycho, best",)}


def label(settings: tuple[float, float, int]) -> str:
    """Of the other program with some settings."""
    step, floor, stop = settings
    return f"py4DSTEM, step {step:g}, floor {floor:g}, {stop} iterations"


def column(work: Work, numbers: Sequence[int], scan: str, engine: str, metric: str) -> Tensor:
    """One score of every specimen; what diverged scores 0, as in `adaptycho.compare`."""
    values = [work.ledger[row_key(work, n, scan, engine)]["numbers"][metric] for n in numbers]
    return torch.tensor(values, dtype=torch.float64).nan_to_num(nan=0.0)


def choose(work: Work) -> tuple[float, float, int]:
    """Their settings with the best mean score over all scans of the training specimens; policies count as one scan together."""
    candidates = [(step, floor, stop) for step in STEPS for floor in FLOORS for stop in STOPS]
    first = work.case.settings.evaluate.train[0]
    numbers = range(first, first + TUNING)
    theirs(work, numbers, candidates)

    def mean(settings: tuple[float, float, int]) -> float:
        scores = {s: float(column(work, numbers, s, label(settings), work.case.scores[0]).mean()) for s in work.scans}
        learned = [v for s, v in scores.items() if s not in BASES]
        return sum([*(scores[b] for b in BASES), sum(learned) / len(learned)])

    return max(candidates, key=mean)


def line(work: Work, numbers: Sequence[int], engine: str) -> dict[str, Any]:
    """What one reconstruction says."""
    found: dict[str, Any] = {"comparison": "engine", "case": work.name, "engine": engine, "specimens": len(numbers)}
    for metric in work.case.scores:
        values = {scan: column(work, numbers, scan, engine, metric) for scan in work.scans}
        mine = torch.stack([v for scan, v in values.items() if scan not in BASES]).mean(0)
        found[metric] = {
            "learned": round(float(mine.mean()), 4),
            **{scan: round(float(v.mean()), 4) for scan, v in values.items()},
            **{f"over_{base}": listed(statistics.relative(mine, values[base], generator=seeded())) for base in BASES},
        }
    return found


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--case", choices=["paper", "island"], required=True)
    asked.add_argument("--weights", type=lambda p: Path(p).resolve(), nargs="+", required=True)
    asked.add_argument("--theirs", type=lambda p: Path(p).absolute(), required=True, help="the Python of the environment with py4DSTEM")
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--specimens", type=int, default=8)
    given = asked.parse_args()
    if not given.theirs.exists():
        asked.error(f"theirs: expected the Python of an environment with py4DSTEM, found nothing at {given.theirs}")
    folder = given.out / given.case
    folder.mkdir(parents=True, exist_ok=True)
    work = Work(given.case, cases()[given.case], tuple(given.weights), folder, Ledger.open(folder / "results.jsonl"), given.theirs)
    chosen = choose(work)
    # Beside their best: as few plain steps as in the paper's protocol.
    settings = list(dict.fromkeys([chosen, (1.0, 1.0, 5)])) if given.case == "paper" else [chosen]
    first = work.case.settings.evaluate.test[0]
    numbers = range(first, first + given.specimens)
    theirs(work, numbers, settings)
    for engine in (*OURS[given.case], *(label(s) for s in settings)):
        print(json.dumps(line(work, numbers, engine)), flush=True)


if __name__ == "__main__":
    main()
