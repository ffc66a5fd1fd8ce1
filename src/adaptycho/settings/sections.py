"""The sections of the settings: validated dataclasses with the paper's values as defaults, each field with what it means."""

import itertools
import math
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from adaptycho.physics import Family
from adaptycho.reconstruct import Loss, Method, Prior, Stop
from adaptycho.reconstruct.refine import PARAMETERS, Parameter
from adaptycho.scan import Pattern, Signal
from adaptycho.settings import microscopes, policies
from adaptycho.settings.bounds import (
    MOST_COUNTS,
    MOST_POTENTIAL,
    STRICT,
    Aberration,
    Background,
    Count,
    Current,
    Defocus,
    Dose,
    Energy,
    Fraction,
    Length,
    Name,
    Options,
    Phase,
    Pixel,
    Pixels,
    Positions,
    Positive,
    Real,
    Seconds,
    Seed,
    Semiangle,
    Side,
    Thermal,
    Wavelength,
    Whole,
)
from adaptycho.settings.learning import Network, Practice, Train
from adaptycho.settings.safety import Safety


@dataclass(frozen=True, config=STRICT)
class Beam:
    """The probe-forming optics."""

    energy: Energy | None = Field(default=None, description="beam energy in eV; 60 keV if neither it nor a wavelength is given")
    wavelength: Wavelength | None = Field(default=None, description="wavelength in Å, instead of an energy (X-rays, light)")
    semiangle: Semiangle = Field(default=33.0, description="convergence semi-angle in mrad")
    defocus: Defocus = Field(default=0.0, description="nominal defocus in Å, positive is underfocus")
    aberrations: dict[str, Aberration] = Field(
        default_factory=dict, description="other aberrations by Krivanek name, Å and rad: {C30 = 1e4}"
    )

    def __post_init__(self) -> None:
        """Fills in the energy of Table II."""
        if self.energy is None and self.wavelength is None:
            object.__setattr__(self, "energy", 60e3)
        elif self.energy is not None and self.wavelength is not None:
            raise ValueError("an energy or a wavelength, not both")


@dataclass(frozen=True, config=STRICT)
class Geometry:
    """Four extents: scan field, object, probe window, detector."""

    field: tuple[Side, Side] = Field(default=(20.0, 20.0), description="scan field (y, x) in Å")
    pixel: Pixel = Field(default=0.154, description="pixel of object and window in Å")
    object: Pixels | Literal["auto"] = Field(default=200, description="object pixels along each side; auto: as many as the field needs")
    window: Pixels = Field(default=64, description="pixels of the box one probe lives in, along each side")
    detector: Pixels = Field(default=64, description="recorded detector pixels along each side, after binning")
    binning: Annotated[Whole, Field(ge=1, le=1024)] = Field(
        default=1, description="window frequencies summed into one detector pixel, along each side"
    )


@dataclass(frozen=True, config=STRICT)
class Specimen:
    """What is simulated."""

    structure: Name = Field(default="MoS2", description="MoS2, WSe2, graphene, or a structure file that ASE reads")
    family: Family = Field(default="crystal", description="crystal, vacancies, island, edge, particles, boundary or amorphous")
    options: Options = Field(default_factory=dict, description="of the family: {rotation = 12.0}, {filling = 0.25}, {fraction = 0.05}")
    count: Count = Field(default=1, description="number of specimens, each random in its own way")
    first: Seed | None = Field(
        default=None, description="number of the first: a number is always the same specimen; 4096 times the scan's seed if not given"
    )
    thermal: Thermal = Field(default=0.08, description="rms thermal displacement of the atoms in Å")
    absorption: Annotated[Real, Field(ge=0, le=10)] = Field(
        default=0.0, description="imaginary part of the potential as a fraction of the real part"
    )
    slices: Count = Field(default=1, description="slices of a multislice simulation")
    thickness: Length = Field(default=0.0, description="distance between slices in Å; left at 0, the structure's own height divided up")
    contamination: Phase = Field(default=0.0, description="rms phase in rad of a random carbonaceous layer")


@dataclass(frozen=True, config=STRICT)
class Instrument:
    """What separates the instrument from Eq. 1."""

    noise: bool = Field(default=True, description="count electrons (Poisson); off gives expectation values")
    jitter: Length = Field(default=0.0, description="rms error in Å between requested and real position, not reported")
    background: Background = Field(default=0.0, description="electrons per detector pixel and pattern from elsewhere")
    source_size: Length = Field(default=0.0, description="rms radius in Å of the demagnified source (partial coherence)")
    current: Current = Field(default=10.0, description="beam current in pA; only the time to expose depends on it")
    settle: Seconds = Field(default=1e-3, description="seconds to move the beam to a position and read the detector")


