"""An adaptive scan without learning: survey, then go where the reconstruction shows structure, with overlap kept.

Two things, at two scales. Across the field, the coming positions are spread in proportion to how much structure the reconstruction shows
around them, so an island or a particle is sampled more densely than the empty film. At the scale of the beam, if it is focused, each
position is pulled part of the way towards the nearest maximum of the phase: electrons that pass close to an atom are scattered further and
tell more, but positions exactly on the atoms would no longer overlap (half-way was better than 0.3 and 0.7 on MoS2). A defocused beam sees
a whole neighbourhood wherever it goes, so there is nothing to pull it to. On a uniform specimen what remains is a Halton sequence bent
towards the atoms.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from adaptycho.scan import patterns
from adaptycho.types import Action, Memory, Observation

Array = NDArray[np.float64]
FOCUSED = 0.5  # a beam whose radius is below this fraction of wavelength over semi-angle counts as focused


@dataclass(frozen=True)
class Heuristic:
    """Structure-seeking scanner, the baseline that learning must beat.

    Attributes:
        pull: fraction of the way each position of a focused beam moves towards the nearest phase maximum.
        reach: maxima further than this many probe radii do not pull.
        smooth: width in probe radii of the Gaussian that decides what a maximum is.
        contrast: power of the local structure energy that positions follow across the field; 0 spreads them evenly.
        floor: part of the positions that are spread evenly whatever is seen.
        defocus: underfocus in Å for every sub-sequence; None keeps the nominal one.
    """

    pull: float = 0.5
    reach: float = 4.0
    smooth: float = 0.75
    contrast: float = 0.7
    floor: float = 0.1
    defocus: float | None = None

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """A Halton survey first; then the continued Halton sequence, warped and pulled. Nothing is random."""
        taken = seen.positions.shape[1]
        sequence = patterns.halton(taken + seen.count)[taken:].numpy()
        chosen = [self._choose(u, p, sequence, seen) for u, p in zip(seen.potential, seen.positions, strict=True)]
        return Action(torch.stack(chosen).to(seen.potential), defocus=self.defocus), memory

    def _choose(self, potential: torch.Tensor, positions: torch.Tensor, sequence: Array, seen: Observation) -> torch.Tensor:
        phase = potential.cpu().double().numpy()
        # Nothing measured yet, or a reconstruction that diverged: nothing to follow.
        if not len(positions) or not np.isfinite(phase).all():
            return torch.from_numpy(sequence)
        if self.contrast:
            sequence = warp(sequence, self._density(phase, positions.cpu().double().numpy(), seen))
        if seen.probe < FOCUSED * seen.resolution:
            sequence = self._pull(sequence, phase, seen)
        return torch.from_numpy(sequence.clip(0, 1))

    def _density(self, phase: Array, positions: Array, seen: Observation) -> Array:
        """How densely to sample each pixel of the field: local phase variance where the beam has been, its mean where not; mean 1."""
        shape = np.array(phase.shape)
        spacing = np.sqrt(seen.field[0] * seen.field[1] / seen.total)
        pixels = spacing / (np.array(seen.field) / shape)
        cover = np.zeros(phase.shape)
        np.add.at(cover, tuple(np.minimum((positions * shape).astype(int), shape - 1).T), 1.0)
        cover = ndimage.gaussian_filter(cover, pixels / 2, mode="reflect") * 2 * np.pi * np.prod(pixels / 2)
        known = cover / (cover + 0.5)
        energy = ndimage.gaussian_filter(known * (phase - np.median(phase)) ** 2, 2 * pixels, mode="reflect")
        known = ndimage.gaussian_filter(known, 2 * pixels, mode="reflect")
        mean = energy.sum() / known.sum()
        # The prior of 0.1 keeps regions that were hardly visited at the mean instead of at zero.
        density = ((energy + 0.1 * mean) / (known + 0.1) + 1e-12) ** self.contrast
        return np.asarray(self.floor + (1 - self.floor) * density / density.mean())

    def _pull(self, positions: Array, phase: Array, seen: Observation) -> Array:
        """Moves positions towards the nearest maximum of the smoothed phase."""
        shape, field = np.array(phase.shape), np.array(seen.field)
        smooth = ndimage.gaussian_filter(phase, self.smooth * seen.probe / (field / shape))
        size = tuple(2 * np.maximum(1, np.round(1.5 * seen.probe / (field / shape))).astype(int) + 1)
        peaks = np.argwhere((ndimage.maximum_filter(smooth, size=size) == smooth) & (smooth > smooth.mean()))
        if not len(peaks):
            return positions
        away = ((peaks + 0.5) / shape)[None] - positions[:, None]
        distance = np.linalg.norm(away * field, axis=-1)
        nearest = distance.argmin(1)
        rows = np.arange(len(positions))
        near = distance[rows, nearest] < self.reach * seen.probe
        return np.asarray(positions + self.pull * near[:, None] * away[rows, nearest])


def warp(points: Array, density: Array) -> Array:
    """Moves evenly spread points so that they follow a density, rows first, then along each row; a constant density moves nothing.

    Args:
        points: (K, 2) fractions (y, x).
        density: (h, w), positive.
    """
    height, width = density.shape
    down = np.concatenate([[0.0], density.sum(1).cumsum()])
    y = np.interp(points[:, 0], down / down[-1], np.arange(height + 1) / height)
    rows = np.minimum((y * height).astype(int), height - 1)
    across = np.concatenate([np.zeros((height, 1)), density.cumsum(1)], 1)
    across /= across[:, -1:]
    x = [np.interp(p, across[r], np.arange(width + 1) / width) for p, r in zip(points[:, 1], rows, strict=True)]
    return np.stack([y, np.array(x)], 1)
