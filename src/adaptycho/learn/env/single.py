"""The scan as a `gymnasium.Env`: one player who chooses a whole sub-sequence at a time."""

from collections.abc import Mapping
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.spaces import Dict

from adaptycho.learn.env import spaces
from adaptycho.learn.env.game import Game, Turn
from adaptycho.learn.env.presets import resolve
from adaptycho.learn.env.render import render
from adaptycho.settings import Settings

RENDER = {"render_modes": ["rgb_array"], "render_fps": 2}


class ScanEnv(gymnasium.Env[Any, Any]):
    """One specimen at a time, another at every reset.

    `reset` draws a specimen and takes the survey (Halton). An action is the next sub-sequence, `(K, 2)` positions in [0, 1]; the beam goes
    there, everything measured so far is reconstructed, and the reward is by how much the quality of the reconstruction has risen. So the
    undiscounted return is the quality at the end less that of the survey, whatever happened in between. The episode terminates with the
    last sub-sequence and is never truncated. Observations: see `adaptycho.learn.env.spaces.seen_boxes`.

    Quality follows from `reward`. With a credit of `adaptycho.learn.reward` it is the mean over all positions: with `window` the local
    structural similarity in windows round the points of an even scan. With `shared` and `voronoi`, which share out the summed phase, it is
    the mean phase in rad. With `inside` it is the correlation with the reference where the structure is, which the evaluation ranks scans
    by.

    `info` tells `specimen` (its number), `subsequence` (how many were taken), `quality`, and `ssim` and `correlation` of the whole field
    with the reference.

    Args:
        settings: the settings, the name of an environment (`adaptycho.learn.env.ENVIRONMENTS`), or None for the light preset.
        changes: of some of them, as a nested mapping: `{"scan": {"dose": 300}}`.
        reward: what quality is; None takes `inside` for families that fill a part of the field (islands, edges, particles) and `window`
            for the rest.
        reference: what rewards and scores refer to: "truth", or "full" for the reconstruction of a full scan, made once for each specimen
            (about a second). Recorded data are always compared with the reconstruction of everything recorded.
        specimens: numbers to draw from, from and up to; None takes the training range of the settings.
        render_mode: None or "rgb_array".

    Raises:
        ValueError: see `resolve` and `Game`, or another render mode.
    """

    metadata: dict[str, Any] = RENDER

    def __init__(
        self,
        settings: Settings | str | None = None,
        *,
        changes: Mapping[str, Any] | None = None,
        reward: str | None = None,
        reference: str = "truth",
        specimens: tuple[int, int] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = check_render_mode(render_mode)
        self.game = Game(resolve(settings, changes), reward, reference, specimens)
        self.observation_space = Dict(spaces.seen_boxes(self.game))
        self.action_space = spaces.action_box(self.game.count)
        self._turn: Turn | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Takes the survey of another specimen; `options={"specimen": number}` of that one."""
        super().reset(seed=seed)
        numbers, noise = draw(self.game, self.np_random, 1, (options or {}).get("specimen"))
        self._turn = self.game.begin(numbers, noise)
        return self._seen(self._turn)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], SupportsFloat, bool, bool, dict[str, Any]]:
        """Takes the next sub-sequence.

        Raises:
            ValueError: the episode has not begun or is over, or the action is not finite or of another shape.
        """
        self._turn = turn = self.game.play(self._turn, np.asarray(action)[None])
        seen, info = self._seen(turn)
        return seen, float(turn.gain), self.game.over(turn), False, info

    def render(self) -> Any:
        """The reconstruction with the positions so far, the newest in orange: (H, W, 3) in mode "rgb_array"."""
        if self.render_mode is None or self._turn is None:
            return None
        return pictures(self._turn)[0]

    def _seen(self, turn: Turn) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        seen, info = spaces.observe(self.game, turn), spaces.inform(turn)
        return {name: values[0] for name, values in seen.items()}, {name: values[0].item() for name, values in info.items()}


def draw(game: Game, generator: np.random.Generator, count: int, wanted: Any = None) -> tuple[list[int], int]:
    """Numbers of specimens, drawn unless they are given, and the seed of their noise.

    Raises:
        ValueError: other than `count` numbers are given.
    """
    drawn = generator.integers(*game.range, size=count)
    numbers = drawn if wanted is None else np.atleast_1d(np.asarray(wanted, dtype=np.int64))
    if numbers.shape != (count,) or (numbers < 0).any():
        raise ValueError(f"options: expected {count} numbers of specimens, got {wanted!r}")
    return numbers.tolist(), int(generator.integers(1 << 31))


def pictures(turn: Turn) -> tuple[np.ndarray, ...]:
    """One picture for each specimen."""
    newest = turn.state.latest.positions.shape[1]
    return tuple(render(v, p, newest) for v, p in zip(turn.potential, turn.state.seen.positions, strict=True))


def check_render_mode(mode: str | None) -> str | None:
    """The mode itself.

    Raises:
        ValueError: there is no such mode.
    """
    if mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode: expected None or 'rgb_array', got {mode!r}")
    return mode
