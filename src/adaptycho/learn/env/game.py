"""The game behind every environment: a survey, then one sub-sequence after the other where the player says, each scored.

It has no physics and no loop of its own: a turn is a call of `adaptycho.scan.episode.advance` with a scanner that answers what the
player asked. B specimens are played at once through one batched microscope and reconstruction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, cast, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho import metrics
from adaptycho.learn.env.specimens import Against, Specimens
from adaptycho.learn.reward import Result, reward
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.samples.batch import Batch
from adaptycho.samples.sample import FILLED
from adaptycho.scan import Pattern, patterns
from adaptycho.scan.episode import State, advance, split_evenly
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.settings import Settings, build, microscopes
from adaptycho.settings.learning import Reward
from adaptycho.types import Action, Memory, Observation, Scanner

Credit = Literal[Reward, "inside"]
CREDITS: tuple[Credit, ...] = get_args(Credit)
SURVEY: Pattern = "halton"
LIMIT = 10.0  # rad: phases beyond come from a descent that has diverged, and observations need bounds
WINDOW = 0.8  # resolutions: rms width of the windows that credits are averaged in; 1.2 Å at 60 keV and 33 mrad


@dataclass(frozen=True, eq=False)
class Asked:
    """A scanner that goes where it was told."""

    positions: Float[Tensor, "B K 2"]
    defocus: float | None = None

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """The positions it was given."""
        return Action(self.positions, defocus=self.defocus), memory


@dataclass(frozen=True, eq=False)
class Turn:
    """Where the game stands after a sub-sequence.

    Attributes:
        batch: what is played on.
        seed: of everything random in the scan.
        reference: phase in rad inside the field that rewards and scores refer to.
        state: of the episode.
        potential: the state's, with a diverged reconstruction taken for an empty one.
        scattered: fraction of the dose that each position sent outside the bright-field disc.
        rewards: what each position so far has earned, the newest last.
        quality: what the scan as a whole has earned.
        gain: quality less that of the turn before; of the survey, 0.
        ssim: structural similarity of the whole field with the reference.
        correlation: the same for Pearson's correlation.
    """

    batch: Batch
    seed: int
    reference: Float[Tensor, "B h w"]
    state: State
    potential: Float[Tensor, "B h w"]
    scattered: Float[Tensor, "B P"]
    rewards: Float[Tensor, "B P"]
    quality: Float[Tensor, " B"]
    gain: Float[Tensor, " B"]
    ssim: Float[Tensor, " B"]
    correlation: Float[Tensor, " B"]


@dataclass(frozen=True, eq=False)
class Game:
    """What is played.

    Attributes:
        settings: of specimens, scan and reconstruction.
        reward: what is paid for: a credit of `adaptycho.learn.reward`, or `inside`, the correlation with the reference where the structure
            is, shared by all. None takes `inside` for families that fill a part of the field, where the others pay for a smooth vacuum, and
            `window` for the rest.
        reference: what rewards and scores refer to.
        specimens: numbers to draw from, from and up to; None takes the training range of the settings.

    Raises:
        ValueError: an unknown reward or reference, a microscope without specimens or windows, a reward that recorded data do not allow, an
            empty range, fewer than two sub-sequences, or sub-sequences after the survey that differ in length.
    """

    settings: Settings
    reward: str | None = None
    reference: str = "truth"
    specimens: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, known in (("reward", (None, *CREDITS)), ("reference", get_args(Against))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(map(str, known))}, got {getattr(self, name)!r}")
        microscopes.check_samples(self.settings)
        if self.reward == "inside" and not self._simulated:
            raise ValueError("reward: expected another than inside for recorded data, whose structure nobody knows, got 'inside'")
        low, high = self.range
        if not 0 <= low < high:
            raise ValueError(f"specimens: expected a range from a lower to a higher number, got {low}, {high}")
        after = self.lengths[1:]
        if not after or len(set(after)) > 1:
            raise ValueError(
                f"scan.subsequences: expected at least two, all after the first of equal length, got {list(self.lengths)} positions"
            )

    @property
    def range(self) -> tuple[int, int]:
        """Numbers of the specimens to draw from."""
        return self.settings.evaluate.train if self.specimens is None else self.specimens

    @property
    def credit(self) -> Credit:
        """What is paid for."""
        partly_filled = self._simulated and self.settings.specimen.family in FILLED
        return cast(Credit, self.reward or ("inside" if partly_filled else "window"))

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Positions in each sub-sequence, the survey first."""
        return tuple(split_evenly(self.settings.scan.positions, self.settings.scan.subsequences))

    @property
    def count(self) -> int:
        """Positions that the player chooses in a turn."""
        return self.lengths[-1]

    @property
    def total(self) -> int:
        """Positions of the whole scan."""
        return self.settings.scan.positions

    @property
    def setup(self) -> Setup:
        """Geometry and beam."""
        return self._specimens.setup

    def even(self, number: int) -> Float[Tensor, "K 2"]:
        """Where an even scan goes in sub-sequence `number`."""
        first = sum(self.lengths[:number])
        return patterns.halton(self.total)[first : first + self.lengths[number]].float()

    def begin(self, numbers: Sequence[int], seed: int) -> Turn:
        """Takes the survey of some specimens."""
        batch = self._specimens.batch(numbers)
        survey = self._advance(batch, None, Fixed(SURVEY, self._defocus), seed)
        return self._turn(batch, seed, self._specimens.reference(batch), survey)

    def play(self, turn: Turn | None, positions: Float[np.ndarray, "..."]) -> Turn:
        """Takes the next sub-sequence at the positions asked for, (B, K, 2), fractions (y, x) of the field.

        Raises:
            ValueError: no scan is under way, or the positions have another shape or are not finite.
        """
        if turn is None or self.over(turn):
            raise ValueError(f"step: expected a scan under way, got {'none' if turn is None else 'one that is over'}; call reset")
        wanted = (len(turn.batch), self.count, 2)
        if positions.shape != wanted or not np.isfinite(positions).all():
            found = "nan or infinity" if positions.shape == wanted else f"shape {positions.shape}"
            raise ValueError(f"action: expected finite positions of shape {wanted}, got {found}")
        asked = Asked(torch.tensor(positions, dtype=torch.float32), self._defocus)
        state = self._advance(turn.batch, turn.state, asked, turn.seed)
        return self._turn(turn.batch, turn.seed, turn.reference, state, turn)

    def over(self, turn: Turn) -> bool:
        """Whether that was the last sub-sequence."""
        return turn.state.number == len(self.lengths)

    @property
    def _simulated(self) -> bool:
        return microscopes.of(self.settings).capabilities.specimens

    @cached_property
    def _specimens(self) -> Specimens:
        return Specimens(self.settings, cast(Against, self.reference))

    @property
    def _defocus(self) -> float | None:
        return self.settings.scan.defocus if self._simulated else None

    @cached_property
    def _reconstructor(self) -> Reconstructor:
        return build.reconstructor(self.settings, self.setup)

    def _advance(self, batch: Batch, state: State | None, scanner: Scanner, seed: int) -> State:
        number, warm = 0 if state is None else state.number, self.settings.scan.warm
        how = replace(self._reconstructor, counts_per_electron=batch.samples[0].counts_per_electron)
        return advance(state, batch.microscope, scanner, how, self.lengths, seed=seed, number=number, warm=warm)

    def _turn(self, batch: Batch, seed: int, reference: Float[Tensor, "B h w"], state: State, before: Turn | None = None) -> Turn:
        """Scores a state."""
        diverged = ~state.potential.isfinite().all(-1).all(-1)
        potential = torch.where(diverged[:, None, None], 0.0, state.potential).clamp(-LIMIT, LIMIT)
        dark = state.scattered
        rewards, quality = self._credits(batch, reference, state, potential, dark)
        gain = torch.zeros_like(quality) if before is None else quality - before.quality
        scores = metrics.ssim(potential, reference), metrics.correlation(potential, reference)
        return Turn(batch, seed, reference, state, potential, dark, rewards, quality, gain, *scores)

    def _credits(
        self,
        batch: Batch,
        reference: Float[Tensor, "B h w"],
        state: State,
        potential: Float[Tensor, "B h w"],
        dark: Float[Tensor, "B P"],
    ) -> tuple[Float[Tensor, "B P"], Float[Tensor, " B"]]:
        """What each position has earned, and the scan as a whole."""
        if self.credit == "inside":
            # A mask of a few pixels tells nothing: nan.
            quality = metrics.correlation(potential, reference, mask=batch.inside).nan_to_num(0.0).to(potential)
            return quality[:, None].expand(dark.shape), quality
        base = torch.cat([self.even(n) for n in range(state.number)]).expand(len(potential), -1, -1)
        result = Result(potential, state.seen.positions, self.setup.field, dark, reference, base)
        rewards = reward(self.credit, result, width=WINDOW * self.setup.resolution)
        # The paper's two credits share out the summed phase, over a number of positions that grows from turn to turn.
        return rewards, potential.mean((1, 2)) if self.credit in ("shared", "voronoi") else rewards.mean(1)
