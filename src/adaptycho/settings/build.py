"""From settings to things: the beam and grids, specimens, microscope, scanner and reconstructor that they describe."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from adaptycho import formats
from adaptycho.instruments import Session
from adaptycho.instruments.guard import Guard, Limits
from adaptycho.instruments.recorded import Recorded
from adaptycho.instruments.simulated import Simulated
from adaptycho.physics import specimen
from adaptycho.physics.forward import Imperfections
from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Aberrations, Setup, object_grid
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.reconstruction import Reconstruction
from adaptycho.scan.episode import stream
from adaptycho.scan.networks import library
from adaptycho.scan.networks.field import Field
from adaptycho.scan.networks.recurrent import Recurrent
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.settings import Settings, microscopes, policies
from adaptycho.types import Action, Measurement, Scanner

# Numbers that keep the random streams of specimens, their dirt and reference scans apart from those of the scan.
_SPECIMENS, _REFERENCE, _CONTAMINATION = 7, 11, 13

CHARGE = 1.602176634e-19  # of an electron, in C


def setup(settings: Settings) -> Setup:
    """Geometry and beam of a simulated scan."""
    beam, geometry = settings.beam, settings.geometry
    grid = Grid((geometry.window, geometry.window), geometry.pixel)
    try:
        aberrations = Aberrations(**(beam.aberrations | {"C10": -beam.defocus}))
    except TypeError:
        raise ValueError(
            f"beam.aberrations: expected Krivanek names such as C12, phi12, C30, found {', '.join(beam.aberrations)}"
        ) from None
    side = geometry.object
    return Setup(
        field=geometry.field,
        object=object_grid(geometry.field, grid) if side == "auto" else Grid((side, side), geometry.pixel),
        window=grid,
        detector=(geometry.detector, geometry.detector),
        semiangle=beam.semiangle,
        energy=beam.energy,
        wavelength=beam.wavelength or 0.0,
        aberrations=aberrations,
        binning=geometry.binning,
    )


def simulated(settings: Settings, made: Sequence[Atoms] | None = None) -> Simulated:
    """A microscope on random specimens of known potential, the same for the same seed.

    Args:
        settings: of the specimens.
        made: their atoms, if they are there already.
    """
    geometry, i = setup(settings), settings.instrument
    if made is None:
        made = [atoms(settings, geometry, number) for number in numbers(settings)]
    potentials = torch.stack([potential(settings, geometry, number, found) for number, found in zip(numbers(settings), made, strict=True)])
    thickness = settings.specimen.thickness or float(made[0].cell[2, 2]) / settings.specimen.slices
    imperfections = Imperfections(i.noise, i.jitter, i.background, i.source_size)
    return Simulated(geometry, potentials, settings.scan.dose, imperfections, thickness, partial(reference, settings))


def numbers(settings: Settings) -> range:
    """The numbers of the specimens."""
    wanted = settings.specimen
    first = settings.scan.seed * 4096 if wanted.first is None else wanted.first
    return range(first, first + wanted.count)


def one(settings: Settings, index: int) -> Settings:
    """The settings with only one of their specimens."""
    return dataclasses.replace(settings, specimen=dataclasses.replace(settings.specimen, first=numbers(settings)[index], count=1))


def recording(settings: Settings) -> formats.Recording:
    """The recording to replay, cut to the part that is to be scanned."""
    file = Path(settings.scan.file) if settings.scan.file else formats.example()
    try:
        whole = formats.read(file)
    except ValueError as error:
        if file.exists() and isinstance(formats.find(file), formats.Opener):
            raise ValueError(f"{error}; `adaptycho import` takes what is missing and makes a recording to scan") from error
        raise
    if settings.scan.rows == (0.0, 1.0) and settings.scan.columns == (0.0, 1.0):
        return whole
    return formats.cut(whole, rows=settings.scan.rows, columns=settings.scan.columns)


def recorded(settings: Settings) -> Recorded:
    """A microscope that replays a recording."""
    source = recording(settings)
    return Recorded(source.setup, source.measurement, source.counts_per_electron, partial(reference, settings))


def limited(settings: Settings) -> bool:
    """Whether the settings limit what may be done to the specimen."""
    return limits(settings) != Limits()


def limits(settings: Settings) -> Limits:
    """What no request may do."""
    return Limits(**{name: getattr(settings.safety, name) for name in ("outside", "dose", "local", "jump", "seconds")})


def guard(
    settings: Settings,
    session: Session,
    counts_per_electron: float = 1.0,
    **kept: Any,
) -> Guard:
    """A microscope with the limits of the settings in front of it.

    Args:
        settings: whose section `safety` limits, and whose beam current counts while nothing is asked for.
        session: the microscope.
        counts_per_electron: detector counts that one electron makes.
        kept: what `Guard` takes besides, `note` and `spent`.
    """
    leak = settings.safety.waiting * settings.instrument.current * 1e-12 / CHARGE
    return Guard(session, limits(settings), settings.safety.electrons, counts_per_electron, leak, **kept)


def scanner(settings: Settings, policy: str | None = None, defocus: float | None = None) -> Scanner:
    """The scan strategy of the settings, or another one by name or at another defocus in Å."""
    name, focus = policy or settings.scan.policy, settings.scan.defocus if defocus is None else defocus
    if name in policies.LEARNED:
        return library.scanner(learned(settings, name, focus), defocus=focus)
    if name in policies.PATTERNS:
        return Fixed(name, focus)
    return policies.make(name, settings, focus)


def learned(settings: Settings, name: str, defocus: float | None) -> nn.Module:
    """The network of a learned policy: the file of the settings, or the shipped one that knows such scans.

    Focused scans are of crystals whose atoms are looked for, defocused ones of specimens that may fill a part of the field, and a kind of
    microscope may have a policy of its own, as recordings have.

    Raises:
        ValueError: no policy that comes along knows such scans, or the file's is of another kind.
    """
    if settings.scan.weights:
        found = library.load(Path(settings.scan.weights))
        wanted = Recurrent if name == "recurrent" else Field
        if not isinstance(found, wanted):
            kind = wanted.__name__.lower()
            raise ValueError(f"scan.weights: expected those of a {kind} policy for {name}, found a {type(found).__name__.lower()} network")
        return found
    microscope = microscopes.of(settings)
    if microscope.policy is not None:
        if name == "recurrent":
            raise ValueError(f"scan.weights: expected a recurrent policy trained on {microscope.noun} (`adaptycho train`), found none")
        return library.shipped(microscope.policy)
    if name == "recurrent":
        return library.shipped("recurrent")
    return library.shipped("structure" if (settings.beam.defocus if defocus is None else defocus) else "lattice")


def reconstructor(settings: Settings, setup: Setup, counts_per_electron: float = 1.0) -> Reconstructor:
    """ROP as the settings have it, for a detector that makes so many counts of an electron."""
    r = settings.reconstruct
    how = (r.iterations, r.loss, r.step, r.scaling, r.momentum, r.kind, r.subpixel, r.prior, r.strength, r.blob)
    sought = {name: getattr(r, name) for name in ("refine", "modes", "reach", "slices", "thickness", "method", "stop")}
    return Reconstructor(setup, *how, counts_per_electron, **sought)


def reconstruction(recording: formats.Recording, *, device: str = "cpu", **changes: Any) -> Reconstruction:
    """Reconstructs a recording with the settings that reconstruct best.

    Args:
        recording: what was measured.
        device: where to compute.
        changes: other settings of `Reconstructor`.
    """
    changes = {"counts_per_electron": recording.counts_per_electron} | changes
    return Reconstructor.best(recording.setup, **changes)(recording.measurement.to(device))


def reference_descent(settings: Settings, setup: Setup, counts_per_electron: float = 1.0) -> Reconstructor:
    """ROP of the full scan, without a prior: a fixed, unscaled step is `reconstruct.reference_step`, since more positions overlap."""
    descent, r = dataclasses.replace(reconstructor(settings, setup, counts_per_electron), prior="none"), settings.reconstruct
    return dataclasses.replace(descent, step=r.reference_step) if r.step != "auto" and r.scaling == "none" else descent


def full_scan(settings: Settings, microscope: Simulated) -> Measurement:
    """A dense raster over the field of every specimen; by default the paper's 10,000 positions."""
    side = settings.reconstruct.reference_side
    line = torch.arange(side) / side
    positions = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(1, -1, 2)
    return microscope.acquire(Action(positions.expand(microscope.batch, -1, -1)), generator=stream(settings.scan.seed, -_REFERENCE))


