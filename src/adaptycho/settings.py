"""Everything that can be set, as one tree of validated dataclasses: presets, TOML in and out, any field by its dotted name.

The defaults are the paper's (Table II, in the reading of docs/decisions/0003); `light` keeps the physics and takes pixels twice as large.
"""

import dataclasses
import itertools
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from adaptycho.kernels import Loss
from adaptycho.patterns import Name
from adaptycho.specimen import Family

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=2, multiple_of=2)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Adaptive = Literal["heuristic", "greedy", "lattice", "reduction", "process", "adaptive", "recurrent"]
ADAPTIVE: tuple[Adaptive, ...] = get_args(Adaptive)
Policy = Literal[Adaptive, Name]
Preset = Literal["light", "paper"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
RECIPES = ("lattice", "structure", "recurrent", "recurrent-2", "voronoi", "shared", "recorded")  # data/recipes

# The two protocols: as the paper reconstructs, and the settings that reconstruct best (`Reconstructor.best`).
PAPER: dict[str, Any] = {"iterations": 5, "loss": "intensity", "step": 525.0, "scaling": "none", "momentum": 0.0}
BEST: dict[str, Any] = {"iterations": 20, "loss": "amplitude", "step": "auto", "scaling": "illumination", "momentum": 0.7}

_strict = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_strict)
class Beam:
    """The probe-forming optics."""

    energy: Positive | None = Field(default=None, description="beam energy in eV; 60 keV if neither it nor a wavelength is given")
    wavelength: Positive | None = Field(default=None, description="wavelength in Å, instead of an energy (X-rays, light)")
    semiangle: Positive = Field(default=33.0, description="convergence semi-angle in mrad")
    defocus: Real = Field(default=0.0, description="nominal defocus in Å, positive is underfocus")
    aberrations: dict[str, Real] = Field(default_factory=dict, description="other aberrations by Krivanek name, Å and rad: {C30 = 1e4}")

    def __post_init__(self) -> None:
        """Fills in the energy of Table II."""
        if self.energy is None and self.wavelength is None:
            object.__setattr__(self, "energy", 60e3)
        elif self.energy is not None and self.wavelength is not None:
            raise ValueError("an energy or a wavelength, not both")


@dataclass(frozen=True, config=_strict)
class Geometry:
    """Four extents: scan field, object, probe window, detector."""

    field: tuple[Positive, Positive] = Field(default=(20.0, 20.0), description="scan field (y, x) in Å")
    pixel: Positive = Field(default=0.154, description="pixel of object and window in Å")
    object: Pixels | Literal["auto"] = Field(default=200, description="object pixels along each side; auto: as many as the field needs")
    window: Pixels = Field(default=64, description="pixels of the box one probe lives in, along each side")
    detector: Pixels = Field(default=64, description="recorded detector pixels along each side, after binning")
    binning: Count = Field(default=1, description="window frequencies summed into one detector pixel, along each side")


@dataclass(frozen=True, config=_strict)
class Specimen:
    """What is simulated."""

    structure: str = Field(default="MoS2", description="MoS2, WSe2, graphene, or a structure file that ASE reads")
    family: Family = Field(default="crystal", description="crystal, vacancies, island, edge, particles, boundary or amorphous")
    options: dict[str, Any] = Field(
        default_factory=dict, description="of the family: {rotation = 12.0}, {filling = 0.25}, {fraction = 0.05}"
    )
    count: Count = Field(default=1, description="number of specimens, each random in its own way")
    first: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="number of the first: a number is always the same specimen; 4096 times the scan's seed if not given"
    )
    thermal: NotNegative = Field(default=0.08, description="rms thermal displacement of the atoms in Å")
    absorption: NotNegative = Field(default=0.0, description="imaginary part of the potential as a fraction of the real part")
    slices: Count = Field(default=1, description="slices of a multislice simulation")
    thickness: NotNegative = Field(
        default=0.0, description="distance between slices in Å; left at 0, the structure's own height divided up"
    )
    contamination: NotNegative = Field(default=0.0, description="rms phase in rad of a random carbonaceous layer")


@dataclass(frozen=True, config=_strict)
class Instrument:
    """What separates the instrument from Eq. 1."""

    noise: bool = Field(default=True, description="count electrons (Poisson); off gives expectation values")
    jitter: NotNegative = Field(default=0.0, description="rms error in Å between requested and real position, not reported")
    background: NotNegative = Field(default=0.0, description="electrons per detector pixel and pattern from elsewhere")
    source_size: NotNegative = Field(default=0.0, description="rms radius in Å of the demagnified source (partial coherence)")
    current: Positive = Field(default=10.0, description="beam current in pA; only the time to expose depends on it")
    settle: NotNegative = Field(default=1e-3, description="seconds to move the beam to a position and read the detector")


