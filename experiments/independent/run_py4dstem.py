"""py4DSTEM's gradient descent on the data of `compare.py write`; nothing of adaptycho is imported here.

`python run_py4dstem.py scan.npz theirs.npz [iterations [floor]]`

`floor` is the fraction of the largest illumination below which their step is no longer scaled by it; 0.05 is what
`Reconstructor.best` does.
"""

import sys
import time

import numpy as np
from theirs import descend, engine, program


def main(source: str, target: str, iterations: str = "50", floor: str = "0.05") -> None:
    ready, origin = engine(np.load(source))
    started = time.perf_counter()
    phase = descend(ready, int(iterations), step=1.0, floor=float(floor), reset=True)
    seconds = time.perf_counter() - started
    np.savez(target, phase=phase, origin=origin, iterations=int(iterations), seconds=seconds, program=program())


if __name__ == "__main__":
    main(*sys.argv[1:5])
