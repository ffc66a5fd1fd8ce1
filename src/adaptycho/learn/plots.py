"""The figures of trainings, drawn from their folders.

Learning curves (Fig. 3a of the paper), the cells that are rewarded (3b), what a code keeps (6), and how positions wander (7).
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from os.path import lexists
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from adaptycho import settings as tree
from adaptycho.draw import learning
from adaptycho.draw.learning import Point
from adaptycho.learn.loop import Name
from adaptycho.learn.series import WINDOW, Quantity, over_runs, series
from adaptycho.learn.stages import look
from adaptycho.scan import patterns
from adaptycho.scan.episode import run as scan
from adaptycho.scan.networks import autoencoder, library
from adaptycho.scan.networks.autoencoder import Autoencoder
from adaptycho.settings import Settings
from adaptycho.support.atomic import whole
from adaptycho.support.reading import reading, regular
from adaptycho.types import Action

FRAMES = 3  # trainings beside each other in one picture
POLICY: tuple[Name, ...] = ("imitate", "reinforce")  # stages of a policy, in their order
STAGES: Mapping[Name, str] = {"autoencoder": "autoencoder", "imitate": "imitation", "reinforce": "reinforcement"}
CREDITS: Mapping[str, str] = {"voronoi": "Voronoi reward", "shared": "shared reward"}
# Settings in which runs of one training may differ.
INCIDENTAL = ("train.seed", "train.processes", "train.every")


def learning_curves(groups: Mapping[str, Sequence[Path]], quantity: Quantity = "reward", stage: Name = "reinforce") -> Figure:
    """How a quantity grows with training, as mean and 95 % interval over runs, a curve for each group (Fig. 3a).

    What is logged at every step is a running mean of 11 steps, fewer at the ends; validation scores are as they are. A group is shown up to
    the last step that all its runs have. The interval is a bootstrap over runs, which cannot reach beyond them: that of 3 runs is their
    range, which holds the mean of many in only 75 % of cases (4 runs: 87 %).

    Args:
        groups: by name, folders of runs that differ in their seed; those without the stage are left out.
        quantity: `reward` and `ssim` are of the scans that are learnt from, with exploration; `validation` is the score that decides.
        stage: what the steps are of.

    Raises:
        ValueError: no run has logged such a quantity in this stage.
    """
    named: dict[str, list[Point]] = {}
    for name, folders in groups.items():
        found = [values for folder in folders if (values := series(folder, quantity, stage))]
        if found:
            count = "1 run" if len(found) == 1 else f"{len(found)} runs"
            named[f"{name} ({count})"] = over_runs(found, smooth=quantity != "validation")
    if not any(named.values()):
        raise ValueError(f"{quantity}: expected runs with a log of it in course {stage}, found none")
    labels = {"reward": "reward", "ssim": "SSIM in training", "validation": "validation score"}
    label = labels[quantity] + ("" if quantity == "validation" else f", mean of {WINDOW} steps")
    several = any(len(folders) > 1 for folders in groups.values())
    note = "band: 95 % bootstrap interval over runs (up to four: their range)" if several else ""
    return learning.curves(named, quantity=label, step=f"step of {STAGES[stage]}", note=note)


def progress(run: Path) -> Figure:
    """The validation scores of a run from its first step to its last, one stage after the other."""
    found = {stage: values for stage in STAGES if (values := series(run, "validation", stage))}
    # What the autoencoder is judged by is on another scale.
    stages: list[Name] = [stage for stage in POLICY if stage in found] or list(found)
    named: dict[str, list[Point]] = {}
    begin = 0
    for stage in stages:
        named[STAGES[stage]] = [(float(begin + step), value, value, value) for step, value in found[stage].items()]
        begin += max(found[stage])
    return learning.curves(named, quantity=score(tree.load(run / "settings.toml"), stages), step="step")


def score(settings: Settings, stages: Sequence[Name]) -> str:
    """What the validation score of a training is."""
    if list(stages) == ["autoencoder"]:
        return "− mean squared error"
    inside = settings.practice.reference == "truth"
    return "correlation inside the structure" if inside else "SSIM on validation specimens"


def voronoi(run: Path) -> Figure:
    """The trained policy's scan of a validation specimen and the cells of its positions, those of the survey shaded (Fig. 3b).

    Raises:
        ValueError: the run has no weights of a policy yet.
    """
    paths = _weights(run)
    if not paths:
        raise ValueError(f"{run}: expected the weights of a policy, found none")
    work = look(tree.load(run / "settings.toml"))
    policy = library.scanner(library.load(paths[-1]), defocus=work.defocus)
    with torch.no_grad():
        *_, last = scan(work.microscope, policy, work.reconstructor, work.lengths, seed=work.seed)
    return learning.tessellation(work.reference[0], last.seen.positions[0], work.microscope.setup.field, first=work.lengths[0])


def compression(run: Path) -> Figure:
    """What the run's autoencoder makes of a reconstruction from the first two sub-sequences of a Halton scan (Fig. 6).

    Raises:
        ValueError: the run has no autoencoder.
    """
    network = library.load(run / "autoencoder.safetensors")
    if not isinstance(network, Autoencoder):
        raise ValueError(f"{run / 'autoencoder.safetensors'}: expected an autoencoder, found a {type(network).__name__}")
    work = look(tree.load(run / "settings.toml"))
    setup = work.microscope.setup
    positions = patterns.halton(sum(work.lengths[:2])).float()[None]
    measured = work.microscope.acquire(Action(positions, defocus=work.defocus), generator=torch.Generator().manual_seed(work.seed))
    phase = setup.crop(work.reconstructor(measured).phase)
    size = network.encoder.size
    with torch.no_grad():
        latent = network.encoder(autoencoder.prepare(phase, size))
        decoded = network.decoder(latent)[0, 0]
    # The network sees standardised images: back to rad.
    seen = functional.interpolate(phase[:, None], size=(size, size), mode="bicubic", antialias=True)[0, 0]
    return learning.compression(phase[0], latent[0], seen.mean() + seen.std(correction=0) * decoded, setup.field)


def trajectories(named: Mapping[str, Path], stage: Name = "reinforce") -> Figure:
    """Where the positions of runs went over one specimen while they were trained, a frame for each run (Fig. 7).

    In the paper, frame a is a training without the supervised initialisation C1 (`network.start=scratch`), frame b one with it.

    Args:
        named: folder of each run.
        stage: whose pictures are shown.

    Raises:
        ValueError: a run has kept no positions in this stage, or the runs scan different specimens.
    """
    tracks = {name: _track(run, stage) for name, run in named.items()}
    works = [look(tree.load(run / "settings.toml")) for run in named.values()]
    first, survey = works[0], works[0].lengths[0]
    for (name, track), work in zip(tracks.items(), works, strict=True):
        if work.lengths != first.lengths or not torch.equal(work.reference, first.reference):
            raise ValueError(f"{name}: expected a scan of the same specimen as the others, found another")
        if track.shape[1] != sum(work.lengths):
            raise ValueError(f"{named[name]}: expected pictures of {sum(work.lengths)} positions, found {track.shape[1]}")
    given = next(iter(tracks.values()))[0, :survey]
    after = {name: track[:, survey:] for name, track in tracks.items()}
    return learning.trajectories(first.reference[0], after, given, first.microscope.setup.field)


def draw(runs: Sequence[Path], out: Path) -> list[Path]:
    """Writes every figure that the runs give, as PNG, and returns their names.

    Runs with the same settings but for the seed are one training: learning curves show their mean, other figures the first of them.

    Args:
        runs: folders of trainings, finished or not.
        out: folder for the figures.

    Raises:
        ValueError: there are no runs, or a folder is not one.
    """
    if not runs:
        raise ValueError("runs: expected at least one folder of a training, got none")
    groups = grouped(runs)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in _figures(groups):
        path = out / f"{name}.png"
        with whole(path) as part:
            figure.savefig(part, dpi=160, format="png")
        written.append(path)
    return written


def grouped(runs: Sequence[Path]) -> dict[str, list[Path]]:
    """Runs by training: those with the same settings but for the seed.

    A training is named after the one setting in which it differs from the others, or, if there is not just one, after its first folder.
    """
    described = {run: {k: v for k, v, _ in tree.fields(tree.load(run / "settings.toml")) if k not in INCIDENTAL} for run in runs}
    groups: list[list[Path]] = []
    for run, found in described.items():
        same = next((group for group in groups if described[group[0]] == found), None)
        if same is None:
            groups.append([run])
        else:
            same.append(run)
    first = [described[group[0]] for group in groups]
    differing = [key for key in first[0] if any(other[key] != first[0][key] for other in first)]
    named: dict[str, list[Path]] = {}
    for group, facts in zip(groups, first, strict=True):
        folder = group[0].resolve().name
        name = re.sub(r"(?<=.)[-_]?\d+$", "", folder)
        if len(differing) == 1:
            value = str(facts[differing[0]])
            name = CREDITS.get(value, value) if differing == ["train.credit"] else f"{differing[0].partition('.')[2]} {value}"
        named[next(n for n in _candidates(name) if n not in named)] = group
    return named


def _figures(groups: Mapping[str, Sequence[Path]]) -> Iterator[tuple[str, Figure]]:
    runs = [run for group in groups.values() for run in group]
    for quantity in get_args(Quantity):
        for stage in POLICY:
            if any(len(series(run, quantity, stage)) > 1 for run in runs):
                yield f"{quantity}-{stage}", learning_curves(groups, quantity, stage)
    for name, (run, *_) in groups.items():
        stem = re.sub(r"[^\w.]+", "-", name)
        if any(series(run, "validation", stage) for stage in STAGES):
            yield f"progress-{stem}", progress(run)
        if _weights(run):
            yield f"voronoi-{stem}", voronoi(run)
        if lexists(run / "autoencoder.safetensors"):
            yield f"compression-{stem}", compression(run)
    for stage in POLICY:
        moving = {name: group[0] for name, group in groups.items() if len(_kept(group[0], stage)) > 1}
        for i, named in enumerate(_comparable(moving)):
            yield f"trajectories-{stage}" + (f"-{i + 1}" if i else ""), trajectories(named, stage)


def _comparable(runs: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Runs that scan the same specimen in as many positions, a few at a time."""
    kinds: dict[object, dict[str, Path]] = {}
    for name, run in runs.items():
        work = look(tree.load(run / "settings.toml"))
        kinds.setdefault((work.lengths, work.reference.numpy().tobytes()), {})[name] = run
    for named in kinds.values():
        for i in range(0, len(named), FRAMES):
            yield dict(itertools.islice(named.items(), i, i + FRAMES))


