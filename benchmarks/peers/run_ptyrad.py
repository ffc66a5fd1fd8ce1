"""PtyRAD on a problem file; see `exchange.main` for the arguments."""

import logging
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any
from unittest.mock import MagicMock

import exchange
import numpy as np
import torch
import vision  # noqa: F401 PtyRAD wants a blur of torchvision

# PtyRAD says Python 3.10, but these files, of which only figures are wanted, have the syntax of 3.12.
for _name in ("ptyrad.plotting", "ptyrad.plotting.basic", "ptyrad.plotting.model"):
    sys.modules[_name] = MagicMock()

from ptyrad.core import CombinedConstraint, CombinedLoss, PtychoModel  # noqa: E402
from ptyrad.init import Initializer  # noqa: E402
from ptyrad.params.ptyrad_params import PtyRADParams  # noqa: E402
from ptyrad.solver.reconstruction import compute_loss, create_optimizer, make_batches, recon_step  # noqa: E402

OFF = {"start_iter": None}
FIXED = {"start_iter": None, "lr": 0.0}


def parameters(problem: exchange.Problem, settings: dict[str, Any]) -> dict[str, Any]:
    """All of its settings: one slice of pure phase and one coherent probe, on our own grid."""
    count, n, _ = problem.patterns.shape
    corners = problem.centres - n // 2
    given = {
        "init_params": {
            "random_seed": 0,
            "probe_kv": problem.energy / 1e3,
            "probe_conv_angle": problem.semiangle,
            "meas_Npix": n,
            "pos_N_scans": count,
            "pos_N_scan_slow": int(problem.raster[0]),
            "pos_N_scan_fast": int(problem.raster[1]),
            "pos_scan_step_size": float(problem.step[0]),
            "pos_scan_rand_std": None,
            "meas_calibration": {"mode": "dx", "value": problem.pixel},
            "probe_pmode_max": 1,
            "obj_Nlayer": 1,
            "obj_slice_thickness": 1.0,
            "meas_source": "custom",
            "meas_params": np.fft.fftshift(problem.patterns, axes=(1, 2)),
            "probe_source": "custom",
            "probe_params": np.fft.fftshift(problem.probe)[None],
            "pos_source": "custom",
            "pos_params": corners,
            "obj_source": "custom",
            "obj_params": np.ones((1, 1, *problem.shape), np.complex64),
        },
        "model_params": {
            "update_params": {
                "obja": FIXED,
                "objp": {"start_iter": 1, "lr": settings["step"]},
                "probe": {"start_iter": 1, "lr": settings["probe_step"]} if problem.refine else FIXED,
                "probe_pos_shifts": FIXED,
            }
        },
        "loss_params": {"loss_sparse": {"state": "sparse" in settings, "weight": settings.get("sparse", 0.0)}},
        "constraint_params": {
            "obj_rblur": {"start_iter": 1, "std": settings["blur"]} if settings.get("blur") else OFF,
            "obj_zblur": OFF,
            "pos_recenter": OFF,
            "objp_postiv": {"start_iter": 1 if settings.get("positivity", True) else None},
        },
        "recon_params": {"SAVE_ITERS": None},
    }
    return PtyRADParams(**given).model_dump()


def descend(problem: exchange.Problem, settings: dict[str, Any]) -> Iterator[exchange.Image]:
    """Its gradient descent by Adam, iteration by iteration."""
    params = parameters(problem, settings)
    ready = Initializer(params["init_params"], seed=0).init_all().init_variables
    loss, constraint = CombinedLoss(params["loss_params"], device="cpu"), CombinedConstraint(params["constraint_params"], device="cpu")
    model = PtychoModel(ready, params["model_params"], device="cpu")
    optimizer = create_optimizer(model.optimizer_params, model.optimizable_params)
    size = min(settings["batch"], len(problem.patterns))
    batches = make_batches(np.arange(len(problem.patterns)), problem.centres, size, mode=settings.get("group", "random"), seed=0)
    parts = [torch.from_numpy(batch) for batch in batches]
    number = 0
    while True:
        number += 1
        recon_step(parts, 1, model, optimizer, None, loss, constraint, number, compute_loss_fn=compute_loss)
        yield exchange.Image(model.opt_objp.detach().numpy()[0, 0], problem.corner)


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    exchange.main(f"PtyRAD {version('ptyrad')}", descend)
