"""py4DSTEM's gradient descent on the data of `compare.py write`; nothing of adaptycho is imported here.

`python run_py4dstem.py scan.npz theirs.npz [iterations [floor]]`

`floor` is the fraction of the largest illumination below which their step is no longer scaled by it (their `normalization_min`).
"""

import sys
import time

import numpy as np
import py4DSTEM


def main(source: str, target: str, iterations: str = "50", floor: str = "0.05") -> None:
    scan = np.load(source)
    count, n, _ = scan["patterns"].shape
    cube = py4DSTEM.DataCube(scan["patterns"][:, None])
    cube.calibration.set_R_pixel_size(1.0)
    cube.calibration.set_R_pixel_units("A")
    cube.calibration.set_Q_pixel_size(1 / (n * float(scan["pixel"])))
    cube.calibration.set_Q_pixel_units("A^-1")
    # Their transform is not orthonormal, and their probe has its centre in the corner.
    probe = np.fft.ifftshift(scan["probe"]) / n * np.sqrt(scan["patterns"].sum((1, 2)).mean())
    engine = py4DSTEM.process.phase.SingleslicePtychography(
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
    engine.preprocess(
        force_com_rotation=0,
        force_com_transpose=False,
        force_com_shifts=(middle, middle),
        plot_center_of_mass=False,
        plot_rotation=False,
        plot_probe_overlaps=False,
    )
    # Where the beam is in their pixels at the start, less where it is in the field: the field's corner in their pixels.
    origin = (engine._positions_px_initial - scan["positions"] / float(scan["pixel"])).mean(0)
    started = time.perf_counter()
    engine.reconstruct(
        num_iter=int(iterations),
        reconstruction_method="gradient-descent",
        step_size=1.0,
        normalization_min=float(floor),  # 0.05 is what `Reconstructor.best` does
        fix_probe=True,
        object_positivity=False,
        fix_potential_baseline=False,
        gaussian_filter=False,
        butterworth_filter=False,
        tv_denoise=False,
        reset=True,
        progress_bar=False,
    )
    seconds = time.perf_counter() - started
    phase = np.asarray(engine._object, dtype=np.float32)
    program = f"py4DSTEM {py4DSTEM.__version__}"
    np.savez(target, phase=phase, origin=origin, iterations=int(iterations), seconds=seconds, program=program)


if __name__ == "__main__":
    main(*sys.argv[1:5])