def _weights(run: Path) -> list[Path]:
    """Weights of a policy that the run has, the last stage's last."""
    return [path for stage in POLICY if lexists(path := run / f"{stage}.safetensors")]  # a link that leads nowhere is not passed over


def _kept(run: Path, stage: Name) -> list[Path]:
    """Positions that were kept, from the first step to the last."""
    return sorted((run / "pictures").glob(f"{stage}-*.npy"), key=lambda path: int(path.stem.rpartition("-")[2]))


def _track(run: Path, stage: Name) -> Float[Tensor, "I P 2"]:
    kept = _kept(run, stage)
    if not kept:
        raise ValueError(f"{run / 'pictures'}: expected positions {stage}-*.npy, found none")
    read: list[np.ndarray] = []
    for path in kept:
        regular(path, "positions of a scan")
        with reading(path, "positions of a scan"):
            positions = np.load(path, allow_pickle=False)
            if positions.dtype.kind != "f" or positions.ndim != 2 or positions.shape[1] != 2 or not np.isfinite(positions).all():
                raise ValueError(f"{path}: expected finite positions of shape (P, 2), found {positions.dtype} of shape {positions.shape}")
        if read and read[0].shape != positions.shape:
            raise ValueError(f"{path}: expected {len(read[0])} positions as in {kept[0].name}, found {len(positions)}")
        read.append(positions)
    return torch.from_numpy(np.stack(read))


def _candidates(name: str) -> Iterator[str]:
    """A name, and others if it is taken."""
    yield name
    yield from (f"{name} {i}" for i in itertools.count(2))
