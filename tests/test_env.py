import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from adaptycho import metrics
from adaptycho.learn.env import ENVIRONMENTS, ScanEnv, ScanVectorEnv, identifier, register, resolve
from adaptycho.learn.env.game import CREDITS, LIMIT, Game
from adaptycho.learn.env.render import EARLIER, NEW, render
from adaptycho.learn.env.specimens import Specimens
from adaptycho.physics import specimen
from adaptycho.scan.episode import observe, run
from adaptycho.scan.oracles import DensityOracle
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.settings import build

# Few enough positions for a test: a survey of 12 and three sub-sequences of 12.
SMALL = {"scan": {"positions": 48, "subsequences": 4}}
SILENT = SMALL | {"instrument": {"noise": False}}


def even(env, number):
    return env.unwrapped.game.even(number).numpy()


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_each_is_an_environment_as_gymnasium_wants_it(name):
    check_env(gymnasium.make(identifier(name)).unwrapped)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_each_is_natively_batched(name):
    env = gymnasium.make_vec(identifier(name), num_envs=2)
    assert isinstance(env.unwrapped, ScanVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    env.action_space.seed(0)
    for seen in (env.reset(seed=0)[0], env.step(env.action_space.sample())[0]):
        assert env.observation_space.contains(seen)
    env.close()


def test_registration_is_repeatable_and_can_be_written_down():
    register()
    spec = gymnasium.spec(identifier("Islands"))
    assert gymnasium.envs.registration.EnvSpec.from_json(spec.to_json()) == spec


def test_changes_reach_the_microscope():
    env = gymnasium.make(identifier("Islands"), changes={"scan": {"dose": 300}, "specimen": {"options": {"filling": 0.15}}})
    env.reset(seed=0)
    settings = env.unwrapped.game.settings
    assert settings.scan.dose == 300 and settings.scan.defocus == 100 and settings.specimen.options == {"filling": 0.15}
    assert float(env.unwrapped._turn.state.seen.dose.amax()) == 300


def test_an_episode_is_the_loop_itself():
    # The even scan played by hand is the even scan run by the loop, noise and all.
    env = ScanEnv(changes=SMALL)
    env.reset(seed=3)
    turn, game = env._turn, env.game
    states = list(run(turn.batch.microscope, Fixed("halton"), game._reconstructor, game.lengths, seed=turn.seed))
    for number, state in enumerate(states):
        if number:
            env.step(even(env, number))
        assert torch.equal(env._turn.state.seen.patterns, state.seen.patterns)
        assert torch.equal(env._turn.state.potential, state.potential)


def test_a_batch_equals_its_specimens_one_by_one():
    # The same sums in the same order; without noise it does not matter that a batch has one random stream for all.
    numbers = [5, 9, 2]
    batch = ScanVectorEnv(3, changes=SILENT)
    actions = np.random.default_rng(0).random((3, *batch.action_space.shape), dtype=np.float32)
    together, _ = batch.reset(options={"specimen": numbers})
    ones = [ScanEnv(changes=SILENT) for _ in numbers]
    alone = [one.reset(options={"specimen": n})[0] for one, n in zip(ones, numbers, strict=True)]
    for action in actions:
        for name, values in together.items():
            np.testing.assert_array_equal(values, np.stack([seen[name] for seen in alone]), err_msg=name)
        together, rewards, over, _, infos = batch.step(action)
        steps = [one.step(a) for one, a in zip(ones, action, strict=True)]
        alone = [s[0] for s in steps]
        # float32: windowed means of a batch are summed in another order.
        np.testing.assert_allclose([s[1] for s in steps], rewards, atol=1e-6)
        assert [s[2] for s in steps] == over.tolist()
        for name in ("specimen", "subsequence", "ssim", "correlation", "quality"):
            np.testing.assert_allclose([s[4][name] for s in steps], infos[name], atol=1e-6, err_msg=name)


def test_a_batch_of_one_is_the_single_environment():
    # Same seed, same draws, same noise.
    one, batch = ScanEnv("Rotated", changes=SMALL), ScanVectorEnv(1, "Rotated", changes=SMALL)
    alone, together = one.reset(seed=7)[0], batch.reset(seed=7)[0]
    for name, values in alone.items():
        np.testing.assert_array_equal(values, together[name][0])
    action = np.random.default_rng(0).random((12, 2), dtype=np.float32)
    assert one.step(action)[1] == batch.step(action[None])[1][0]


def test_batches_reset_themselves_on_the_step_after_the_last():
    env = ScanVectorEnv(2, changes=SMALL)
    _, first = env.reset(seed=0)
    action = np.full(env.action_space.shape, 0.5, np.float32)
    ends = [env.step(action)[2] for _ in range(3)]
    assert [e.tolist() for e in ends] == [[False, False], [False, False], [True, True]]
    seen, reward, terminated, truncated, info = env.step(action)
    assert not terminated.any() and not truncated.any() and (reward == 0).all()
    assert (info["subsequence"] == 1).all() and info["_subsequence"].all()
    assert (info["specimen"] != first["specimen"]).any()
    assert (seen["taken"] == 0.25).all()
    # The action was ignored: only the survey is there.
    np.testing.assert_allclose(seen["positions"][0, :12], even(env, 0), atol=1e-7)
    assert (seen["positions"][:, 12:] == -1).all()


@pytest.mark.parametrize("reward", CREDITS)
def test_rewards_add_up_to_the_gain_in_quality(reward):
    env = ScanEnv("Islands", reward=reward)
    _, info = env.reset(seed=1)
    before, rewards = info["quality"], []
    for number in (1, 2, 3):
        _, gain, over, cut, info = env.step(even(env, number))
        rewards.append(gain)
    assert over and not cut
    # float32: three differences of numbers of order 1.
    assert sum(rewards) == pytest.approx(info["quality"] - before, abs=1e-6)
    assert any(rewards)


def test_observations_say_what_was_done():
    env = ScanEnv(changes=SILENT)
    env.reset(seed=0)
    action = np.random.default_rng(0).random((12, 2), dtype=np.float32)
    seen, *_ = env.step(action)
    np.testing.assert_array_equal(seen["positions"][12:24], action)
    assert (seen["positions"][24:] == -1).all()
    assert seen["dose"].tolist() == [1.0] * 24 + [0.0] * 24
    assert (seen["scattered"][:24] > 0).all() and not seen["scattered"][24:].any()
    assert seen["taken"].tolist() == [0.5]
    state = env._turn.state
    known = observe(state, env._turn.batch.microscope, env.game.lengths, 2)
    np.testing.assert_allclose(seen["scattered"][:24], known.scattered[0], atol=1e-7)
    np.testing.assert_array_equal(seen["potential"], known.potential[0])


def test_scores_are_those_of_the_metrics():
    env = ScanEnv(changes=SILENT)
    _, info = env.reset(seed=0)
    potential, truth = env._turn.potential, build.truth_in_field(env._turn.batch.microscope)
    assert info["correlation"] == pytest.approx(float(metrics.correlation(potential, truth)[0]), abs=1e-6)
    assert info["ssim"] == pytest.approx(float(metrics.ssim(potential, truth - truth.mean())[0]), abs=1e-5)


def play(env, numbers, positions):
    """Final quality when `positions(turn)` says where to go."""
    turn = env.game.begin(numbers, 0)
    while not env.game.over(turn):
        turn = env.game.play(turn, positions(turn))
    return turn.quality


def test_covering_the_field_pays_on_crystals():
    numbers = list(range(4))
    env = ScanEnv("Rotated")
    spread = play(env, numbers, lambda t: env.game.even(t.state.number).expand(4, -1, -1).numpy())
    generator = np.random.default_rng(0)
    heaped = play(env, numbers, lambda t: 0.4 + 0.2 * generator.random((4, 50, 2)))
    assert (spread > heaped).all()


def test_looking_at_the_island_pays_on_islands():
    # What the environment is for: the reward has to rise when the beam goes where the structure is, on each of four islands.
    numbers = list(range(4))
    env = ScanEnv("Islands")
    masks = torch.stack([specimen.structure_mask(a, env.game.setup.object, 4.0) for a in (_atoms(env, n) for n in numbers)])
    oracle, memory = DensityOracle(env.game.setup.crop(masks.float()) + 0.05), [None]

    def best(turn):
        seen = observe(turn.state, turn.batch.microscope, env.game.lengths, turn.state.number)
        action, memory[0] = oracle(seen, memory[0], generator=torch.Generator())
        return action.positions.numpy()

    spread = play(env, numbers, lambda t: env.game.even(t.state.number).expand(4, -1, -1).numpy())
    assert (play(env, numbers, best) > spread).all()


def _atoms(env, number):
    return build.atoms(resolve(env.game.settings, {"specimen": {"first": number}}), env.game.setup, number)


def test_the_full_scan_as_reference_is_made_once():
    env = ScanEnv(changes=SILENT | {"reconstruct": {"reference_side": 20}}, reference="full")
    _, first = env.reset(options={"specimen": 4})
    kept = env._turn.reference
    _, again = env.reset(options={"specimen": 4})
    assert first == again and list(env.game._specimens._kept) == [4]
    assert torch.equal(env._turn.reference, kept)
    wanted = build.reference(env.game.settings, env._turn.batch.microscope)
    torch.testing.assert_close(kept, wanted)


def test_specimens_come_from_their_range():
    env = ScanVectorEnv(16, changes=SMALL, specimens=(20, 23))
    _, info = env.reset(seed=0)
    assert set(info["specimen"]) == {20, 21, 22}  # the chance to miss one of the three is 3 (2/3)^16 = 0.5 %, and the seed is fixed


def test_windows_of_a_recording_are_told_apart_by_number_and_split_by_column():
    train, test = Specimens(resolve("Recorded")), Specimens(resolve("Recorded", {"scan": {"columns": (0.625, 1.0)}}))
    assert len(train.places) == 55 and len(test.places) == 11
    one, same, other, unseen = (s.batch([n]).microscope for s, n in ((train, 3), (train, 3 + 55), (train, 4), (test, 0)))
    assert torch.equal(one.measurement.patterns, same.measurement.patterns)
    assert not torch.equal(one.measurement.patterns, other.measurement.patterns)
    assert one.setup.field == unseen.setup.field and one.setup.object == unseen.setup.object
    with pytest.raises(ValueError, match=r"scan\.columns: expected to hold two multiples of 1/16"):
        Specimens(resolve("Recorded", {"scan": {"columns": (0.7, 1.0)}}))


def test_a_diverged_reconstruction_is_an_empty_one():
    env = ScanEnv(changes=SILENT | {"reconstruct": {"step": 1e39, "iterations": 2}})
    seen, info = env.reset(seed=0)
    assert not torch.isfinite(env._turn.state.potential).all()
    assert not seen["potential"].any() and np.isfinite(list(info.values())).all()
    large = ScanEnv(changes=SILENT | {"reconstruct": {"step": 1e6, "iterations": 1}})
    seen, _ = large.reset(seed=0)
    assert np.abs(seen["potential"]).max() == LIMIT and large.observation_space.contains(seen)


def test_pictures_show_positions():
    places = torch.tensor([[0.25, 0.5], [0.0, 1.0], [0.75, 0.25]])
    picture = render(torch.linspace(0, 1, 40 * 65).reshape(40, 65), places, 1)
    assert picture.shape == (160, 260, 3) and picture.dtype == np.uint8
    assert tuple(picture[40, 130]) == EARLIER and tuple(picture[120, 65]) == NEW
    assert tuple(picture[0, -1]) == EARLIER  # cut off at the corner, not lost
    assert picture[0, 0].tolist() == [0, 0, 0] and picture[-1, -1].tolist() == [255, 255, 255]
    blank = render(torch.full((40, 65), float("nan")), places[:0], 0)
    assert blank.shape == picture.shape


def test_rendering_gives_one_picture_for_each_specimen():
    env = ScanVectorEnv(2, changes=SMALL, render_mode="rgb_array")
    assert env.render() is None
    env.reset(seed=0)
    pictures = env.render()
    assert [p.shape for p in pictures] == [(260, 260, 3)] * 2
    assert ScanEnv(changes=SMALL).render() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"settings": "Cleanest"}, "settings: expected an environment among Clean, .*, got 'Cleanest'"),
        ({"reward": "ssim"}, "reward: expected one of None, shared, .*, got 'ssim'"),
        ({"settings": "Recorded", "reward": "inside"}, "reward: expected another than inside for recorded data"),
        ({"reference": "half"}, "reference: expected one of truth, full, got 'half'"),
        ({"specimens": (3, 3)}, "specimens: expected a range from a lower to a higher number, got 3, 3"),
        ({"changes": {"scan": {"positions": 250, "subsequences": 1}}}, r"scan.subsequences: expected at least two.*got \[250\]"),
        ({"changes": {"scan": {"positions": 11, "subsequences": 3}}}, r"scan.subsequences: .* of equal length, got \[4, 4, 3\]"),
        ({"changes": {"scan": {"dosis": 1}}}, "changes: scan.dosis: expected one of"),
        ({"render_mode": "human"}, "render_mode: expected None or 'rgb_array', got 'human'"),
    ],
)
def test_what_cannot_be_played_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScanEnv(**arguments)
    with pytest.raises(ValueError, match=message):
        ScanVectorEnv(2, **arguments)


