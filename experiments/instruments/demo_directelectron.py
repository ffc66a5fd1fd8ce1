"""An adaptive scan through DE-Server's protocol, on Direct Electron's digital twin: `make demo-directelectron`. The last line is JSON.

The twin runs in a process of its own, and its own coherent simulation makes the patterns; what is reconstructed is compared with the object
that it says it simulated, with a raster of as many positions, and with the best that its patterns allow: a dense raster. Two habits of its
server are put right here, see `serve`.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from adaptycho.runs.execution import execute
from adaptycho.runs.scans import Run
from adaptycho.settings import BEST, Settings, build, update

GRID, PITCH, CORNER = 128, 1.0, 4  # points along each side, Å between them, and where the field begins
BINNED = 64  # detector pixels along each side
EXPOSURE = 3e-4  # s: at 1 ms the bright-field disc saturates
ARRIVING = 0.827  # of the electrons: the mean of the patterns' counts over what was sent; the ice scatters the others beyond the detector
DENSE = 1024  # positions of the raster that is compared with
PROPERTIES = {
    "Hardware Binning X": 4,
    "Hardware Binning Y": 4,
    "Hardware ROI Offset X": 382,  # the unscattered beam in the middle of a pixel
    "Hardware ROI Offset Y": 382,
    "Hardware ROI Size X": 256,
    "Hardware ROI Size Y": 256,
    "Scan - Size X": GRID,
    "Scan - Size Y": GRID,
}


def serve(folder: Path, port: int) -> None:
    """The twin: a protein in ice under a coherent beam of 2 mrad at 200 kV, and what it knows of itself as a file."""
    from de_twin import DigitalTwin
    from de_twin.faces import deapi_server
    from de_twin.optics import OpticsConfig
    from de_twin.render import RenderConfig
    from de_twin.state import ProbeMode, Roi, ScanRequest, TemStem

    class Server(deapi_server.TwinFakeServer):
        def _set_scan_xy_array(self, command: Any) -> Any:
            """Confirms the points, as deapi's client waits for it: the twin's does not, and the client gives up after 40 s."""
            super()._set_scan_xy_array(command)
            return (self._ack(command),)

    twin = DigitalTwin(
        "Apoferritin in ice",
        camera="CeleritasXS",
        optics_config=OpticsConfig(pixel_size_override_nm=PITCH / 10),
        render_config=RenderConfig(stem_model="coherent", coherent_focal_spread=False, coherent_source_size=False),
    )
    twin.column.set_tem_stem(TemStem.STEM)
    twin.column.set_camera_length_mm(400)
    twin.column.set_convergence_mrad(2.0)
    twin.column.set_defocus_um(0.0)
    twin.column.set_probe_mode(ProbeMode.NANOPROBE)
    scan = ScanRequest(enabled=True, size=(GRID, GRID), dwell_s=EXPOSURE)
    request = twin.request(hw_roi=Roi(382, 382, 256, 256), hw_binning=(4, 4), frame_time_s=EXPOSURE, total_frames=1, scan=scan)
    optics, truth = twin.optics(request), twin.ground_truth_ptychography(request)
    np.savez(
        folder / "truth.npz",
        object=truth["object"],
        pixel=truth["dx_nm"] * 10,
        positions=truth["positions_px"].reshape(GRID, GRID, 2),
        spherical=truth["C3_nm"] * 10,
        dk=truth["detector_recip_px_inv_nm"][0] / 10,
        electrons=optics.pattern_e_per_s,
        centre=truth["detector_center_px"],
    )
    # Counts below zero after the dark reference are none: the twin's server stores them without a sign, as 65,535 or so.
    correct = twin.processor.correct
    twin.processor.correct = lambda raw, references: np.rint(correct(raw, references)).clip(0, 65535)
    deapi_server.TwinFakeServer = Server
    (folder / "ready").touch()
    deapi_server.serve(twin, port, pace=False)


def truth_in_field(truth: Any, n: int, pixel: float) -> np.ndarray:
    """The phase of the twin's object on the pixels of a reconstruction."""
    at = truth["positions"][CORNER, CORNER] + (np.indices((n, n)).reshape(2, -1).T + 0.5) * pixel / float(truth["pixel"])
    real, imaginary = (map_coordinates(part, at.T, order=1) for part in (truth["object"].real, truth["object"].imag))
    return np.angle((real + 1j * imaginary) * np.exp(-1j * np.angle((real + 1j * imaginary).mean()))).reshape(n, n)


def correlation(phase: np.ndarray, other: np.ndarray) -> float:
    """Of two phases, both without ramp and as sharp as the beam."""
    n = len(phase)
    plane = np.stack([np.ones(n * n), *np.indices((n, n)).reshape(2, -1)], 1)
    flat = [values - plane @ np.linalg.lstsq(plane, values, rcond=None)[0] for values in (phase.ravel(), other.ravel())]
    seen = [gaussian_filter(values.reshape(n, n), 1.5).ravel() for values in flat]
    return round(float(np.corrcoef(*seen)[0, 1]), 4)


