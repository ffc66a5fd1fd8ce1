"""quantem on a problem file; see `exchange.main` for the arguments."""

import gc
from collections.abc import Iterator
from typing import Any

import exchange
import numpy as np
import quantem
import torch
from quantem.core.datastructures import Dataset4dstem
from quantem.diffractive_imaging import DetectorPixelated, ObjectPixelated, ProbePixelated, Ptychography, PtychographyDatasetRaster

PADDING = 36  # pixels of the object beyond the outermost positions: half a window and four


def descend(problem: exchange.Problem, settings: dict[str, Any]) -> Iterator[exchange.Image]:
    """Its gradient descent on a potential, iteration by iteration; the raster is made by quantem from its step."""
    n = problem.patterns.shape[1]
    cube = np.fft.fftshift(problem.patterns, axes=(1, 2)).reshape(*problem.raster, n, n)
    sampling = (*problem.step, *[1 / (n * problem.pixel)] * 2)
    data = Dataset4dstem.from_array(cube, sampling=sampling, units=["A", "A", "A^-1", "A^-1"])
    scan = PtychographyDatasetRaster.from_dataset4dstem(data, verbose=0, learn_descan=False, learn_scan_positions=False)
    scan.preprocess(
        com_fit_function="no_shift", force_com_rotation=0, force_com_transpose=False, plot_rotation=False, plot_com=False,
        obj_padding_px=(PADDING, PADDING),
    )  # fmt: skip
    known = {"energy": problem.energy, "semiangle_cutoff": problem.semiangle, "defocus": 0.0}
    ready = Ptychography.from_models(
        dset=scan,
        obj_model=ObjectPixelated.from_uniform(num_slices=1, obj_type=settings.get("kind", "potential"), device="cpu"),
        probe_model=ProbePixelated.from_array(problem.probe, probe_params=known),
        detector_model=DetectorPixelated(),
        device="cpu",
        verbose=0,
        rng=0,
    )
    ready.preprocess(obj_padding_px=(PADDING, PADDING))
    optimisers = {"object": {"name": settings.get("optimizer", "adam"), "lr": settings["step"]}}
    if problem.refine:
        optimisers["probe"] = {"name": settings.get("optimizer", "adam"), "lr": settings["probe_step"]}
    believed = {"positivity": settings.get("positivity", True), "gaussian_sigma": settings.get("blur")}
    first: dict[str, Any] = {"optimizer_params": optimisers, "constraints": {"object": believed}}
    autograd = settings.get("autograd", True)
    while True:
        ready.reconstruct(num_iters=1, batch_size=min(settings["batch"], len(problem.patterns)), autograd=autograd, **first)
        first = {}
        # quantem rounds the padding up.
        yield exchange.Image(ready.obj[0], ready.obj_padding_px - problem.positions[0] / problem.pixel)


if __name__ == "__main__":
    # It collects garbage twice in each call, half a second, and is called here for each iteration where a user calls it once.
    gc.collect = lambda *_: 0
    torch.set_num_threads(1)
    exchange.main(f"quantem {quantem.__version__}", descend)