def test_a_survey_may_be_longer():
    assert Game(resolve(None, {"scan": {"positions": 49, "subsequences": 4}})).lengths == (13, 12, 12, 12)


def test_moves_that_are_none_are_refused():
    env = ScanEnv(changes=SILENT)
    with pytest.raises(ValueError, match="step: expected a scan under way, got none; call reset"):
        env.step(env.action_space.sample())
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: expected finite positions of shape \(1, 12, 2\), got shape \(1, 11, 2\)"):
        env.step(np.zeros((11, 2), np.float32))
    with pytest.raises(ValueError, match="got nan or infinity"):
        env.step(np.full((12, 2), np.nan, np.float32))
    for number in (1, 2, 3):
        env.step(even(env, number))
    with pytest.raises(ValueError, match="got one that is over"):
        env.step(even(env, 3))
    with pytest.raises(ValueError, match="options: expected 1 numbers of specimens, got"):
        env.reset(options={"specimen": [1, 2]})
    with pytest.raises(ValueError, match="num_envs: expected at least 1, got 0"):
        ScanVectorEnv(0)


def test_the_rest_of_the_package_does_not_need_gymnasium():
    # None in sys.modules is how Python marks a module that cannot be imported.
    program = """
import sys
sys.modules["gymnasium"] = sys.modules["pettingzoo"] = None
import adaptycho.app.cli
try:
    import adaptycho.learn.env
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (
        done.stdout.startswith("adaptycho.learn.env: expected Gymnasium and PettingZoo") and "pip install 'adaptycho[env]'" in done.stdout
    )
