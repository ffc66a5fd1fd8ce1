"""The stages of a training from settings: the networks, what they learn from, how they are validated on the way, and in which order."""

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
from adaptycho.learn.distributed import Group
from adaptycho.learn.imitate import imitate
from adaptycho.learn.learner import Facts, Learner, ShareLoss, adam, constant, cosine
from adaptycho.learn.loop import Name, Stage, follow
from adaptycho.learn.pool import pool
from adaptycho.learn.reinforce import reinforce
from adaptycho.learn.share import PARTS, Share, share
from adaptycho.samples.sample import Sample
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
STANDARD = 192  # partial reconstructions that tell how latents spread
VALIDATIONS = 4  # conditions that a validation looks at, where there are several


def train(group: Group, folder: Path, stages: Sequence[Name], start: Path | None, progress: Progress, device: str = "cpu") -> None:
    """Goes through the stages of a training in a run folder, from wherever they stand.

    Args:
        group: the processes that share the work.
        folder: with `settings.toml`.
        stages: some of `ORDER`, in this order.
        start: weights to start from; None starts from new ones, or from what an earlier stage left in the folder.
        progress: shows how far a stage is.
        device: where to scan, reconstruct and learn; the files do not know it.
    """
    settings = tree.load(folder / "settings.toml")
    shown, p = progress if group.rank == 0 else _silently, settings.practice
    validation = pool(settings, "validation", p.validation)
    policy: nn.Module | None = None
    samples: list[Sample] | None = None
    for name in stages:
        if name == "reinforce":
            samples = pool(settings, "train", min(p.pool, p.scored))
        elif samples is None:
            samples = pool(settings, "train", p.pool)
        if name == "autoencoder":
            _train_autoencoder(group, folder, settings, samples, validation, shown, device)
        else:
            policy = policy or _policy(settings, folder, start, samples).to(device)
            _train_policy(name, group, folder, settings, policy, (samples, validation), shown)


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


def examine(settings: Settings, samples: Sequence[Sample], network: nn.Module) -> dict[str, float]:
    """Scores of a policy on samples for validation: `score` is what decides, similarity or correlation inside the structure.

    A specimen whose reconstruction diverged scores 0, as in `adaptycho.compare`.
    """
    found: list[dict[str, float]] = []
    several = max(len(settings.practice.positions), len(settings.practice.defocus)) > 1
    fixed = replace(settings, train=replace(settings.train, seed=12345), practice=replace(settings.practice, turn=False))
    for k in range(VALIDATIONS if several else 1):
        # Steps below zero: conditions that no training meets, the same at every validation.
        work = share(fixed, -1 - k, 0, len(samples), samples).to(_home(network))
        with torch.no_grad():
            *_, last = scan(
                work.microscope, library.scanner(network, defocus=work.defocus), work.reconstructor, work.lengths, seed=work.seed
            )
        seen, reference = last.potential.cpu(), work.reference.cpu()
        scores = {
            "ssim": metrics.ssim(seen, reference),
            "ssim_aligned": metrics.ssim_aligned(seen, reference),
            "correlation_inside": metrics.correlation(seen, reference, mask=work.inside.cpu() > 0.5),
        }
        found.append({name: float(values.nan_to_num(nan=0.0).mean()) for name, values in scores.items()})
    mean = {name: sum(f[name] for f in found) / len(found) for name in found[0]}
    return {"score": mean["ssim" if settings.practice.reference == "full" else "correlation_inside"], **mean}


def _silently(items: Iterable[Facts], total: int, what: str) -> Iterable[Facts]:
    return items


def _policy(settings: Settings, folder: Path, start: Path | None, samples: Sequence[Sample]) -> nn.Module:
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
    standardise(settings, made, samples)
    return made