@dataclass(frozen=True, config=STRICT)
class Scan:
    """What is scanned, and how the positions are chosen."""

    microscope: Annotated[str, AfterValidator(microscopes.known)] = Field(
        default="simulated", description="simulated, recorded to replay a file, or one that an installed package brings"
    )
    file: Name | None = Field(default=None, description="recording to replay; left out, the one that is shipped")
    rows: tuple[Fraction, Fraction] = Field(default=(0.0, 1.0), description="part of a recording to scan: from and to along y, fractions")
    columns: tuple[Fraction, Fraction] = Field(default=(0.0, 1.0), description="the same along x")
    policy: Annotated[str, AfterValidator(policies.known)] = Field(
        default="heuristic",
        description="adaptive (learned), recurrent (the paper's), heuristic, greedy, lattice, reduction, process, crop, threshold, "
        f"a conventional scan ({', '.join(get_args(Pattern))}), or one that an installed package brings",
    )
    weights: Name | None = Field(default=None, description="file with weights for adaptive or recurrent, instead of those that are shipped")
    positions: Positions = Field(default=250, description="beam positions in all")
    subsequences: Count = Field(default=5, description="sub-sequences they are taken in")
    dose: Dose = Field(default=2.14e5, description="electrons per position (simulated)")
    defocus: Defocus | None = Field(default=None, description="defocus in Å during the scan, if not the nominal one (simulated)")
    warm: bool = Field(default=False, description="go on from the last reconstruction instead of from zero after each sub-sequence")
    overlap: bool = Field(
        default=False, description="acquire while the sub-sequence before is reconstructed; a decision then knows all but the last one"
    )
    seed: Seed = Field(default=0, description="of specimens, noise and random scans")


@dataclass(frozen=True, config=STRICT)
class Heuristic:
    """The adaptive scan without learning (`adaptycho.scan.policies.heuristic`)."""

    pull: Fraction = Field(default=0.5, description="fraction of the way positions move towards the nearest phase maximum")
    reach: Annotated[Real, Field(ge=0, le=1e6)] = Field(default=4.0, description="maxima further than this many probe radii do not pull")
    smooth: Annotated[Real, Field(ge=0, le=1e3)] = Field(
        default=0.75, description="width in probe radii of the Gaussian that decides what a maximum is"
    )
    contrast: Annotated[Real, Field(ge=0, le=10)] = Field(
        default=0.7, description="power of the local structure that positions follow; 0 spreads them evenly"
    )
    floor: Fraction = Field(default=0.1, description="part of the positions spread evenly whatever is seen")


Margin = Annotated[Real, Field(ge=0, le=1e3)]


@dataclass(frozen=True, config=STRICT)
class Crop:
    """Survey and crop (`adaptycho.scan.policies.crop`)."""

    shape: Literal["mask", "box"] = Field(default="mask", description="of the crop: the mask round the structure, or the box round that")
    signal: Signal = Field(default="dark-field", description="what structure is told from: dark-field or phase")
    margin: Margin = Field(default=0.5, description="what the mask is grown by, in probe radii")
    lattice: Literal["hexagonal", "raster"] = Field(default="hexagonal", description="of survey and crop")


@dataclass(frozen=True, config=STRICT)
class Threshold:
    """The scan by threshold (`adaptycho.scan.policies.threshold`)."""

    signal: Signal = Field(default="dark-field", description="what structure is told from: dark-field or phase")
    margin: Margin = Field(default=0.5, description="what the mask is grown by, in probe radii")
    rim: Annotated[Real, Field(ge=0, le=10)] = Field(default=0.0, description="how much denser than within it positions are along its rim")
    lattice: Literal["hexagonal", "raster"] = Field(default="hexagonal", description="of the survey, and that is bent to follow the mask")