@dataclass(frozen=True, config=_strict)
class Scan:
    """What is scanned, and how the positions are chosen."""

    microscope: Literal["simulated", "recorded"] = Field(default="simulated", description="simulated, or recorded to replay a file")
    file: str | None = Field(default=None, description="recording to replay; left out, the one that is shipped")
    rows: tuple[Fraction, Fraction] = Field(default=(0.0, 1.0), description="part of a recording to scan: from and to along y, fractions")
    columns: tuple[Fraction, Fraction] = Field(default=(0.0, 1.0), description="the same along x")
    policy: Policy = Field(
        default="heuristic",
        description="adaptive (learned), recurrent (the paper's), heuristic, greedy, lattice, reduction, process, or a conventional scan",
    )
    weights: str | None = Field(default=None, description="file with weights for adaptive or recurrent, instead of those that are shipped")
    positions: Count = Field(default=250, description="beam positions in all")
    subsequences: Count = Field(default=5, description="sub-sequences they are taken in")
    dose: Positive = Field(default=2.14e5, description="electrons per position (simulated)")
    defocus: Real | None = Field(default=None, description="defocus in Å during the scan, if not the nominal one (simulated)")
    warm: bool = Field(default=False, description="go on from the last reconstruction instead of from zero after each sub-sequence")
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="of specimens, noise and random scans")


@dataclass(frozen=True, config=_strict)
class Heuristic:
    """The adaptive scan without learning (`adaptycho.policy.heuristic`)."""

    pull: Fraction = Field(default=0.5, description="fraction of the way positions move towards the nearest phase maximum")
    reach: NotNegative = Field(default=4.0, description="maxima further than this many probe radii do not pull")
    smooth: NotNegative = Field(default=0.75, description="width in probe radii of the Gaussian that decides what a maximum is")
    contrast: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.7, description="power of the local structure that positions follow; 0 spreads them evenly"
    )
    floor: Fraction = Field(default=0.1, description="part of the positions spread evenly whatever is seen")


@dataclass(frozen=True, config=_strict)
class Reconstruct:
    """ROP (`adaptycho.reconstruct`)."""

    iterations: Count = Field(default=5, description="gradient steps")
    loss: Loss = Field(default="intensity", description="intensity (Eq. 2), amplitude or poisson")
    step: Positive | Literal["auto"] = Field(default=525.0, description="step size, or auto")
    scaling: Literal["none", "illumination"] = Field(
        default="none", description="illumination divides the step by the summed probe intensity"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, description="fraction of the last update carried on")
    kind: Literal["potential", "complex"] = Field(default="potential", description="real potential, or complex with absorption")
    subpixel: Count = Field(default=16, description="probes are placed on a lattice of 1/subpixel of a pixel")
    reference_step: Positive = Field(default=200.0, description="step of the full scan that scores refer to; its positions overlap more")
    reference_side: Count = Field(default=100, description="positions along each side of that full scan (simulated)")


Range = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


@dataclass(frozen=True, config=_strict)
class Evaluate:
    """How strategies are compared (`adaptycho.evaluate`)."""

    train: Range = Field(default=(0, 1_000_000), description="numbers of the specimens to learn and tune on, from and up to")
    validation: Range = Field(default=(1_000_000, 1_100_000), description="of those to choose among what was learnt")
    test: Range = Field(default=(1_100_000, 1_200_000), description="of those to report on, and for nothing else")
    specimens: Count = Field(default=12, description="test specimens of a comparison")
    tuning: Count = Field(default=4, description="training specimens to find each strategy's best settings on (protocol best)")
    defoci: tuple[Real, ...] = Field(
        min_length=1, default=(0.0, 30.0, 60.0, 90.0, 120.0), description="defoci in Å to choose from (protocol best)"
    )
    dense: Count = Field(default=1024, description="positions of the dense raster, the full scan at reduced dwell")

    def __post_init__(self) -> None:
        """Refuses ranges that share a specimen."""
        ranges = sorted((self.train, self.validation, self.test))
        if any(low >= high for low, high in ranges) or any(a[1] > b[0] for a, b in itertools.pairwise(ranges)):
            raise ValueError("disjoint ranges of specimens, each from a lower to a higher number")


