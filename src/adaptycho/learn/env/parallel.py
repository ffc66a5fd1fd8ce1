"""The scan as a PettingZoo `ParallelEnv`: as in the paper, every position of a sub-sequence is an agent."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, flatten, flatten_space
from gymnasium.utils.seeding import np_random
from pettingzoo import ParallelEnv

from adaptycho.learn.env import spaces
from adaptycho.learn.env.game import Game, Turn
from adaptycho.learn.env.presets import resolve
from adaptycho.learn.env.single import RENDER, check_render_mode, draw, pictures
from adaptycho.settings import Settings

Agent = str


class ScanParallelEnv(ParallelEnv[Agent, Any, Any]):
    """One specimen, and K agents `position_0`, `position_1`, ... that each send the beam to one place in every sub-sequence.

    All of them see what `ScanEnv` sees, the joint history of positions and what was reconstructed from it, and act at the same time. What
    tells one from the other is `even`, (2,), where an even (Halton) scan would go in its place; a policy with shared weights may propose
    displacements from it. The arrays of the joint history are the same objects for all agents and cannot be written to.

    The reward of an agent is the credit of its newest position after the reconstruction, by default for its own Voronoi cell (the paper);
    see `adaptycho.learn.reward`. `info` is that of `ScanEnv`.

    Args:
        settings, changes, reference, specimens, render_mode: see `ScanEnv`.
        reward: credit of each position.

    Raises:
        ValueError: see `ScanEnv`.
    """

    metadata: dict[str, Any] = RENDER | {"name": "adaptycho_scan_v0", "is_parallelizable": True}

    def __init__(
        self,
        settings: Settings | str | None = None,
        *,
        changes: Mapping[str, Any] | None = None,
        reward: str = "voronoi",
        reference: str = "truth",
        specimens: tuple[int, int] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = check_render_mode(render_mode)
        self.game = Game(resolve(settings, changes), reward, reference, specimens)
        self.possible_agents = [f"position_{k}" for k in range(self.game.count)]
        self.agents: list[Agent] = []
        self._joint = Dict(spaces.seen_boxes(self.game))
        # One object for each agent, so that each can be seeded.
        self.observation_spaces = {a: Dict({**spaces.seen_boxes(self.game), "even": _unit()}) for a in self.possible_agents}
        self.action_spaces = {a: _unit() for a in self.possible_agents}
        self.state_space = flatten_space(self._joint)
        self._random = np_random()[0]
        self._turn: Turn | None = None

    def observation_space(self, agent: Agent) -> gymnasium.Space[Any]:
        """What an agent sees."""
        return self.observation_spaces[agent]

    def action_space(self, agent: Agent) -> Box:
        """Where an agent may send the beam: (y, x), fractions of the scan field."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[Agent, dict[str, np.ndarray]], dict[Agent, dict[str, Any]]]:
        """Takes the survey of another specimen; `options={"specimen": number}` of that one."""
        if seed is not None:
            self._random = np_random(seed)[0]
        numbers, noise = draw(self.game, self._random, 1, (options or {}).get("specimen"))
        self._turn = self.game.begin(numbers, noise)
        self.agents = list(self.possible_agents)
        return self._observe(self._turn), self._inform(self._turn)

    def step(
        self, actions: dict[Agent, np.ndarray]
    ) -> tuple[dict[Agent, dict[str, np.ndarray]], dict[Agent, float], dict[Agent, bool], dict[Agent, bool], dict[Agent, dict[str, Any]]]:
        """Takes the next sub-sequence, the position of every agent at once.

        Raises:
            ValueError: the episode has not begun or is over, an agent has no action, or one is not finite or of another shape.
        """
        missing = [a for a in self.possible_agents if a not in actions]
        if self.agents and missing:
            raise ValueError(f"actions: expected one for each of {len(self.agents)} agents, got none for {missing[0]}")
        asked = np.stack([np.asarray(actions[a], dtype=np.float32) for a in self.agents]) if self.agents else np.zeros((0, 2), np.float32)
        self._turn = turn = self.game.play(self._turn, asked[None])
        over, played = self.game.over(turn), self.agents
        newest = turn.rewards[0, -len(played) :].tolist()
        self.agents = [] if over else list(played)
        return (
            self._observe(turn),
            dict(zip(played, newest, strict=True)),
            dict.fromkeys(played, over),
            dict.fromkeys(played, False),
            self._inform(turn),
        )

    def state(self) -> np.ndarray:
        """What all agents see, in one flat array (`gymnasium.spaces.flatten` of a `ScanEnv`'s observation); for a central critic.

        Raises:
            ValueError: `reset` was not called.
        """
        if self._turn is None:
            raise ValueError("state: expected an episode that has begun, got none; call reset")
        seen = {name: values[0] for name, values in spaces.observe(self.game, self._turn).items()}
        return np.asarray(flatten(self._joint, seen), np.float32)

    def render(self) -> Any:
        """The reconstruction with the positions so far, the newest in orange: (H, W, 3) in mode "rgb_array"."""
        if self.render_mode is None or self._turn is None:
            return None
        return pictures(self._turn)[0]

    def _observe(self, turn: Turn) -> dict[Agent, dict[str, np.ndarray]]:
        joint = {name: values[0] for name, values in spaces.observe(self.game, turn).items()}
        for values in joint.values():
            values.flags.writeable = False
        # After the last sub-sequence there is no next: the last one's points stay.
        even = self.game.even(min(turn.state.number, len(self.game.lengths) - 1)).numpy()
        return {agent: joint | {"even": even[k].copy()} for k, agent in enumerate(self.possible_agents)}

    def _inform(self, turn: Turn) -> dict[Agent, dict[str, Any]]:
        info = {name: values[0].item() for name, values in spaces.inform(turn).items()}
        return {agent: dict(info) for agent in self.possible_agents}


def _unit() -> Box:
    return Box(0.0, 1.0, (2,), np.float32)
