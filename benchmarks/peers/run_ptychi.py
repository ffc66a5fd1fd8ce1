"""pty-chi on a problem file; see `exchange.main` for the arguments."""

import logging
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import exchange
import numpy as np
import torch
import vision  # noqa: F401 pty-chi wants a blur of torchvision

import ptychi.api as api  # isort: skip
from ptychi.api.task import PtychographyTask  # isort: skip

ENGINES = {"lsqml": api.LSQMLOptions, "epie": api.EPIEOptions, "rpie": api.RPIEOptions, "autodiff": api.AutodiffPtychographyOptions}


def descend(problem: exchange.Problem, settings: dict[str, Any]) -> Iterator[exchange.Image]:
    """One of its engines, epoch by epoch, from a uniform object on our own grid, which its conventions map onto pixel for pixel."""
    options = ENGINES[settings["engine"]]()
    reconstructor = options.reconstructor_options
    reconstructor.default_device = api.Devices.CPU
    reconstructor.batch_size = settings["batch"]
    reconstructor.random_seed = 0
    options.data_options.fft_shift = False
    options.object_options.pixel_size_m = problem.pixel * 1e-10
    options.object_options.step_size = settings["step"]
    if settings["engine"] == "autodiff":
        options.object_options.optimizer = api.Optimizers.ADAM
        options.probe_options.optimizer = api.Optimizers.ADAM
    if settings["engine"] == "lsqml":
        reconstructor.momentum_acceleration_gain = settings.get("momentum", 0.0)
        reconstructor.rescale_probe_intensity_in_first_epoch = False  # which would take the epoch
        reconstructor.batching_mode = api.BatchingModes(settings.get("batching", "random"))
    options.probe_options.optimizable = problem.refine
    options.probe_options.step_size = settings.get("probe_step", settings["step"])
    centred = problem.centres - problem.shape / 2
    task = PtychographyTask(
        options,
        diffraction_data=problem.patterns,
        object_data=np.ones((1, *problem.shape), np.complex64),
        # Its transform is not orthonormal.
        probe_data=(np.fft.fftshift(problem.probe) / problem.probe.shape[0] * np.sqrt(problem.electrons)).astype(np.complex64)[None, None],
        probe_position_x_px=centred[:, 1].astype(np.float32),
        probe_position_y_px=centred[:, 0].astype(np.float32),
    )
    while True:
        task.run(1)
        yield exchange.Image(np.angle(task.get_data_to_cpu("object", as_numpy=True)[0]), problem.corner)


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    exchange.main(f"pty-chi {version('ptychi')}", descend)
