"""From settings to courses: the networks, what they practise on, how they are judged on the way, and in which order."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from adaptycho import metrics
from adaptycho import settings as tree
from adaptycho.draw import learning
from adaptycho.learn import field_examples, sequence_examples
from adaptycho.learn.distributed import Crew
from adaptycho.learn.imitate import imitate
from adaptycho.learn.learner import Facts, Learner, ShareLoss, adam, constant, cosine
from adaptycho.learn.loop import Course, Name, follow
from adaptycho.learn.reinforce import reinforce
from adaptycho.samples.training import PARTS, Part, Share, Specimens, Windows, prepare, recorded, share
from adaptycho.scan import patterns
from adaptycho.scan.episode import run as scan
from adaptycho.scan.episode import split_evenly, stream
from adaptycho.scan.networks import autoencoder, library
from adaptycho.scan.networks.autoencoder import Autoencoder, Encoder
from adaptycho.scan.networks.field import Field, outlook
from adaptycho.scan.networks.recurrent import Recurrent
from adaptycho.scan.policies.learned import even
from adaptycho.settings import Settings
from adaptycho.support.atomic import whole
from adaptycho.types import Action

ORDER: tuple[Name, ...] = ("autoencoder", "imitate", "reinforce")
Progress = Callable[[Iterable[Facts], int, str], Iterable[Facts]]
UNTUNED = 1000  # training specimens that are left to tuning
ACQUAINTED = 192  # partial reconstructions that tell how latents spread
VALIDATIONS = 4  # conditions that a validation looks at, where there are several


def train(crew: Crew, folder: Path, courses: Sequence[Name], start: Path | None, progress: Progress) -> None:
    """Goes through courses in a run folder, from wherever they stand.

    Args:
        crew: the processes that share the work.
        folder: with `settings.toml`.
        courses: some of `ORDER`, in this order.
        start: weights to start from; None starts from new ones, or from what an earlier course left in the folder.
        progress: shows how far a course is.
    """
    settings = tree.load(folder / "settings.toml")
    shown = progress if crew.rank == 0 else _silently
    p, full = settings.practice, settings.practice.reference == "full"
    exam = _specimens(settings, "validation", p.validation, full=full)
    pupil = pool = None
    for name in courses:
        if name == "reinforce":
            pool = _specimens(settings, "train", min(p.pool, p.scored), full=full)
        elif pool is None:
            pool = _specimens(settings, "train", p.pool, full=False)
        if name == "autoencoder":
            _encode(crew, folder, settings, pool, exam, shown)
        else:
            pupil = pupil or _network(settings, folder, start, pool)
            _teach(name, crew, folder, settings, pupil, (pool, exam), shown)


def network(settings: Settings, encoder: Encoder | None = None) -> nn.Module:
    """A new network as the settings have it; the same for the same seed.

    Args:
        settings: of the network and of the sub-sequences.
        encoder: of the recurrent policy; a new one, which compresses at random, if None.
    """
    n = settings.network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.train.seed)
        if n.kind == "field":
            return Field(n.widths, floor=n.floor, flat=n.flat, power=n.power, survey=n.survey, lattice=n.lattice)
        lengths = split_evenly(settings.practice.positions[0], settings.scan.subsequences)
        widths = {"hidden": n.hidden, "location": n.location, "structure": n.structure}
        return Recurrent(lengths, encoder or Encoder(size=n.image), **widths, start=n.start)


def examine(settings: Settings, exam: Specimens | Windows, network: nn.Module) -> dict[str, float]:
    """Scores of a policy on specimens for validation: `score` is what decides, similarity or correlation inside the structure.

    A specimen whose reconstruction diverged scores 0, as in `adaptycho.compare`.
    """
    found: list[dict[str, float]] = []
    several = max(len(settings.practice.positions), len(settings.practice.defocus)) > 1
    fixed = replace(settings, train=replace(settings.train, seed=12345), practice=replace(settings.practice, turn=False))
    for k in range(VALIDATIONS if several else 1):
        # Steps below zero: conditions that no training meets, the same at every validation.
        work = share(fixed, -1 - k, 0, len(exam), exam)
        with torch.no_grad():
            *_, last = scan(
                work.microscope, library.scanner(network, defocus=work.defocus), work.reconstructor, work.lengths, seed=work.seed
            )
        reference = work.reference
        scores = {
            "ssim": metrics.ssim(last.potential, reference),
            "ssim_aligned": metrics.ssim_aligned(last.potential, reference),
            "correlation_inside": metrics.correlation(last.potential, reference, mask=work.inside > 0.5),
        }
        found.append({name: float(values.nan_to_num(nan=0.0).mean()) for name, values in scores.items()})
    mean = {name: sum(f[name] for f in found) / len(found) for name in found[0]}
    return {"score": mean["ssim" if settings.practice.reference == "full" else "correlation_inside"], **mean}


def _silently(items: Iterable[Facts], total: int, what: str) -> Iterable[Facts]:
    return items


def _specimens(settings: Settings, part: Part, count: int, *, full: bool) -> Specimens | Windows:
    if settings.scan.microscope == "recorded":
        return recorded(settings, part, count, settings.train.seed if part == "train" else -1)
    first, last = getattr(settings.evaluate, part)
    first += UNTUNED if part == "train" else 0
    if first + count > last:
        raise ValueError(f"evaluate.{part}: expected room for {count} specimens from {first} on, found {first} to {last}")
    offset = settings.train.seed * count % (last - first - count + 1) if part == "train" else 0
    return prepare(settings, list(range(first + offset, first + offset + count)), full=full)


def _network(settings: Settings, folder: Path, start: Path | None, pool: Specimens | Windows) -> nn.Module:
    """A policy with the given weights, or a new one; what an autoencoder has learnt goes into a new recurrent one."""
    trained = folder / "autoencoder.safetensors"
    path = start or (trained if settings.network.kind == "recurrent" and trained.exists() else None)
    found = library.load(path, train=True) if path else None
    if isinstance(found, Field):  # how it places positions is not learnt
        n = settings.network
        found.floor, found.flat, found.power, found.lattice = n.floor, n.flat, n.power, n.lattice
    if found is not None and not isinstance(found, Autoencoder):
        return found
    made = network(settings, None if found is None else found.encoder)
    acquaint(settings, made, pool)
    return made


def _teach(
    name: Name,
    crew: Crew,
    folder: Path,
    settings: Settings,
    pupil: nn.Module,
    specimens: tuple[Specimens | Windows, Specimens | Windows],
    progress: Progress,
) -> None:
    """The courses of a policy."""
    t, (pool, exam) = settings.train, specimens
    rate = cosine(t.imitate_rate, t.imitate_steps) if name == "imitate" else constant(t.reinforce_rate)
    steps = t.imitate_steps if name == "imitate" else t.reinforce_steps
    learner = Learner(pupil, adam(pupil, t.imitate_rate), crew, t.shares)
    course = Course(
        name,
        folder,
        settings,
        policy_loss(name, settings, pupil, pool),
        steps,
        rate,
        lambda: examine(settings, exam, pupil),
        lambda path: _draw(path, settings, exam, pupil),
    )
    _go(course, learner, progress)


def _go(course: Course, learner: Learner, progress: Progress) -> None:
    """Goes through what is left of a course, which is known once its checkpoint has been read."""
    updates = follow(course, learner)
    for first in updates:
        for _ in progress(itertools.chain([first], updates), course.steps - int(first["step"]) + 1, course.name):
            pass


def acquaint(settings: Settings, pupil: nn.Module, pool: Specimens | Windows) -> None:
    """Tells a new recurrent policy how the latents of reconstructions spread; there is nothing to tell a field policy."""
    if isinstance(pupil, Recurrent):
        with torch.no_grad():
            images = [partial(settings, pool, -2 - i, 0, min(len(pool), ACQUAINTED // 16)) for i in range(16)]
            pupil.standardise(torch.cat([pupil.encoder(i) for i in images]))


def policy_loss(name: Name, settings: Settings, pupil: nn.Module, pool: Specimens | Windows) -> ShareLoss:
    """Loss of one share of a step of `imitate` or `reinforce`."""
    t, course = settings.train, ORDER.index(name)

    def practised(number: int, part: int) -> Share:
        return share(settings, number, part, t.imitate_batch // t.shares, pool, course=course)

    @cache
    def lesson(number: int, part: int) -> sequence_examples.Lessons:
        assert isinstance(pupil, Recurrent)  # seen to below
        work = practised(number, part)
        return sequence_examples.make(work, pupil, outlook=plan(work, pupil), pull=t.pull if t.teacher == "half-way" else 0.0)

    @cache
    def view(number: int, part: int) -> field_examples.Views:
        assert isinstance(pupil, Field)
        return field_examples.make(practised(number, part), pupil)

    def imitation(step: int, part: int) -> tuple[Tensor, Mapping[str, float]]:
        if t.imitate_bank and isinstance(pupil, Recurrent):
            return sequence_examples.loss(pupil, lesson(step % t.imitate_bank, part))
        if t.imitate_bank and isinstance(pupil, Field):
            symmetry = int(torch.randint(4, (1,), generator=stream(step * PARTS + part, t.seed))) if settings.practice.turn else 0
            return field_examples.loss(pupil, view(step % t.imitate_bank, part), symmetry=symmetry)
        work = practised(step, part)
        policy = library.scanner(pupil, defocus=work.defocus)
        # At first the pupil is led where the teacher goes, later it has to find its own way.
        lead = 0.7 * max(0.0, 1 - step / (0.4 * t.imitate_steps))
        return imitate(work, policy, t.teacher, outlook=plan(work, pupil), pull=t.pull, lead=lead)

    def reinforcement(step: int, part: int) -> tuple[Tensor, Mapping[str, float]]:
        work = share(settings, step, part, t.reinforce_batch // t.shares, pool, pairs=t.baseline == "pair", course=course)
        policy = library.scanner(pupil, sigma=t.sigma, defocus=work.defocus)
        return reinforce(work, policy, t.credit, baseline=t.baseline, gamma=t.gamma, width=t.width, outlook=plan(work, pupil))

    return imitation if name == "imitate" else reinforcement


def plan(work: Share, pupil: nn.Module) -> Float[Tensor, "P 2"]:
    """The positions of a share's scan if there were nothing to adapt to."""
    total, first, field = sum(work.lengths), work.lengths[0], work.microscope.setup.field
    if isinstance(pupil, Field):
        survey = even(total, field, pupil.survey)[:first].float()
        return outlook(survey, total, field, pupil.survey)
    return patterns.halton(total).float()