def main(folder: Path, port: int) -> dict[str, Any]:
    """The scan, and what came of it."""
    import deapi

    truth = np.load(folder / "truth.npz")
    client = deapi.Client()
    client.usingMmf = False
    client.connect("127.0.0.1", port)
    for name, value in PROPERTIES.items():  # as an operator sets them
        client.set_property(name, value)
        if float(client.get_property(name)) != value:
            raise ValueError(f"{name}: expected {value}, found {client.get_property(name)}")
    client.disconnect()
    pixel, electrons = 1 / (BINNED * float(truth["dk"])), float(truth["electrons"]) * EXPOSURE
    current = electrons * 1.602176634e-19 / EXPOSURE * 1e12
    chosen = update(
        Settings(),
        {
            "beam": {"energy": 200e3, "semiangle": 2.0, "aberrations": {"C30": float(truth["spherical"])}},
            "geometry": {"field": [46 * pixel] * 2, "pixel": pixel, "object": "auto"},
            "scan": {"positions": 250, "subsequences": 5, "policy": "adaptive"},
            "instrument": {"current": current},
            "reconstruct": BEST,
        },
        "demo",
    )
    (folder / "de.toml").write_text(
        f"port = {port}\ngrid = [{GRID}, {GRID}]\npitch = {PITCH}\ncorner = [{CORNER}, {CORNER}]\ntimeout = 120.0\n"
        # What an electron makes at 200 kV, and the mean of 16 sensor pixels; what the twin calls saturated, less its dark counts.
        f"[frames]\nexposure = {EXPOSURE}\ncounts_per_electron = {ARRIVING * 301 / 16}\nsaturation = 3600\n"
    )
    chosen = update(chosen, {"scan": {"microscope": "directelectron", "file": str(folder / "de.toml")}}, "demo")
    known = truth_in_field(truth, build.setup(chosen).field_shape[0], pixel)
    others = {
        name: _last(Run.create(folder / name, update(chosen, {"scan": {"policy": "raster", "positions": count}}, name)))
        for name, count in (("raster", 250), ("dense", DENSE))
    }
    began = time.perf_counter()
    run = Run.create(folder / "run", chosen)
    opened: Any = run.microscope
    spent: dict[str, float] = {}
    for state in execute(run):
        for name, seconds in state.seconds.items():
            spent[name] = spent.get(name, 0.0) + seconds
        print(f"sub-sequence {state.number}: {state.seen.positions.shape[1]} positions", flush=True)
    tally = asdict(opened.driver.tally)
    counts = {name: tally.pop(name) for name in ("positions", "verified", "misplaced", "stale", "mixed")}
    computed = {name: round(value, 3) for name, value in spent.items() if name != "acquire"}
    on_grid = state.seen.positions[0].double().numpy() * 46 * pixel / PITCH
    return {
        **counts,
        "off_grid": int((abs(on_grid - np.rint(on_grid)) > 1e-3).any(1).sum()),
        "seconds": round(time.perf_counter() - began, 2),
        "correlation": correlation(state.potential[0].numpy(), known),
        "with_dense": correlation(state.potential[0].numpy(), others["dense"]),
        "raster": {"correlation": correlation(others["raster"], known), "with_dense": correlation(others["raster"], others["dense"])},
        "dense": {"positions": DENSE, "correlation": correlation(others["dense"], known)},
        "counted": round(float((state.seen.patterns.sum((-2, -1)) / state.seen.dose).mean()), 3),
        "split": {name: round(value, 3) for name, value in tally.items()} | computed,
    }


def _last(run: Run) -> np.ndarray:
    """The phase at the end of a scan."""
    *_, state = execute(run)
    return state.potential[0].numpy()


def alone() -> int:
    """The twin in a process and a folder of its own, and the scan; the exit status."""
    torch.set_num_threads(1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        with Path(name, "twin.log").open("w") as log:
            twin = subprocess.Popen([sys.executable, "-W", "ignore", __file__, name, str(port)], cwd=name, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 120
            while not Path(name, "ready").exists() and twin.poll() is None and time.monotonic() < until:
                time.sleep(0.2)
            time.sleep(1)  # from then on it listens
            if twin.poll() is not None:
                print(Path(name, "twin.log").read_text(), file=sys.stderr)
                return 1
            found = main(Path(name), port)
        finally:
            twin.kill()
            twin.wait()
    print(json.dumps(found), flush=True)
    return int(found["misplaced"] > 0 or found["verified"] < found["positions"] or found["off_grid"] > 0)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        serve(Path(sys.argv[1]), int(sys.argv[2]))
        os._exit(0)
    sys.exit(alone())
