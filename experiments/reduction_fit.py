"""Fits the regression of `adaptycho.scan.policies.reduction` and writes it, with what it was fitted on and how well.

`python experiments/reduction_fit.py [--specimens 4] [--output src/adaptycho/scan/policies/reduction.json]`: about two minutes on one core.
Simulated specimens of the range `evaluate.train` in every family, from number 1,000 on: everything that is learnt leaves the first thousand
to the tuning of strategies, of which the expected-error-reduction scan is one. Each is scanned in several ways, and after each sub-sequence
the features of random places and the error round them are noted down.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.linear_model import Ridge
from sklearn.preprocessing import PolynomialFeatures

from adaptycho import settings
from adaptycho.learn.pool import UNTUNED
from adaptycho.scan.episode import observe, run, split_evenly
from adaptycho.scan.policies import reduction
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.scan.policies.heuristic import Heuristic
from adaptycho.settings import build
from adaptycho.types import Observation

Array = NDArray[Any]

SEED = 0
FAMILIES = ("crystal", "vacancies", "island", "edge", "particles", "boundary", "amorphous")
DOSES = (300.0, 1e3, 1e4)
DEFOCI = (0.0, 100.0)
POSITIONS = (64, 256)
PARTS = 4
SCANNERS: dict[str, Fixed | Heuristic] = {
    "halton": Fixed("halton"),
    "random": Fixed("random"),
    "heuristic": Heuristic(contrast=1.5, floor=0.05),
}
PLACES = 60  # noted down in each state of each specimen
REACH = 0.7  # width of the Gaussian that a position speaks for, in distances to the nearest position
ALPHA = 10.0  # of the ridge, for standardised features


def numbers(count: int) -> range:
    """Numbers of the specimens, the same of each family."""
    first = settings.preset("light").evaluate.train[0] + UNTUNED
    return range(first, first + count)


def samples(family: str, count: int) -> list[Array]:
    """Features (N, F), targets (N,) and specimen numbers (N,) of one family."""
    wanted = {"family": family, "first": numbers(count)[0], "count": count}
    changes = {"specimen": wanted, "scan": {"seed": SEED}, "reconstruct": settings.BEST}
    chosen = settings.update(settings.preset("light"), changes, "fit")
    source = build.simulated(chosen)
    truth, descent = build.truth_in_field(source).double().numpy(), build.reconstructor(chosen, source.setup)
    rng, found = np.random.default_rng(SEED), []
    for dose, defocus, positions, scanner in itertools.product(DOSES, DEFOCI, POSITIONS, SCANNERS.values()):
        microscope, lengths = replace(source, dose=dose), split_evenly(positions, PARTS)
        for state in run(microscope, replace(scanner, defocus=defocus), descent, lengths, seed=SEED):
            # After the last sub-sequence nothing is decided, but it is a state like any other.
            seen = observe(state, microscope, lengths, min(state.number, PARTS - 1))
            for number in range(count):
                features, errors = places(seen, number, truth[number], rng)
                found.append((features, errors, np.full(PLACES, number)))
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def places(seen: Observation, number: int, truth: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Features of random places of one specimen, and the logarithm of the error round each over the mean error."""
    size = np.array(seen.field)
    where = rng.random((PLACES, 2)) * size
    taken, phase, dose = (v[number].double().numpy() for v in (seen.positions * torch.tensor(seen.field), seen.potential, seen.dose))
    away = reduction.nearest(where, taken)
    still = reduction.still_features(phase, taken, dose, where, seen)
    moving = reduction.moving_features(away, reduction.mean_spacing(seen, len(taken)))
    light = reduction.illumination(taken, dose, phase.shape, seen)
    around = surrounding(squared_error(phase, truth, light), where, REACH * away[:, 0], size)
    return np.concatenate([still, moving], 1), around