@dataclass(frozen=True, config=STRICT)
class Reconstruct:
    """ROP (`adaptycho.reconstruct.descent`)."""

    iterations: Count = Field(default=5, description="gradient steps")
    loss: Loss = Field(default="intensity", description="intensity (Eq. 2), amplitude, anscombe or poisson")
    step: Positive | Literal["auto"] = Field(default=525.0, description="step size, or auto")
    scaling: Literal["none", "illumination"] = Field(
        default="none", description="illumination divides the step by the summed probe intensity"
    )
    momentum: Annotated[Real, Field(ge=0, lt=1)] = Field(default=0.0, description="fraction of the last update carried on")
    kind: Literal["potential", "complex"] = Field(default="potential", description="real potential, or complex with absorption")
    subpixel: Annotated[Whole, Field(ge=1, le=1024)] = Field(
        default=16, description="probes are placed on a lattice of 1/subpixel of a pixel"
    )
    prior: Prior = Field(default="none", description="believed of the potential: atoms, sparse, smooth or edges; auto: what the data say")
    strength: Annotated[Real, Field(ge=0, le=1e3)] = Field(default=0.5, description="of the prior, in units of the counting noise")
    blob: Length = Field(default=0.25, description="rms radius in Å of what the prior takes for an atom; 0 for a pixel")
    refine: tuple[Parameter, ...] | Literal["auto"] = Field(
        default=(), description=f"found out with the object: any of {', '.join(PARAMETERS)}; auto: probe and defocus, if the data say so"
    )
    modes: Annotated[Whole, Field(ge=1, le=64)] = Field(default=1, description="modes of the probe that is refined, whose intensities add")
    reach: Positive | None = Field(default=None, description="Å that a position may be off; a wavelength over the semi-angle if unset")
    slices: Annotated[Whole, Field(ge=1, le=1000)] = Field(default=1, description="of the object, whose sum the potential is")
    thickness: Length = Field(default=0.0, description="Å from one slice to the next")
    method: Method = Field(default="momentum", description="momentum, or conjugate: conjugate gradients with a line search")
    stop: Stop = Field(default="iterations", description="iterations: after all of them; held-out: when held-out electrons say so")
    reference_step: Positive = Field(default=200.0, description="step of the full scan that scores refer to; its positions overlap more")
    reference_side: Annotated[Whole, Field(ge=1, le=10_000)] = Field(
        default=100, description="positions along each side of that full scan (simulated)"
    )


Range = tuple[Seed, Seed]
# Results came from here until 2,000,000 was begun, and designs were changed after looking at some (docs/decisions/0010).
USED: Range = (1_100_000, 1_200_000)
FRESH = 2_000_000  # from here on specimens are reported on, and nothing is learnt, tuned or chosen


@dataclass(frozen=True, config=STRICT)
class Evaluate:
    """How strategies are compared (`adaptycho.compare`)."""

    train: Range = Field(default=(0, 1_000_000), description="numbers of the specimens to learn and tune on, from and up to")
    validation: Range = Field(default=(1_000_000, 1_100_000), description="of those to choose among what was learnt")
    test: Range = Field(default=(FRESH, FRESH + 100_000), description="of those to report on, and for nothing else")
    specimens: Count = Field(default=12, description="test specimens of a comparison")
    tuning: Count = Field(default=4, description="training specimens to find each strategy's best settings on (protocol best)")
    defoci: tuple[Defocus, ...] = Field(
        min_length=1, default=(0.0, 30.0, 60.0, 90.0, 120.0), description="defoci in Å to choose from (protocol best)"
    )
    dense: Positions = Field(default=1024, description="positions of the dense raster, the full scan at reduced dwell")

    def __post_init__(self) -> None:
        """Refuses ranges that share a specimen, and to learn, tune or choose on those that are only to be reported on."""
        ranges = sorted((self.train, self.validation, self.test))
        if any(low >= high for low, high in ranges) or any(a[1] > b[0] for a, b in itertools.pairwise(ranges)):
            raise ValueError("disjoint ranges of specimens, each from a lower to a higher number")
        if max(self.train[1], self.validation[1]) > FRESH:
            raise ValueError(f"train and validation to end at {FRESH} or before, from where on specimens are for reports only")


@dataclass(frozen=True, config=STRICT)
class Settings:
    """The whole tree."""

    beam: Beam = Field(default_factory=Beam)
    geometry: Geometry = Field(default_factory=Geometry)
    specimen: Specimen = Field(default_factory=Specimen)
    instrument: Instrument = Field(default_factory=Instrument)
    scan: Scan = Field(default_factory=Scan)
    safety: Safety = Field(default_factory=Safety)
    heuristic: Heuristic = Field(default_factory=Heuristic)
    crop: Crop = Field(default_factory=Crop)
    threshold: Threshold = Field(default_factory=Threshold)
    reconstruct: Reconstruct = Field(default_factory=Reconstruct)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    practice: Practice = Field(default_factory=Practice)
    network: Network = Field(default_factory=Network)
    train: Train = Field(default_factory=Train)

    def __post_init__(self) -> None:
        """Refuses what no memory holds, and what contradicts itself."""
        g, s, r = self.geometry, self.specimen, self.reconstruct
        if self.scan.warm and r.stop == "held-out":
            raise ValueError("reconstruct.stop: expected iterations with scan.warm, which goes on from what was held back, found held-out")
        side = math.ceil(max(g.field) / g.pixel) + g.window if g.object == "auto" else g.object
        for name, what, size, most in (
            ("geometry.object", "pixels of potential", side**2 * s.slices * s.count, MOST_POTENTIAL),
            ("scan.positions", "detector pixels in all patterns", self.scan.positions * s.count * g.detector**2, MOST_COUNTS),
            ("reconstruct.reference_side", "detector pixels in all patterns", (r.reference_side * g.detector) ** 2, MOST_COUNTS),
        ):
            if size > most:
                raise ValueError(f"{name}: expected at most {most:.2g} {what}, found {size:.2g}")
