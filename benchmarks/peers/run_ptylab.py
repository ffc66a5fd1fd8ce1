"""PtyLab on a problem file; see `exchange.main` for the arguments."""

import logging
import os
from collections.abc import Iterator
from importlib.metadata import version
from queue import SimpleQueue
from threading import Thread
from typing import Any

import exchange
import numpy as np

os.environ["TQDM_DISABLE"] = "1"  # read when its progress bars are imported

from PtyLab import DummyMonitor, Engines, ExperimentalData, Params, Reconstruction


def prepare(problem: exchange.Problem, settings: dict[str, Any]) -> tuple[Any, np.ndarray]:
    """Its engine and the pixel of the field's corner; it has no list of positions in pixels, and rounds those in metres to pixels."""
    n = problem.patterns.shape[1]
    middle = problem.positions.mean(0)
    data = ExperimentalData()
    data.ptychogram = np.fft.fftshift(problem.patterns, axes=(1, 2))
    data.encoder = (problem.positions - middle) * 1e-10
    data.wavelength, data.zo = 1e-12, 1.0  # any two: the detector's pixel makes up for them
    data.dxd = data.wavelength * data.zo / (n * problem.pixel * 1e-10)
    data.entrancePupilDiameter = n / 3 * problem.pixel * 1e-10
    data.spectralDensity = data.theta = data.emptyBeam = None
    data._setData()
    params = Params()
    params.fftshiftSwitch = True  # the quicker of its two layouts
    params.saveMemory = True
    state = Reconstruction(data, params)
    state.initializeObjectProbe()
    state.object[:] = 1
    state.probe[:] = np.fft.fftshift(problem.probe) * np.sqrt(problem.electrons)
    engine = getattr(Engines, settings["engine"])(state, data, params, DummyMonitor())
    engine.numIterations = 1_000_000
    engine.betaObject = settings["step"]
    engine.betaProbe = settings["probe_step"] if problem.refine else 0.0
    if "alpha" in settings:
        engine.alphaObject = settings["alpha"]
    return engine, state.No // 2 - middle / problem.pixel


def descend(problem: exchange.Problem, settings: dict[str, Any]) -> Iterator[exchange.Image]:
    """One of its engines, iteration by iteration: it runs in a thread of its own and waits after each, as going on makes it forget."""
    np.random.seed(0)
    engine, corner = prepare(problem, settings)
    ended: SimpleQueue[Any] = SimpleQueue()
    further: SimpleQueue[None] = SimpleQueue()

    def pause(_: int, state: Any) -> None:
        ended.put(np.angle(state.object[0, 0, 0, 0]))
        further.get()

    def work() -> None:
        try:
            engine.reconstruct(vis_after_each_iteration=pause)
        except Exception as error:  # shown by the thread that waits
            ended.put(error)

    Thread(target=work, daemon=True).start()
    while True:
        image = ended.get()
        if isinstance(image, Exception):
            raise image
        yield exchange.Image(image, corner)
        further.put(None)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    exchange.main(f"PtyLab {version('ptylab')}", descend)
