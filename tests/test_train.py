"""Learning: what is learnt from, the gradient of Eq. 8 and its baselines, teachers, updates, and that training does improve."""

import dataclasses
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import ase.io
import pytest
import torch
from ase.build import mx2
from pydantic import TypeAdapter
from torch import Tensor, nn

from adaptycho.learn import pool as pools
from adaptycho.learn import recordings, stages
from adaptycho.learn import reinforce as module
from adaptycho.learn.dagger import Guided
from adaptycho.learn.distributed import Group
from adaptycho.learn.imitate import imitate
from adaptycho.learn.learner import Learner, adam, constant, cosine, learn
from adaptycho.learn.pool import simulated
from adaptycho.learn.reinforce import reinforce, returns
from adaptycho.learn.share import Share, share
from adaptycho.learn.turned import image, places, turned
from adaptycho.runs import checksums
from adaptycho.runs.checksums import Beginning
from adaptycho.samples import windows
from adaptycho.samples.sample import Specimen
from adaptycho.scan.episode import run, stream
from adaptycho.scan.oracles import HalfWay
from adaptycho.scan.policies.learned import Learned, draw, even, log_probability
from adaptycho.settings import Settings, build, dump, preset, update
from adaptycho.types import Action, Memory, Observation

TINY = {
    "geometry": {"field": [6.0, 6.0], "object": "auto"},
    "scan": {"subsequences": 3},
    "practice": {"positions": [12], "pool": 4, "validation": 2},
    "reconstruct": {"iterations": 2, "reference_side": 12},
    "network": {"widths": [8, 8], "image": 64, "hidden": 16, "location": 8, "structure": 8},
    "train": {"imitate_batch": 4, "reinforce_batch": 4, "encode_batch": 4},
}


def tiny(**sections: Mapping[str, object]) -> Settings:
    return update(update(preset("light"), TINY, "test"), sections, "test")


@pytest.fixture(scope="module")
def pool() -> list[Specimen]:
    return simulated(tiny(), [1000, 1001, 1002, 1003])


