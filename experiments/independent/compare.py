"""Reconstructs one noise-free data set here and in another program, and says how alike the two phases are.

1. `python compare.py write scan.npz`: simulates patterns and writes them with positions and probe, zero frequency and beam in the centre.
2. In the environment of the other program: `python run_py4dstem.py scan.npz theirs.npz`.
3. `python compare.py judge scan.npz theirs.npz`: prints one JSON line.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from adaptycho import metrics, settings
from adaptycho.physics.forward import diffract
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.scan import patterns
from adaptycho.settings import build
from adaptycho.types import Measurement

EDGE = 1.0  # Å inside the field that are left out on each side: there the beam has hardly been


def simulate(preset: str, count: int) -> tuple[Setup, Measurement, torch.Tensor]:
    """Setup, noise-free data at Halton positions, and the true potential."""
    microscope = build.simulated(settings.preset(preset))
    setup, truth = microscope.setup, microscope.potential[0].double()
    where, focus = patterns.halton(count), torch.zeros(count, dtype=torch.float64)
    seen = diffract(setup, truth, where, focus)
    return setup, Measurement(where[None], seen[None], torch.ones(1, count, dtype=torch.float64), focus[None]), truth


def write(path: Path, preset: str, count: int) -> None:
    setup, data, _ = simulate(preset, count)
    assert setup.energy is not None  # presets have electrons
    np.savez(
        path,
        preset=preset,
        patterns=torch.fft.fftshift(data.patterns[0], dim=(-2, -1)).float().numpy(),
        positions=(data.positions[0] * data.positions.new_tensor(setup.field)).numpy(),
        probe=torch.fft.fftshift(setup.probe()).numpy(),
        pixel=setup.object.pixel,
        energy=setup.energy,
        semiangle=setup.semiangle,
    )


def judge(path: Path, theirs: Path) -> dict[str, Any]:
    """Correlations inside the field, after constant, ramp, scale and shift."""
    with np.load(theirs) as found:
        other = {name: found[name] for name in found.files}
    setup, data, truth = simulate(str(np.load(path)["preset"]), len(np.load(path)["positions"]))
    single = Measurement(*(getattr(data, n).float() for n in ("positions", "patterns", "dose", "defocus")))
    ours = setup.crop(Reconstructor.best(setup)(single).phase[0]).double()
    # Object pixels of the field's own pixels, in their array: `origin` is the pixel of the field's corner (0, 0) there.
    h, w = setup.field_shape
    rows, columns = np.meshgrid(
        *((np.arange(n) + 0.5) / n * f / setup.object.pixel for n, f in ((h, setup.field[0]), (w, setup.field[1]))), indexing="ij"
    )
    corner = setup.to_pixels(torch.tensor([[0.5 / h, 0.5 / w]], dtype=torch.float64))[0]
    # `crop` rounds to whole pixels; the same part of a pixel is taken off here.
    rest = (torch.floor(corner + 0.5) - corner).numpy()
    where = [rows + other["origin"][0] + rest[0], columns + other["origin"][1] + rest[1]]
    phase = torch.from_numpy(ndimage.map_coordinates(other["phase"].astype(float), where, order=5, mode="nearest"))
    inner = math.ceil(EDGE / setup.object.pixel)
    first, second, true = (x[inner:-inner, inner:-inner] for x in (ours, phase, setup.crop(truth)))
    second = metrics.align(second, first)
    shift, _, _ = phase_cross_correlation(first.numpy(), second.numpy(), upsample_factor=100)
    moved = torch.from_numpy(ndimage.shift(second.numpy(), shift, order=5, mode="nearest"))
    return {
        "program": str(other["program"]),
        "iterations": int(other["iterations"]),
        "correlation": round(float(metrics.correlation(moved, first)), 4),
        "correlation_unshifted": round(float(metrics.correlation(second, first)), 4),
        "shift_pixels": [round(float(s), 2) for s in shift],
        "scale": round(float(first.std() / phase[inner:-inner, inner:-inner].std()), 3),
        "ours_with_truth": round(float(metrics.correlation(first, true)), 4),
        "theirs_with_truth": round(float(metrics.correlation(second, true)), 4),
        "their_seconds": round(float(other["seconds"]), 3),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["write", "judge"])
    parser.add_argument("scan", type=Path)
    parser.add_argument("theirs", type=Path, nargs="?")
    parser.add_argument("--preset", choices=["light", "paper"], default="paper")
    parser.add_argument("--positions", type=int, default=250)
    arguments = parser.parse_args()
    if arguments.task == "write":
        write(arguments.scan, arguments.preset, arguments.positions)
    elif arguments.theirs is None:
        parser.error("judge needs the other program's file")
    else:
        print(json.dumps(judge(arguments.scan, arguments.theirs)))
