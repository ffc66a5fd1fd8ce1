"""X-ray ptychography from a CXI file whose probe is a guess, by default settings: one JSON line for each seed.

`python experiments/xray.py [--seeds 3] [--absorption 0.3] [--threads 1] [--keep FOLDER]`

A star with spokes down to 60 nm, phase and absorption, is seen by 8 keV photons at 400 irregular positions: 128 x 128 pixels of 75 um at
1.9 m, 1e6 photons in a pattern. The file is written by hand as cxidb.org has it, in SI units, and holds a probe whose aperture is taken
20 % too large and whose defocus 20 % too small. `adaptycho reconstruct` gets the file and nothing else. `correlation` is that of the phase
with the true one where the beam was; `amplitude_error` the amplitude loss per position; `guess` and `guess_error` the same with the probe
left as it is.
"""

import argparse
import io
import json
import math
import os
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np
import torch
from torch import Tensor

from adaptycho.app.cli import main as adaptycho
from adaptycho.physics.forward import diffract
from adaptycho.physics.grid import Grid
from adaptycho.physics.noise import counted
from adaptycho.physics.optics import Aberrations, Setup

WAVELENGTH, DISTANCE, PIXEL, SIZE = 1.55, 1.9, 75e-6, 128  # Å, m, m
PHOTONS, POSITIONS = 1e6, 400
FIELD = 6e4  # Å


def star(setup: Setup, spokes: int = 24) -> Tensor:
    """Between 0 and 1 on the object grid, spokes of a wheel whose rim is the field's."""
    n, m = setup.object.shape
    y, x = np.mgrid[:n, :m] - np.array([n, m])[:, None, None] / 2
    radius, angle = np.hypot(y, x) * setup.object.pixel, np.arctan2(y, x)
    edge = np.clip(0.5 + 3 * np.sin(spokes * angle) * radius / FIELD, 0, 1)
    ring = (radius < 0.62 * FIELD) & (np.abs(radius - 0.3 * FIELD) > 0.01 * FIELD)
    return torch.from_numpy(edge * ring)


def scene(seed: int) -> tuple[Setup, Setup, Tensor]:
    """The true geometry, what is guessed of it, and positions as fractions of the field."""
    pixel = WAVELENGTH / (SIZE * PIXEL / DISTANCE)
    shape = (math.ceil(FIELD / pixel / 2) * 2 + SIZE,) * 2
    common: dict[str, Any] = {
        "field": (FIELD, FIELD),
        "object": Grid(shape, pixel),
        "window": Grid((SIZE, SIZE), pixel),
        "detector": (SIZE, SIZE),
    }
    known = Setup(**common, semiangle=0.7, wavelength=WAVELENGTH, aberrations=Aberrations(C10=-1.0e7))
    guess = Setup(**common, semiangle=0.84, wavelength=WAVELENGTH, aberrations=Aberrations(C10=-0.8e7))
    where = torch.rand(POSITIONS, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return known, guess, where


def write(path: Path, setup: Setup, guess: Setup, where: Tensor, counts: Tensor) -> None:
    """A CXI file, by hand."""
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        source = file.create_group("entry_1/instrument_1/source_1")
        source["energy"] = 1.602176634e-19 * 12398.4198 / WAVELENGTH
        source["wavelength"] = 1e-10 * WAVELENGTH
        source["illumination"] = torch.fft.fftshift(guess.probe(), dim=(-2, -1)).numpy().astype(np.complex64)
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["data"] = torch.fft.fftshift(counts, dim=(-2, -1)).numpy().astype(np.uint32)
        detector["distance"] = DISTANCE
        detector["x_pixel_size"] = detector["y_pixel_size"] = PIXEL
        moved = (where.numpy() - 0.5) * 1e-10 * FIELD
        # The sample moves; rows and columns of the detector point down and to the left of the laboratory, so that its way is (x, y).
        file["entry_1/sample_1/geometry_1/translation"] = np.stack([moved[:, 1], moved[:, 0], 0 * moved[:, 0]], 1)
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")


def likeness(setup: Setup, file: Path, truth: Tensor) -> float:
    """Correlation with the true phase in the middle of the field; ramp, constant and shift are free."""
    with h5py.File(file) as held:
        phase = torch.from_numpy(held["phase_in_field"][()]).double()
    known = setup.crop(truth[None].double())
    n = min(phase.shape[-1], known.shape[-1])
    cut = slice(n // 6, n - n // 6)
    return best_shift(phase[0, :n, :n], known[0, :n, :n], cut)


def best_shift(a: Tensor, b: Tensor, cut: slice, most: int = 12) -> float:
    """The object moves along with a probe that is not centred: the best correlation over some pixels."""
    y, x = (torch.linspace(-1, 1, b[cut, cut].shape[0], dtype=torch.float64) for _ in range(2))
    free = torch.stack([torch.ones_like(b[cut, cut]), y[:, None].expand_as(b[cut, cut]), x.expand_as(b[cut, cut])]).flatten(1).T
    solve = torch.linalg.pinv(free)

    def flat(image: Tensor) -> Tensor:
        some = image[cut, cut].flatten()
        return some - free @ (solve @ some)

    aim = flat(b)
    aim = aim / aim.norm()
    scores = []
    for dy in range(-most, most + 1):
        for dx in range(-most, most + 1):
            mine = flat(a.roll((dy, dx), (0, 1)))
            scores.append(float(torch.dot(mine, aim) / mine.norm()))
    return max(scores)


def one(seed: int, absorption: float, folder: Path) -> dict[str, Any]:
    setup, guess, where = scene(seed)
    form = star(setup)
    truth = torch.complex(0.6 * form, absorption * 0.6 * form)
    focus = torch.full((POSITIONS,), setup.aberrations.defocus, dtype=torch.float64)
    expected = PHOTONS * diffract(setup, truth.to(torch.complex128), where, focus)
    counts = counted(expected, generator=torch.Generator().manual_seed(seed))
    write(folder / "star.cxi", setup, guess, where, counts)
    found: dict[str, Any] = {"seed": seed, "absorption": absorption}
    for name, more in (("", []), ("guess", ["--refine", "none"])):
        out, started = folder / f"{name or 'default'}.h5", time.perf_counter()
        with redirect_stdout(io.StringIO()) as said:
            code = adaptycho(["reconstruct", str(folder / "star.cxi"), str(out), "--json", *more])
        if code:
            raise SystemExit(f"experiments/xray.py: expected a reconstruction, found exit code {code}")
        told = json.loads(said.getvalue())
        found[name or "correlation"] = round(likeness(setup, out, form), 4)
        found[f"{name}_error" if name else "amplitude_error"] = round(told["loss"][-1], 5)
        found[f"{name}_seconds" if name else "seconds"] = round(time.perf_counter() - started, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--absorption", type=float, nargs="+", default=[0.0, 0.3])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for files and pictures")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for absorption in given.absorption:
        for seed in range(given.seeds):
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary) if given.keep is None else given.keep / f"{absorption}-{seed}"
                folder.mkdir(parents=True, exist_ok=True)
                print(json.dumps(one(seed, absorption, folder)), flush=True)


if __name__ == "__main__":
    main()
