"""The scan as a natively batched `gymnasium.vector.VectorEnv`: many specimens in one microscope and one reconstruction."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Dict
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from adaptycho.learn.env import spaces
from adaptycho.learn.env.game import Game, Turn
from adaptycho.learn.env.presets import resolve
from adaptycho.learn.env.single import RENDER, check_render_mode, draw, pictures
from adaptycho.settings import Settings


class ScanVectorEnv(VectorEnv[Any, Any, Any]):
    """`ScanEnv` on `num_envs` specimens at once, with the same rewards; electrons are counted from one random stream for all.

    All episodes are equally long, so they begin and end together. Autoreset is Gymnasium's `NEXT_STEP`: the call of `step` after the
    last sub-sequence ignores its action, draws new specimens and returns their surveys with reward 0.

    Args:
        num_envs: number of specimens.
        settings, changes, reward, reference, specimens, render_mode: see `ScanEnv`.

    Raises:
        ValueError: see `ScanEnv`, or fewer than one specimen.
    """

    metadata: dict[str, Any] = RENDER | {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        settings: Settings | str | None = None,
        *,
        changes: Mapping[str, Any] | None = None,
        reward: str | None = None,
        reference: str = "truth",
        specimens: tuple[int, int] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs: expected at least 1, got {num_envs}")
        self.num_envs, self.render_mode = num_envs, check_render_mode(render_mode)
        self.game = Game(resolve(settings, changes), reward, reference, specimens)
        self.single_observation_space = Dict(spaces.seen_boxes(self.game))
        self.single_action_space = spaces.action_box(self.game.count)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._turn: Turn | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Takes the survey of other specimens; `options={"specimen": numbers}` of those."""
        super().reset(seed=seed)
        numbers, noise = draw(self.game, self.np_random, self.num_envs, (options or {}).get("specimen"))
        self._turn = self.game.begin(numbers, noise)
        return spaces.observe(self.game, self._turn), self._inform(self._turn)

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Takes the next sub-sequence of every specimen, or the survey of new ones if the last was over.

        Raises:
            ValueError: `reset` was not called, or the actions are not finite or of another shape.
        """
        never = np.zeros(self.num_envs, dtype=bool)
        if self._turn is not None and self.game.over(self._turn):
            seen, info = self.reset()
            return seen, np.zeros(self.num_envs), never, never.copy(), info
        self._turn = turn = self.game.play(self._turn, np.asarray(actions))
        over = np.full(self.num_envs, self.game.over(turn))
        return spaces.observe(self.game, turn), turn.gain.double().numpy(), over, never, self._inform(turn)

    def render(self) -> Any:
        """A picture (H, W, 3) of each specimen in mode "rgb_array"; see `ScanEnv`."""
        if self.render_mode is None or self._turn is None:
            return None
        return pictures(self._turn)

    def _inform(self, turn: Turn) -> dict[str, Any]:
        """As Gymnasium has it: beside each entry, which of the environments it holds for."""
        info = spaces.inform(turn)
        return info | {f"_{name}": np.ones(self.num_envs, dtype=bool) for name in info}
