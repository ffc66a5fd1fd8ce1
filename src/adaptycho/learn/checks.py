"""What settings have to fulfil before anything is trained with them; everything here is found out before the first file is written."""

from collections.abc import Sequence
from pathlib import Path

import torch

from adaptycho.learn import tensorboard
from adaptycho.learn.distributed import check_fabric
from adaptycho.learn.loop import Name
from adaptycho.learn.recordings import rasters
from adaptycho.learn.share import PARTS
from adaptycho.scan.networks import library
from adaptycho.scan.networks.autoencoder import Autoencoder
from adaptycho.scan.networks.field import Field
from adaptycho.settings import Settings, microscopes


def check(settings: Settings, courses: Sequence[Name]) -> None:
    """Finds settings that cannot be trained with.

    Args:
        settings: of everything.
        courses: that are to be done.

    Raises:
        ValueError: batches that cannot be shared out, a microscope or specimens that cannot be practised on, a recording that is too small,
            a teacher or scan that the network cannot follow, or a package that is missing.
    """
    t = settings.train
    if t.tensorboard:
        tensorboard.check()
    if t.processes > 1:
        check_fabric()
    if t.shares > PARTS:
        raise ValueError(f"train.shares: expected at most {PARTS}, found {t.shares}")
    if t.shares % t.processes:
        raise ValueError(f"train.shares: expected a multiple of {t.processes} processes, found {t.shares}")
    batches = {"autoencoder": t.encode_batch, "imitate": t.imitate_batch, "reinforce": t.reinforce_batch}
    for name in courses:
        key = f"train.{name.replace('autoencoder', 'encode')}_batch"
        size, rest = divmod(batches[name], t.shares)
        if rest:
            raise ValueError(f"{key}: expected a multiple of train.shares, {t.shares}, found {batches[name]}")
        pairs = name == "reinforce" and t.baseline == "pair"
        if (pairs and size % 2) or (name == "reinforce" and t.baseline == "batch" and size < 2):
            wanted = "pairs" if pairs else "at least two"
            raise ValueError(f"{key}: expected {wanted} in each of {t.shares} shares for the baseline {t.baseline}, found {batches[name]}")
        different = size // 2 if pairs else size
        p = settings.practice
        which, pool = ("scored", p.scored) if name == "reinforce" and p.scored < p.pool else ("pool", p.pool)
        if different > pool:
            raise ValueError(f"practice.{which}: expected at least {different} specimens for a share of {key}, found {pool}")
    _check_specimens(settings, courses)
    if any(name != "autoencoder" for name in courses):
        _check_scan(settings, courses)


def check_start(path: Path, settings: Settings, courses: Sequence[Name]) -> None:
    """Finds weights that a training cannot start from.

    Raises:
        ValueError: no weights of this package, or those of another kind of network.
    """
    found = library.load(path)
    kind = "autoencoder" if isinstance(found, Autoencoder) else "field" if isinstance(found, Field) else "recurrent"
    wanted = settings.network.kind
    if "autoencoder" in courses:
        raise ValueError(f"{path}: expected no weights to start an autoencoder from, found those of the kind {kind}")
    if kind != wanted and (kind, wanted) != ("autoencoder", "recurrent"):
        raise ValueError(f"{path}: expected weights of the kind {wanted} (network.kind), found {kind}")


def _check_specimens(settings: Settings, courses: Sequence[Name]) -> None:
    microscopes.check_samples(settings)
    p = settings.practice
    if microscopes.of(settings).capabilities.specimens and (p.recordings is not None or p.kept != (1.0, 1.0)):
        name, found = ("recordings", p.recordings) if p.recordings is not None else ("kept", list(p.kept))
        raise ValueError(f"practice.{name}: expected scan.microscope = recorded with it, found {found} and simulated specimens")
    if p.recordings is not None and settings.scan.file is not None:
        raise ValueError(f"scan.file: expected none beside practice.recordings, which are scanned, found {settings.scan.file}")
    if not microscopes.of(settings).capabilities.specimens:
        if settings.train.teacher == "half-way" and "imitate" in courses:
            raise ValueError("train.teacher: expected even or structure on a recording, whose atom columns nobody knows, found half-way")
        rasters(settings, "validation")
        return
    wanted = settings.specimen
    if wanted.slices > 1:
        raise ValueError(f"specimen.slices: expected 1 slice to practise on, found {wanted.slices}")
    if wanted.absorption > 0:
        raise ValueError(f"specimen.absorption: expected 0 to practise on, found {wanted.absorption:g}")


def _check_scan(settings: Settings, courses: Sequence[Name]) -> None:
    p, n = settings.practice, settings.scan.subsequences
    if n < 2:
        raise ValueError(f"scan.subsequences: expected a survey and at least one more, found {n}")
    if min(p.positions) < n:
        raise ValueError(f"practice.positions: expected at least one for each of {n} sub-sequences, found {min(p.positions)}")
    t = settings.train
    if settings.network.kind == "field" and t.imitate_bank and t.teacher != "structure" and "imitate" in courses:
        raise ValueError(f"train.imitate_bank: expected 0 for a field network whose teacher is {t.teacher}, found {t.imitate_bank}")
    if settings.network.kind == "recurrent":
        if len(set(p.positions)) > 1:
            raise ValueError(f"practice.positions: expected one number for a recurrent network, found {list(p.positions)}")
        if settings.train.teacher == "structure" and "imitate" in courses:
            raise ValueError("train.teacher: expected even or half-way for a recurrent network, found structure")


def check_device(settings: Settings, device: str) -> None:
    """Refuses several processes on anything but the CPU.

    Raises:
        ValueError: one sentence with both.
    """
    if settings.train.processes > 1 and torch.device(device).type != "cpu":
        raise ValueError(f"train.processes: expected 1 on a device other than the CPU, found {settings.train.processes} on {device}")