def squared_error(phase: Array, truth: Array, light: Array) -> Array:
    """Squared error of what is believed of the phase, its free constant chosen where the light was, in units of the mean.

    The noise goes with 1/light. Unbelieved, it would be the largest error where hardly any electron went, and send the beam to the rim of
    the field; so the phase is taken back there as by a Wiener filter.
    """
    offset = (light * (phase - truth)).sum() / light.sum()
    belief, background = light / (light + 0.2 * light.mean()), np.median(truth)
    error = (belief * (phase - offset) + (1 - belief) * background - truth) ** 2
    return error / error.mean()


def surrounding(error: Array, where: Array, width: Array, size: Array) -> Array:
    """Logarithm of the Gaussian mean of the error round each place, each with its own width in Å; outside the field there is none."""
    pixel = size / error.shape
    widths = np.geomspace(0.3 * pixel.min(), size.max() / 2, 12)
    blurred = np.stack([ndimage.gaussian_filter(error, w / pixel, mode="constant", truncate=3) for w in widths])
    level = np.interp(np.log(width + 1e-9), np.log(widths), np.arange(len(widths)))
    rows, columns = np.minimum(where / pixel, np.array(error.shape) - 1).astype(int).T
    value = ndimage.map_coordinates(blurred, [level, rows, columns], order=1)
    return np.log(value + 1e-6)


def fit(features: Array, targets: Array) -> tuple[dict[str, Any], Callable[[Array], Array]]:
    """Coefficients as they are shipped, to five digits, and a function that predicts."""
    mean, std = features.mean(0), features.std(0)
    expand = PolynomialFeatures(2, include_bias=False)

    def standard(x: Array) -> Array:
        return expand.fit_transform(((x - mean) / std).clip(-3, 3))

    model = Ridge(alpha=ALPHA).fit(standard(features), targets)
    n = features.shape[1]
    parts = {"mean": mean, "std": std, "linear": model.coef_[:n], "quadratic": model.coef_[n:]}
    found = {name: [float(f"{v:.5g}") for v in values] for name, values in parts.items()}
    return {"constant": float(f"{model.intercept_:.5g}")} | found, lambda x: model.predict(standard(x))


def explained(targets: Array, predicted: Array) -> float:
    """Fraction of the variance explained."""
    return round(1 - float(((targets - predicted) ** 2).mean() / targets.var()), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specimens", type=int, default=4, help="of each family; at least 2, for the quality is that on the last")
    parser.add_argument("--output", default=str(resources.files("adaptycho.scan.policies") / "reduction.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    collected = [samples(family, given.specimens) for family in FAMILIES]
    features, targets, number = (np.concatenate(parts) for parts in zip(*collected, strict=True))
    model, fitted = fit(features, targets)
    last = given.specimens - 1
    _, others = fit(features[number < last], targets[number < last])
    held_out = {family: explained(y[n == last], others(x[n == last])) for family, (x, y, n) in zip(FAMILIES, collected, strict=True)}
    card = {
        "what": "ridge regression of the logarithm of the local squared error of what is believed of the phase, over its mean in the field",
        "made_by": f"python experiments/reduction_fit.py --specimens {given.specimens}",
        "fitted_on": {
            "preset": "light",
            "seed": SEED,
            "specimen_numbers": list(numbers(given.specimens)),
            "families": FAMILIES,
            "electrons_per_position": DOSES,
            "defocus": DEFOCI,
            "positions": POSITIONS,
            "subsequences": PARTS,
            "scans": list(SCANNERS),
            "reconstruction": settings.BEST,
            "places": len(targets),
            "reach": REACH,
            "alpha": ALPHA,
        },
        "explained_variance": {
            "fitted": explained(targets, fitted(features)),
            "last specimen of each family, fitted on the others": held_out,
        },
        "limits": "single-layer MoS2 and thin carbon at 60 keV, 33 mrad; features have no units, but no other beam was tried",
        "features": [*reduction.STILL, *reduction.MOVING],
        "regression": model,
    }
    with open(given.output, "w", encoding="utf-8") as file:
        file.write(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card["explained_variance"]))


if __name__ == "__main__":
    main()
