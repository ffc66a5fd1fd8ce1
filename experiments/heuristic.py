"""What each part of the heuristic is worth: SSIM gains over a random scan, one JSON line per specimen class.

`python experiments/heuristic.py [--specimens 16]`: uniform MoS2 and MoS2 islands filling a quarter of the field, both under the paper's
protocol (light preset, 250 positions in 5 sub-sequences), and the recorded rotavirus halves; seed 0; means with 95 % bootstrap intervals of
the paired gain in per cent.
"""

import argparse
import json
from typing import Any

import torch
from torch import Tensor

from adaptycho import settings
from adaptycho.instruments import Microscope
from adaptycho.instruments.recorded import Recorded
from adaptycho.metrics import bootstrap_interval
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.runs.scores import compare
from adaptycho.samples.windows import checkerboard
from adaptycho.scan.episode import split_evenly
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.scan.policies.heuristic import Heuristic
from adaptycho.settings import build
from adaptycho.types import Measurement, Scanner

VARIANTS: dict[str, Scanner] = {
    "default": Heuristic(),
    "contrast 0": Heuristic(contrast=0.0),
    "contrast 1": Heuristic(contrast=1.0),
    "pull 0": Heuristic(pull=0.0),
    "pull 0.3": Heuristic(pull=0.3),
    "pull 0.7": Heuristic(pull=0.7),
    "pull 1": Heuristic(pull=1.0),
    "raster": Fixed("raster"),
    "hexagonal": Fixed("hexagonal"),
    "halton": Fixed("halton"),
    "poisson-disk": Fixed("poisson-disk"),
}


def table(microscope: Microscope, reconstructor: Reconstructor, reference: Tensor) -> dict[str, Any]:
    """Gain of each variant over the random scan of the same specimen, in per cent of the random scans' mean."""
    scanners: dict[str, Scanner] = {"random": Fixed("random"), **VARIANTS}
    final = {o.strategy: o.scores[-1].ssim for o in compare(microscope, scanners, reconstructor, split_evenly(250, 5), reference, seed=0)}
    base, found = final["random"], {}
    for name in VARIANTS:
        gain = 100 * (final[name] - base) / base.mean()
        low, high = bootstrap_interval(gain, generator=torch.Generator().manual_seed(0))
        found[name] = {
            "gain_percent": round(float(gain.mean()), 1),
            "ci": [round(low, 1), round(high, 1)],
            "ssim": round(float(final[name].mean()), 4),
        }
    return found | {"random": {"ssim": round(float(base.mean()), 4)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specimens", type=int, default=16)
    count = parser.parse_args().specimens
    torch.set_num_threads(2)
    for family, options in (("crystal", {}), ("island", {"filling": 0.25})):
        changes = {"specimen": {"count": count, "family": family, "options": options}}
        chosen = settings.update(settings.preset("light"), changes, "benchmark")
        microscope = build.simulated(chosen)
        found = table(microscope, build.reconstructor(chosen, microscope.setup), build.reference(chosen, microscope))
        print(json.dumps({"specimen": family, "specimens": count, "seed": 0, "results": found}), flush=True)
    chosen = settings.update(settings.Settings(), {"scan": {"microscope": "recorded"}, "reconstruct": settings.BEST}, "benchmark")
    recording = build.recording(chosen)
    halves = checkerboard(recording.setup, recording.measurement)
    reconstructor = build.reconstructor(chosen, recording.setup, recording.counts_per_electron)
    reference = recording.setup.crop(reconstructor(Measurement.stack(halves[::-1])).phase)
    both = Recorded(recording.setup, Measurement.stack(halves), recording.counts_per_electron)
    print(json.dumps({"specimen": "recorded rotavirus", "specimens": 2, "seed": 0, "results": table(both, reconstructor, reference)}))


if __name__ == "__main__":
    main()
