"""py4DSTEM's gradient descent on the scans of `benchmarks/engine.py`; nothing of adaptycho is imported here.

`python run_scans.py --steps 0.5 1 --floors 0.05 1 --stops 5 10 20 SCAN.npz ...` writes `SCAN.theirs.npz` beside each scan: a potential for
every step size, floor and number of iterations. `floor` is their `normalization_min`, the fraction of the largest illumination below
which a step is no longer scaled by it; 1 leaves the step alone. Files that hold all of it already are left as they are.
"""

import argparse
from pathlib import Path

import numpy as np
import py4DSTEM


def engine(scan: dict[str, np.ndarray]) -> tuple["py4DSTEM.process.phase.SingleslicePtychography", np.ndarray]:
    """Their reconstruction, ready to descend, and where the field's corner is in their pixels."""
    count, n, _ = scan["patterns"].shape
    cube = py4DSTEM.DataCube(scan["patterns"][:, None].astype(np.float32))
    cube.calibration.set_R_pixel_size(1.0)
    cube.calibration.set_R_pixel_units("A")
    cube.calibration.set_Q_pixel_size(1 / (n * float(scan["pixel"])))
    cube.calibration.set_Q_pixel_units("A^-1")
    # Their transform is not orthonormal, and their probe has its centre in the corner.
    probe = np.fft.ifftshift(scan["probe"]) / n * np.sqrt(scan["patterns"].sum((1, 2)).mean())
    found = py4DSTEM.process.phase.SingleslicePtychography(
        energy=float(scan["energy"]),
        datacube=cube,
        semiangle_cutoff=float(scan["semiangle"]),
        initial_probe_guess=probe.astype(np.complex64),
        initial_scan_positions=scan["positions"].copy(),
        object_type="potential",
        object_padding_px=(n // 2 + 4, n // 2 + 4),
        device="cpu",
        verbose=False,
    )
    middle = np.full((count, 1), n / 2)
    found.preprocess(
        force_com_rotation=0,
        force_com_transpose=False,
        force_com_shifts=(middle, middle),
        plot_center_of_mass=False,
        plot_rotation=False,
        plot_probe_overlaps=False,
    )
    return found, (found._positions_px_initial - scan["positions"] / float(scan["pixel"])).mean(0)


def descend(source: Path, steps: list[float], floors: list[float], stops: list[int]) -> None:
    target = source.with_suffix(".theirs.npz")
    wanted = {f"{step:g} {floor:g} {stop}" for step in steps for floor in floors for stop in stops}
    known = dict(np.load(target)) if target.exists() else {}
    if wanted <= set(known):
        return
    ready, origin = engine(dict(np.load(source)))
    for step in steps:
        for floor in floors:
            done = 0
            for stop in sorted(stops):
                ready.reconstruct(
                    num_iter=stop - done,
                    reconstruction_method="gradient-descent",
                    step_size=step,
                    normalization_min=floor,
                    fix_probe=True,
                    object_positivity=False,
                    fix_potential_baseline=False,
                    gaussian_filter=False,
                    butterworth_filter=False,
                    tv_denoise=False,
                    reset=done == 0,
                    progress_bar=False,
                )
                done = stop
                known[f"{step:g} {floor:g} {stop}"] = np.asarray(ready._object, dtype=np.float32)
    part = source.with_suffix(".part.npz")
    np.savez_compressed(part, **known | {"origin": origin, "program": f"py4DSTEM {py4DSTEM.__version__}"})
    part.rename(target)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--steps", type=float, nargs="+", required=True)
    asked.add_argument("--floors", type=float, nargs="+", required=True)
    asked.add_argument("--stops", type=int, nargs="+", required=True)
    asked.add_argument("scans", type=Path, nargs="+")
    given = asked.parse_args()
    for scan in given.scans:
        descend(scan, given.steps, given.floors, given.stops)