def _train_policy(
    name: Name,
    group: Group,
    folder: Path,
    settings: Settings,
    policy: nn.Module,
    samples: tuple[Sequence[Sample], Sequence[Sample]],
    progress: Progress,
) -> None:
    """Imitation or reinforcement, with samples to train on and others to validate with."""
    t, (given, validation) = settings.train, samples
    rate = cosine(t.imitate_rate, t.imitate_steps) if name == "imitate" else constant(t.reinforce_rate)
    steps = t.imitate_steps if name == "imitate" else t.reinforce_steps
    learner = Learner(policy, adam(policy, t.imitate_rate), group, t.shares)
    stage = Stage(
        name,
        folder,
        settings,
        policy_loss(name, settings, policy, given),
        steps,
        rate,
        lambda: examine(settings, validation, policy),
        lambda path: _draw(path, settings, validation, policy),
    )
    _go(stage, learner, progress)


def _go(stage: Stage, learner: Learner, progress: Progress) -> None:
    """Goes through what is left of a stage, which is known once its checkpoint has been read."""
    updates = follow(stage, learner)
    for first in updates:
        for _ in progress(itertools.chain([first], updates), stage.steps - int(first["step"]) + 1, stage.name):
            pass


def standardise(settings: Settings, policy: nn.Module, samples: Sequence[Sample]) -> None:
    """Tells a new recurrent policy how the latents of reconstructions spread; there is nothing to tell a field policy."""
    if isinstance(policy, Recurrent):
        with torch.no_grad():
            images = [partial(settings, samples, -2 - i, 0, min(len(samples), STANDARD // 16)) for i in range(16)]
            policy.standardise(torch.cat([policy.encoder(i) for i in images]))


def policy_loss(name: Name, settings: Settings, policy: nn.Module, samples: Sequence[Sample]) -> ShareLoss:
    """Loss of one share of a step of `imitate` or `reinforce`."""
    t, stage = settings.train, ORDER.index(name)

    def scanned(number: int, part: int) -> Share:
        return share(settings, number, part, t.imitate_batch // t.shares, samples, stage=stage).to(_home(policy))

    @cache
    def sequences(number: int, part: int) -> sequence_examples.Examples:
        assert isinstance(policy, Recurrent)  # seen to below
        work = scanned(number, part)
        return sequence_examples.make(work, policy, outlook=plan(work, policy), pull=t.pull if t.teacher == "half-way" else 0.0)

    @cache
    def maps(number: int, part: int) -> field_examples.Examples:
        assert isinstance(policy, Field)
        return field_examples.make(scanned(number, part), policy)

    def imitation(step: int, part: int) -> tuple[Tensor, Mapping[str, float]]:
        if t.imitate_bank and isinstance(policy, Recurrent):
            return sequence_examples.loss(policy, sequences(step % t.imitate_bank, part))
        if t.imitate_bank and isinstance(policy, Field):
            symmetry = int(torch.randint(4, (1,), generator=stream(step * PARTS + part, t.seed))) if settings.practice.turn else 0
            return field_examples.loss(policy, maps(step % t.imitate_bank, part), symmetry=symmetry)
        work = scanned(step, part)
        # At first the scan goes where the teacher says, later the policy has to find its own way.
        lead = 0.7 * max(0.0, 1 - step / (0.4 * t.imitate_steps))
        scanner = library.scanner(policy, defocus=work.defocus)
        return imitate(work, scanner, t.teacher, outlook=plan(work, policy), pull=t.pull, lead=lead)

    def reinforcement(step: int, part: int) -> tuple[Tensor, Mapping[str, float]]:
        work = share(settings, step, part, t.reinforce_batch // t.shares, samples, pairs=t.baseline == "pair", stage=stage)
        work = work.to(_home(policy))
        scanner = library.scanner(policy, sigma=t.sigma, defocus=work.defocus)
        return reinforce(work, scanner, t.credit, baseline=t.baseline, gamma=t.gamma, width=t.width, outlook=plan(work, policy))

    return imitation if name == "imitate" else reinforcement


def plan(work: Share, policy: nn.Module) -> Float[Tensor, "P 2"]:
    """The positions of a share's scan if there were nothing to adapt to."""
    total, first, field = sum(work.lengths), work.lengths[0], work.microscope.setup.field
    if isinstance(policy, Field):
        survey = even(total, field, policy.survey)[:first].float()
        return outlook(survey, total, field, policy.survey).to(work.microscope.device)
    return patterns.halton(total).float().to(work.microscope.device)


def _home(network: nn.Module) -> torch.device:
    """Where its weights are, and so where it has to look."""
    return next(network.parameters()).device


def _train_autoencoder(
    group: Group,
    folder: Path,
    settings: Settings,
    samples: Sequence[Sample],
    validation: Sequence[Sample],
    progress: Progress,
    device: str,
) -> None:
    """The autoencoder (A3), on partial reconstructions."""
    t = settings.train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(t.seed)
        compressor = Autoencoder(size=settings.network.image).to(device)
    learner = Learner(compressor, adam(compressor, t.encode_rate), group, t.shares)
    images = partial(settings, validation, -1, 0, len(validation)).to(device)

    @cache
    def batch(number: int, part: int) -> Float[Tensor, "B 2 n n"]:
        return partial(settings, samples, number, part, t.encode_batch // t.shares).to(device)

    def loss(step: int, part: int) -> tuple[Tensor, Mapping[str, float]]:
        return autoencoder.loss(compressor, batch(step % t.encode_batches, part)), {}

    def validate() -> Mapping[str, float]:
        with torch.no_grad():
            value = float(autoencoder.loss(compressor, images))
        return {"score": -value, "loss": value}

    stage = Stage("autoencoder", folder, settings, loss, t.encode_steps, cosine(t.encode_rate, t.encode_steps), validate, None)
    _go(stage, learner, progress)


def partial(settings: Settings, samples: Sequence[Sample], step: int, part: int, size: int) -> Float[Tensor, "B 2 n n"]:
    """Images for the autoencoder: reconstructions from the first so many sub-sequences of a Halton scan, each position a little off."""
    work = share(settings, step, part, size, samples, stage=ORDER.index("autoencoder"))
    generator = stream(work.seed, -1)  # the seed itself has drawn the samples
    count = sum(work.lengths[: 1 + int(torch.randint(len(work.lengths), (1,), generator=generator))])
    spread = torch.randn(len(work), count, 2, generator=generator) * 0.3 / math.sqrt(sum(work.lengths))
    positions = (patterns.halton(count).float() + spread).clamp(0, 1)
    measured = work.microscope.acquire(Action(positions, defocus=work.defocus), generator=generator)
    phase = work.microscope.setup.crop(work.reconstructor(measured).phase)
    return autoencoder.prepare(phase, settings.network.image)


def look(settings: Settings, validation: Sequence[Sample] | None = None) -> Share:
    """The sample and conditions of which pictures are drawn, the same whatever the training's seed; those for validation may be given."""
    first = (pool(settings, "validation", 1) if validation is None else validation)[:1]
    return share(replace(settings, train=replace(settings.train, seed=12345)), -1, 0, 1, first)


def _draw(path: Path, settings: Settings, validation: Sequence[Sample], policy: nn.Module) -> None:
    """Positions of the policy as it is over one sample."""
    work = look(settings, validation).to(_home(policy))
    with torch.no_grad():
        *_, last = scan(work.microscope, library.scanner(policy, defocus=work.defocus), work.reconstructor, work.lengths, seed=work.seed)
    figure = learning.tessellation(
        work.reference[0].cpu(), last.seen.positions[0].cpu(), work.microscope.setup.field, first=work.lengths[0]
    )
    with whole(path) as part:
        figure.savefig(part, dpi=80, format="png")
    with whole(path.with_suffix(".npy")) as part, part.open("wb") as file:
        np.save(file, last.seen.positions[0].cpu().numpy())
