"""The sections of the settings that only training reads; the rest is in `adaptycho.settings.sections`."""

from typing import Annotated, Literal, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass

from adaptycho.physics import Family
from adaptycho.settings.bounds import STRICT, Count, Defocus, Dose, Fraction, Name, Positions, Rate, Real, Seed, Side, Steps, Whole, Width

Reward = Literal["shared", "voronoi", "window", "error", "structure", "scattered"]  # files of adaptycho.learn.rewards
Kept = Annotated[Real, Field(gt=0, le=1)]
REWARDS: tuple[Reward, ...] = get_args(Reward)


@dataclass(frozen=True, config=STRICT)
class Practice:
    """What a policy practises on (`adaptycho.learn.pool`); what is not here is as in the other sections."""

    families: tuple[Family, ...] = Field(min_length=1, default=("crystal",), description="families of specimens, drawn at random")
    structures: Name | None = Field(
        default=None, description="folder of structure files, of which each specimen has one at random; left out, specimen.structure"
    )
    recordings: Name | None = Field(
        default=None, description="folder of recordings, all taken alike, to cut windows from; left out, scan.file (recorded)"
    )
    filling: tuple[Fraction, Fraction] = Field(default=(0.1, 0.5), description="filling of those that do not fill the field, from and to")
    turn: bool = Field(default=True, description="turn and mirror specimens; with train.imitate_bank mirror what was seen, recordings too")
    positions: tuple[Positions, ...] = Field(min_length=1, default=(250,), description="numbers of positions to choose from")
    dose: tuple[Dose, Dose] = Field(default=(2.14e5, 2.14e5), description="electrons per position, from and to")
    defocus: tuple[Defocus, ...] = Field(min_length=1, default=(0.0,), description="defoci in Å to choose from")
    reference: Literal["full", "truth"] = Field(default="full", description="what rewards and scores refer to: full scan, or true phase")
    pool: Count = Field(default=800, description="specimens that are prepared once and drawn from; recorded: windows")
    scored: Count = Field(default=64, description="of those for reinforcement, which take a full scan each")
    window: tuple[Count, Count] = Field(default=(40, 40), description="rows and columns of recorded positions in a window (recorded)")
    kept: tuple[Kept, Kept] = Field(default=(1.0, 1.0), description="part of a window's electrons that is kept, from and to (recorded)")
    held_out: Annotated[Real, Field(ge=0, le=0.5)] = Field(
        default=0.25, description="part of a recording's columns to validate on; 0 practises on all of them"
    )
    validation: Count = Field(default=12, description="specimens of evaluate.validation to stop and choose by")

    def __post_init__(self) -> None:
        if self.kept[0] > self.kept[1]:
            raise ValueError(f"kept: expected a smaller and a larger part, found {self.kept[0]:g} and {self.kept[1]:g}")


@dataclass(frozen=True, config=STRICT)
class Network:
    """What is trained (`adaptycho.scan.networks.field`, `adaptycho.scan.networks.recurrent`)."""

    kind: Literal["field", "recurrent"] = Field(default="field", description="field (equivariant), or recurrent (the paper's)")
    survey: Literal["halton", "hexagonal", "raster"] = Field(default="halton", description="scan that the first sub-sequence begins")
    widths: tuple[Annotated[Whole, Field(ge=8, le=1 << 12, multiple_of=8)], ...] = Field(
        min_length=1, max_length=5, default=(24, 48, 96, 128, 128), description="channels of the field policy, fine to coarse"
    )
    floor: Fraction = Field(default=0.1, description="density of a place without structure, over one with (field)")
    flat: Fraction = Field(
        default=0.25,
        description="relative spread of the density below which positions stay even; more with under 100 electrons each (field)",
    )
    power: Annotated[Real, Field(gt=0, le=100)] = Field(
        default=1.0, description="exponent of the density; below 1 places in doubt get more (field)"
    )
    lattice: Literal["hexagonal", "raster"] = Field(default="hexagonal", description="what is bent to follow the density (field)")
    hidden: Width = Field(default=2048, description="width of the recurrent state")
    location: Width = Field(default=512, description="width of the location information")
    structure: Width = Field(default=512, description="width of the structure information")
    image: Annotated[Whole, Field(ge=64, le=1 << 12, multiple_of=64)] = Field(
        default=512, description="pixels along each side of the autoencoder's input"
    )
    start: Literal["halton", "scratch"] = Field(default="halton", description="recurrent: from the Halton points, or from nothing")


@dataclass(frozen=True, config=STRICT)
class Train:
    """How it is trained, by three courses (`adaptycho.learn`)."""

    seed: Seed = Field(default=0, description="of weights, specimens and exploration")
    processes: Annotated[Whole, Field(ge=1, le=1024)] = Field(default=1, description="processes that share each batch, one thread each")
    shares: Count = Field(default=2, description="parts a batch is worked through in; a multiple of the processes")
    every: Count = Field(default=20, description="steps between validations and checkpoints")
    tensorboard: bool = Field(default=False, description="show the curves in TensorBoard too (RUN/tensorboard)")
    encode_steps: Steps = Field(default=100_000, description="steps of the autoencoder")
    encode_rate: Rate = Field(default=1e-5, description="its rate of learning")
    encode_batch: Count = Field(default=24, description="its batch")
    encode_batches: Count = Field(
        default=100, description="batches of partial reconstructions that are made once, kept in memory and gone through again"
    )
    imitate_steps: Steps = Field(default=1000, description="steps of imitation")
    imitate_rate: Rate = Field(default=1e-3, description="its rate of learning at the start")
    imitate_batch: Count = Field(default=24, description="its batch: episodes a step")
    imitate_bank: Steps = Field(
        default=0, description="batches of scans led by the teacher that are made once and gone through again; 0: none"
    )
    teacher: Literal["even", "half-way", "structure"] = Field(
        default="even", description="even (C1), half-way to the nearest atom column, or structure (where there is something)"
    )
    pull: Fraction = Field(default=0.5, description="of the half-way teacher: fraction of the way")
    reinforce_steps: Steps = Field(default=20_000, description="steps of reinforcement")
    reinforce_rate: Rate = Field(default=1e-5, description="its rate of learning")
    reinforce_batch: Count = Field(default=24, description="its batch: episodes a step")
    sigma: Annotated[Real, Field(gt=0, le=1)] = Field(default=0.0125, description="standard deviation of the policy, fraction of the field")
    gamma: Fraction = Field(default=0.0, description="discount of later rewards")
    credit: Reward = Field(default="voronoi", description="how reward is divided among positions")
    width: Side = Field(default=1.2, description="width in Å of the windows of credits that have some")
    baseline: Literal["none", "batch", "pair", "mean"] = Field(
        default="batch",
        description="none, the mean over its share of the batch, another rollout of its specimen, or the mean action's reward",
    )
