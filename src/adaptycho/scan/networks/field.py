"""A field policy: a convolutional network that reads maps of the scan so far and says, for every place in the field, what to do there.

It is translation-equivariant, so it knows no field size, no number of positions and no lattice orientation, and lengths are in units of the
probe's resolution. Its maps of the field hold the current reconstruction, where the beam has been, what was scattered into the dark field,
and how much dose is spent and left. For every place it gives

- a density: how many positions the place deserves. Positions spread evenly, or in proportion to it where it is not flat, all old and new
  ones taken together. This moves positions across the field: islands, particles.
- a displacement of each of those positions by a fraction of the resolution: between atoms or half-way to them.

Where both are flat the scan is the lattice or raster that the survey began, taken in an order in which each sub-sequence sees the whole
field: the policy that has nothing to gain does no harm.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from adaptycho.scan.place import Lattice, place
from adaptycho.scan.policies.learned import Survey, even
from adaptycho.types import Memory, Observation

FINE = 4.4  # map pixels in one resolution (wavelength over semi-angle)
WIDE = 8  # or in one probe radius, if that is larger
CHANNELS = 12
STRIDE = 16  # maps are padded to a multiple: two pixels at each of four levels
REACH = 0.5  # resolutions that an output of 1 displaces a position by
FLAT = 0.25  # relative spread of a density that is as good as even
FEW = 100.0  # electrons per position; with fewer, noise alone makes a density uneven, and the spread has to be larger to count
FLATTEST = 0.6  # spread that always counts: that of islands is 0.9 and more
LARGEST = 1e4  # rad; a reconstruction beyond it has diverged
PROBE = 1.18  # radius that holds half of a Gaussian beam, over its standard deviation


@dataclass(frozen=True, eq=False)
class Plan:
    """What a field policy hands from sub-sequence to sub-sequence.

    Attributes:
        even: positions of the scan if there is nothing to adapt to, in their order.
        base: where positions were sent before they were displaced, so far.
        odds: logarithm of the odds that a place holds structure, as last seen.
    """

    even: Float[Tensor, "P 2"]
    base: Float[Tensor, "B K 2"]
    odds: Float[Tensor, "B h w"] | None = None


class Field(nn.Module):
    """Network of a field policy; see the module.

    Attributes:
        widths: channels at each level of the network, from fine to coarse.
        floor: density of a place without structure, in units of one with.
        flat: relative spread of the density below which it counts as even, from `FEW` electrons per position on.
        power: exponent of the density; below 1 places in doubt get more.
        lattice: that is bent where positions follow the density.
        survey: the scan that the first sub-sequence was the beginning of.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (24, 48, 96, 128, 128),
        *,
        floor: float = 0.1,
        flat: float = FLAT,
        power: float = 1.0,
        survey: Survey = "halton",
        lattice: Lattice = "hexagonal",
    ) -> None:
        super().__init__()
        self.widths, self.floor, self.flat, self.power, self.survey, self.lattice = tuple(widths), floor, flat, power, survey, lattice
        self.down = nn.ModuleList(_Block(a, b) for a, b in zip((CHANNELS, *widths[:-1]), widths, strict=True))
        self.up = nn.ModuleList(_Block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.out = nn.Conv2d(widths[0], 3, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, seen: Observation, memory: Memory) -> tuple[Float[Tensor, "B K 2"], Plan]:
        """Proposed positions, fractions of the field; their displacement is differentiable, the density's placing is not."""
        plan = memory or Plan(outlook(seen.positions[0], seen.total, seen.field, self.survey), seen.positions)
        taken = plan.base.shape[1]
        maps = look(seen, plan.even[taken : taken + seen.count])
        odds, displacement = self.read(maps, seen)
        base = self.spread(odds.detach(), seen, plan)
        return base + sample(displacement, base), Plan(plan.even, torch.cat([plan.base, base], 1), odds)

    def read(self, maps: Float[Tensor, "B C h2 w2"], seen: Observation) -> tuple[Float[Tensor, "B h w"], Float[Tensor, "B 2 h w"]]:
        """Logarithm of the odds that there is structure, and the displacement (y, x) in fractions of the field."""
        h, w = shape(seen)
        found = self.network(maps)[..., :h, :w]
        reach = found.new_tensor([REACH * seen.resolution / f for f in seen.field])
        return found[:, 0], found[:, 1:] * reach[:, None, None]

    def network(self, maps: Float[Tensor, "B C h2 w2"]) -> Float[Tensor, "B 3 h2 w2"]:
        """The convolutional network: down through the levels and up again, with a bridge at each."""
        # With channels innermost in memory, a CPU takes a quarter of the time.
        bridges, x = [], maps.contiguous(memory_format=torch.channels_last)
        for i, block in enumerate(self.down):
            x = block(functional.avg_pool2d(x, 2) if i else x)
            bridges.append(x)
        x = bridges.pop()
        for block in self.up:
            x = block(torch.cat([functional.interpolate(x, scale_factor=2.0, mode="nearest"), bridges.pop()], 1))
        return self.out(x)

    def spread(self, odds: Float[Tensor, "B h w"], seen: Observation, plan: Plan) -> Float[Tensor, "B K 2"]:
        """Where the next positions go before they are displaced."""
        density = (self.floor + (1 - self.floor) * odds.sigmoid()) ** self.power
        taken = plan.base.shape[1]
        followed = plan.even[taken : taken + seen.count].to(odds)
        bases = []
        for b, wanted in enumerate(density):
            noisier = math.sqrt(max(1.0, FEW / max(float(seen.dose[b].mean()), 1e-9)))
            if float(wanted.std() / wanted.mean()) < min(self.flat * noisier, max(self.flat, FLATTEST)):
                bases.append(followed)
            else:
                placed = place(wanted, seen.count, fixed=seen.positions[b], field=seen.field, lattice=self.lattice)
                bases.append(placed.to(odds))
        return torch.stack(bases)


class _Block(nn.Module):
    """Two convolutions with normalisation."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(8, width)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.norm(self.first(x)))
        return functional.silu(y + self.second(y))


def outlook(survey: Float[Tensor, "K 2"], total: int, field: tuple[float, float], kind: Survey) -> Float[Tensor, "P 2"]:
    """The whole scan if there is nothing to adapt to: the survey that was taken, and an even spread after it.

    Args:
        survey: positions of the first sub-sequence.
        total: number of positions of the scan (P).
        field: size (y, x) of the scan field in Å.
        kind: what the survey is the beginning of; a hexagonal scan or a raster goes on as it began.
    """
    if kind != "halton":
        return even(total, field, kind).to(survey)
    # A lattice is a better start than the rest of the Halton sequence, and knows nothing of the survey.
    rest = total - len(survey)
    return torch.cat([survey, even(rest, field, "hexagonal").to(survey)]) if rest else survey


def look(seen: Observation, coming: Float[Tensor, "K 2"]) -> Float[Tensor, "B C h2 w2"]:
    """Maps of the field that the network reads, padded to a multiple of its stride.

    Args:
        seen: the scan so far.
        coming: where the next positions would go if there were nothing to adapt to.
    """
    h, w = shape(seen)
    batch = seen.potential.shape[0]
    spacing = (seen.field[0] * seen.field[1] / seen.total) ** 0.5
    beam = max(seen.probe / PROBE, 1.5 * seen.resolution / FINE)
    wide = max(beam, 0.7 * (seen.field[0] * seen.field[1] / max(1, seen.positions.shape[1])) ** 0.5)
    dark = torch.zeros_like(seen.dose) if seen.scattered is None else seen.scattered
    narrow = splat(seen.positions, torch.ones_like(seen.dose), beam, seen, (h, w))
    broad = splat(seen.positions, torch.ones_like(seen.dose), wide, seen, (h, w))
    counts = splat(seen.positions, dark * seen.dose, wide, seen, (h, w))
    local = splat(seen.positions, dark, wide, seen, (h, w)) / (broad + 1e-6)
    average = dark.mean(1)[:, None, None].clamp(min=1e-8)
    steady = seen.potential.nan_to_num(0.0, 0.0, 0.0).clamp(-LARGEST, LARGEST)
    phase = functional.interpolate(steady[:, None], (h, w), mode="area")[:, 0]
    phase = phase - phase.mean((1, 2), keepdim=True)
    phase = (phase / (phase.std((1, 2), keepdim=True) + 1e-8)).clamp(-6, 6)
    lit = narrow / (narrow + 0.3)
    spent = seen.dose.mean(1) if seen.dose.shape[1] else seen.dose.new_ones(batch)
    ahead = splat(
        coming.to(seen.potential)[None].expand(batch, -1, -1),
        torch.ones_like(coming[None, :, 0]).expand(batch, -1).to(seen.dose),
        beam,
        seen,
        (h, w),
    )
    constants = [
        spent.clamp(min=1e-3).log10()[:, None, None] / 4,
        phase.new_full((batch, 1, 1), seen.probe / seen.resolution),
        phase.new_full((batch, 1, 1), spacing / seen.resolution),
        phase.new_full((batch, 1, 1), seen.positions.shape[1] / seen.total),
    ]
    maps = [
        phase,
        phase * lit,
        narrow.log1p(),
        broad.log1p(),
        (local / average).clamp(max=6),
        counts.clamp(min=0).log1p(),
        ahead.log1p(),
        torch.ones_like(phase),
    ]
    maps += [c.expand(batch, h, w).to(phase) for c in constants]
    stacked = torch.stack(maps, 1)
    return functional.pad(stacked, (0, -w % STRIDE, 0, -h % STRIDE))


def splat(
    positions: Float[Tensor, "B K 2"], weights: Float[Tensor, "B K"], width: float, seen: Observation, shape: tuple[int, int]
) -> Float[Tensor, "B h w"]:
    """Sum of Gaussians of height `weights` and rms `width` in Å at the positions."""
    axes = []
    for axis, n in enumerate(shape):
        pixels = (torch.arange(n, dtype=positions.dtype, device=positions.device) + 0.5) / n
        distance = (positions[..., axis, None] - pixels) * (seen.field[axis] / width)
        axes.append(torch.exp(-0.5 * distance.square()))
    return torch.einsum("bk,bkh,bkw->bhw", weights.to(positions), axes[0], axes[1])


def sample(image: Float[Tensor, "B C h w"], positions: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K C"]:
    """Values of maps at positions, bilinear."""
    where = (positions.flip(-1) * 2 - 1)[:, None]
    return functional.grid_sample(image, where.to(image), mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0].transpose(
        1, 2
    )


def shape(seen: Observation) -> tuple[int, int]:
    """Pixels of the maps: equal in units of the resolution, or of a beam that is much wider, whatever those of the reconstruction are."""
    pixel = max(seen.resolution / FINE, seen.probe / WIDE)
    return tuple(max(STRIDE, round(f / pixel)) for f in seen.field)  # type: ignore[return-value]
