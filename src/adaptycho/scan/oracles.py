"""Scans that know the true specimen: what no strategy can be expected to beat, to measure the head-room by.

Two kinds of knowledge are worth something. Where the atoms are: electrons that pass close to an atom are scattered further and tell more,
but positions exactly on the atoms no longer overlap, so a focused beam goes half-way. Where the specimen is: positions on empty film tell
nothing about it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.scan import patterns
from adaptycho.scan.place import place, pulled
from adaptycho.types import Action, Memory, Observation


@dataclass(frozen=True, eq=False)
class HalfWay:
    """Evenly spread positions, each moved part of the way to its nearest true atom column.

    Attributes:
        columns: the columns of each specimen, fractions (y, x) of the scan field; some may lie outside.
        pull: fraction of the way.
        base: the even spread: `halton`, `hexagonal` in an order in which each sub-sequence sees the whole field, or the positions
            themselves.
        after: sub-sequences that are left as they are; 1 is a scan that has to look before it knows.
        defocus: underfocus in Å; None keeps the nominal one.
    """

    columns: Sequence[Float[Tensor, "_ 2"]]
    pull: float = 0.5
    base: Literal["halton", "hexagonal"] | Float[Tensor, "P 2"] = "halton"
    after: int = 1
    defocus: float | None = None

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """The next positions; the memory is the whole base and how many sub-sequences were taken. Nothing is random."""
        _check("columns", len(self.columns), seen)
        base, number = memory or (_even(self.base, seen), 0)
        taken = seen.positions.shape[1]
        points = base[taken : taken + seen.count]
        chosen = [points if number < self.after else pulled(points, c.to(points), seen.field, self.pull) for c in self.columns]
        return Action(torch.stack(chosen).clamp(0, 1).to(seen.potential), defocus=self.defocus), (base, number + 1)


@dataclass(frozen=True, eq=False)
class DensityOracle:
    """All positions spread in proportion to the true structure, laid out at the first call and handed out piece by piece.

    Attributes:
        density: how much structure there is around each place, not negative: a mask, or a local variance of the true phase. Detail finer
            than the distance between positions is lost.
        floor: fraction of the positions that is spread evenly over the field.
        defocus: underfocus in Å; None keeps the nominal one.
    """

    density: Float[Tensor, "B h w"]
    floor: float = 0.1
    defocus: float | None = None

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """The next positions, in an order in which each sub-sequence sees the whole field. Nothing is random."""
        _check("density", len(self.density), seen)
        if memory is None:
            memory = torch.stack([patterns.spread(self._lay(d.double(), seen), seen.field) for d in self.density])
        taken = seen.positions.shape[1]
        return Action(memory[:, taken : taken + seen.count].to(seen.potential), defocus=self.defocus), memory

    def _lay(self, structure: Float[Tensor, "h w"], seen: Observation) -> Float[Tensor, "P 2"]:
        mean, flat = structure.mean(), torch.ones_like(structure)
        if not mean > 0:
            return place(flat, seen.total, field=seen.field)
        # The even ones first and for good: next to a steep density they would be drawn into it.
        even = place(flat, round(self.floor * seen.total), field=seen.field)
        wanted = self.floor * flat + (1 - self.floor) * structure / mean
        return torch.cat([even, place(wanted, seen.total - len(even), fixed=even, field=seen.field)])


def _even(base: Literal["halton", "hexagonal"] | Tensor, seen: Observation) -> Float[Tensor, "P 2"]:
    if isinstance(base, Tensor):
        return base
    if base == "halton":
        return patterns.halton(seen.total)
    return patterns.spread(patterns.hexagonal(seen.total, seen.field), seen.field)


def _check(name: str, known: int, seen: Observation) -> None:
    if known != seen.potential.shape[0]:
        raise ValueError(f"{name}: expected the truth of each of {seen.potential.shape[0]} specimens, got {known}")
