"""py4DSTEM's gradient descent on the scans of `experiments/engine.py`; nothing of adaptycho is imported here.

`python run_scans.py SCAN.npz ... --steps 0.5 1 --floors 0.05 1 --stops 5 10 20` writes `SCAN.theirs.npz` beside each scan: a potential for
every step size, floor and number of iterations. `floor` is their `normalization_min`, the fraction of the largest illumination below
which a step is no longer scaled by it; 1 leaves the step alone. Files that hold all of it already are left as they are.
"""

import argparse
from pathlib import Path

import numpy as np
from theirs import descend, engine, program


def reconstruct(source: Path, steps: list[float], floors: list[float], stops: list[int]) -> None:
    target = source.with_suffix(".theirs.npz")
    wanted = {f"{step:g} {floor:g} {stop}" for step in steps for floor in floors for stop in stops}
    known = dict(np.load(target)) if target.exists() else {}
    if wanted <= set(known):
        return
    ready, origin = engine(np.load(source))
    for step in steps:
        for floor in floors:
            done = 0
            for stop in sorted(stops):
                known[f"{step:g} {floor:g} {stop}"] = descend(ready, stop - done, step=step, floor=floor, reset=done == 0)
                done = stop
    part = source.with_suffix(".part.npz")
    np.savez_compressed(part, **known | {"origin": origin, "program": program()})
    part.rename(target)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("scans", type=Path, nargs="+")
    asked.add_argument("--steps", type=float, nargs="+", required=True)
    asked.add_argument("--floors", type=float, nargs="+", required=True)
    asked.add_argument("--stops", type=int, nargs="+", required=True)
    given = asked.parse_args()
    for scan in given.scans:
        reconstruct(scan, given.steps, given.floors, given.stops)
