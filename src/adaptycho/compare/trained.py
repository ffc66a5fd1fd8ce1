"""Learned policies in a comparison: several trainings of one policy, each where it fits, and what they say together.

Trainings that differ in their seed are one policy to a reader. Every specimen is scanned by all of them, and what a specimen scores is the
mean over them; intervals are over specimens.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.compare import provenance, race, table
from adaptycho.compare.ledger import Ledger
from adaptycho.compare.race import Cell, Protocol
from adaptycho.compare.strategies import AUTO, FOCUSED, LEARNED
from adaptycho.scan.episode import split_evenly
from adaptycho.scan.networks import library
from adaptycho.scan.networks.field import Field
from adaptycho.scan.networks.recurrent import Recurrent
from adaptycho.settings import Settings, update

SHIPPED = "shipped"


@dataclass(frozen=True)
class Trained:
    """The outcome of one training.

    Attributes:
        file: of its weights; None for those that come with the package.
        strategy: name under which the judge knows such policies.
        lengths: of the sub-sequences that it can scan; None for any.
    """

    file: str | None = None
    strategy: Literal["adaptive", "recurrent"] = "adaptive"
    lengths: tuple[int, ...] | None = None

    def fits(self, cell: Settings) -> bool:
        """Whether it can do the scan of the settings."""
        return self.lengths is None or list(self.lengths) == split_evenly(cell.scan.positions, cell.scan.subsequences)


def read(files: Sequence[Path]) -> tuple[Trained, ...]:
    """The policies in files of weights; the shipped one if there are none.

    Raises:
        ValueError: a file that holds no policy, or field and recurrent policies together.
    """
    found = tuple(_policy(path) for path in files) or (Trained(),)
    kinds = {policy.strategy: policy.file for policy in found}
    if len(kinds) > 1:
        said = ", ".join(f"{'field' if s == 'adaptive' else s} in {file}" for s, file in kinds.items())
        raise ValueError(f"weights: expected policies of one kind, field or recurrent, found {said}")
    return found


def judged(
    cells: Sequence[Settings],
    protocol: Protocol,
    policies: Sequence[Trained],
    ledger: Ledger,
    strategies: Sequence[str] = (),
    *,
    progress: race.Progress,
    workers: int | None = None,
    scheduler: str | None = None,
) -> list[Cell]:
    """Every cell by every policy that fits it, as strategies `NAME 1`, `NAME 2`, ... numbered as in `policies`.

    Args:
        cells: settings of each comparison.
        protocol: the rules.
        policies: of one strategy, at least one.
        ledger: of results.
        strategies: what to compare of each policy, and what `auto` may be besides; its own strategy if there are none. Only what depends on
            a policy is returned.
        progress: as for `race.judge`.
        workers: see `spread`.
        scheduler: see `spread`.
    """
    (own,) = {policy.strategy for policy in policies}
    jobs = [(i, number, policy) for i, cell in enumerate(cells) for number, policy in enumerate(policies, 1) if policy.fits(cell)]
    # All at once, so that no processor waits for the last scan of one policy.
    where = [update(cells[i], {"scan": {"weights": policy.file}}, "weights") for i, _, policy in jobs]
    done = race.judge(where, protocol, strategies or [own], ledger, progress=progress, workers=workers, scheduler=scheduler)
    found = [Cell(cell, protocol, {}, {}) for cell in cells]
    for (i, number, _), one in zip(jobs, done, strict=True):
        mine = {name: f"{name} {number}" for name in one.plans if name.removesuffix(FOCUSED) in (*LEARNED, AUTO)}
        plans, numbers = {new: one.plans[n] for n, new in mine.items()}, {new: one.numbers[n] for n, new in mine.items()}
        found[i] = joined(found[i], Cell(one.settings, protocol, plans, numbers, one.origin))
    return found


def joined(first: Cell, second: Cell) -> Cell:
    """One comparison of the strategies of two on the same specimens; settings are the first's."""
    origin = provenance.latest(cell.origin for cell in (first, second) if cell.numbers)
    return dataclasses.replace(first, plans={**first.plans, **second.plans}, numbers={**first.numbers, **second.numbers}, origin=origin)


def by_policy(cell: Cell, metric: str, strategy: str) -> Float[Tensor, "N B"] | None:
    """A metric of each of N policies on B specimens, as `table.columns` gives it; None if no policy or specimen has it."""
    found = [values for name, values in table.columns(cell, metric).items() if name.startswith(f"{strategy} ")]
    return torch.stack(found) if found else None


def _policy(path: Path) -> Trained:
    match library.load(path):
        case Field():
            return Trained(str(path))
        case Recurrent() as network:
            return Trained(str(path), "recurrent", network.lengths)
        case _:
            raise ValueError(f"{path}: expected a field or recurrent policy, found an autoencoder")
