"""The paper's recurrent policy: shapes, where it starts, what it remembers, and that it can be taught."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.scan import patterns
from adaptycho.scan.episode import run
from adaptycho.scan.networks.autoencoder import Encoder
from adaptycho.scan.networks.recurrent import Recollection, Recurrent
from adaptycho.scan.networks.weights import load, restore, save
from adaptycho.scan.policies.learned import Learned
from adaptycho.settings import build, preset, update
from adaptycho.types import Observation

RAGGED = [5, 7, 3, 4]


def tiny(lengths: list[int] = RAGGED, start: str = "halton", seed: int = 0) -> Recurrent:
    torch.manual_seed(seed)
    return Recurrent(lengths, Encoder((4, 8, 8), 32), hidden=16, location=6, structure=5, start=start)


def observation(lengths: list[int], number: int, batch: int = 2, seed: int = 0) -> Observation:
    """What a scan shows before sub-sequence `number`; the positions begin alike at every one."""
    many = torch.rand(batch, sum(lengths), 2, generator=torch.Generator().manual_seed(seed))
    before = sum(lengths[:number])
    potential = torch.randn(batch, 20, 18, generator=torch.Generator().manual_seed(100 + seed + number))
    return Observation(potential, many[:, :before], torch.ones(batch, before), (8.0, 6.0), 1.0, 1.5, lengths[number], sum(lengths))


def unroll(policy: Recurrent, lengths: list[int], batch: int = 2, seed: int = 0) -> list[Tensor]:
    memory, means = None, []
    for number in range(1, len(lengths)):
        mean, memory = policy(observation(lengths, number, batch, seed), memory)
        means.append(mean)
    return means


@pytest.mark.parametrize("lengths", [RAGGED, [1, 1], [50] * 5, [2, 30], [30, 2, 1, 40]])
@pytest.mark.parametrize("start", ["halton", "scratch"])
def test_any_number_and_length_of_subsequences(lengths: list[int], start: str) -> None:
    policy = tiny(lengths, start)
    memory = None
    for number in range(1, len(lengths)):
        mean, memory = policy(observation(lengths, number), memory)
        assert mean.shape == (2, lengths[number], 2)
        assert memory.hidden.shape == (2, 2, 16)
        assert memory.number == number + 1


@pytest.mark.parametrize("lengths", [RAGGED, [50] * 5])
def test_it_begins_at_halton_exactly(lengths: list[int]) -> None:
    """The end of the supervised initialisation (C1), whatever is seen."""
    expected = patterns.halton(sum(lengths)).float().split(lengths)[1:]
    for mean, points in zip(unroll(tiny(lengths), lengths), expected, strict=True):
        assert torch.equal(mean, points.expand(2, -1, -1))


def test_from_scratch_it_begins_in_the_middle() -> None:
    """As in Fig. 7a: a layer of 16 inputs between -1 and 1, weights and bias below 1/4, cannot reach further than 17/4; it stays nearer."""
    means = torch.cat(unroll(tiny(start="scratch"), RAGGED), 1)
    assert not torch.equal(means[0], means[1])
    assert (means - 0.5).abs().max() < 0.5
    assert (means - 0.5).std() > 0.01


def test_what_is_trained_and_what_is_saved(tmp_path: Path) -> None:
    encoder = Encoder((4, 8, 8), 32)
    policy = Recurrent(RAGGED, encoder, hidden=16, location=6, structure=5)
    trainable = {name.partition(".")[0] for name, p in policy.named_parameters() if p.requires_grad}
    assert trainable == {"location", "structure", "join", "gru", "heads"}
    assert all(p.requires_grad for p in encoder.parameters())
    sum(m.sum() for m in unroll(policy, RAGGED)).backward()
    assert all(p.grad is None for p in policy.encoder.parameters())

    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
    save(tmp_path / "a", policy, {"kind": "recurrent"})
    other = tiny(seed=1)
    restore(other, load(tmp_path / "a"))
    for a, b in zip(unroll(policy, RAGGED), unroll(other, RAGGED), strict=True):
        assert torch.equal(a, b)


def test_a_policy_from_scratch_can_take_the_weights_of_one_that_was_not() -> None:
    """The points it starts from are saved with the weights."""
    scratch = tiny(start="scratch")
    scratch.load_state_dict(tiny().state_dict())
    assert torch.equal(unroll(scratch, RAGGED)[0], unroll(tiny(), RAGGED)[0])


def test_the_latent_is_standardised(tmp_path: Path) -> None:
    """Each of its numbers has zero mean and unit variance over what it was standardised with, and they are kept with the weights."""
    policy, other = tiny(start="scratch"), tiny(start="scratch")
    images = torch.randn(40, 20, 18, generator=torch.Generator().manual_seed(3))
    latents = policy.latent(images)
    policy.standardise(latents)
    z = (latents - policy.centre) / policy.spread
    assert torch.allclose(z.mean(0), torch.zeros_like(z[0]), atol=1e-4) and torch.allclose(z.std(0), torch.ones_like(z[0]), rtol=1e-4)
    assert not torch.equal(unroll(policy, RAGGED)[0], unroll(other, RAGGED)[0])
    save(tmp_path / "a", policy, {"kind": "recurrent"})
    restore(other, load(tmp_path / "a"))
    assert torch.equal(unroll(policy, RAGGED)[0], unroll(other, RAGGED)[0])


def test_a_number_that_never_varies_is_not_blown_up() -> None:
    policy = tiny(start="scratch")
    latents = policy.latent(torch.randn(40, 20, 18, generator=torch.Generator().manual_seed(3)))
    latents[:, 0] = latents[0, 0]
    policy.standardise(latents)
    assert float(policy.spread.min()) == pytest.approx(0.01 * float(latents.std()))


def test_the_encoder_can_be_trained_too() -> None:
    policy = tiny(start="scratch")
    policy.encoder.requires_grad_()
    unroll(policy, RAGGED)[0].sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in policy.encoder.parameters())


def test_gradients_flow_back_through_time() -> None:
    """A loss on the last sub-sequence reaches what was seen before the first proposal, and only through the hidden state."""
    policy, taken, memory = tiny(start="scratch"), [], None
    for number in range(1, len(RAGGED)):
        seen = observation(RAGGED, number)
        seen.positions.requires_grad_()
        taken.append(seen.positions)
        mean, memory = policy(seen, memory)
    mean.square().sum().backward()
    for number, positions in enumerate(taken, 1):
        # Only the latest sub-sequence is looked at; those before it are in the memory.
        assert positions.grad is not None
        latest = RAGGED[number - 1]
        assert (positions.grad[:, -latest:] != 0).all()
        assert (positions.grad[:, :-latest] == 0).all()
    assert all(p.grad is None for head in policy.heads[:-1] for p in head.parameters())
    weight = policy.location[0].weight.grad
    assert weight is not None
    # Inputs 12 and 13 are the seventh position, which only the middle sub-sequence has.
    assert (weight[:, 12:].abs().sum(0) > 0).all()


def test_the_past_is_in_the_memory_and_nowhere_else() -> None:
    policy = tiny(start="scratch")
    seen = observation(RAGGED, 2)
    _, memory = policy(observation(RAGGED, 1), None)
    _, other = policy(observation(RAGGED, 1, seed=7), None)
    a, b = policy(seen, memory)[0], policy(seen, other)[0]
    assert not torch.equal(a, b)
    assert torch.equal(a, policy(seen, memory)[0])
    forgot, _ = policy(seen, Recollection(torch.zeros(2, 2, 16), 2))
    assert not torch.equal(a, forgot)


def test_batch_is_one_by_one() -> None:
    policy = tiny(start="scratch").eval()
    many = unroll(policy, RAGGED)
    for b in range(2):
        memory = None
        for number, mean in enumerate(many, 1):
            seen = observation(RAGGED, number)
            only = Observation(seen.potential[b, None], seen.positions[b, None], seen.dose[b, None], *list(vars(seen).values())[3:])
            alone, memory = policy(only, memory)
            # Sums of at most 128 products of order 1, float32, in another order.
            assert torch.allclose(alone[0], mean[b], atol=1e-5)


def test_the_structure_is_looked_at_and_its_strength_is_not() -> None:
    policy, seen = tiny(start="scratch"), observation(RAGGED, 1)
    mean, _ = policy(seen, None)

    def on(potential: Tensor) -> Tensor:
        return policy(Observation(potential, *list(vars(seen).values())[1:]), None)[0]

    assert not torch.allclose(on(seen.potential.flip(1)), mean, atol=1e-4)
    # Standardised images differ by rounding only.
    assert torch.allclose(on(3 * seen.potential + 1), mean, atol=1e-5)
    assert on(torch.full_like(seen.potential, torch.nan)).isfinite().all()


def test_initialisation_can_be_learnt() -> None:
    """C1 by gradient descent, from scratch: 200 steps of Adam. Measured: from 0.094 to 0.000002 per coordinate."""
    policy = tiny(start="scratch")
    wanted = patterns.halton(sum(RAGGED)).float()[RAGGED[0] :]
    optimiser = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], 1e-2)
    losses = []
    for step in range(200):
        value = (torch.cat(unroll(policy, RAGGED, batch=4, seed=step), 1) - wanted).square().mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(float(value.detach()))
    print(f"C1: {losses[0]:.4f} to {losses[-1]:.6f}")
    assert losses[-1] < losses[0] / 10


def test_a_head_start_can_be_left() -> None:
    """Zero output weights do not keep the rest from learning: two kinds of specimen are told apart."""
    policy = tiny()
    kinds = torch.tensor([0.2, -0.2])[:, None, None]
    seen = observation(RAGGED, 1)
    optimiser = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], 1e-2)
    for _ in range(100):
        mean, _ = policy(seen, None)
        value = (mean - policy.initial[:7] - kinds).square().mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    # 0.2^2 is what the head start has.
    assert float(value.detach()) < 0.04 / 10


def test_it_scans() -> None:
    """Through the one loop, with exploration: gradients of the log-probabilities reach every trainable layer."""
    changes = {"geometry": {"field": [8.0, 6.0], "object": "auto"}, "specimen": {"count": 2}}
    scope = build.simulated(update(preset("light"), changes, "test"))
    policy = tiny()
    states = list(run(scope, Learned(policy, sigma=0.0125), Reconstructor(scope.setup, 2), RAGGED, seed=1))
    assert [s.latest.positions.shape[1] for s in states] == RAGGED
    halton = patterns.halton(sum(RAGGED)).float().split(RAGGED)
    for state, points in zip(states[1:], halton[1:], strict=True):
        assert state.action.mean is not None
        assert torch.equal(state.action.mean, points.expand(2, -1, -1))
        assert isinstance(state.memory, Recollection)
    sum(s.action.log_prob.sum() for s in states[1:]).backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in policy.heads.parameters())
    again = list(run(scope, Learned(policy, sigma=0.0125), Reconstructor(scope.setup, 2), RAGGED, seed=1))
    assert torch.equal(again[-1].seen.positions, states[-1].seen.positions)


def test_precision_of_what_is_seen_does_not_matter() -> None:
    policy, seen = tiny(start="scratch"), observation(RAGGED, 1)
    double = Observation(seen.potential.double(), seen.positions.double(), *list(vars(seen).values())[2:])
    assert torch.allclose(policy(double, None)[0], policy(seen, None)[0], atol=1e-6)


def test_another_scan_is_refused() -> None:
    policy = tiny()
    _, memory = policy(observation(RAGGED, 1), None)
    with pytest.raises(ValueError, match=r"scan: expected 7 positions to propose at sub-sequence 1 of the \[5, 7, 3, 4\] .* got 8"):
        policy(observation([5, 8, 3, 4], 1), None)
    with pytest.raises(ValueError, match=r"scan: expected 5 positions seen at sub-sequence 1 of .* got 6"):
        policy(observation([6, 7, 3, 4], 1), None)
    with pytest.raises(ValueError, match=r"scan: expected 19 positions in all at sub-sequence 1 of .* got 24"):
        policy(observation([*RAGGED, 5], 1), None)
    with pytest.raises(ValueError, match=r"scan: expected 12 positions seen at sub-sequence 2 of .* got 5"):
        policy(observation(RAGGED, 1), memory)
    with pytest.raises(ValueError, match="scan: expected no more than the 4 sub-sequences the network was made for, got one more"):
        policy(observation([*RAGGED, 5], 4), Recollection(memory.hidden, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": [5]}, r"lengths: expected a survey and at least one more sub-sequence, none of them empty, got \[5\]"),
        ({"lengths": [5, 0]}, "lengths: .* got"),
        ({"lengths": []}, "lengths: .* got"),
        ({"hidden": 0}, "hidden: expected a width of at least 1, got 0"),
        ({"location": -1}, "location: expected a width of at least 1, got -1"),
        ({"structure": 0}, "structure: expected"),
    ],
)
def test_what_cannot_be_built(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recurrent(**{"lengths": RAGGED, "encoder": Encoder((4,), 8), "hidden": 4, "location": 4, "structure": 4, **changes})


def test_two_policies_do_not_share_an_encoder() -> None:
    encoder = Encoder((4, 8, 8), 32)
    before = copy.deepcopy(encoder.state_dict())
    policy = Recurrent(RAGGED, encoder, hidden=4, location=4, structure=4)
    with torch.no_grad():
        nn.utils.vector_to_parameters(torch.zeros(sum(p.numel() for p in policy.encoder.parameters())), policy.encoder.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
