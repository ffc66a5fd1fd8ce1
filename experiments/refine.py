"""How well probe and positions are refined: one JSON line for each case.

`python experiments/refine.py [--only NAME ...] [--seeds 3] [--threads 1]`

- `recorded`: the shipped recording from its calculated probe; amplitude loss per position with that probe, with the probe refined, and with
  the measured one that comes with the recording.
- `positions`: reported 1 pixel (rms along each axis) from where they were.
- `rotation`: reported in axes turned by 3 degrees.
- `both`: both.
- `defocus`: 50 Å more than is known.
- `coherence`: light of two modes; correlation with the true modes, with one mode refined and with two.
- `slices`: two crystals of random orientation 80 Å apart, their distance taken 30 % too small; the worse of both slices, and one slice for
  comparison.
- `few`: 50 Å more defocus than is known and 1,000 electrons in a pattern, refined with the prior `atoms` and without.
- `semiangle`, `blur`: the semi-angle taken 20 % too large, the defocus 20 % too small; 128 x 128 patterns at irregular positions.

Simulated are crystals of MoS2 of random orientation at jittered positions, with electron noise. `correlation` is that with the true
phase inside the field (constant, ramp and scale free), `true` that with probe and positions known.
"""

import argparse
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from adaptycho import formats, metrics, settings
from adaptycho.physics.forward import diffract
from adaptycho.physics.noise import counted
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.reconstruction import Reconstruction
from adaptycho.reconstruct.refine import modes
from adaptycho.scan import patterns
from adaptycho.settings import build
from adaptycho.types import Measurement

DOSE = 1e5  # electrons in a pattern
POSITIONS = 400
WINDOW = 0.08  # of the field at each side, that the beam stays away from, so that turned positions still lie inside


def crystal(seed: int, *, preset: str = "light", defocus: float = 60.0, **geometry: Any) -> tuple[Setup, Tensor]:
    """Geometry, and the potential of a crystal."""
    geometry = {"object": "auto"} | geometry
    changes = {"specimen": {"count": 1, "first": 2_500_000 + seed}, "beam": {"defocus": defocus}, "geometry": geometry}
    microscope = build.simulated(settings.update(settings.preset(preset), changes, "experiment"))
    return microscope.setup, microscope.potential[0]


def irregular(seed: int, count: int = POSITIONS) -> Tensor:
    """Jittered positions in the middle of the field."""
    found = patterns.jittered(count, (1.0, 1.0), generator=torch.Generator().manual_seed(seed))
    return WINDOW + (1 - 2 * WINDOW) * found


def seen(
    setup: Setup, potential: Tensor, where: Tensor, reported: Tensor, seed: int, probe: Tensor | None = None, *, dose: float = DOSE
) -> Measurement:
    """Counts at true positions, said to be of others; of light in some modes if there are any."""
    lit = [setup] if probe is None else [dataclasses.replace(setup, measured_probe=m) for m in probe]
    power = [1.0] if probe is None else (probe.abs().square().sum((1, 2)) / probe.abs().square().sum()).tolist()
    focus = torch.full((len(where),), setup.aberrations.defocus)
    expected = sum(p * diffract(s, potential, where, focus) for p, s in zip(power, lit, strict=True))
    counts = counted(dose * expected, generator=torch.Generator().manual_seed(seed))
    return Measurement(reported[None], counts[None], torch.full((1, len(where)), dose), focus[None])


def score(setup: Setup, potential: Tensor, found: Reconstruction) -> float:
    """Correlation with the truth in the middle of the field."""
    phase, truth = setup.crop(found.phase), setup.crop(potential[None].float())
    h, w = truth.shape[1:]
    cut = math.ceil(WINDOW * h), math.ceil(WINDOW * w)
    return float(metrics.correlation(*(x[:, cut[0] : h - cut[0], cut[1] : w - cut[1]] for x in (phase, truth)))[0])


