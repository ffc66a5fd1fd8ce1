"""py4DSTEM on a problem file; see `exchange.main` for the arguments."""

from collections.abc import Iterator
from typing import Any

import exchange
import numpy as np
import py4DSTEM
from py4DSTEM.process.phase import SingleslicePtychography


def descend(problem: exchange.Problem, settings: dict[str, Any]) -> Iterator[exchange.Image]:
    """Its gradient descent on a potential, iteration by iteration."""
    count, n, _ = problem.patterns.shape
    cube = py4DSTEM.DataCube(np.fft.fftshift(problem.patterns, axes=(1, 2))[:, None])
    cube.calibration.set_R_pixel_size(1.0)
    cube.calibration.set_R_pixel_units("A")
    cube.calibration.set_Q_pixel_size(1 / (n * problem.pixel))
    cube.calibration.set_Q_pixel_units("A^-1")
    ready = SingleslicePtychography(
        energy=problem.energy,
        datacube=cube,
        semiangle_cutoff=problem.semiangle,
        # Its transform is not orthonormal.
        initial_probe_guess=(problem.probe / n * np.sqrt(problem.electrons)).astype(np.complex64),
        initial_scan_positions=problem.positions.copy(),
        object_type="potential",
        object_padding_px=(n // 2 + 4, n // 2 + 4),
        device="cpu",
        verbose=False,
    )
    middle = np.full((count, 1), n / 2)
    ready.preprocess(
        force_com_rotation=0,
        force_com_transpose=False,
        force_com_shifts=(middle, middle),
        plot_center_of_mass=False,
        plot_rotation=False,
        plot_probe_overlaps=False,
    )
    corner = (ready._positions_px_initial - problem.positions / problem.pixel).mean(0)
    reset = True
    while True:
        ready.reconstruct(
            num_iter=1,
            reconstruction_method="gradient-descent",
            step_size=settings["step"],
            normalization_min=settings["floor"],
            max_batch_size=settings.get("batch"),
            seed_random=0,
            fix_probe=not problem.refine,
            fix_probe_aperture=False,
            object_positivity=settings.get("positivity", True),
            fix_potential_baseline=False,
            gaussian_filter="blur" in settings,
            gaussian_filter_sigma=settings.get("blur"),
            butterworth_filter=False,
            tv_denoise=False,
            reset=reset,
            progress_bar=False,
        )
        reset = False
        yield exchange.Image(np.asarray(ready._object), corner)


if __name__ == "__main__":
    exchange.main(f"py4DSTEM {py4DSTEM.__version__}", descend)