def reference(settings: Settings, microscope: Simulated | Recorded) -> Float[Tensor, "B h w"]:
    """What scores refer to: the phase inside the field from the full scan, or from everything that was recorded.

    The full scan is taken and reconstructed one specimen at a time, so that memory does not grow with their number.
    """
    counts = microscope.counts_per_electron if isinstance(microscope, Recorded) else 1.0
    descent = reference_descent(settings, microscope.setup, counts)
    if isinstance(microscope, Recorded):
        return microscope.setup.crop(descent(microscope.measurement).phase)
    phases = []
    for b in range(microscope.batch):
        alone = microscope.only(b)
        phases.append(microscope.setup.crop(descent(full_scan(settings, alone)).phase))
    return torch.cat(phases)


def truth_in_field(microscope: Simulated) -> Float[Tensor, "B h w"]:
    """True projected phase inside the field."""
    potential = microscope.potential.real if microscope.potential.is_complex() else microscope.potential
    return microscope.setup.crop(potential.sum(1) if potential.ndim == 4 else potential)


def atoms(settings: Settings, setup: Setup, number: int) -> Atoms:
    """The atoms of a specimen by its number, in Å from the centre of the object grid.

    Raises:
        ValueError: the family does not take the options of the settings.
    """
    wanted = settings.specimen
    unit = specimen.structure(wanted.structure)
    generator = stream(number, -_SPECIMENS)
    try:
        return specimen.sample(wanted.family, unit, setup.field, setup.object.extent, generator=generator, **wanted.options)
    except (TypeError, ValueError) as error:  # a wrong type is found where it is first used
        raise ValueError(f"specimen.options: expected options of family {wanted.family}, found {wanted.options} ({error})") from error


def potential(settings: Settings, setup: Setup, number: int, made: Atoms) -> Shaped[Tensor, "*slices H W"]:
    """Potential of a specimen from its atoms, with the dirt that goes with its number."""
    wanted = settings.specimen
    values = specimen.potential(made, setup, thermal=wanted.thermal, absorption=wanted.absorption, slices=wanted.slices)
    if wanted.contamination:
        values = specimen.contaminate(values, setup.object, phase=wanted.contamination, generator=stream(number, -_CONTAMINATION))
    return values
