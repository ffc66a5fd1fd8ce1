"""An adaptive scan through Nion's own software, on its simulator, whose camera shows adaptycho's forward model: `make demo-nion`.

    python experiments/instruments/demo_nion.py [POSITIONS]

The last line is JSON. The camera notes where the beam was in each frame that it made, so that the patterns of the run can be compared with
the positions that the adapter reports for them. `chi_squared` is that of the patterns against what the forward model expects at those
positions, for each pixel: 1 if they differ by counting noise alone.
"""

import hashlib
import json
import os
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nion.data import Calibration, DataAndMetadata
from nion.device_kit import CameraDevice
from nion.instrumentation import camera_base, scan_base
from nion.usim_device import DeviceConfiguration
from nion.utils import Registry

from adaptycho.instruments.simulated import Simulated
from adaptycho.runs.execution import execute
from adaptycho.runs.scans import Run
from adaptycho.settings import BEST, Settings, build, update
from adaptycho.types import Action, Measurement

CAMERA = "adaptycho_camera"
SURVEY = 8.0  # nm
MIDDLE, TURN = (0.6, -0.9), 12.0  # where the field lies in the survey, nm and degrees
EXPOSURE = 1e-3  # s


class Camera:
    """What stands behind Nion's simulated camera: a pattern of the specimen under the parked beam."""

    def __init__(self, microscope: Simulated) -> None:
        self.microscope, self.generator = microscope, torch.Generator().manual_seed(1)
        self.made: dict[bytes, np.ndarray] = {}

    def close(self) -> None:
        """There is nothing to let go of."""

    def get_dimensional_calibrations(self, readout_area: Any, binning_shape: Any) -> list[Any]:
        """Of its axes, in rad."""
        return [Calibration.Calibration(0.0, 1e-3 * self.microscope.setup.detector_pixel, "rad")] * 2

    def get_frame_data(self, readout_area: Any, binning_shape: Any, exposure_s: float, scan_context: Any, probe_position: Any) -> Any:
        """One frame at the position where the beam is parked, zero frequency in the centre."""
        setup, view = self.microscope.setup, scan_context.fov_size_nm
        parked = (0.5, 0.5) if probe_position is None else (probe_position.y, probe_position.x)
        place = field_position(np.array(parked), np.array([view.height, view.width]), np.array(setup.field) / 10)
        where = torch.tensor(place, dtype=torch.float32).reshape(1, 1, 2)
        counts = self.microscope.acquire(Action(where), generator=self.generator).patterns[0, 0].numpy()
        self.made[digest(counts)] = place
        return DataAndMetadata.new_data_and_metadata(np.fft.fftshift(counts).astype(np.float32))


