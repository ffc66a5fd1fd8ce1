"""Examples that are made once: what is in them, that mirroring is what it says, and that a field policy learns from them."""

from collections.abc import Mapping

import pytest
import torch

from adaptycho.learn import field_examples, stages
from adaptycho.learn.learner import Learner, adam, constant, learn
from adaptycho.learn.pool import simulated
from adaptycho.learn.share import Share, share
from adaptycho.samples.sample import Specimen
from adaptycho.scan.episode import run
from adaptycho.scan.networks.field import Field, Plan, look, outlook
from adaptycho.settings import Settings, preset, update
from adaptycho.types import Action

TINY = {
    "geometry": {"field": [12.0, 9.0], "object": "auto"},
    "scan": {"subsequences": 3},
    "practice": {"positions": [30], "families": ["island"], "filling": [0.3, 0.5], "dose": [2e4, 2e4], "reference": "truth"},
    "reconstruct": {"iterations": 3},
    "network": {"kind": "field", "widths": [8, 8, 8], "survey": "raster", "lattice": "raster"},
    "train": {"imitate_batch": 6, "imitate_bank": 8, "shares": 1, "teacher": "structure"},
}


def tiny(**sections: Mapping[str, object]) -> Settings:
    return update(update(preset("light"), TINY, "test"), sections, "test")


@pytest.fixture(scope="module")
def pool() -> list[Specimen]:
    return simulated(tiny(), [*range(1000, 1024)])


@pytest.fixture
def work(pool: list[Specimen]) -> Share:
    return share(tiny(), 3, 0, 6, pool, stage=1)


def test_an_example_is_what_the_policy_reads_in_such_a_scan(work: Share) -> None:
    network = stages.network(tiny())
    assert isinstance(network, Field)
    made = field_examples.make(work, network)
    assert len(made.maps) == len(made.wanted) == 12  # two looks at each of six
    led, seen = field_examples.Following(network, work.inside, None), []

    def watch(observation: object, memory: object, *, generator: torch.Generator) -> tuple[Action, object]:
        seen.append(observation)
        return led(observation, memory, generator=generator)

    list(run(work.microscope, watch, work.reconstructor, work.lengths, seed=work.seed))
    plan = outlook(seen[1].positions[0], 30, (12.0, 9.0), "raster")
    assert torch.equal(made.maps[:6], look(seen[1], plan[10:20]))
    assert torch.equal(made.maps[6:], look(seen[2], plan[20:30]))


def test_examples_are_taken_at_the_defocus_of_their_share(pool: list[Specimen]) -> None:
    settings = tiny(practice={**TINY["practice"], "defocus": [120.0]})
    network, work = stages.network(settings), share(settings, 3, 0, 6, pool, stage=1)
    assert isinstance(network, Field) and work.defocus == 120.0
    led = field_examples.Following(network, work.inside, work.defocus)
    states = list(run(work.microscope, led, work.reconstructor, work.lengths, seed=work.seed))
    assert all(s.action.defocus == 120.0 for s in states)
    assert torch.equal(torch.cat(led.maps), field_examples.make(work, network).maps)


def test_what_is_wanted_lies_where_the_network_would_say_so(work: Share) -> None:
    """A network that says what is wanted at each pixel of its map gives odds that fit the structure in the field."""
    made = field_examples.make(work, stages.network(tiny()))
    small = torch.nn.functional.interpolate(made.wanted[:6, None], work.inside.shape[1:], mode="area")[:, 0]
    assert float(((small > 0.5) == (work.inside > 0.5)).float().mean()) > 0.97
    assert torch.equal(made.wanted[:6], made.wanted[6:])


def test_scans_that_lead_follow_truth_and_chance(pool: list[Specimen]) -> None:
    """From none of the one to none of the other, and a quarter stays even."""
    inside = torch.zeros(30, 40)
    inside[10:20, 10:30] = 1
    generator = torch.Generator().manual_seed(0)
    found = [field_examples.followed(inside, generator=generator) for _ in range(200)]
    flat = sum(not bool(odds.any()) for odds in found)
    assert 30 <= flat <= 70  # 50 +- 3 standard errors of 6.1
    right = torch.tensor([float(((odds > 0) == (inside > 0.5)).float().mean()) for odds in found if bool(odds.any())])
    assert right.min() < 0.6 and right.max() > 0.98


@pytest.mark.parametrize("symmetry", [1, 2, 3])
def test_a_mirrored_example_is_the_mirrored_answer(work: Share, symmetry: int) -> None:
    """A network whose kernels are mirror images of themselves cannot tell."""
    network = stages.network(tiny())
    assert isinstance(network, Field)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                w = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(1)) * 0.2
                layer.weight.copy_((w + w.flip(-1) + w.flip(-2) + w.flip((-1, -2))) / 4)
    made = field_examples.make(work, network)
    h, w = made.wanted.shape[1:]
    # Maps as large as the field, so that there is no padding on one side only.
    whole = field_examples.Examples(made.maps[..., : h // 16 * 16, : w // 16 * 16], made.wanted[..., : h // 16 * 16, : w // 16 * 16])
    plain, _ = field_examples.loss(network, whole)
    mirrored, _ = field_examples.loss(network, whole, symmetry=symmetry)
    assert torch.allclose(plain, mirrored, rtol=1e-4)


def test_padding_stays_where_it_is(work: Share) -> None:
    """Only what lies in the field is mirrored: an example of a mirrored field has its padding in the same place."""
    made = field_examples.make(work, stages.network(tiny()))
    h, w = made.wanted.shape[1:]
    assert made.maps.shape[-2:] != (h, w)
    seen: list[torch.Tensor] = []

    class Spy(Field):
        def network(self, maps: torch.Tensor) -> torch.Tensor:
            seen.append(maps)
            return super().network(maps)

    field_examples.loss(Spy((8, 8)), made, symmetry=3)
    assert torch.equal(seen[0][..., :h, :w], made.maps[..., :h, :w].flip((-1, -2)))
    assert torch.equal(seen[0][..., h:, :], made.maps[..., h:, :]) and torch.equal(seen[0][..., w:], made.maps[..., w:])


def test_what_is_learnt_holds_in_scans_of_its_own(pool: list[Specimen]) -> None:
    """Places on the wrong side of the density in scans that the policy leads itself, of specimens it has not seen, become fewer."""
    settings = tiny()
    network, validation = stages.network(settings), simulated(settings, range(9000, 9012))
    assert isinstance(network, Field)

    def wrong() -> float:
        test = share(settings, -1, 0, 12, validation)
        found = []

        def follow(seen: object, memory: Plan | None, *, generator: torch.Generator) -> tuple[Action, Plan | None]:
            if not seen.positions.shape[1]:
                return Action(outlook(torch.zeros(0, 2), 30, (12.0, 9.0), "raster")[:10].expand(12, -1, -1)), None
            points, plan = network(seen, memory)
            found.append(plan.odds)
            return Action(points.clamp(0, 1)), plan

        with torch.no_grad():
            list(run(test.microscope, follow, test.reconstructor, test.lengths, seed=test.seed))
        wanted = torch.nn.functional.interpolate(test.inside[:, None], found[-1].shape[1:], mode="area")[:, 0]
        return float(((found[-1] > 0) != (wanted > 0.5)).float().mean())

    before = wrong()
    loss = stages.policy_loss("imitate", settings, network, pool)
    list(learn(Learner(network, adam(network, 3e-3), parts=1), loss, 60, constant(3e-3)))
    assert wrong() < 0.6 * before
