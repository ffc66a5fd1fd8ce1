"""Every scan strategy by name: conventional, adaptive without learning, by hand, and oracles that know the truth; all at equal dose."""

from dataclasses import asdict
from typing import Any, Literal

import torch
from scipy.ndimage import gaussian_filter

from adaptycho.samples.sample import Sample
from adaptycho.scan.episode import split_evenly
from adaptycho.scan.networks import library
from adaptycho.scan.oracles import DensityOracle, HalfWay
from adaptycho.scan.policies.crop import Crop
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.scan.policies.threshold import Threshold
from adaptycho.settings import ADAPTIVE, Settings, build, microscopes
from adaptycho.types import Scanner

CONVENTIONAL = ("raster", "hexagonal", "random", "jittered", "halton", "poisson-disk", "spiral", "dense")
# The same electrons on more positions, at less dwell.
DENSE = ("dense", "adaptive-dense", "crop-dense", "crop-box-dense", "threshold-dense")
LEARNED = ("adaptive", "adaptive-dense", "recurrent")
ORACLES = ("oracle", "oracle-hexagonal", "oracle-density")
# What a microscopist does who looks where structure is: a policy, a hyphen, and which of its options are others than in the settings.
BY_HAND: dict[str, dict[str, Any]] = {
    "crop": {},
    "crop-box": {"shape": "box"},
    "crop-phase": {"signal": "phase"},
    "crop-dense": {},
    "crop-box-dense": {"shape": "box"},
    "crop-dwell": {},
    "threshold": {},
    "threshold-rim": {"rim": 0.5},
    "threshold-phase": {"signal": "phase"},
    "threshold-dense": {},
}
CROPS = tuple(name for name in BY_HAND if name.startswith("crop"))  # a survey, and all the rest in one step
AUTO = "auto"  # one of the others in a comparison, oracles excepted: which, is found on training specimens, as the defocus is
HAND = "by-hand"  # the same among those by hand
CHOSEN = (AUTO, HAND)
USUAL = (*CONVENTIONAL, *(name for name in ADAPTIVE if name not in BY_HAND), "adaptive-dense", AUTO, *ORACLES)  # where none are named
STRATEGIES = (*USUAL, *BY_HAND, HAND)
BLIND = (*CONVENTIONAL, "oracle-density")  # decide everything beforehand: nothing is gained by sub-sequences
SIMULATED = (*DENSE, "crop-dwell", "oracle", "oracle-hexagonal")  # need another dwell, or the atoms
FOCUSED = ":focused"  # ends the name of a strategy that is not allowed to defocus
QUICK = 4  # times as many positions as usual in the survey of `crop-dwell`, at as many times less dwell
SMOOTH = 1.0  # Å, rms: scale at which an oracle takes the structure's density


def lengths(name: str, settings: Settings) -> list[int]:
    """Number of positions in each sub-sequence; scans that look at nothing take one.

    Raises:
        ValueError: there is no such strategy.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategies: expected some of {', '.join(STRATEGIES)}, found {name!r}")
    count = max(settings.evaluate.dense, settings.scan.positions) if name in DENSE else settings.scan.positions
    if name in BLIND:
        return [count]
    parts = split_evenly(count, settings.scan.subsequences)
    if name not in CROPS:
        return parts
    survey, rest = parts[0] * (QUICK if name == "crop-dwell" else 1), sum(parts[1:])
    return [survey, rest] if rest else [survey]


def check(name: str, settings: Settings, *, tuned: bool) -> None:
    """Refuses a strategy that does not exist or cannot be used.

    Raises:
        ValueError: one sentence that says which, and why.
    """
    plain, focused = name.removesuffix(FOCUSED), name.endswith(FOCUSED)
    lengths(plain, settings)
    if plain in CHOSEN and not tuned:
        raise ValueError(f"strategies: expected one that is itself, since nothing is chosen here, found {name!r}")
    if focused and not tuned:
        raise ValueError(f"strategies: expected {plain!r}, since defocus is not chosen here, found {name!r}")
    if focused and 0.0 not in settings.evaluate.defoci:
        raise ValueError(f"evaluate.defoci: expected 0 among them for {name!r}, found {list(settings.evaluate.defoci)}")
    scan, kind = settings.scan, microscopes.of(settings)
    if kind.policy is not None and plain in LEARNED and scan.file is None and scan.weights is None:
        raise ValueError(f"scan.weights: expected some for {name!r}: what comes along has practised on the recording that does, found none")
    if plain in SIMULATED and not (kind.capabilities.specimens and kind.capabilities.dose):
        raise ValueError(
            f"strategies: expected none of {', '.join(SIMULATED)} for {kind.noun}, which has no other dwell or truth, found {name!r}"
        )


def scanner(name: str, settings: Settings, sample: Sample, defocus: float | None) -> Scanner:
    """The strategy on one specimen, at a defocus in Å (None: the nominal one)."""
    options: dict[str, Any] = {"defocus": defocus}
    match name:
        case "dense" | "adaptive-dense":
            dose = _spread(name, settings)
            if name == "dense":
                return Fixed("raster", defocus, dose=dose)
            return library.scanner(build.learned(settings, "adaptive", defocus), defocus=defocus, dose=dose)
        case "oracle" | "oracle-hexagonal":
            base: Literal["halton", "hexagonal"] = "halton" if name == "oracle" else "hexagonal"
            if sample.sites is None:
                return Fixed(base, defocus)  # nothing to be pulled to
            # The first leaves a survey alone, as under the paper's protocol; the second knows from the start.
            return HalfWay([sample.columns], base=base, after=1 if name == "oracle" else 0, **options)
        case "oracle-density":
            return DensityOracle(_density(sample), **options)
        case _ if name in BY_HAND:
            return _by_hand(name, settings, defocus)
        case _:
            return build.scanner(settings, name, defocus)


def _by_hand(name: str, settings: Settings, defocus: float | None) -> Scanner:
    """Survey and crop, or a scan by threshold, with the dwell of each step."""
    dose = _spread(name, settings) if name in DENSE else None
    if name not in CROPS:
        return Threshold(**{**asdict(settings.threshold), **BY_HAND[name]}, defocus=defocus, dose=dose)
    survey = settings.scan.dose / QUICK if name == "crop-dwell" else dose
    return Crop(**{**asdict(settings.crop), **BY_HAND[name]}, defocus=defocus, survey=survey, dose=dose)


def _spread(name: str, settings: Settings) -> float:
    """Electrons for each position if as many as usual are spread over all that the strategy has."""
    return settings.scan.dose * settings.scan.positions / sum(lengths(name, settings))


def _density(sample: Sample) -> torch.Tensor:
    """Where structure is, smoothed: the specimen's outline if the truth is known, else the square root of the local variance."""
    pixels = SMOOTH / sample.setup.object.pixel
    if sample.truth is not None:
        return torch.from_numpy(gaussian_filter(sample.inside.double().numpy(), pixels))[None]
    assert sample.energy is not None  # there is a truth or a recording
    return sample.energy.sqrt()[None]
