"""Everything runs where its input is. On machines without a GPU a second device is pretended (`fake_device`); with one, `make test-gpu`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fake_device
from adaptycho.app import cli
from adaptycho.instruments.recorded import Recorded
from adaptycho.instruments.simulated import Simulated
from adaptycho.learn import pool, sequence_examples, share, stages, trainings
from adaptycho.learn.imitate import imitate
from adaptycho.learn.reinforce import reinforce
from adaptycho.physics import noise
from adaptycho.reconstruct import LOSSES
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.runs import execution, scans
from adaptycho.scan import episode, patterns
from adaptycho.scan.networks import library
from adaptycho.scan.policies.learned import Learned
from adaptycho.settings import build, override, preset
from adaptycho.types import Action

DEVICES = [
    pytest.param(fake_device.DEVICE, id="fake"),
    pytest.param(torch.device("cuda"), id="cuda", marks=pytest.mark.gpu),
]
LENGTHS = (16, 9)
CHOSEN = override(
    preset("light"), {"specimen.count": "2", "geometry.field": "[8.0, 8.0]", "geometry.object": "auto", "scan.positions": "25"}
)


@pytest.fixture
def microscope() -> Simulated:
    return build.simulated(CHOSEN)


def where(state: episode.State) -> set[str]:
    """Kinds of device that a scan's tensors are on; numbers of patterns are Python's to ask for, and stay on the CPU."""
    tensors = [*vars(state.seen).values(), *vars(state.latest).values(), state.potential]
    tensors += [state.reconstruction.potential, state.reconstruction.velocity, *(state.reconstruction.held or ())]
    return {v.device.type for v in tensors if v is not state.seen.lengths and v is not state.latest.lengths}


def apart(device: torch.device) -> float:
    """How far a scan may be from the CPU's: rounding of single precision in another order; on a real device counts may flip too."""
    return 1e-4 if device.type == fake_device.NAME else 0.05


