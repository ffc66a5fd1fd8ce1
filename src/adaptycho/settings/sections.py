"""The sections of the settings: validated dataclasses with the paper's values as defaults, each field with what it means."""

import itertools
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from adaptycho.kernels import Loss
from adaptycho.patterns import Name
from adaptycho.specimen import Family

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Electrons = Annotated[float, Field(gt=0, le=2.0**53)]  # as many as can be counted (adaptycho.forward.MOST)
Real = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=2, multiple_of=2)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Adaptive = Literal["heuristic", "greedy", "lattice", "reduction", "process", "adaptive", "recurrent"]
ADAPTIVE: tuple[Adaptive, ...] = get_args(Adaptive)
Policy = Literal[Adaptive, Name]

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
    background: Annotated[float, Field(ge=0, le=2.0**53)] = Field(
        default=0.0, description="electrons per detector pixel and pattern from elsewhere"
    )
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
    dose: Electrons = Field(default=2.14e5, description="electrons per position (simulated)")
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
    turn: bool = Field(default=True, description="turn and mirror specimens; with train.imitate_bank mirror what was seen, recordings too")
    positions: tuple[Count, ...] = Field(min_length=1, default=(250,), description="numbers of positions to choose from")
    dose: tuple[Electrons, Electrons] = Field(default=(2.14e5, 2.14e5), description="electrons per position, from and to")
    defocus: tuple[Real, ...] = Field(min_length=1, default=(0.0,), description="defoci in Å to choose from")
    reference: Literal["full", "truth"] = Field(default="full", description="what rewards and scores refer to: full scan, or true phase")
    pool: Count = Field(default=800, description="specimens that are prepared once and drawn from; recorded: windows")
    scored: Count = Field(default=64, description="of those for reinforcement, which take a full scan each")
    window: tuple[Count, Count] = Field(default=(40, 40), description="rows and columns of recorded positions in a window (recorded)")
    held_out: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.25, description="part of a recording's columns to validate on; 0 practises on all of them"
    )
    validation: Count = Field(default=12, description="specimens of evaluate.validation to stop and choose by")


@dataclass(frozen=True, config=_strict)
class Network:
    """What is trained (`adaptycho.policy.field`, `adaptycho.policy.recurrent`)."""

    kind: Literal["field", "recurrent"] = Field(default="field", description="field (equivariant), or recurrent (the paper's)")
    survey: Literal["halton", "hexagonal", "raster"] = Field(default="halton", description="scan that the first sub-sequence begins")
    widths: tuple[Annotated[int, Field(ge=8, multiple_of=8)], ...] = Field(
        min_length=1, max_length=5, default=(24, 48, 96, 128, 128), description="channels of the field policy, fine to coarse"
    )
    floor: Fraction = Field(default=0.1, description="density of a place without structure, over one with (field)")
    flat: Fraction = Field(
        default=0.25,
        description="relative spread of the density below which positions stay even; more with under 100 electrons each (field)",
    )
    power: Positive = Field(default=1.0, description="exponent of the density; below 1 places in doubt get more (field)")
    lattice: Literal["hexagonal", "raster"] = Field(default="hexagonal", description="what is bent to follow the density (field)")
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
    encode_batches: Count = Field(
        default=100, description="batches of partial reconstructions that are made once, kept in memory and gone through again"
    )
    imitate_steps: Annotated[int, Field(ge=0)] = Field(default=1000, description="steps of imitation")
    imitate_rate: Positive = Field(default=1e-3, description="its rate of learning at the start")
    imitate_batch: Count = Field(default=24, description="its batch: episodes a step")
    imitate_bank: Annotated[int, Field(ge=0)] = Field(
        default=0, description="batches of scans led by the teacher that are made once and gone through again; 0: none"
    )
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