@dataclass(frozen=True, config=_strict)
class Practice:
    """What a policy practises on (`adaptycho.train.practice`); what is not here is as in the other sections."""

    families: tuple[Family, ...] = Field(min_length=1, default=("crystal",), description="families of specimens, drawn at random")
    filling: tuple[Fraction, Fraction] = Field(default=(0.1, 0.5), description="filling of those that do not fill the field, from and to")
    turn: bool = Field(default=True, description="turn and mirror specimens; off keeps the orientation of specimen.options")
    positions: tuple[Count, ...] = Field(min_length=1, default=(250,), description="numbers of positions to choose from")
    dose: tuple[Positive, Positive] = Field(default=(2.14e5, 2.14e5), description="electrons per position, from and to")
    defocus: tuple[Real, ...] = Field(min_length=1, default=(0.0,), description="defoci in Å to choose from")
    reference: Literal["full", "truth"] = Field(default="full", description="what rewards and scores refer to: full scan, or true phase")
    pool: Count = Field(default=800, description="specimens that are prepared once and drawn from; recorded: windows")
    scored: Count = Field(default=64, description="of those for reinforcement, which take a full scan each")
    window: tuple[Count, Count] = Field(default=(40, 40), description="rows and columns of recorded positions in a window (recorded)")
    validation: Count = Field(default=12, description="specimens of evaluate.validation to stop and choose by")


@dataclass(frozen=True, config=_strict)
class Network:
    """What is trained (`adaptycho.policy.field`, `adaptycho.policy.recurrent`)."""

    kind: Literal["field", "recurrent"] = Field(default="field", description="field (equivariant), or recurrent (the paper's)")
    survey: Literal["halton", "hexagonal"] = Field(default="halton", description="scan that the first sub-sequence begins")
    widths: tuple[Annotated[int, Field(ge=8, multiple_of=8)], ...] = Field(
        min_length=1, max_length=5, default=(24, 48, 96, 128, 128), description="channels of the field policy, fine to coarse"
    )
    floor: Fraction = Field(default=0.1, description="density of a place without structure, over one with (field)")
    hidden: Count = Field(default=2048, description="width of the recurrent state")
    location: Count = Field(default=512, description="width of the location information")
    structure: Count = Field(default=512, description="width of the structure information")
    image: Annotated[int, Field(ge=64, multiple_of=64)] = Field(
        default=512, description="pixels along each side of the autoencoder's input"
    )
    start: Literal["halton", "scratch"] = Field(default="halton", description="recurrent: from the Halton points, or from nothing")


@dataclass(frozen=True, config=_strict)
class Train:
    """How it is trained, by three courses (`adaptycho.train`)."""

    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="of weights, specimens and exploration")
    processes: Count = Field(default=1, description="processes that share each batch, one thread each")
    shares: Count = Field(default=2, description="parts a batch is worked through in; a multiple of the processes")
    every: Count = Field(default=20, description="steps between validations and checkpoints")
    tensorboard: bool = Field(default=False, description="show the curves in TensorBoard too (RUN/tensorboard)")
    encode_steps: Annotated[int, Field(ge=0)] = Field(default=100_000, description="steps of the autoencoder")
    encode_rate: Positive = Field(default=1e-5, description="its rate of learning")
    encode_batch: Count = Field(default=24, description="its batch")
    imitate_steps: Annotated[int, Field(ge=0)] = Field(default=1000, description="steps of imitation")
    imitate_rate: Positive = Field(default=1e-3, description="its rate of learning at the start")
    imitate_batch: Count = Field(default=24, description="its batch: episodes a step")
    teacher: Literal["even", "half-way", "structure"] = Field(
        default="even", description="even (C1), half-way to the nearest atom column, or structure (where there is something)"
    )
    pull: Fraction = Field(default=0.5, description="of the half-way teacher: fraction of the way")
    reinforce_steps: Annotated[int, Field(ge=0)] = Field(default=20_000, description="steps of reinforcement")
    reinforce_rate: Positive = Field(default=1e-5, description="its rate of learning")
    reinforce_batch: Count = Field(default=24, description="its batch: episodes a step")
    sigma: Positive = Field(default=0.0125, description="standard deviation of the policy, fraction of the field")
    gamma: Fraction = Field(default=0.0, description="discount of later rewards")
    credit: Literal["shared", "voronoi", "window", "error", "structure", "scattered"] = Field(
        default="voronoi", description="how reward is divided among positions"
    )
    width: Positive = Field(default=1.2, description="width in Å of the windows of credits that have some")
    baseline: Literal["none", "batch", "pair", "mean"] = Field(
        default="batch",
        description="none, the mean over its share of the batch, another rollout of its specimen, or the mean action's reward",
    )


@dataclass(frozen=True, config=_strict)
class Settings:
    """The whole tree."""

    beam: Beam = Field(default_factory=Beam)
    geometry: Geometry = Field(default_factory=Geometry)
    specimen: Specimen = Field(default_factory=Specimen)
    instrument: Instrument = Field(default_factory=Instrument)
    scan: Scan = Field(default_factory=Scan)
    heuristic: Heuristic = Field(default_factory=Heuristic)
    reconstruct: Reconstruct = Field(default_factory=Reconstruct)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    practice: Practice = Field(default_factory=Practice)
    network: Network = Field(default_factory=Network)
    train: Train = Field(default_factory=Train)