@pytest.mark.parametrize("device", DEVICES)
def test_counts_are_the_same(device: torch.device) -> None:
    """But for a pixel in ten thousand, whose rate may differ in its last bit."""
    expected = torch.rand(50, 32, 32, generator=torch.Generator().manual_seed(1)) * 40
    here, there = (noise.counted(e, generator=torch.Generator().manual_seed(2)) for e in (expected, expected.to(device)))
    assert there.device.type == device.type
    assert int((here != there.cpu()).sum()) <= expected.numel() // 10_000


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("policy", ["raster", "random", "heuristic", "greedy", "lattice", "reduction", "process", "adaptive"])
def test_the_whole_loop(device: torch.device, policy: str, microscope: Simulated) -> None:
    descent = Reconstructor.best(microscope.setup, iterations=3)
    ways = []
    scanner = build.scanner(CHOSEN, policy)
    for one in (microscope, microscope.to(device)):
        mine = scanner.to(one.potential.device) if isinstance(scanner, Learned) else scanner
        ways.append(list(episode.run(one, mine, descent, LENGTHS, seed=3)))
    for here, there in zip(*ways, strict=True):
        assert where(there) == {device.type}
        torch.testing.assert_close(there.seen.positions.cpu(), here.seen.positions, rtol=0, atol=1e-3)
        torch.testing.assert_close(there.potential.cpu(), here.potential, rtol=0, atol=apart(device) * float(here.potential.abs().max()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", LOSSES)
def test_reconstruction_of_many_sets_at_once(device: torch.device, loss: str, microscope: Simulated) -> None:
    action = Action(torch.rand(2, 30, 2, generator=torch.Generator().manual_seed(5)))
    data = microscope.acquire(action, generator=torch.Generator().manual_seed(6))
    elsewhere = data.to(device)
    descent = Reconstructor.best(microscope.setup, iterations=5, loss=loss)
    here, there = descent(data), descent(elsewhere)
    assert there.potential.device.type == device.type
    scale = float(here.potential.abs().max())
    # Single precision, sums of 30 x 1024 terms in another order, five steps: 1e-7 x sqrt(30720) x 5.
    torch.testing.assert_close(there.potential.cpu(), here.potential, rtol=0, atol=1e-4 * scale)
    torch.testing.assert_close(there.loss.cpu(), here.loss, rtol=1e-5, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_a_replay(device: torch.device) -> None:
    whole = build.recording(preset("light"))
    microscope = Recorded(whole.setup, whole.measurement).to(device)
    scanner, descent = build.scanner(preset("light"), "heuristic"), Reconstructor.best(whole.setup, iterations=2)
    for state in episode.run(microscope, scanner, descent, [9, 9], seed=1):
        assert where(state) == {device.type}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["field", "recurrent"])
def test_training(device: torch.device, kind: str) -> None:
    """Losses and gradients of imitation and of reinforcement are those of the CPU."""
    if kind == "recurrent" and device.type == fake_device.NAME:
        pytest.skip("torch takes a kernel for its recurrent cell that only GPUs have")
    chosen = override(
        preset("light"),
        {
            "geometry.field": "[6.0, 6.0]",
            "geometry.object": "auto",
            "practice.positions": "[12]",
            "scan.subsequences": "3",
            "reconstruct.iterations": "2",
            "network.kind": kind,
            "network.widths": "[8, 8]",
            "network.image": "64",
            "network.hidden": "16",
        },
    )
    here = share.share(chosen, 0, 0, 2, pool.simulated(chosen, range(2)))
    outlook = patterns.halton(12).float()
    found = []
    for work in (here, here.to(device)):
        network = stages.network(chosen).to(work.microscope.device)
        policy = library.scanner(network, sigma=0.05, defocus=work.defocus)
        teacher = "structure" if kind == "field" else "half-way"
        first, facts = imitate(work, policy, teacher, outlook=outlook.to(work.microscope.device), pull=0.5, lead=0.5)
        second, more = reinforce(work, policy, "window", baseline="batch", gamma=0.0, width=1.2, outlook=outlook)
        (first + second).backward()
        gradient = torch.cat([p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None])
        assert work.microscope.device.type == work.reference.device.type == work.inside.device.type
        found.append((torch.stack([first, second]).detach().cpu(), gradient, torch.tensor([*facts.values(), *more.values()])))
    # Single precision through two reconstructions and a network; found 2e-5 of the largest.
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-3 * float(one.abs().max()))
    assert float(found[0][1].abs().max()) > 0


@pytest.mark.parametrize("device", DEVICES)
def test_examples_for_a_recurrent_policy(device: torch.device) -> None:
    chosen = override(preset("light"), {"geometry.field": "[6.0, 6.0]", "geometry.object": "auto", "practice.positions": "[12]"})
    chosen = override(chosen, {"scan.subsequences": "3", "reconstruct.iterations": "2", "network.kind": "recurrent", "network.image": "64"})
    here = share.share(chosen, 0, 0, 2, pool.simulated(chosen, range(2)))
    found = []
    for work in (here, here.to(device)):
        network = stages.network(chosen).to(work.microscope.device)
        found.append(sequence_examples.make(work, network, outlook=patterns.halton(12).float().to(work.microscope.device), pull=0.5))
    for one, other in zip(found[0].targets + found[0].positions, found[1].targets + found[1].positions, strict=True):
        assert other.device.type == device.type
        torch.testing.assert_close(other.cpu(), one, rtol=0, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_a_run(device: torch.device, tmp_path: Path) -> None:
    """Begun on a device, gone on with on the CPU: the folder does not know where it was computed."""
    chosen = override(
        CHOSEN, {"scan.subsequences": "3", "scan.positions": "12", "scan.policy": "adaptive", "reconstruct.reference_side": "12"}
    )
    target = scans.Run.create(tmp_path / "run", chosen)
    begun = execution.execute(target, device)
    assert where(next(begun)) == {device.type}
    begun.close()
    last = [*execution.execute(scans.Run.open(tmp_path / "run"))][-1]
    assert where(last) == {"cpu"} and last.number == 3
    whole = [*execution.execute(scans.Run.create(tmp_path / "whole", chosen))][-1]
    torch.testing.assert_close(last.potential, whole.potential, rtol=0, atol=apart(device) * float(whole.potential.abs().max()))


def test_a_device_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("warp", "cuda:99", "meta", "hpu", ""):
        assert cli.main(["scan", str(tmp_path / "run"), "--device", name]) == 2
        out, err = capsys.readouterr()
        assert (
            out == ""
            and err.startswith("adaptycho: --device: expected a device that torch can use here, such as cpu, found")
            and err.count("\n") == 1
        )
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", DEVICES)
def test_a_whole_training(device: torch.device, tmp_path: Path) -> None:
    """Imitation from a bank, reinforcement, validation, checkpoints and pictures; taken up on the CPU where the device left it."""
    chosen = override(
        preset("light"),
        {
            "geometry.field": "[6.0, 6.0]",
            "geometry.object": "auto",
            "practice.positions": "[12]",
            "practice.pool": "2",
            "practice.validation": "2",
            "scan.subsequences": "2",
            "reconstruct.iterations": "2",
            "reconstruct.reference_side": "12",
            "network.widths": "[8, 8]",
            "train.every": "2",
            "train.teacher": "structure",
            "train.imitate_bank": "2",
            "train.imitate_steps": "2",
            "train.imitate_batch": "4",
            "train.reinforce_steps": "2",
            "train.reinforce_batch": "4",
        },
    )

    def once(items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
        for item in items:
            yield item
            if what == "reinforce":
                raise KeyboardInterrupt

    found = {}
    for name, where_ in (("here", "cpu"), ("there", str(device))):
        trainings.create(tmp_path / name, chosen, ("imitate", "reinforce"), None)
        with pytest.raises(KeyboardInterrupt):
            trainings.execute(tmp_path / name, once, where_)
        found[name] = trainings.execute(tmp_path / name, lambda items, total, what: items)["validation"]
        assert list((tmp_path / name / "pictures").glob("imitate-*.png"))
    # Two steps of each: single precision, and whether a count flips.
    assert found["there"] == pytest.approx(found["here"], abs=0.02)
