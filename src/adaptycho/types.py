"""What passes between the parts: what was measured, what a policy sees, and what it asks for.

A `Scanner` is any callable that looks at an `Observation` and returns an `Action`; conventional scans, the heuristic and learned policies
are scanners alike, and all of them run through the one loop in `adaptycho.scan.episode`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from adaptycho.support.notebook import card

# Number types that patterns may have: no complex numbers, truth values or half precision.
COUNTS = (
    torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64, torch.float32, torch.float64,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a microscope recorded: a data set and a sub-sequence are the same thing. `a + b` joins along K.

    Attributes:
        positions: where the beam is reported to have been, fractions (y, x) of the scan field.
        patterns: counts, zero frequency in the corner, any number type.
        dose: counts that a pattern would hold if nothing missed the detector (electrons sent, times the counts one electron makes).
        defocus: underfocus in Å each pattern was taken with.
        lengths: number of patterns of each data set that count, on the CPU; the rest of its row is padding.
    """

    positions: Float[Tensor, "B K 2"]
    patterns: Shaped[Tensor, "B K Q Q2"]
    dose: Float[Tensor, "B K"]
    defocus: Float[Tensor, "B K"]
    lengths: Int[Tensor, " B"] = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        b, k = self.positions.shape[:2]
        for name, wanted in (("positions", (b, k, 2)), ("dose", (b, k)), ("defocus", (b, k))):
            if tuple(getattr(self, name).shape) != wanted:
                raise ValueError(f"{name}: expected shape {wanted}, got {tuple(getattr(self, name).shape)}")
        if self.patterns.ndim != 4 or tuple(self.patterns.shape[:2]) != (b, k):
            raise ValueError(f"patterns: expected shape ({b}, {k}, Q, Q), as many as there are positions, got {tuple(self.patterns.shape)}")
        if self.patterns.dtype not in COUNTS:
            raise ValueError(f"patterns: expected integer or real counts in single or double precision, got {self.patterns.dtype}")
        for name in ("positions", "dose", "defocus"):
            values = getattr(self, name)
            if not values.is_floating_point() or not bool(torch.isfinite(values).all()):
                raise ValueError(f"{name}: expected finite real numbers, got others ({values.dtype})")
        if self.lengths is None:
            object.__setattr__(self, "lengths", torch.full((b,), k, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.positions)

    def __add__(self, other: "Measurement") -> "Measurement":
        if len(self) != len(other):
            raise ValueError(f"measurement: expected {len(self)} data sets to add, got {len(other)}")
        if self.positions.shape[1] == 0:
            return other
        if bool((self.lengths == self.positions.shape[1]).all() and (other.lengths == other.positions.shape[1]).all()):
            return Measurement(*(torch.cat([getattr(self, n), getattr(other, n)], 1) for n in ("positions", "patterns", "dose", "defocus")))
        parts = zip(self.split(), other.split(), strict=True)
        return Measurement.stack([a + b for a, b in parts])

    def to(self, device: torch.device | str) -> "Measurement":
        """The same on a device."""
        return replace(self, **{n: getattr(self, n).to(device) for n in ("positions", "patterns", "dose", "defocus")})

    def _repr_html_(self) -> str:
        """As a notebook shows it: the first data set's patterns summed, as logarithms."""
        shape, sets = tuple(self.patterns.shape[2:]), len(self)
        total = self[0].patterns.sum((0, 1), dtype=torch.float64).cpu()
        counts = " + ".join([*map(str, self.lengths.tolist()[:4]), *(["..."] if sets > 4 else [])])
        facts = {
            "data sets": f"{sets}",
            "patterns": f"{counts} of {shape[0]} x {shape[1]} pixels",
            "counts in a pattern": f"{float(self[0].dose.mean()):.4g} if nothing missed the detector, on average",
        }
        return card("Measurement", facts, torch.fft.fftshift((1 + total).log()).numpy())

    def split(self) -> list["Measurement"]:
        """The B data sets one by one, each with its own number of positions."""
        return [self[b] for b in range(len(self))]

    def __getitem__(self, item: int) -> "Measurement":
        if not -len(self) <= item < len(self):
            raise IndexError(item)
        item, k = item % len(self), int(self.lengths[item])
        return Measurement(*(getattr(self, n)[item : item + 1, :k] for n in ("positions", "patterns", "dose", "defocus")))

    def take(self, which: Int[Tensor, " K"]) -> "Measurement":
        """The same chosen patterns of every data set."""
        highest, limit = int(which.max()), int(self.lengths.min())
        if highest >= limit:
            raise ValueError(f"take: expected indices below {limit}, got {highest}")
        return Measurement(*(getattr(self, n)[:, which] for n in ("positions", "patterns", "dose", "defocus")))

    @staticmethod
    def stack(parts: Sequence["Measurement"]) -> "Measurement":
        """Joins data sets with different numbers of positions into one batch, padded with zeros at the end."""
        lengths = torch.cat([p.lengths for p in parts])
        longest = int(lengths.max())
        positions, patterns, dose, defocus = (
            torch.cat([_padded(getattr(p, n), longest) for p in parts]) for n in ("positions", "patterns", "dose", "defocus")
        )
        return Measurement(positions, patterns, dose, defocus, lengths)


def _padded(values: Tensor, length: int) -> Tensor:
    """Values (B, K, ...) with zeros behind them, so many along K."""
    return torch.cat([values, values.new_zeros(values.shape[0], length - values.shape[1], *values.shape[2:])], 1)


Memory = Any  # what a scanner wants handed back at its next call; None at the first


@dataclass(frozen=True, eq=False)
class Observation:
    """What a scanner may know when it decides.

    Attributes:
        potential: phase in rad inside the scan field, reconstructed from everything measured so far; zeros before the first sub-sequence.
        positions: where the beam has been, fractions (y, x) of the scan field.
        dose: counts sent to each of those positions.
        field: size (y, x) of the scan field in Å.
        probe: radius in Å that holds half of the beam's intensity, at the defocus of the last sub-sequence (first the nominal one).
        resolution: wavelength over convergence semi-angle in Å; a focused probe has a radius of about a quarter of it.
        count: number of positions to propose now (K).
        total: number of positions of the whole scan (P).
        scattered: fraction of the dose that each position sent outside the bright-field disc; None if the detector does not tell.
    """

    potential: Float[Tensor, "B h w"]
    positions: Float[Tensor, "B K 2"]
    dose: Float[Tensor, "B K"]
    field: tuple[float, float]
    probe: float
    resolution: float
    count: int
    total: int
    scattered: Float[Tensor, "B K"] | None = None


@dataclass(frozen=True, eq=False)
class Action:
    """Where to go next.

    Attributes:
        positions: requested positions, fractions (y, x) of the scan field; a sample of a stochastic policy may lie outside.
        defocus: underfocus in Å for this sub-sequence; None keeps the nominal one.
        dose: electrons for each position, one number or (B, K); None keeps the microscope's.
        log_prob: log-probability of each requested position, for stochastic policies.
        mean: positions that a learned policy proposes before anything random is added; gradients flow through it.
    """

    positions: Float[Tensor, "B K 2"]
    defocus: float | None = None
    dose: float | Float[Tensor, "B K"] | None = None
    log_prob: Float[Tensor, "B K"] | None = None
    mean: Float[Tensor, "B K 2"] | None = None


class Scanner(Protocol):
    """Decides where the next sub-sequence goes."""

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """Returns the action and the memory to hand back at the next call."""
        ...
