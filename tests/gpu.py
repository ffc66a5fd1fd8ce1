"""`make test-gpu`: what is marked `gpu` (the whole loop, training, reconstruction of many data sets), compared with the CPU, and the speed.

Prints a table of throughput, and ends with 1 where there is no GPU.
"""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import torch

from adaptycho.app import bench
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.settings import build, preset
from adaptycho.types import Measurement

ROOT = Path(__file__).parents[1]
SETS, REPEATS, ITERATIONS = 24, 5, 5


def seconds(data: Measurement, descent: Reconstructor) -> float:
    """Shortest time of a reconstruction, on the device that the data are on."""
    times = []
    for _ in range(REPEATS + 1):  # the first one warms up
        started = time.perf_counter()
        descent(data)
        if data.patterns.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def throughput() -> None:
    """Patterns reconstructed in a second, on the CPU and on the GPU."""
    print(f"{'patterns of':>14}  {'device':<32}  patterns x iterations / s")
    for name in ("light", "paper"):
        setup = build.setup(preset(name))
        data = bench._data(setup, SETS)
        descent = Reconstructor(setup, iterations=ITERATIONS)
        moved = {n: getattr(data, n).to("cuda") for n in ("positions", "patterns", "dose", "defocus")}
        for where, measurement in (("CPU", data), (torch.cuda.get_device_name(), dataclasses.replace(data, **moved))):
            rate = SETS * data.patterns.shape[1] * ITERATIONS / seconds(measurement, descent)
            print(f"{data.patterns.shape[-2]:>8} x {data.patterns.shape[-1]:<3}  {where:<32}  {rate:,.0f}")


def main() -> int:
    """Runs the tests, then the clock; 1 if there is no GPU or a test failed."""
    if not torch.cuda.is_available():
        built = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}, which finds no device"
        print(f"no GPU here: torch {torch.__version__} is built {built}. Nothing was tested.", file=sys.stderr)
        print("With a GPU: install torch for it into .venv, without constraints.txt, and try again.", file=sys.stderr)
        return 1
    failed = subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu"], cwd=ROOT).returncode
    throughput()
    return int(failed != 0)


if __name__ == "__main__":
    sys.exit(main())