class Told(nn.Module):
    """A network whose every proposal is a weight of its own, so that its gradient tells what each agent of each specimen was told.

    With a batch of one the specimens share the weights.
    """

    def __init__(self, batch: int, lengths: Sequence[int]) -> None:
        super().__init__()
        self.lengths = lengths
        self.means = nn.Parameter(torch.rand(batch, sum(lengths[1:]), 2, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2)

    def forward(self, seen: Observation, memory: int | None) -> tuple[Tensor, int]:
        done = memory or 0
        return self.means[:, done : done + seen.count].expand(len(seen.potential), -1, -1), done + seen.count


def told(work: Share, baseline: str, *, sigma: float = 0.05, gamma: float = 0.0, credit: str = "voronoi") -> tuple[Tensor, Tensor, Told]:
    """What each agent's advantage was, as far as the gradient of the loss tells: over its standard deviation."""
    network = Told(len(work), work.lengths)
    policy = Learned(network, sigma)
    loss, _ = reinforce(work, policy, credit, baseline=baseline, gamma=gamma, width=1.2, outlook=even(12, (6.0, 6.0), "halton").float())
    loss.backward()
    with torch.no_grad():
        states = list(run(work.microscope, policy, work.reconstructor, work.lengths, seed=work.seed))
    asked = torch.cat([s.action.positions for s in states[1:]], 1)
    # d log pi / d mu = (a - mu) / sigma^2, and the loss is minus the mean over agents and specimens.
    steep = (asked - network.means.detach()) / sigma**2
    gradient = -network.means.grad * steep[..., 0].numel()
    advantage = (gradient * steep).sum(-1) / steep.square().sum(-1)
    return advantage, gradient - advantage[..., None] * steep, network


# --- Eq. 8


@pytest.mark.parametrize("credit", ["shared", "voronoi", "window", "scattered"])
def test_gradient_is_that_of_equation_8(pool: list[Specimen], credit: str) -> None:
    work = share(tiny(), 0, 0, 4, pool)
    advantage, rest, network = told(work, "none", credit=credit)
    with torch.no_grad():
        *_, last = run(work.microscope, Learned(network, 0.05), work.reconstructor, work.lengths, seed=work.seed)
    earned = module.rewards(work, last, credit, 1.2, even(12, (6.0, 6.0), "halton").float())[:, work.lengths[0] :]
    # Single precision through a handful of sums; steep is at most a few times 1/0.05.
    assert torch.allclose(advantage, earned / earned.std(), atol=1e-4 * float((earned / earned.std()).abs().max()), rtol=0)
    assert rest.abs().max() < 1e-4 * float((earned / earned.std()).abs().max()) / 0.05


def test_baseline_batch_sums_to_zero_for_each_agent(pool: list[Specimen]) -> None:
    advantage, _, _ = told(share(tiny(), 1, 0, 4, pool), "batch")
    # Over its standard deviation an advantage is of the order of 1; single precision.
    assert advantage.sum(0).abs().max() < 1e-4
    assert advantage.abs().max() > 0.1


def test_baseline_pair_is_antisymmetric(pool: list[Specimen]) -> None:
    work = share(tiny(), 2, 0, 4, pool, pairs=True)
    advantage, _, _ = told(work, "pair")
    assert torch.allclose(advantage[:2], -advantage[2:], atol=1e-4)
    assert advantage.abs().max() > 0.1


def test_baseline_mean_is_what_the_mean_action_earns(pool: list[Specimen]) -> None:
    work = share(tiny(), 3, 0, 4, pool)
    advantage, _, network = told(work, "mean")
    points, found = even(12, (6.0, 6.0), "halton").float(), []
    for sigma in (0.05, 0.0):
        with torch.no_grad():
            *_, last = run(work.microscope, Learned(network, sigma), work.reconstructor, work.lengths, seed=work.seed)
        found.append(module.rewards(work, last, "voronoi", 1.2, points)[:, work.lengths[0] :])
    expected = found[0] - found[1]
    assert torch.allclose(advantage, expected / expected.std(), atol=1e-4 * float((expected / expected.std()).abs().max()), rtol=0)


@pytest.mark.parametrize("baseline", ["none", "batch", "mean"])
def test_what_the_survey_earns_is_nobodys(pool: list[Specimen], baseline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = share(tiny(), 4, 0, 4, pool)
    before, _, _ = told(work, baseline)
    real = module.rewards

    def generous(*arguments: object) -> Tensor:
        earned = real(*arguments).clone()
        earned[:, : work.lengths[0]] += torch.arange(4.0)[:, None]
        return earned

    monkeypatch.setattr(module, "rewards", generous)
    after, _, _ = told(work, baseline)
    assert torch.equal(before, after)


@pytest.mark.parametrize(("baseline", "lost"), [("none", [1]), ("batch", [1]), ("pair", [1, 3]), ("mean", [1])])
def test_an_episode_that_diverged_is_left_out(
    pool: list[Specimen], baseline: str, lost: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are told what they would be told without it, and the facts are about them."""
    work = share(tiny(), 2, 0, 4, pool, pairs=baseline == "pair")
    real, given, values = module.rewards, [], []
    kept = [i for i in range(4) if i not in lost]

    def diverged(*arguments: object) -> Tensor:
        earned = real(*arguments).clone()
        given.append(earned.clone())
        earned[1, -1] = (math.nan, math.inf)[len(values) % 2]
        return earned

    monkeypatch.setattr(module, "rewards", diverged)
    for _ in range(2):
        network, points = Told(4, work.lengths), even(12, (6.0, 6.0), "halton").float()
        given.clear()
        loss, facts = reinforce(work, Learned(network, 0.05), "voronoi", baseline=baseline, gamma=0.0, width=1.2, outlook=points)
        loss.backward()
        values.append(network.means.grad)
        # A quarter or half of four, and a mean in another order: single precision.
        assert facts["lost"] == len(lost) / 4
        assert facts["reward"] == pytest.approx(float(given[0][kept].mean()), rel=1e-5)
        assert math.isfinite(facts["ssim"]) and math.isfinite(float(loss.detach()))
    gains = given[0][kept]
    gains = gains - {"none": 0, "batch": gains.mean(0), "pair": gains.flip(0), "mean": given[-1][kept]}[baseline]
    advantage = gains[:, work.lengths[0] :]
    with torch.no_grad():
        states = list(run(work.microscope, Learned(network, 0.05), work.reconstructor, work.lengths, seed=work.seed))
    asked = torch.cat([s.action.positions for s in states[1:]], 1)[kept]
    expected = -((advantage / advantage.std())[..., None] * (asked - network.means.detach()[kept]) / 0.05**2) / advantage.numel()
    for gradient in values:
        assert not bool(gradient[lost].any())
        assert torch.allclose(gradient[kept], expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_a_share_that_is_lost_as_a_whole_says_nothing(pool: list[Specimen], monkeypatch: pytest.MonkeyPatch) -> None:
    work, network = share(tiny(), 2, 0, 4, pool), Told(4, (4, 4, 4))
    monkeypatch.setattr(module, "rewards", lambda *arguments: torch.full((4, 12), math.nan))
    points = even(12, (6.0, 6.0), "halton").float()
    loss, facts = reinforce(work, Learned(network, 0.05), "voronoi", baseline="batch", gamma=0.0, width=1.2, outlook=points)
    loss.backward()
    assert float(loss.detach()) == 0 and not bool(network.means.grad.any())
    assert facts["lost"] == 1 and math.isnan(facts["reward"])


def test_the_mean_action_is_taken_at_the_same_dose(pool: list[Specimen], monkeypatch: pytest.MonkeyPatch) -> None:
    work, doses = share(tiny(), 3, 0, 4, pool), []
    monkeypatch.setattr(module, "rewards", lambda work, last, *rest: doses.append(last.seen.dose) or torch.zeros(4, 12))
    policy, points = Learned(Told(4, work.lengths), 0.05, dose=123.0), even(12, (6.0, 6.0), "halton").float()
    reinforce(work, policy, "voronoi", baseline="mean", gamma=0.0, width=1.2, outlook=points)
    assert len(doses) == 2
    assert all(torch.equal(d, torch.full((4, 12), 123.0)) for d in doses)


@pytest.mark.parametrize("lengths", [[4, 4, 4], [5, 4, 4], [2, 4, 3], [3, 1, 3], [7]])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_returns_are_discounted_sums(lengths: list[int], gamma: float) -> None:
    earned = torch.randn(3, sum(lengths), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parts = earned.split(lengths, 1)
    expected = []
    for t, length in enumerate(lengths):
        for agent in range(length):
            total = torch.zeros(3, dtype=torch.float64)
            for later in range(t, len(lengths)):
                if agent >= lengths[later]:
                    break  # an agent without a place has no later rewards
                total += gamma ** (later - t) * parts[later][:, agent]
            expected.append(total)
    # Double precision, at most three terms.
    assert torch.allclose(returns(earned, lengths, gamma), torch.stack(expected, 1), atol=1e-14, rtol=1e-14)


def test_log_probability_is_that_of_a_normal_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.rand(3, 7, 2, generator=generator, dtype=torch.float64)
    positions = draw(mean, 0.03, generator=generator)
    expected = torch.distributions.Normal(mean, 0.03).log_prob(positions).sum(-1)
    assert torch.allclose(log_probability(positions, mean, 0.03), expected, atol=1e-12, rtol=1e-12)


def test_draws_spread_as_they_say() -> None:
    n = 20_000
    offset = draw(torch.full((1, n // 2, 2), 0.5), 0.2, generator=torch.Generator().manual_seed(0)) - 0.5
    # Standard errors of the mean, sigma / sqrt(n), and of the standard deviation, sigma / sqrt(2 n); four of them.
    assert abs(float(offset.mean())) < 4 * 0.2 / math.sqrt(n)
    assert abs(float(offset.std()) - 0.2) < 4 * 0.2 / math.sqrt(2 * n)


def test_log_probability_is_of_the_position_requested(pool: list[Specimen]) -> None:
    """The edge that a position was clipped to is the microscope's answer."""
    work = share(tiny(), 5, 0, 4, pool)
    network = Told(4, work.lengths)
    states = list(run(work.microscope, Learned(network, 0.5), work.reconstructor, work.lengths, seed=work.seed))
    asked = torch.cat([s.action.positions for s in states[1:]], 1)
    assert bool((asked < 0).any())
    assert bool((asked > 1).any())
    went = states[-1].seen.positions[:, work.lengths[0] :]
    assert torch.equal(went, asked.clamp(0, 1))
    logs = torch.cat([s.action.log_prob for s in states[1:]], 1)
    expected = torch.distributions.Normal(network.means, 0.5).log_prob(asked).sum(-1)
    assert torch.allclose(logs, expected, atol=1e-5)
    assert states[0].action.log_prob is None


# --- teachers


def observed(work: Share, scanner: object) -> list:
    return list(run(work.microscope, scanner, work.reconstructor, work.lengths, seed=work.seed))


def test_the_target_is_what_the_teacher_would_have_done(pool: list[Specimen]) -> None:
    work = share(tiny(), 6, 0, 4, pool)
    points = even(12, (6.0, 6.0), "halton").float()
    teacher, network = HalfWay(work.columns, base=points), Told(4, work.lengths)
    alone, led, followed = (
        observed(work, s) for s in (teacher, Guided(Learned(network), teacher, 1.0), Guided(Learned(network), teacher, 0.0))
    )
    assert led[0].memory.target is None
    for number in (1, 2):
        assert torch.equal(led[number].memory.target, alone[number].action.positions)
        assert torch.equal(led[number].action.positions, alone[number].action.positions)
        # This teacher knows the specimen and so does the same wherever the pupil has gone.
        assert torch.equal(followed[number].memory.target, alone[number].action.positions)
        assert torch.equal(followed[number].action.positions, followed[number].action.mean)
        assert not torch.equal(led[number].action.positions, led[number].action.mean)


def test_a_teacher_sees_where_the_policy_went(pool: list[Specimen]) -> None:
    work = share(tiny(), 6, 0, 4, pool)
    shown: list[Tensor] = []

    def teacher(seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, int]:
        shown.append(seen.positions)
        assert memory == (len(shown) - 1 or None)
        return Action(torch.full((4, seen.count, 2), 0.5)), len(shown)

    states = observed(work, Guided(Learned(Told(4, work.lengths)), teacher, 0.0))
    for before, positions in zip(states, shown[1:], strict=False):
        assert torch.equal(positions, before.seen.positions)


@pytest.mark.parametrize("lead", [0.0, 1.0])
def test_a_teacher_leads_at_the_dose_and_defocus_of_the_pupil(lead: float) -> None:
    seen = Observation(torch.zeros(1, 20, 20), torch.rand(1, 4, 2), torch.ones(1, 4), (6.0, 6.0), 0.4, 1.5, 4, 12)
    pupil = Learned(Told(1, (4, 4, 4)), defocus=30.0, dose=50.0)
    action, _ = Guided(pupil, HalfWay([torch.rand(3, 2)], after=0), lead)(seen, None, generator=stream(0, 0))
    assert (action.defocus, action.dose) == (30.0, 50.0)


def test_how_often_the_teacher_leads() -> None:
    batch = torch.zeros(1, 20, 20)
    seen = Observation(batch, torch.rand(1, 4, 2), torch.ones(1, 4), (6.0, 6.0), 0.4, 1.5, 4, 12)
    pupil, n = Learned(Told(1, (4, 4, 4))), 1000
    scanner = Guided(pupil, HalfWay([torch.rand(3, 2)], after=0), 0.7)
    led = sum(not torch.equal((a := scanner(seen, None, generator=stream(3, i))[0]).positions, a.mean) for i in range(n))
    # A binomial's standard error is sqrt(n p q); four of them.
    assert abs(led - 0.7 * n) < 4 * math.sqrt(n * 0.7 * 0.3)


# --- practice


def same(a: Share, b: Share) -> bool:
    return a.seed == b.seed and a.lengths == b.lengths and torch.equal(a.microscope.potential, b.microscope.potential)


def test_a_share_follows_from_seed_step_and_part(pool: list[Specimen]) -> None:
    settings = tiny(practice={"dose": [1e3, 1e5], "defocus": [0.0, 50.0], "positions": [12, 9]})
    first = share(settings, 7, 1, 3, pool)
    again = share(settings, 7, 1, 3, pool)
    assert same(first, again)
    assert (first.defocus, float(first.microscope.dose)) == (again.defocus, float(again.microscope.dose))
    other_seed = dataclasses.replace(settings, train=dataclasses.replace(settings.train, seed=1))
    others = [share(settings, 7, 0, 3, pool), share(settings, 8, 1, 3, pool), share(other_seed, 7, 1, 3, pool)]
    assert len({first.seed, *(o.seed for o in others)}) == 4
    assert len({float(s.microscope.dose) for s in (first, *others)}) == 4
    seeds = {share(settings, step, part, 1, pool).seed for step in range(-4, 6) for part in range(4)}
    assert len(seeds) == 40


def test_stages_do_not_learn_from_the_same_draws(pool: list[Specimen]) -> None:
    """Nor do seeds that differ only in the bits that a generator does not take, which are those above the 32nd."""
    seeds = [share(tiny(), step, part, 1, pool, stage=c).seed for step in range(-4, 60) for part in (0, 63) for c in range(3)]
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)


def test_each_stage_asks_for_its_own_draws(pool: list[Specimen], monkeypatch: pytest.MonkeyPatch) -> None:
    found, settings = [], tiny()
    real = stages.share

    def spy(*arguments: object, **named: object) -> Share:
        found.append(real(*arguments, **named))
        return found[-1]

    monkeypatch.setattr(stages, "share", spy)
    stages.partial(settings, pool, 5, 1, 2)
    for name in ("imitate", "reinforce"):
        stages.policy_loss(name, settings, stages.network(settings), pool)(5, 1)
    assert len({work.seed for work in found}) == 3


def test_images_for_the_autoencoder_are_not_drawn_as_their_specimens_were(pool: list[Specimen], monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator of noise and lengths is not at the beginning of the one that chose specimens and conditions."""
    first, used = [], []
    real = torch.randint

    def spy(*arguments: object, generator: torch.Generator) -> Tensor:
        used.append(generator.initial_seed() % 2**32)
        return real(*arguments, generator=generator)

    monkeypatch.setattr(torch, "randint", spy)
    work = share(tiny(), 5, 0, 2, pool)
    first, used = set(used), []
    monkeypatch.setattr(stages, "share", lambda *arguments, **named: work)
    stages.partial(tiny(), pool, 5, 0, 2)
    assert used and first and not first & set(used)


@pytest.mark.parametrize(("nominal", "asked", "expected"), [(0.0, 0.0, None), (0.0, 50.0, 50.0), (50.0, 0.0, 0.0), (50.0, 50.0, None)])
def test_only_the_nominal_defocus_is_left_to_the_microscope(
    pool: list[Specimen], nominal: float, asked: float, expected: float | None
) -> None:
    found = share(tiny(beam={"defocus": nominal}, practice={"defocus": [asked]}), 0, 0, 1, pool).defocus
    assert (found is None, found) == (expected is None, expected)


@pytest.mark.parametrize("changes", [{}, {"step": "auto"}, {"scaling": "illumination", "step": 0.5}])
def test_the_full_scan_of_training_is_that_of_scores(changes: dict) -> None:
    settings = tiny(reconstruct={**TINY["reconstruct"], **changes}, specimen={"first": 1000})
    (found,), microscope = simulated(settings, [1000]), build.simulated(settings)
    assert torch.equal(found.full_scan, build.reference(settings, microscope))


def test_windows_to_validate_with_are_of_other_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 columns recorded, of which the first 60 are scanned: 15 are kept, and 45 are left."""
    spans: dict[str, list[tuple[float, float]]] = {"train": [], "validation": []}
    settings = tiny(scan={"microscope": "recorded", "columns": [0.0, 0.95]}, practice={"window": [8, 8]}, geometry={"object": "auto"})
    real = windows.drawn
    for part, found in spans.items():

        def spy(*arguments: object, generator: torch.Generator, into: list = found) -> windows.Rectangle:
            where = real(*arguments, generator=generator)
            into.append(where.columns)
            return where

        monkeypatch.setattr(windows, "drawn", spy)
        pools.pool(settings, part, 12)
    lines = torch.arange(60, dtype=torch.float64) / 63 / 0.95  # fractions of what is scanned
    used = {part: {int((lines - end).abs().argmin()) for pair in found for end in pair} for part, found in spans.items()}
    assert max(used["train"]) == 44 and min(used["validation"]) == 45


def test_windows_that_are_too_wide_to_validate_with_are_refused() -> None:
    def settings(columns: int, rows: int = 8) -> Settings:
        return tiny(scan={"microscope": "recorded"}, practice={"window": [rows, columns]})

    for part in ("train", "validation"):
        with pytest.raises(
            ValueError, match=r"practice\.window: expected at least 17 columns .* and 17 to validate on .*, found 48 and 16"
        ):
            recordings.raster(settings(17), part)
        with pytest.raises(ValueError, match=r"practice\.window: expected at most the 64 rows of .*, found 65"):
            recordings.raster(settings(16, 65), part)
    assert [len(recordings.raster(settings(16), part).columns) for part in ("train", "validation")] == [48, 16]
    with pytest.raises(ValueError, match=r"practice\.held_out: expected 0, or enough of the 64 columns of .* for one, found 0\.01"):
        recordings.raster(update(settings(8), {"practice": {"held_out": 0.01}}, "test"), "train")
    # With none held out they are the same columns, all of them.
    whole = update(settings(64), {"practice": {"held_out": 0.0}}, "test")
    assert [len(recordings.raster(whole, part).columns) for part in ("train", "validation")] == [64, 64]


def test_conditions_stay_inside_their_ranges(pool: list[Specimen]) -> None:
    settings = tiny(practice={"dose": [1e3, 1e5], "defocus": [0.0, 50.0], "positions": [12, 9]})
    works = [share(settings, step, 0, 1, pool) for step in range(40)]
    assert all(1e3 * (1 - 1e-6) <= float(w.microscope.dose) <= 1e5 * (1 + 1e-6) for w in works)
    # Either of two with odds 1/2 is missing among 40 with a probability of 2^-39.
    assert {w.defocus for w in works} == {None, 50.0}
    assert {sum(w.lengths) for w in works} == {9, 12}


def test_pairs_are_the_same_specimen_twice(pool: list[Specimen]) -> None:
    work = share(tiny(), 9, 0, 4, pool, pairs=True)
    assert len(work) == 4
    for values in (work.microscope.potential, work.reference, work.inside):
        assert torch.equal(values[:2], values[2:])
    assert not torch.equal(work.microscope.potential[0], work.microscope.potential[1])
    network = Told(4, work.lengths)
    with torch.no_grad():
        network.means[2:] = network.means[:2]
    end = observed(work, Learned(network, 0.05))[-1]
    assert not torch.equal(end.seen.positions[:2], end.seen.positions[2:])  # another rollout, not the same one


@pytest.mark.parametrize("changes", [{}, {"field": [6.0, 8.0]}], ids=["square", "oblong"])
def test_what_is_turned_is_turned_together(changes: dict) -> None:
    """Each of the symmetries takes columns to where the potential has them, and potential, structure and full scan to one another."""
    settings = tiny(geometry={**TINY["geometry"], **changes}, specimen={"thermal": 0.0})
    setup, (specimen,) = build.setup(settings), simulated(settings, [1000])
    symmetries = range(8) if setup.field[0] == setup.field[1] else range(0, 8, 2)
    seen = set()
    for symmetry in symmetries:
        after = turned(specimen, symmetry)
        columns = after.columns[((after.columns > 0) & (after.columns < 1)).all(1)]
        assert len(columns) > 3
        rows, across = (setup.to_pixels(columns) + 0.5).floor().long().T
        phase, inside = after.microscope.potential[0], image(specimen.structure, symmetry)
        reference = image(specimen.full_phase, symmetry)[0]
        assert torch.equal(after.inside, setup.crop(inside.float()) > 0.5) and torch.equal(after.full_scan[0], setup.crop(reference))
        # The nearest pixel is at most half a diagonal off, 0.22 Å, and a column of MoS2 has at least half its height there: the mean over
        # them is far above that of all pixels. An image that is off by one pixel more keeps less.
        here = phase[rows, across].mean()
        assert all(here > phase[rows + y, across + x].mean() for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
        assert bool(inside[rows, across].all())
        assert torch.corrcoef(torch.stack([setup.crop(phase).flatten(), setup.crop(reference).flatten()]))[0, 1] > 0.5
        seen.add(tuple(phase.flatten().tolist()))
    assert len(seen) == len(symmetries)


def test_a_turned_atom_is_where_its_column_says() -> None:
    """An atom on a pixel's centre is there to the last bit after every symmetry."""
    n, place = 16, (3, 6)
    whole = torch.zeros(1, n, n)
    whole[0, place[0], place[1]] = 1
    # Pixel i is (i - n/2) pixels from the centre of the field (`Setup.to_pixels`); here the field is as large as the object.
    columns = torch.tensor([place]) / n
    for symmetry in range(8):
        expected = (places(columns, symmetry)[0] * n).tolist()
        for found in (image(whole, symmetry), image(whole.bool(), symmetry).float()):
            assert found[0].nonzero().tolist() == [[round(v) for v in expected]]


def test_an_oblong_field_is_never_turned_by_a_quarter() -> None:
    settings = tiny(geometry={**TINY["geometry"], "field": [6.0, 8.0]})
    oblong = simulated(settings, [1000])
    shapes = {tuple(share(settings, step, 0, 1, oblong).microscope.potential.shape) for step in range(12)}
    assert shapes == {tuple(oblong[0].microscope.potential.shape)}


def test_each_specimen_has_one_of_many_structures(tmp_path: Path) -> None:
    folder = tmp_path / "structures"
    chosen = tiny(practice={"structures": str(folder)})
    with pytest.raises(ValueError, match=r"practice\.structures: expected a folder of structure files, found none"):
        simulated(chosen, [1000])
    folder.mkdir()
    with pytest.raises(ValueError, match=r"practice\.structures: expected structure files in .*, found none"):
        simulated(chosen, [1000])
    for name, a in (("MoS2", 3.16), ("NbSe2", 3.44), ("TiTe2", 3.76)):
        ase.io.write(folder / f"{name}.xyz", mx2(name, a=a, vacuum=3.0))
    made = simulated(chosen, range(1000, 1012))
    found = ["".join(sorted(set(specimen.atoms.get_chemical_symbols()))) for specimen in made]
    assert set(found) == {"MoS", "NbSe", "TeTi"}
    assert [s.settings.specimen.structure for s in simulated(chosen, [1005])] == [made[5].settings.specimen.structure]


def test_a_training_goes_on_with_the_structures_it_began_with(tmp_path: Path) -> None:
    folder = tmp_path / "structures"
    folder.mkdir()
    ase.io.write(folder / "MoS2.xyz", mx2("MoS2", vacuum=3.0))
    chosen, path = tiny(practice={"structures": str(folder)}), tmp_path / "settings.toml"
    path.write_text(dump(chosen), encoding="utf-8")
    began = TypeAdapter(Beginning).validate_python(checksums.facts(path, chosen))
    checksums.check_sources(tmp_path, began, chosen, ["structures"])
    ase.io.write(folder / "WS2.xyz", mx2("WS2", vacuum=3.0))
    with pytest.raises(ValueError, match="structures: expected structures as it was when the run began, found another file"):
        checksums.check_sources(tmp_path, began, chosen, ["structures"])


def test_specimens_of_training_are_those_of_training(monkeypatch: pytest.MonkeyPatch, pool: list[Specimen]) -> None:
    """Neither those to tune, to validate or to test on are ever learnt from, whatever the seed."""
    asked: list[int] = []

    def spy(settings: Settings, numbers: Sequence[int]) -> list[Specimen]:
        asked.extend(numbers)
        return pool

    monkeypatch.setattr(pools, "simulated", spy)
    ranges = {"train": [0, 3000], "validation": [5000, 5100], "test": [6000, 7000]}
    for seed in range(0, 200, 7):
        pools.pool(tiny(evaluate=ranges, train={"seed": seed}), "train", 48)
    assert min(asked) >= pools.UNTUNED
    assert max(asked) < 3000
    asked.clear()
    pools.pool(tiny(evaluate=ranges), "validation", 12)
    assert asked == list(range(5000, 5012))
    with pytest.raises(ValueError, match=r"evaluate\.validation: expected room for 101 specimens from 5000 on"):
        pools.pool(tiny(evaluate=ranges), "validation", 101)


def test_a_specimen_that_diverged_scores_nothing(pool: list[Specimen], monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the judge: 0 and not the whole mean."""
    settings, real = tiny(), stages.scan
    found = {}
    for bad in ((), (1,), (0, 1, 2, 3)):

        def diverging(*arguments: object, bad: tuple[int, ...] = bad, **named: object) -> list:
            *_, last = real(*arguments, **named)
            potential = last.potential.clone()
            potential[list(bad)] = math.nan
            return [dataclasses.replace(last, potential=potential)]

        monkeypatch.setattr(stages, "scan", diverging)
        found[bad] = stages.examine(settings, pool, stages.network(settings))
    one = {}
    for k in range(4):

        def only(*arguments: object, k: int = k, **named: object) -> list:
            *_, last = real(*arguments, **named)
            potential = torch.full_like(last.potential, math.nan)
            potential[k] = last.potential[k]
            return [dataclasses.replace(last, potential=potential)]

        monkeypatch.setattr(stages, "scan", only)
        one[k] = stages.examine(settings, pool, stages.network(settings))
    for name, value in found[()].items():
        assert found[0, 1, 2, 3][name] == 0
        assert value == pytest.approx(sum(scores[name] for scores in one.values()), abs=1e-6)
        assert found[1,][name] == pytest.approx(value - one[1][name], abs=1e-6)


# --- updates


def quadratic(network: nn.Module) -> object:
    def loss(step: int, part: int) -> tuple[Tensor, dict[str, float]]:
        x = torch.randn(5, 3, generator=stream(step, part), dtype=torch.float64)
        return network(x).square().mean(), {"part": float(part)}

    return loss


class Fabric:
    """Stands in for Lightning Fabric: ranks are threads, which meet to add."""

    def __init__(self, rank: int, world: int, meeting: threading.Barrier, table: list) -> None:
        self.global_rank, self.world_size, self.meeting, self.table = rank, world, meeting, table

    def all_reduce(self, value: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        self.table[self.global_rank] = value
        self.meeting.wait(20)
        total = torch.stack(self.table).sum(0)
        self.meeting.wait(20)
        return total


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 4).double()


@pytest.mark.parametrize("ranks", [2, 4])
def test_several_processes_make_the_same_update(ranks: int) -> None:
    alone = linear()
    expected = list(learn(Learner(alone, adam(alone, 1e-2), parts=4), quadratic(alone), 5, constant(1e-2)))
    meeting, table = threading.Barrier(ranks), [None] * ranks
    networks = [linear() for _ in range(ranks)]
    found: dict[int, list] = {}

    def work(rank: int) -> None:
        learner = Learner(networks[rank], adam(networks[rank], 1e-2), Group(Fabric(rank, ranks, meeting, table)), 4)
        found[rank] = list(learn(learner, quadratic(networks[rank]), 5, constant(1e-2)))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for rank in range(ranks):
        for a, b in zip(networks[rank].parameters(), alone.parameters(), strict=True):
            # Four terms in another order, 2e-16 each, over gradients of at least 1e-4; five steps of 1e-2.
            assert torch.allclose(a, b, atol=1e-12, rtol=0)
        for mine, other in zip(found[rank], expected, strict=True):
            assert mine == pytest.approx(other, rel=1e-12)
    for a, b in zip(networks[0].parameters(), networks[-1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_shares_that_do_not_go_round_are_refused() -> None:
    network = linear()
    group = Group(Fabric(0, 2, threading.Barrier(1), []))
    with pytest.raises(ValueError, match=r"train\.shares: expected a multiple of the 2 processes, got 3"):
        Learner(network, adam(network, 1e-2), group, parts=3)


def test_the_update_is_that_of_adam_on_the_mean_of_the_shares() -> None:
    network, other = linear(), linear()
    learner = Learner(network, adam(network, 1e-2), parts=2, clip=1e9)
    (facts,) = learn(learner, quadratic(network), 1, constant(3e-3))
    optimiser = torch.optim.Adam(other.parameters(), lr=3e-3)
    loss = (quadratic(other)(0, 0)[0] + quadratic(other)(0, 1)[0]) / 2
    loss.backward()
    loss = loss.detach()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in other.parameters()))
    optimiser.step()
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-14)
    assert facts == pytest.approx({"step": 1, "loss": float(loss), "part": 0.5, "gradient": norm}, rel=1e-12)


def test_a_gradient_that_is_not_finite_is_not_followed() -> None:
    network = linear()
    before = [p.detach().clone() for p in network.parameters()]

    def diverged(step: int, part: int) -> tuple[Tensor, dict[str, float]]:
        value, facts = quadratic(network)(step, part)
        return value * (float("nan") if step == 0 else 1.0), facts

    steps = learn(Learner(network, adam(network, 1e-2)), diverged, 2, constant(1e-2))
    assert math.isnan(next(steps)["gradient"])
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))
    assert math.isfinite(next(steps)["gradient"])
    assert all(bool(a.isfinite().all()) and not torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))


def test_rate_of_learning_rises_and_falls() -> None:
    rate = cosine(2.0, 100, warm=10, last=0.05)
    assert rate(0) == pytest.approx(0.2, rel=1e-2)
    assert max(rate(s) for s in range(101)) == pytest.approx(2.0, rel=0.05)
    assert rate(100) == rate(500) == pytest.approx(0.1, rel=1e-6)


# --- it learns


def test_imitation_learns_what_the_teacher_does() -> None:
    """Half-way to the atoms, on specimens that were not learnt from: the error falls by a quarter and more (measured: by 36 %)."""
    changes = {"teacher": "half-way", "imitate_steps": 45, "imitate_batch": 8}
    settings = tiny(
        scan={"subsequences": 2},
        practice={"positions": [48]},
        reconstruct={"iterations": 5},
        network={"widths": [16, 16]},
        train=changes,
    )
    network, training = stages.network(settings), simulated(settings, range(2000, 2048))
    validation = simulated(settings, range(9000, 9008))

    def error() -> float:
        work = share(settings, -1, 0, 8, validation)
        with torch.no_grad():
            policy = stages.library.scanner(network)
            return imitate(work, policy, "half-way", outlook=stages.plan(work, network), pull=0.5, lead=0.0)[1]["error"]

    before = error()
    loss = stages.policy_loss("imitate", settings, network, training)
    list(learn(Learner(network, adam(network, 1e-2)), loss, 45, cosine(1e-2, 90, warm=5)))
    assert error() < 0.75 * before


def test_reinforcement_climbs_the_reward(pool: list[Specimen], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each agent is paid for being near a place of its own, and finds it, though nobody says where it is."""
    settings = tiny(train={"reinforce_batch": 8, "shares": 1, "sigma": 0.1, "baseline": "pair"})
    lengths = (4, 4, 4)
    goal = torch.rand(12, 2, generator=torch.Generator().manual_seed(5)) * 0.6 + 0.2

    def near(work: Share, last: object, *rest: object) -> Tensor:
        return -(last.seen.positions - goal).square().sum(-1)

    monkeypatch.setattr(module, "rewards", near)
    network = Told(1, lengths)
    before = float((network.means.detach() - goal[4:]).square().sum(-1).mean())

    def loss(step: int, part: int) -> tuple[Tensor, Mapping[str, float]]:
        work = share(settings, step, part, 8, pool, pairs=True)
        return reinforce(work, Learned(network, 0.1), "shared", baseline="pair", gamma=0.0, width=1.0, outlook=goal)

    list(learn(Learner(network, adam(network, 0.02), parts=1), loss, 60, constant(0.02)))
    after = float((network.means.detach() - goal[4:]).square().sum(-1).mean())
    assert after < 0.2 * before
