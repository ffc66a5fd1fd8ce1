"""py4DSTEM's gradient descent on a scan that was written as a file; nothing of adaptycho is imported here."""

from collections.abc import Mapping

import numpy as np
import py4DSTEM
from py4DSTEM.process.phase import SingleslicePtychography as Engine


def engine(scan: Mapping[str, np.ndarray]) -> tuple[Engine, np.ndarray]:
    """Their reconstruction, ready to descend, and where the field's corner is in their pixels."""
    count, n, _ = scan["patterns"].shape
    cube = py4DSTEM.DataCube(scan["patterns"][:, None].astype(np.float32))
    cube.calibration.set_R_pixel_size(1.0)
    cube.calibration.set_R_pixel_units("A")
    cube.calibration.set_Q_pixel_size(1 / (n * float(scan["pixel"])))
    cube.calibration.set_Q_pixel_units("A^-1")
    # Their transform is not orthonormal, and their probe has its centre in the corner.
    probe = np.fft.ifftshift(scan["probe"]) / n * np.sqrt(scan["patterns"].sum((1, 2)).mean())
    found = Engine(
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
    # Where the beam is in their pixels at the start, less where it is in the field: the field's corner in their pixels.
    return found, (found._positions_px_initial - scan["positions"] / float(scan["pixel"])).mean(0)


def descend(ready: Engine, iterations: int, *, step: float, floor: float, reset: bool) -> np.ndarray:
    """The potential after so many more iterations, or, with `reset`, from the beginning.

    `floor` is their `normalization_min`, the fraction of the largest illumination below which a step is no longer scaled by it; 1 leaves
    the step alone.
    """
    ready.reconstruct(
        num_iter=iterations,
        reconstruction_method="gradient-descent",
        step_size=step,
        normalization_min=floor,
        fix_probe=True,
        object_positivity=False,
        fix_potential_baseline=False,
        gaussian_filter=False,
        butterworth_filter=False,
        tv_denoise=False,
        reset=reset,
        progress_bar=False,
    )
    return np.asarray(ready._object, dtype=np.float32)


def program() -> str:
    """Name and version."""
    return f"py4DSTEM {py4DSTEM.__version__}"