def field_position(parked: np.ndarray, view: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Where a fraction (y, x) of the survey lies in the field, written down apart from the adapter's own conversion."""
    y, x = (parked - 0.5) * view - np.array(MIDDLE)
    c, s = np.cos(np.radians(TURN)), np.sin(np.radians(TURN))
    return np.array([c * y + s * x, -s * y + c * x]) / field + 0.5


def digest(counts: np.ndarray) -> bytes:
    """Tells a pattern from others: noise makes every one another."""
    return hashlib.sha256(np.ascontiguousarray(counts, np.float32).tobytes()).digest()


def start(chosen: Settings, microscope: Simulated) -> tuple[Camera, str]:
    """Starts Nion's simulated instrument in this process; the camera and the id of the scan device."""
    configuration = DeviceConfiguration.AcquisitionContextConfiguration()
    instrument: Any = configuration.instrument
    side = microscope.setup.detector
    instrument.camera_sensor_dimensions = lambda kind: side
    instrument.camera_readout_area = lambda kind: (0, 0, *side)
    camera = Camera(microscope)
    device = CameraDevice.Camera(CAMERA, "ronchigram", "adaptycho", camera, instrument)
    instrument.value_manager.ronchigram_camera = device  # whose calibration the software gives to all frames
    settings = CameraDevice.CameraSettings(CAMERA)
    plain = camera_base.CameraFrameParameters({"exposure_ms": 1e3 * EXPOSURE, "binning": 1})
    for index in range(len(settings.modes)):
        settings.set_frame_parameters(index, plain)
    place = Path(configuration.configuration_location)
    camera_base.run(place)
    scan_base.run(place)
    configuration.run()
    Registry.register_component(CameraDevice.CameraModule(configuration.instrument_id, device, settings), {"camera_module"})
    instrument.set_value("EHT", chosen.beam.energy)
    instrument.set_value("C10", -chosen.beam.defocus * 1e-10)
    return camera, configuration.scan_module.device.scan_device_id


def chi_squared(chosen: Settings, seen: Measurement) -> tuple[float, float]:
    """For each pixel that expects a hundredth of an electron at least, and what counting noise alone makes of its deviation from 1."""
    expected = build.simulated(update(chosen, {"instrument": {"noise": False}}, "quiet")).acquire(
        Action(seen.positions), generator=torch.Generator()
    )
    rate = expected.patterns.double()
    rate, counts = rate[rate > 0.01], seen.patterns.double()[rate > 0.01]
    return float(((counts - rate) ** 2 / rate).mean()), float(((2 + 1 / rate).mean() / len(rate)) ** 0.5)


def main(folder: Path, positions: int) -> dict[str, Any]:
    """The scan, and what came of it."""
    current = 2.14e5 * 1.602176634e-19 / EXPOSURE * 1e12  # pA: as many electrons as the paper's
    wanted = {"positions": positions, "subsequences": 5, "policy": "adaptive"}
    chosen = update(Settings(), {"scan": wanted, "instrument": {"current": current}, "reconstruct": BEST}, "demo")
    microscope = build.simulated(chosen)
    camera, scan = start(chosen, microscope)
    (folder / "nion.toml").write_text(
        f'camera = "{CAMERA}"\nscan = "{scan}"\nsurvey = {SURVEY}\nmiddle = {list(MIDDLE)}\nturn = {TURN}\npark = [0.0, 0.0]\n'
        f"[frames]\nexposure = {EXPOSURE}\n"
    )
    described = {"microscope": "nion", "file": str(folder / "nion.toml")}
    began = time.perf_counter()
    run = Run.create(folder / "run", update(chosen, {"scan": described}, "demo"))
    opened: Any = run.microscope
    spent: dict[str, float] = {}
    for state in execute(run):
        for name, seconds in state.seconds.items():
            spent[name] = spent.get(name, 0.0) + seconds
        print(f"sub-sequence {state.number}: {state.seen.positions.shape[1]} positions", flush=True)
    seconds = time.perf_counter() - began
    field, told = np.array(microscope.setup.field), state.seen.positions[0].numpy()
    made = [camera.made.get(digest(pattern)) for pattern in state.seen.patterns[0].numpy()]
    wrong = sum(at is None or np.hypot(*((at - to) * field)) > 0.01 for at, to in zip(made, told, strict=True))
    truth = build.truth_in_field(microscope)[0].numpy()
    tally, (found, noise) = (
        asdict(opened.driver.tally),
        chi_squared(chosen, state.seen),
    )
    computed = {name: round(value, 3) for name, value in spent.items() if name != "acquire"}
    return {
        "positions": tally.pop("positions"),
        "verified": tally.pop("verified"),
        "misplaced": int(wrong),
        "stale": tally.pop("stale"),
        "mixed": tally.pop("mixed"),
        "retaken": tally.pop("misplaced"),
        "seconds": round(seconds, 2),
        "chi_squared": [round(found, 4), round(noise, 4)],
        "correlation": round(float(np.corrcoef(state.potential[0].numpy().ravel(), truth.ravel())[0, 1]), 4),
        "split": {name: round(value, 3) for name, value in tally.items()} | computed,
    }


def alone() -> int:
    """The demo in a folder of its own, a part of which the simulator empties; the exit status."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            found = main(Path(name), int(sys.argv[1]) if len(sys.argv) > 1 else 250)
        except Exception:
            traceback.print_exc()
            return 1
        finally:
            os.chdir("/")
    print(json.dumps(found), flush=True)
    return int(found["misplaced"] > 0 or found["verified"] < found["positions"])


if __name__ == "__main__":
    status = alone()
    sys.stderr.flush()
    os._exit(status)  # Nion's threads end with the process only
