"""Reinforcement-learning environments: the adaptive scan as Gymnasium (single and batched) and PettingZoo (parallel) know it.

All show the one loop of `adaptycho.scan.episode`; they have no physics of their own. They are an extra: `pip install 'adaptycho[env]'`.
Importing this package registers environments, each single and natively batched:

```
import gymnasium
import adaptycho.learn.env

one = gymnasium.make("adaptycho/Islands-v0", render_mode="rgb_array")
eight = gymnasium.make_vec("adaptycho/Islands-v0", num_envs=8, changes={"scan": {"dose": 300}})
agents = adaptycho.learn.env.ScanParallelEnv("Islands")
```

What each adds, and in brackets its sub-sequences and their positions:

- `adaptycho/Clean-v0` (5 x 50): MoS2 whose lattice always lies the same way; expected patterns, no noise
- `adaptycho/Noisy-v0` (5 x 50): electrons are counted, 10,000 at each position
- `adaptycho/Jittered-v0` (5 x 50): the beam misses its mark by 0.2 Å rms and does not say so
- `adaptycho/Contaminated-v0` (5 x 50): a carbonaceous layer of 0.1 rad rms on top
- `adaptycho/Oriented-v0` (5 x 50): the paper's protocol, 2.14e5 electrons at each position; lattice as in `Clean` (one flake)
- `adaptycho/Rotated-v0` (5 x 50): the same with unknown orientation
- `adaptycho/Islands-v0` (4 x 16): a flake that fills a quarter of the field; 1,000 electrons, 100 Å defocus, careful reconstruction
- `adaptycho/Particles-v0` (4 x 16): particles on a carbon film; as before
- `adaptycho/Recorded-v0` (5 x 20): windows of the recorded data that are shipped, their left part; the rest is for tests

From `Clean` to `Contaminated` each keeps what the one before had. On islands and particles the reward is for the structure, not for the
vacuum or film round it (`inside`); elsewhere for local structural similarity in the whole field (`window`).

Training specimens are drawn from `evaluate.train` of the settings; pass `specimens=settings.evaluate.test` to report on others. Of the
recording, numbers do not tell train from test but columns do: test with `changes={"scan": {"columns": (0.625, 1.0)}}`.
"""

try:
    import gymnasium
    import pettingzoo  # noqa: F401
except ImportError as error:
    raise ImportError(f"adaptycho.learn.env: expected Gymnasium and PettingZoo, got {error}; pip install 'adaptycho[env]'") from None

from adaptycho.learn.env.parallel import ScanParallelEnv
from adaptycho.learn.env.presets import ENVIRONMENTS, identifier, resolve
from adaptycho.learn.env.single import ScanEnv
from adaptycho.learn.env.vector import ScanVectorEnv

__all__ = ["ENVIRONMENTS", "ScanEnv", "ScanParallelEnv", "ScanVectorEnv", "identifier", "register", "resolve"]


def register() -> None:
    """Makes the environments known to `gymnasium.make` and `make_vec`; once is enough, twice does no harm."""
    for name in ENVIRONMENTS:
        if identifier(name) not in gymnasium.registry:
            gymnasium.register(
                identifier(name),
                entry_point="adaptycho.learn.env:ScanEnv",
                vector_entry_point="adaptycho.learn.env:ScanVectorEnv",
                kwargs={"settings": name},
            )


register()