def _encode(crew: Crew, folder: Path, settings: Settings, pool: Specimens | Windows, exam: Specimens | Windows, progress: Progress) -> None:
    """The course of the autoencoder (A3), on partial reconstructions."""
    t = settings.train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(t.seed)
        pupil = Autoencoder(size=settings.network.image)
    learner = Learner(pupil, adam(pupil, t.encode_rate), crew, t.shares)
    images = partial(settings, exam, -1, 0, len(exam))

    @cache
    def batch(number: int, part: int) -> Float[Tensor, "B 2 n n"]:
        return partial(settings, pool, number, part, t.encode_batch // t.shares)

    def loss(step: int, part: int) -> tuple[Tensor, Mapping[str, float]]:
        return autoencoder.loss(pupil, batch(step % t.encode_batches, part)), {}

    def validate() -> Mapping[str, float]:
        with torch.no_grad():
            value = float(autoencoder.loss(pupil, images))
        return {"score": -value, "loss": value}

    course = Course("autoencoder", folder, settings, loss, t.encode_steps, cosine(t.encode_rate, t.encode_steps), validate, None)
    _go(course, learner, progress)


def partial(settings: Settings, pool: Specimens | Windows, step: int, part: int, size: int) -> Float[Tensor, "B 2 n n"]:
    """Images for the autoencoder: reconstructions from the first so many sub-sequences of a Halton scan, each position a little off."""
    work = share(settings, step, part, size, pool, course=ORDER.index("autoencoder"))
    generator = stream(work.seed, -1)  # the seed itself has drawn the specimens
    count = sum(work.lengths[: 1 + int(torch.randint(len(work.lengths), (1,), generator=generator))])
    spread = torch.randn(len(work), count, 2, generator=generator) * 0.3 / math.sqrt(sum(work.lengths))
    positions = (patterns.halton(count).float() + spread).clamp(0, 1)
    measured = work.microscope.acquire(Action(positions, defocus=work.defocus), generator=generator)
    phase = work.microscope.setup.crop(work.reconstructor(measured).phase)
    return autoencoder.prepare(phase, settings.network.image)


def look(settings: Settings, exam: Specimens | Windows | None = None) -> Share:
    """The specimen and conditions of which pictures are drawn, the same whatever the training's seed; `exam` if it is there already."""
    if exam is None:
        exam = _specimens(settings, "validation", 1, full=settings.practice.reference == "full")
    return share(replace(settings, train=replace(settings.train, seed=12345)), -1, 0, 1, exam.take([0]))


def _draw(path: Path, settings: Settings, exam: Specimens | Windows, pupil: nn.Module) -> None:
    """Positions of the policy as it is over one specimen."""
    work = look(settings, exam)
    with torch.no_grad():
        *_, last = scan(work.microscope, library.scanner(pupil, defocus=work.defocus), work.reconstructor, work.lengths, seed=work.seed)
    figure = learning.tessellation(work.reference[0], last.seen.positions[0], work.microscope.setup.field, first=work.lengths[0])
    with whole(path) as part:
        figure.savefig(part, dpi=80, format="png")
    with whole(path.with_suffix(".npy")) as part, part.open("wb") as file:
        np.save(file, last.seen.positions[0].numpy())
