"""Two-stage greedy scan: an even survey, then one position after the other where the most structure is left to be seen.

Structure around a place is the local variance of the phase. At low dose most of that is noise, which has hills and valleys of its own. How
high they would be by chance is told by the phase itself: noise, and the luck of where the beam went, are alike only over less than the
distance between positions, whereas an island or a particle is larger. Only as much of the contrast as such short-lived likeness does not
explain is believed; when nothing stands out, positions spread evenly. Each goes where structure per beam that was nearby is highest, so
that positions keep a distance and what was measured before counts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from adaptycho.scan import patterns
from adaptycho.scan.place import coverage
from adaptycho.types import Action, Memory, Observation

Array = NDArray[np.float64]
OUTLIER = 4.0  # robust standard deviations at which the phase is cut: badly lit corners reconstruct to anything
EMPTY = 0.2  # quantile of the local variance that is taken for noise alone
FIRST = 1e-3  # beams that every place is taken to have seen, so that the very first position has a finite gain


@dataclass(frozen=True)
class Greedy:
    """Survey first, then where the phase varies most. Lengths are in mean distances between positions.

    Attributes:
        floor: part of the positions that is spread evenly whatever is seen.
        contrast: power of the local variance, above noise, that positions follow.
        width: rms radius of the neighbourhood whose variance counts.
        reach: what is alike only over shorter distances than this is chance.
        spacing: rms radius of the neighbourhood that a position uses up.
        defocus: underfocus in Å for every sub-sequence; None keeps the nominal one.
    """

    floor: float = 0.2
    contrast: float = 1.0
    width: float = 0.8
    reach: float = 0.5
    spacing: float = 0.5
    defocus: float | None = None

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """A Halton survey first; then the greedy choice. Nothing is random."""
        chosen = [self._choose(u, p, seen) for u, p in zip(seen.potential, seen.positions, strict=True)]
        return Action(torch.stack(chosen).to(seen.potential), defocus=self.defocus), memory

    def _choose(self, potential: torch.Tensor, positions: torch.Tensor, seen: Observation) -> torch.Tensor:
        if not len(positions):
            return patterns.halton(seen.count)
        phase = potential.cpu().double().numpy()
        unit = np.sqrt(np.prod(seen.field) / seen.total) / (np.array(seen.field) / phase.shape)
        # A reconstruction that diverged shows nothing.
        wanted = self._interest(phase, unit) if np.isfinite(phase).all() else np.ones(phase.shape)
        return torch.from_numpy(_pick(wanted, seen.count, positions.cpu().double().numpy(), self.spacing * unit))

    def _interest(self, phase: Array, unit: Array) -> Array:
        """How densely to sample each pixel, mean 1; `unit` is the mean distance between positions in pixels."""
        detail = phase - ndimage.gaussian_filter(phase, unit, mode="reflect")
        limit = OUTLIER * 1.4826 * np.median(np.abs(detail))
        squared = detail.clip(-limit, limit) ** 2 if limit else detail**2
        variance = ndimage.gaussian_filter(squared, self.width * unit, mode="reflect")
        excess = (variance - np.quantile(variance, EMPTY)).clip(min=0)
        if not excess.any():
            return np.ones_like(excess)
        excess = (excess / excess.max()) ** self.contrast
        trust = 1 - min(1.0, _chance(squared, self.width * unit, self.reach * unit) / variance.var())
        followed = (1 - self.floor) * trust
        return np.asarray(1 - followed + followed * excess / excess.mean())


def _chance(squared: Array, width: Array, reach: Array) -> float:
    """Variance over the field of the image smoothed by a Gaussian, as far as it comes from likeness over less than `reach` pixels."""
    lags = [np.fft.fftfreq(n, 1 / n) for n in squared.shape]
    likeness = np.fft.ifft2(np.abs(np.fft.fft2(squared - squared.mean())) ** 2).real / squared.size
    # Smoothing weighs a lag by the Gaussian's own autocorrelation, wider by sqrt(2).
    weight = np.outer(*[np.exp(-((lag / w) ** 2) / 4) for lag, w in zip(lags, width, strict=True)])
    near = np.hypot(lags[0][:, None] / reach[0], lags[1] / reach[1]) < 1
    return max(0.0, float((likeness * weight)[near].sum() / weight.sum()))


def _pick(wanted: Array, count: int, positions: Array, radii: Array) -> Array:
    """Places, one after the other, where what is wanted is highest per beam that was nearby."""
    size = np.array(wanted.shape)
    seen = FIRST + coverage(positions, wanted.shape, radii)
    chosen = np.zeros((count, 2))
    for i in range(count):
        pixel = np.array(np.unravel_index(np.argmax(wanted / seen), wanted.shape))
        chosen[i] = (pixel + 0.5) / size
        # Mirrored at the edges, as in `coverage`, or these would look less visited than they are.
        bumps = [
            sum(np.exp(-(((np.arange(n) - m) / r) ** 2) / 2) for m in (p, -1 - p, 2 * n - 1 - p))
            for n, p, r in zip(size, pixel, radii, strict=True)
        ]
        seen += np.outer(*bumps)
    return chosen
