"""The benchmarks measure what they say. Times are not judged here, for a shared machine has no fixed speed; growth and memory are."""

import json

import numpy as np
import pytest
import torch

from adaptycho.app import bench
from adaptycho.physics import grid
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct import descent, kernels, mkl
from adaptycho.settings import build, preset


@pytest.fixture(scope="module")
def setup() -> Setup:
    return build.setup(preset("light"))


def test_the_floor_is_two_transforms_per_window_and_iteration(setup, monkeypatch):
    counted = {"forth": 0, "back": 0}

    def count(name, transform):
        def counting(waves):
            counted[name] += len(waves)
            assert tuple(waves.shape[1:]) == setup.window.shape
            assert waves.dtype == torch.complex64
            return transform(waves)

        return counting

    monkeypatch.setattr(mkl, "transform", lambda *_: None)  # where MKL is called from compiled code nobody counts
    for module in (bench, kernels):
        monkeypatch.setattr(module, "fft2", count("forth", grid.fft2))
        monkeypatch.setattr(module, "ifft2", count("back", grid.ifft2))
    floors = []
    for size in bench.FLOOR_CHUNKS:
        counted.update(forth=0, back=0)
        bench._floor(setup, 2, size)
        floors.append(dict(counted))
    assert all(one == floors[0] for one in floors)
    floor = floors[0]
    counted.update(forth=0, back=0)
    descent.Reconstructor(setup, iterations=bench.ITERATIONS)(bench._data(setup, 2))
    # Reconstruction does exactly the transforms that it is measured against.
    assert counted == floor == {"forth": 2 * 250 * 5, "back": 2 * 250 * 5}


def test_what_is_reconstructed_is_of_the_right_size(setup):
    data = bench._data(setup, 3, count=70)
    assert data.patterns.shape == (3, 70, 32, 32)
    assert data.lengths.tolist() == [70, 70, 70]
    # Real potential, no electron lost: the mean of 70 x 3 Poisson numbers of 2.14e5 within 4 standard errors.
    assert float(data.patterns.sum((2, 3)).mean()) == pytest.approx(bench.DOSE, abs=4 * (bench.DOSE / 50) ** 0.5)


def test_time_does_not_grow_like_the_square_of_the_positions(setup):
    few, many = bench._growth(setup, 500), bench._growth(setup, 4000)
    # Eight times the work; three times as much again for what the machine does besides. The square would be 64.
    assert many < 24 * few


def test_the_wait_has_its_parts():
    parts = bench.wait(preset("light"), build.scanner(preset("light"), "heuristic"), 3)
    assert set(parts) == {"join", "reconstruct", "decide"}
    assert all(len(v) == 3 and (v > 0).all() for v in parts.values())
    assert parts["join"].min() < parts["reconstruct"].min()


def test_peak_memory_sees_an_allocation_that_is_over():
    before = bench.peak_memory()
    block = np.ones(int(before) << 17)  # as much as was ever in use, every page touched, on top of what is
    during = bench.peak_memory()
    del block
    assert during > 1.1 * before
    assert bench.peak_memory() > during - 2  # counters are exact to a few pages for each thread


def test_the_machine_is_named_with_its_instructions(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    found = bench.machine()["machine"]
    assert found["MKL_CBWR"] == "COMPATIBLE"
    assert found["torch_capability"] == torch.backends.cpu.get_cpu_capability()
    assert found["fft"].startswith("MKL 20") == torch.backends.mkl.is_available()
    target = bench.cpu_target.target_context.codegen()
    assert found["compiled_for"].startswith(target.magic_tuple()[1])
    for features, widest in (("+avx,+avx2,-avx512f", "avx2"), ("+avx,+avx2,+avx512f", "avx512f"), ("", "baseline")):
        monkeypatch.setattr(type(target), "magic_tuple", lambda self, found=features: ("", "some", found))
        assert bench.machine()["machine"]["compiled_for"] == f"some ({widest})"


def test_figures_are_plain_json(setup, monkeypatch):
    monkeypatch.setattr(bench, "POSITIONS", 10)
    monkeypatch.setattr(bench, "SETS", 2)
    monkeypatch.setattr(bench, "SIZES", (20, 40))
    found = bench.reconstruct(repeats=3)
    assert json.loads(json.dumps(found)) == found
    for name in ("", "_light", "_batch"):
        low, high = found[f"ratio_quartiles{name}"]
        assert 0 < low <= found[f"ratio_to_fft_floor{name}"] <= high
    simulated = bench.forward(repeats=3)
    assert json.loads(json.dumps(simulated)) == simulated
    assert simulated["light_patterns_per_second"] > 0
    # Two threads with three chunks of 1 MiB, a table of at most 17 x 17 probes of 32 KiB, and 24 potentials: far below one wave for each
    # of the 6000 patterns (188 MiB), let alone the 1 GiB aimed at.
    assert 1 < found["peak_mib_batch"] < 150
    assert found["machine"]["torch"] == torch.__version__
    assert torch.get_num_threads() == 1  # as conftest has set it
