import numpy as np
import pytest
from gymnasium.spaces import flatten
from pettingzoo.test import parallel_api_test

from adaptycho.learn.env import ENVIRONMENTS, ScanEnv, ScanParallelEnv
from adaptycho.learn.reward import Result, reward

SMALL = {"scan": {"positions": 48, "subsequences": 4}}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_each_is_an_environment_as_pettingzoo_wants_it(name):
    parallel_api_test(ScanParallelEnv(name, changes={"scan": {"positions": 20, "subsequences": 4}}), num_cycles=8)


def moves(env, generator):
    return {agent: generator.random(2, dtype=np.float32) for agent in env.agents}


def test_agents_together_are_the_single_player():
    agents, player = ScanParallelEnv(changes=SMALL, render_mode="rgb_array"), ScanEnv(changes=SMALL, render_mode="rgb_array")
    seen, told = agents.reset(seed=5)
    alone, info = player.reset(seed=5)
    generator = np.random.default_rng(0)
    for _ in range(3):
        for agent in agents.agents:
            for name, values in alone.items():
                np.testing.assert_array_equal(seen[agent][name], values)
            assert told[agent]["ssim"] == info["ssim"]
        np.testing.assert_array_equal(agents.state(), flatten(player.observation_space, alone))
        actions = moves(agents, generator)
        seen, _, over, cut, told = agents.step(actions)
        alone, _, ended, _, info = player.step(np.stack(list(actions.values())))
        assert set(over.values()) == {ended} and not any(cut.values())
    np.testing.assert_array_equal(agents.render(), player.render())
    assert agents.agents == []


def test_every_agent_earns_what_its_newest_position_collects():
    env = ScanParallelEnv(changes=SMALL)
    env.reset(seed=0)
    generator = np.random.default_rng(0)
    env.step(moves(env, generator))
    _, rewards, *_ = env.step(moves(env, generator))
    turn = env._turn
    paper = reward("voronoi", Result(turn.potential, turn.state.seen.positions, env.game.setup.field, turn.scattered))
    assert list(rewards.values()) == paper[0, 24:36].tolist()
    assert len(set(rewards.values())) > 6  # each its own


def test_agents_are_told_apart_by_where_an_even_scan_would_send_them():
    env = ScanParallelEnv(changes=SMALL)
    seen, _ = env.reset(seed=0)
    base = np.stack([seen[a]["even"] for a in env.agents])
    np.testing.assert_array_equal(base, env.game.even(1))
    after, *_ = env.step(dict(zip(env.agents, base, strict=True)))
    np.testing.assert_allclose(after["position_0"]["positions"][:24], np.concatenate([env.game.even(0), base]), atol=1e-7)
    np.testing.assert_array_equal(after["position_3"]["even"], env.game.even(2)[3])


def test_the_joint_history_is_shared_and_cannot_be_written_to():
    env = ScanParallelEnv(changes=SMALL)
    seen, _ = env.reset(seed=0)
    assert seen["position_0"]["potential"] is seen["position_1"]["potential"]
    with pytest.raises(ValueError, match="read-only"):
        seen["position_0"]["potential"][0, 0] = 1


def test_a_seed_repeats_the_episode_and_none_goes_on():
    env = ScanParallelEnv(changes=SMALL)
    first, again, other = (env.reset(seed=s)[1]["position_0"]["specimen"] for s in (1, 1, None))
    assert first == again != other


def test_states_are_inside_their_space():
    env = ScanParallelEnv(changes=SMALL)
    with pytest.raises(ValueError, match="state: expected an episode that has begun, got none"):
        env.state()
    env.reset(seed=0)
    assert env.state_space.contains(env.state())


def test_moves_that_are_none_are_refused():
    env = ScanParallelEnv(changes=SMALL)
    with pytest.raises(ValueError, match="step: expected a scan under way, got none"):
        env.step({})
    env.reset(seed=0)
    actions = moves(env, np.random.default_rng(0))
    with pytest.raises(ValueError, match="actions: expected one for each of 12 agents, got none for position_4"):
        env.step({a: v for a, v in actions.items() if a != "position_4"})
    with pytest.raises(ValueError, match="got nan or infinity"):
        env.step(actions | {"position_2": np.full(2, np.nan, np.float32)})
