"""What players see and do, as Gymnasium spaces: a dictionary of float32 arrays of fixed shape, and positions in the unit square."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space
from jaxtyping import Shaped
from torch import Tensor
from torch.nn.functional import pad

from adaptycho.learn.env.game import LIMIT, Game, Turn

NOWHERE = -1.0  # where positions have not been taken yet


def action_box(count: int) -> Box:
    """Positions (y, x) of a sub-sequence, fractions of the scan field, y down."""
    return Box(0.0, 1.0, (count, 2), np.float32)


def seen_boxes(game: Game) -> dict[str, Space[Any]]:
    """What is known of one specimen; P positions in the whole scan, those not taken yet last and filled up.

    - `potential` (h, w): reconstructed phase in rad inside the scan field; beyond ±10 rad it is clipped, and diverged it is empty.
    - `positions` (P, 2): where the beam was reported, fractions (y, x) of the field; -1 where not yet.
    - `dose` (P,): electrons sent, over those of the strongest exposure; 0 where not yet.
    - `scattered` (P,): fraction of the dose outside the bright-field disc; 0 where not yet.
    - `taken` (1,): fraction of the positions taken.
    """
    total = game.total
    return {
        "potential": Box(-LIMIT, LIMIT, game.setup.field_shape, np.float32),
        "positions": Box(NOWHERE, 1.0, (total, 2), np.float32),
        "dose": Box(0.0, 1.0, (total,), np.float32),
        "scattered": Box(0.0, 1.0, (total,), np.float32),
        "taken": Box(0.0, 1.0, (1,), np.float32),
    }


def observe(game: Game, turn: Turn) -> dict[str, np.ndarray]:
    """Observations of all B specimens, stacked along the first axis; fresh arrays at every call."""
    seen = turn.state.seen
    left = game.total - seen.positions.shape[1]
    return {
        "potential": _array(turn.potential),
        "positions": _array(pad(seen.positions, (0, 0, 0, left), value=NOWHERE)),
        "dose": _array(pad(seen.dose / seen.dose.amax(1, keepdim=True), (0, left))),
        "scattered": _array(pad(turn.scattered.clamp(0, 1), (0, left))),
        "taken": np.full((len(seen), 1), seen.positions.shape[1] / game.total, np.float32),
    }


def inform(turn: Turn) -> dict[str, Shaped[np.ndarray, " B"]]:
    """What a player is told but must not look at: numbers of the specimens, and how good the reconstructions are."""
    return {
        "specimen": np.array(turn.batch.numbers, np.int64),
        "subsequence": np.full(len(turn.batch), turn.state.number, np.int64),
        "quality": turn.quality.double().numpy(),
        "ssim": turn.ssim.double().numpy(),
        "correlation": turn.correlation.double().numpy(),
    }


def _array(values: Tensor) -> np.ndarray:
    return values.numpy().astype(np.float32, copy=True)
