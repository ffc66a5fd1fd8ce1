"""How well conventional scans reconstruct: one JSON line for each setting.

`python experiments/quality.py [--specimens 8]`: uniform MoS2 of random orientation, focused probe, 250 positions, seed 0, means over
specimens.

- `best`: `Reconstructor.best` (20 iterations), 2e5 electrons per position: correlation with the true potential on the same grid.
- `paper`: 5 plain iterations with step 525, 2.14e5 electrons per position: SSIM against the reconstruction of the full scan, with
  scikit-image's uniform window of 7 px and with the Gaussian window that the package uses elsewhere.
"""

import argparse
import json

import torch

from adaptycho import metrics, settings
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.scan import Pattern
from adaptycho.scan.episode import run
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.settings import build

SCANS: tuple[Pattern, ...] = ("random", "halton", "raster")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specimens", type=int, default=8)
    count = parser.parse_args().specimens
    torch.set_num_threads(2)
    for preset in settings.PRESETS:
        chosen = settings.update(settings.preset(preset), {"specimen": {"count": count}, "scan": {"dose": 2e5}}, "benchmark")
        microscope = build.simulated(chosen)
        truth = build.truth_in_field(microscope)
        found = {}
        for name in SCANS:
            (state,) = run(microscope, Fixed(name), Reconstructor.best(microscope.setup), [250], seed=0)
            values = metrics.correlation(state.potential, truth)
            found[name] = {"correlation": round(float(values.mean()), 4), "lowest": round(float(values.min()), 4)}
        print(json.dumps({"reconstruction": "best", "preset": preset, "specimens": count, "results": found}), flush=True)
    chosen = settings.update(settings.preset("light"), {"specimen": {"count": count}}, "benchmark")
    microscope = build.simulated(chosen)
    reference = build.reference(chosen, microscope)
    found = {}
    for name in SCANS:
        (state,) = run(microscope, Fixed(name), build.reconstructor(chosen, microscope.setup), [250], seed=0)
        uniform, gaussian = (float(metrics.ssim(state.potential, reference, window=w).mean()) for w in ("uniform", "gaussian"))
        found[name] = {"ssim_uniform": round(uniform, 4), "ssim": round(gaussian, 4)}
    print(json.dumps({"reconstruction": "paper", "preset": "light", "specimens": count, "results": found}))


if __name__ == "__main__":
    main()
