"""Times of the hot paths: reconstruction beside the bare Fourier transforms it needs, the wait for a decision, simulation.

A time alone says little on a machine that others use too. So the floor, two transforms of every window in every iteration and nothing
else, by the same library on as many threads in the chunks that suit it best, is timed right after each reconstruction, and what counts is
the median of the quotients.
"""

import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba.core.registry import cpu_target

from adaptycho.physics.forward import Imperfections, expose
from adaptycho.physics.grid import fft2, ifft2
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.kernels import CHUNK_BYTES
from adaptycho.scan.episode import advance, observe, scattered, stream
from adaptycho.settings import Settings, build, preset
from adaptycho.types import Measurement, Scanner

POSITIONS, ITERATIONS, SETS, DOSE = 250, 5, 24, 2.14e5  # Table II
SIZES = (250, 1000, 4000, 20_000)
# What in the environment chooses the code that the libraries run.
CODE_PATHS = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "LD_PRELOAD")
FLOOR_CHUNKS = (1 << 18, 1 << 20, 1 << 22)  # bytes; the fastest of them is the floor's
SCAN, LENGTHS = 300, (50,) * 6  # the wait is timed after the fifth of six sub-sequences


def reconstruct(repeats: int = 15) -> dict[str, Any]:
    """Reconstruction against the floor: one data set, small windows, a batch on two threads; growth with positions; memory.

    Args:
        repeats: pairs of timings of a single data set; a batch is timed half as often.
    """
    paper, light = (build.setup(preset(name)) for name in ("paper", "light"))
    found: dict[str, Any] = {}
    for name, setup, sets, threads in (("", paper, 1, 1), ("_light", light, 1, 1), ("_batch", paper, SETS, 2)):
        with _threads(threads):
            ours, floor = _pairs(setup, _data(setup, sets), max(3, repeats if sets == 1 else repeats // 2))
        quotient = np.sort(ours / floor)
        found[f"ratio_to_fft_floor{name}"] = round(float(np.median(quotient)), 3)
        found[f"ratio_quartiles{name}"] = [round(float(q), 3) for q in np.quantile(quotient, (0.25, 0.75))]
        found[f"ratio_of_fastest{name}"] = round(float(ours.min() / floor.min()), 3)
        found[f"milliseconds{name}"], found[f"floor_milliseconds{name}"] = _milliseconds(ours), _milliseconds(floor)
    with _threads(1):
        seconds = [_growth(light, count) for count in SIZES]
    found["scaling_exponent"] = round(float(np.polyfit(np.log(SIZES), np.log(seconds), 1)[0]), 3)
    found["scaling_milliseconds"] = {str(count): round(1e3 * float(s), 2) for count, s in zip(SIZES, seconds, strict=True)}
    # A process of its own, for the peak of this one is over.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        found["peak_mib_batch"] = round(fresh.submit(batch_memory).result(), 1)
    shape = "x".join(map(str, paper.detector))
    return (
        found | {"problem": f"{POSITIONS} patterns {shape} (light 32x32), {ITERATIONS} iterations, float32; batch {SETS} sets"} | machine()
    )


def latency(repeats: int = 15) -> dict[str, Any]:
    """Wait between 50 new patterns in hand and the next 50 positions, by the heuristic, when 200 have been taken before."""
    found: dict[str, Any] = {}
    with _threads(1):
        for name in ("light", "paper"):
            chosen = preset(name)
            parts = wait(chosen, build.scanner(chosen, "heuristic"), max(3, repeats))
            found[f"{name}_ms"] = _milliseconds(np.sum(list(parts.values()), 0))
            found[f"{name}_parts_ms"] = {part: _milliseconds(values) for part, values in parts.items()}
    return found | {"problem": f"{POSITIONS} patterns, {ITERATIONS} iterations from zero, heuristic"} | machine()


def forward(repeats: int = 5) -> dict[str, Any]:
    """Simulated patterns per second on one thread, electrons counted."""
    found: dict[str, Any] = {}
    for name in ("light", "paper"):
        setup = build.setup(preset(name))
        generator = torch.Generator().manual_seed(0)
        where, dose, focus = torch.rand(POSITIONS, 2, generator=generator), torch.full((POSITIONS,), DOSE), torch.zeros(POSITIONS)
        simulate = partial(expose, setup, _phase(setup, generator), where, dose, focus, Imperfections(), generator=generator)
        with _threads(1):
            simulate()
            found[f"{name}_patterns_per_second"] = round(POSITIONS / float(np.median(_time(simulate, max(3, repeats)))))
    return found | {"problem": f"{POSITIONS} patterns, one slice, Poisson noise"} | machine()


def batch_memory() -> float:
    """MiB that reconstructing the batch of 24 data sets takes at its peak, beyond what is there before, its input included."""
    setup = build.setup(preset("paper"))
    reconstructor = Reconstructor(setup, iterations=ITERATIONS)
    with _threads(2):
        reconstructor(_data(setup, 1, count=8))  # compilers and libraries are not part of it
        batch = _data(setup, SETS)
        before = peak_memory()
        reconstructor(batch)
        return peak_memory() - before


def peak_memory() -> float:
    """Most memory in MiB that this process has had so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike getrusage, this starts anew in a new process.
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if platform.system() == "Darwin" else 1 << 10)


def machine() -> dict[str, Any]:
    """What the figures were measured on: processor, the instructions each library uses of it, and what in the environment changes that."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numba": numba.__version__, "numpy": np.__version__}
    found = {"cpu": model, "cores": os.cpu_count(), "system": platform.system(), **versions}
    found |= {"compiled_for": _compiled_for(), "torch_capability": torch.backends.cpu.get_cpu_capability(), "fft": _fft_library()}
    return {"machine": found | {name: os.environ[name] for name in CODE_PATHS if name in os.environ}}


def _compiled_for() -> str:
    """Processor that numba compiles for, and the widest vectors that it may use."""
    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    allowed = features.split(",")
    widest = next((kind for kind in ("avx512f", "avx2", "avx", "sse4.2", "neon") if f"+{kind}" in allowed), "baseline")
    return f"{name} ({widest})"


def _fft_library() -> str:
    """Name and version of the library behind torch's transforms."""
    if not torch.backends.mkl.is_available():
        return "pocketfft"
    line = next((line for line in torch.__config__.show().splitlines() if "Math Kernel Library" in line), "")
    version = re.search(r"Version (\S+)", line)
    return f"MKL {version.group(1)}" if version else "MKL"


def _pairs(setup: Setup, data: Measurement, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of a reconstruction and of its floor, in turn."""
    reconstructor = Reconstructor(setup, iterations=ITERATIONS)
    reconstructor(data)
    # The floor in chunks of its own: those that serve the whole best need not be those that serve the transforms best.
    chunk = min(FLOOR_CHUNKS, key=lambda size: _time(lambda: _floor(setup, len(data), size), 4)[1:].min())
    pairs = [(_time(lambda: reconstructor(data), 1)[0], _time(lambda: _floor(setup, len(data), chunk), 1)[0]) for _ in range(repeats)]
    ours, floor = np.array(pairs).T
    return ours, floor


def _floor(setup: Setup, sets: int, chunk_bytes: int = CHUNK_BYTES) -> None:
    """The transforms alone: forth and back for every window in every iteration, each data set in a thread, in chunks of one size."""
    chunk = max(1, chunk_bytes // (8 * math.prod(setup.window.shape)))

    def one(_: int) -> None:
        waves = torch.zeros(chunk, *setup.window.shape, dtype=torch.complex64)
        for _ in range(ITERATIONS):
            for first in range(0, POSITIONS, chunk):
                ifft2(fft2(waves[: POSITIONS - first]))

    threads = torch.get_num_threads()
    with _threads(1), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list((pool.map if threads > 1 else map)(one, range(sets)))


def _growth(setup: Setup, count: int) -> float:
    reconstructor, data = Reconstructor(setup, iterations=2), _data(setup, 1, count=count)
    reconstructor(data)
    return min(_time(lambda: reconstructor(data), 9 if count < 2000 else 3))


def wait(chosen: Settings, scanner: Scanner, repeats: int) -> dict[str, np.ndarray]:
    """Seconds of each part of the wait between patterns and positions: to join what was measured, to reconstruct, to decide."""
    microscope = build.simulated(chosen)
    reconstructor = build.reconstructor(chosen, microscope.setup)
    state = None
    for number in range(4):
        state = advance(state, microscope, scanner, reconstructor, LENGTHS, seed=0, number=number)
    assert state is not None
    action, memory = scanner(observe(state, microscope, LENGTHS, 4), state.memory, generator=stream(0, 4))
    latest = microscope.acquire(action, generator=stream(0, 4))
    times = []
    for _ in range(repeats + 1):
        clock = [time.perf_counter()]
        seen = state.seen + latest
        clock.append(time.perf_counter())
        result = reconstructor(seen)
        clock.append(time.perf_counter())
        dark = torch.cat([state.scattered, scattered(latest, microscope.setup)], 1)
        after = type(state)(5, seen, latest, action, result, microscope.setup.crop(result.phase), memory, dark)
        scanner(observe(after, microscope, LENGTHS, 5), memory, generator=stream(0, 5))
        clock.append(time.perf_counter())
        times.append(np.diff(clock))
    return dict(zip(("join", "reconstruct", "decide"), np.array(times[1:]).T, strict=True))


def _data(setup: Setup, sets: int, *, count: int = POSITIONS) -> Measurement:
    """Counts as they come from a real scan in number and size; what they show does not matter to the time."""
    generator = torch.Generator().manual_seed(0)
    where, specimen = torch.rand(sets, count, 2, generator=generator), _phase(setup, generator)
    dose, focus = torch.full((sets, count), DOSE), torch.zeros(sets, count)
    some = expose(setup, specimen, where[0, :50], dose[0, :50], focus[0, :50], Imperfections(), generator=generator)
    patterns = some.repeat(sets, math.ceil(count / len(some)), 1, 1)[:, :count].contiguous()
    return Measurement(where, patterns, dose, focus)


def _phase(setup: Setup, generator: torch.Generator) -> torch.Tensor:
    return 0.3 * torch.rand(setup.object.shape, generator=generator)


def _time(work: Callable[[], object], repeats: int) -> np.ndarray:
    """Seconds of each of several calls."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return np.array(seconds)


def _milliseconds(seconds: np.ndarray) -> float:
    return round(1e3 * float(np.median(seconds)), 2)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