_ADAPTER = TypeAdapter(Settings)
# Pixels twice as large: the same electrons in a quarter of the pixels, so a step for unit-sum probes goes four times as far.
_LIGHT = {
    "geometry": {"pixel": 0.308, "object": 100, "window": 32, "detector": 32},
    "reconstruct": {"reference_step": 50.0},
    "network": {"hidden": 512, "location": 256, "structure": 256, "image": 128},
}


def preset(name: str) -> Settings:
    """The paper's settings, or the light ones.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, found {name!r}")
    return validate(_LIGHT if name == "light" else {}, f"preset {name}")


def load(path: Path, base: Settings | None = None) -> Settings:
    """Settings of a TOML file, on top of others.

    Raises:
        ValueError: the file is missing, is not TOML, or holds something that is not a setting or not allowed.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a settings file, found none") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: expected settings in TOML, found something else ({error})") from None
    return update(base or Settings(), tree, str(path))


def recipe(name: str, base: Settings) -> Settings:
    """Settings with which a policy is known to learn, on top of others.

    Raises:
        ValueError: there is no such recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, found {name!r}")
    with resources.as_file(resources.files("adaptycho") / "data" / "recipes" / f"{name}.toml") as path:
        return load(path, base)


def update(base: Settings, tree: Mapping[str, Any], source: str) -> Settings:
    """Settings with some fields changed, given as a nested mapping."""
    return validate(_merge(_plain(base), tree), source)


def override(base: Settings, changes: Mapping[str, str]) -> Settings:
    """Settings with fields changed by dotted name, values as a person types them: `{"scan.positions": "144"}`."""
    tree: dict[str, dict[str, Any]] = {}
    for key, text in changes.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = _typed(text)
    return update(base, tree, "command line")


def dump(settings: Settings) -> str:
    """The settings as TOML; fields that are None are left out."""
    return tomli_w.dumps(_drop_none(_plain(settings)))


def fields(settings: Settings) -> Iterator[tuple[str, Any, str]]:
    """Dotted name, value and description of every field."""
    for section in dataclasses.fields(settings):
        group = getattr(settings, section.name)
        described = group.__pydantic_fields__
        for leaf in dataclasses.fields(group):
            yield f"{section.name}.{leaf.name}", getattr(group, leaf.name), described[leaf.name].description or ""


def changes(settings: Settings) -> dict[str, dict[str, Any]]:
    """What differs from the defaults, as a nested mapping from which `validate` makes the settings again."""
    usual = {name: value for name, value, _ in fields(Settings())}
    found: dict[str, dict[str, Any]] = {}
    for name, value, _ in fields(settings):
        if value != usual[name]:
            section, _, leaf = name.partition(".")
            found.setdefault(section, {})[leaf] = value
    return found


def validate(tree: Mapping[str, Any], source: str) -> Settings:
    """Settings from a nested mapping.

    Raises:
        ValueError: one sentence naming source, key, what was expected and what was found.
    """
    try:
        return _ADAPTER.validate_python(_drop_none(dict(tree)) if tree else {})
    except ValidationError as error:
        first = error.errors()[0]
        parts = [str(p) for p in first["loc"]]
        key = ".".join(parts[:2])
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            known = [name for name, _, _ in fields(Settings())]
            near = [n for n in known if n.startswith(f"{parts[0]}.")] or sorted({n.partition(".")[0] for n in known})
            raise ValueError(f"{source}: {key}: expected one of {', '.join(near)}, found {key!r}") from None
        # The only values of fixed length are pairs (y, x) and (from, to).
        pair = first["type"] in ("missing", "too_long")
        message = "two values" if pair else first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        raise ValueError(f"{source}: {key}: expected {message}, found {first['input']!r}") from None


def _plain(settings: Settings) -> dict[str, Any]:
    return dataclasses.asdict(settings)


def _merge(base: Any, change: Any) -> Any:
    """Sections are merged key by key; `options` and `aberrations` inside them are replaced whole, an energy by a wavelength."""
    merged = dict(base)
    for section, values in change.items():
        if not isinstance(base.get(section), dict) or not isinstance(values, Mapping):
            merged[section] = values
            continue
        merged[section] = {**base[section], **values}
        for name, other in (("wavelength", "energy"), ("energy", "wavelength")):
            if values.get(name) is not None and other not in values:
                merged[section].pop(other, None)
    return merged


def _drop_none(tree: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null, so None is the default of every field that may be None, and is left out."""
    return {k: _drop_none(v) if isinstance(v, dict) else v for k, v in tree.items() if v is not None}


def _typed(text: str) -> Any:
    """A value as TOML reads it, else the text itself; `none` leaves a field out."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