def off(setup: Setup, positions: Tensor, where: Tensor) -> float:
    """Distance in pixels from the true positions, rms along each axis, after what is common to all is removed."""
    error = setup.to_pixels(positions) - setup.to_pixels(where)
    return float((error - error.mean(0)).square().mean().sqrt())


def turned(setup: Setup, where: Tensor, degrees: float) -> Tensor:
    """Positions as they are reported in axes that are turned."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    size = where.new_tensor(setup.field)
    return ((where - 0.5) * size) @ where.new_tensor([[cos, -sin], [sin, cos]]).T / size + 0.5


def recorded(seed: int) -> dict[str, Any]:
    recording = formats.read(formats.example())
    calculated = dataclasses.replace(recording.setup, measured_probe=None)
    ways = {"calculated": (calculated, ()), "refined": (calculated, ("probe",)), "measured": (recording.setup, ())}
    found = {}
    for name, (setup, names) in ways.items():
        loss = Reconstructor.best(setup, refine=names)(recording.measurement).loss[0]
        found[name] = [round(float(v), 5) for v in (loss[0], loss[19], loss[-1])]
    return {"loss_first_20th_last": found}


def displaced(seed: int, pixels: float, degrees: float, names: tuple[Any, ...]) -> dict[str, Any]:
    setup, potential = crystal(seed)
    where = irregular(seed)
    kick = (
        torch.randn(where.shape, generator=torch.Generator().manual_seed(seed))
        * pixels
        * setup.object.pixel
        / where.new_tensor(setup.field)
    )
    reported = (turned(setup, where, degrees) + kick).clamp(0, 1)
    data = seen(setup, potential, where, reported, seed)
    plain, found = Reconstructor.best(setup)(data), Reconstructor.best(setup, refine=names)(data)
    known = Reconstructor.best(setup)(dataclasses.replace(data, positions=where[None]))
    assert found.refined is not None
    return {
        "pixels_before": off(setup, reported, where),
        "pixels_after": off(setup, found.refined.positions[0], where),
        "degrees_error": abs(float(found.refined.rotation[0]) - degrees),
        "correlation": score(setup, potential, found),
        "unrefined": score(setup, potential, plain),
        "true": score(setup, potential, known),
    }


def defocus(seed: int) -> dict[str, Any]:
    setup, potential = crystal(seed, defocus=100.0)
    where = irregular(seed)
    data = seen(setup, potential, where, where, seed)
    guess = setup.with_defocus(50.0)
    said = dataclasses.replace(data, defocus=torch.full_like(data.defocus, 50.0))
    found = Reconstructor.best(guess, refine=("defocus",))(said)
    assert found.refined is not None
    return {
        "angstrom_error": abs(float(found.refined.defocus[0]) - 50),
        "correlation": score(setup, potential, found),
        "unrefined": score(setup, potential, Reconstructor.best(guess)(said)),
        "true": score(setup, potential, Reconstructor.best(setup)(data)),
    }


def coherence(seed: int) -> dict[str, Any]:
    setup, potential = crystal(seed)
    probe = modes.first(setup.probe()[None], 2)
    probe = probe / probe.abs().square().sum((1, 2), keepdim=True).sqrt() * torch.tensor([0.8, 0.2]).sqrt()[:, None, None]
    where = irregular(seed)
    data = seen(setup, potential, where, where, seed, probe)
    ways: dict[str, dict[str, Any]] = {
        "true": {"probe": probe}, "one_mode": {"refine": ("probe",)}, "correlation": {"refine": ("probe",), "modes": 2}, "unrefined": {},
    }  # fmt: skip
    found = {name: Reconstructor.best(setup, iterations=100, **way)(data) for name, way in ways.items()}
    powers = found["correlation"].refined
    assert powers is not None
    return {name: score(setup, potential, one) for name, one in found.items()} | {"power": float(powers.powers[0, 0])}


def mistaken(seed: int, what: str) -> dict[str, Any]:
    setup, potential = crystal(seed, preset="paper", defocus=150.0, window=128, detector=128)
    where = irregular(seed)
    data = seen(setup, potential, where, where, seed)
    if what == "semiangle":
        guess, said = dataclasses.replace(setup, semiangle=1.2 * setup.semiangle), data
    else:
        guess, said = setup.with_defocus(120.0), dataclasses.replace(data, defocus=torch.full_like(data.defocus, 120.0))
    return {
        "correlation": score(setup, potential, Reconstructor.best(guess, refine=("probe",))(said)),
        "unrefined": score(setup, potential, Reconstructor.best(guess)(said)),
        "true": score(setup, potential, Reconstructor.best(setup)(data)),
    }


def slices(seed: int) -> dict[str, Any]:
    (setup, first), (_, second) = crystal(seed, defocus=100.0), crystal(seed + 1000, defocus=100.0)
    where, apart = irregular(seed), 80.0
    focus = torch.full((len(where),), setup.aberrations.defocus)
    expected = diffract(setup, torch.stack([first, second]), where, focus, thickness=apart)
    counts = counted(DOSE * expected, generator=torch.Generator().manual_seed(seed))
    data = Measurement(where[None], counts[None], torch.full((1, len(where)), DOSE), focus[None])
    found = Reconstructor.best(setup, slices=2, thickness=0.7 * apart, refine=("thickness",))(data)
    known = Reconstructor.best(setup, slices=2, thickness=apart, iterations=100)(data)
    assert found.refined is not None

    def worse(one: Reconstruction) -> float:
        assert one.slices is not None
        each = [dataclasses.replace(one, potential=one.slices[:, s]) for s in range(2)]
        return min(score(setup, truth, layer) for truth, layer in zip((first, second), each, strict=True))

    single = Reconstructor.best(setup, iterations=100)(data)
    return {
        "angstrom_error": abs(float(found.refined.thickness[0]) - apart),
        "correlation": worse(found),
        "true": worse(known),
        "loss_against_one_slice": float(found.loss[0, -1] / single.loss[0, -1]),
    }


def few(seed: int) -> dict[str, Any]:
    setup, potential = crystal(seed, defocus=100.0)
    where = irregular(seed)
    data = seen(setup, potential, where, where, seed, dose=1000.0)
    guess, said = setup.with_defocus(50.0), dataclasses.replace(data, defocus=torch.full_like(data.defocus, 50.0))
    prior: dict[str, Any] = {"prior": "atoms", "loss": "poisson"}
    plain, found = (Reconstructor.best(guess, refine=("defocus",), **how)(said) for how in ({}, prior))
    assert found.refined is not None
    return {
        "angstrom_error": abs(float(found.refined.defocus[0]) - 50),
        "correlation": score(setup, potential, found),
        "without_prior": score(setup, potential, plain),
        "true": score(setup, potential, Reconstructor.best(setup, **prior)(data)),
    }


CASES: dict[str, Callable[[int], dict[str, Any]]] = {
    "recorded": recorded,
    "positions": lambda seed: displaced(seed, 1.0, 0.0, ("positions",)),
    "rotation": lambda seed: displaced(seed, 0.0, 3.0, ("rotation",)),
    "both": lambda seed: displaced(seed, 1.0, 3.0, ("rotation", "positions")),
    "defocus": defocus,
    "coherence": coherence,
    "slices": slices,
    "few": few,
    "semiangle": lambda seed: mistaken(seed, "semiangle"),
    "blur": lambda seed: mistaken(seed, "defocus"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.only:
        for seed in range(1 if name == "recorded" else given.seeds):
            started = time.perf_counter()
            found = {k: round(v, 4) if isinstance(v, float) else v for k, v in CASES[name](seed).items()}
            print(json.dumps({"case": name, "seed": seed, **found, "seconds": round(time.perf_counter() - started, 1)}), flush=True)


if __name__ == "__main__":
    main()
