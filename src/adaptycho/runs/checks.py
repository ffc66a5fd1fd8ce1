"""What is refused before a run relies on it: scans that cannot be, and what a microscope brings that the run could not read back."""

import torch
from torch import Tensor

from adaptycho import formats
from adaptycho.instruments import Session
from adaptycho.physics.optics import Setup
from adaptycho.scan.episode import split_evenly
from adaptycho.settings import Settings, build
from adaptycho.settings.microscopes import BUILT_IN, Kind, Subject
from adaptycho.types import Action, Measurement

SMALLEST = 11  # pixels of the field that a structural similarity needs


def check_scan(chosen: Settings, kind: Kind, microscope: Session) -> None:
    """Refuses what cannot be scanned before there is a folder.

    Raises:
        ValueError: too few positions or pixels, a microscope that is not what is told of it, or a defocus that it does not have.
    """
    wanted, setup = chosen.scan, microscope.setup
    split_evenly(wanted.positions, wanted.subsequences)
    check_field(setup)
    check_session(chosen, kind, microscope)
    build.reconstructor(chosen, setup)
    if not kind.capabilities.defocus and wanted.defocus is not None:
        raise ValueError(f"scan.defocus: expected none for {kind.noun}, whose defocus stays, found {wanted.defocus:g} Å")


def check_field(setup: Setup) -> None:
    """Refuses a field of too few pixels for scores.

    Raises:
        ValueError: the same.
    """
    if min(setup.field_shape) < SMALLEST:
        found = f"{setup.field_shape} of {setup.object.pixel:g} Å"
        raise ValueError(f"geometry.field: expected at least {SMALLEST} pixels along each axis, found {found}")


def check_session(chosen: Settings, kind: Kind, microscope: Session) -> None:
    """Refuses a microscope that a package brings and that is not what is told of it without opening it.

    Raises:
        ValueError: specimens, detector, field or beam differ.
    """
    if kind not in BUILT_IN and (found := _extent(microscope)) != (told := _extent(kind.look(chosen))):
        source = "the settings describe it" if kind.subject is None else "its subject tells"
        raise ValueError(f"scan.microscope: expected {kind.name} to have {told}, as {source}, found {found}")


def check_action(action: Action, batch: int) -> None:
    """Refuses positions that could not be read back, before electrons are spent on them.

    Raises:
        ValueError: not one row of finite positions for each specimen.
    """
    shape, finite = tuple(action.positions.shape), bool(torch.isfinite(action.positions.float()).all())
    if len(shape) != 3 or (shape[0], shape[2]) != (batch, 2) or not finite:
        found = f"shape {shape}{'' if finite else ', not all finite'}"
        raise ValueError(f"action.positions: expected finite numbers of shape ({batch}, K, 2), got {found}")


def check_answer(answer: object, setup: Setup, shape: tuple[int, int]) -> None:
    """Refuses what a microscope answers if it could not be read back.

    Args:
        answer: what it returned.
        setup: geometry of the scan.
        shape: numbers of specimens and of positions that were asked for.

    Raises:
        ValueError: `the microscope: expected ..., got ...` for what is no measurement, has another shape, or is no data set of the scan.
    """
    if not isinstance(answer, Measurement):
        raise ValueError(f"the microscope: expected a Measurement, got {type(answer).__name__}")
    wanted, found = (*shape, *setup.detector), tuple(answer.patterns.shape)
    if found != wanted:
        raise ValueError(f"the microscope: patterns: expected shape {wanted}, specimens, positions and detector, got {found}")
    if any(answer.lengths != shape[1]):
        raise ValueError(f"the microscope: lengths: expected {shape[1]} patterns of each specimen, got {answer.lengths.tolist()}")
    for part in answer.split():
        formats.check(part, setup, "the microscope")


def check_reference(known: object, setup: Setup, batch: int) -> None:
    """Refuses what a microscope says that scores refer to if it could not be read back, or if nothing can be compared with it.

    Raises:
        ValueError: another shape or number type, or values that are not finite.
    """
    wanted, found = (batch, *setup.field_shape), type(known).__name__
    if isinstance(known, Tensor):
        if tuple(known.shape) == wanted and known.dtype in (torch.float32, torch.float64) and bool(torch.isfinite(known).all()):
            return
        found = f"{str(known.dtype).removeprefix('torch.')} of shape {tuple(known.shape)}"
        if known.is_floating_point() and not bool(torch.isfinite(known).all()):
            found += ", not all finite"
    raise ValueError(f"the microscope: reference: expected finite numbers in single or double precision of shape {wanted}, got {found}")


def _extent(scanned: Session | Subject) -> str:
    setup, (qy, qx), (h, w) = scanned.setup, scanned.setup.detector, scanned.setup.field_shape
    grid = f"{scanned.batch} x {qy} x {qx} detector pixels, a field of {h} x {w} pixels of {setup.object.pixel:.4g} Å"
    return f"{grid} and a beam of {setup.wavelength:.4g} Å and {setup.semiangle:.4g} mrad"
