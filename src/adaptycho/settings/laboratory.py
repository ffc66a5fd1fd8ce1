"""The kinds of microscopes that are instruments, driven through their makers' software. `scan.file` names the file that describes one.

They are found by entry point (decision 14), and what they need of that software is imported when one is opened. Beam, field and pixels are
those of the settings; the file says where the field lies on the instrument and how its frames become patterns.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from adaptycho.instruments import Capabilities, Session
from adaptycho.settings.microscopes import File, Kind, Subject

if TYPE_CHECKING:
    from adaptycho.instruments.frames import Frames
    from adaptycho.physics.optics import Setup
    from adaptycho.settings.sections import Settings


class Described(Protocol):
    """What every description of an instrument has."""

    @property
    def frames(self) -> "Frames":
        """How its frames become patterns."""
        ...


def _file(settings: "Settings") -> Mapping[File, Path]:
    return {"input": Path(settings.scan.file)} if settings.scan.file else {}


def _setup(settings: "Settings", frames: "Frames") -> "Setup":
    """The setup of the settings behind a detector that is turned against the scan."""
    from adaptycho.physics.optics import object_grid
    from adaptycho.settings import build

    plain = build.setup(settings)
    if not frames.rotation:
        return plain
    return replace(plain, rotation=frames.rotation, object=object_grid(plain.field, plain.window, frames.rotation))


def _subject(title: str, describe: "Callable[[Settings], Described]") -> "Callable[[Settings], Subject]":
    def told(settings: "Settings") -> Subject:
        frames = describe(settings).frames
        return Subject(title, _setup(settings, frames), counts_per_electron=frames.counts_per_electron)

    return told


def _nion(settings: "Settings") -> "Described":
    from adaptycho.instruments import frames, nion

    return frames.read(settings.scan.file, nion.Description)


def _open_nion(settings: "Settings") -> Session:
    from adaptycho.instruments import frames, nion

    told = frames.read(settings.scan.file, nion.Description)
    return nion.open_(_setup(settings, told.frames), told, settings.instrument.current)


NION = Kind(
    name="nion",
    capabilities=Capabilities(),
    open=_open_nion,
    files=_file,
    subject=_subject("a Nion microscope", _nion),
    brings=("specimen.",),
)


def _directelectron(settings: "Settings") -> "Described":
    from adaptycho.instruments import directelectron, frames

    return frames.read(settings.scan.file, directelectron.Description)


def _open_directelectron(settings: "Settings") -> Session:
    from adaptycho.instruments import directelectron, frames

    told = frames.read(settings.scan.file, directelectron.Description)
    return directelectron.open_(_setup(settings, told.frames), told, settings.instrument.current)


DIRECTELECTRON = Kind(
    name="directelectron",
    capabilities=Capabilities(anywhere=False),
    open=_open_directelectron,
    files=_file,
    subject=_subject("a microscope with a Direct Electron camera", _directelectron),
    brings=("specimen.",),
)


def _bluesky(settings: "Settings") -> "Described":
    from adaptycho.instruments import bluesky, frames

    return frames.read(settings.scan.file, bluesky.Description)


def _open_bluesky(settings: "Settings") -> Session:
    from adaptycho.instruments import bluesky, frames

    told = frames.read(settings.scan.file, bluesky.Description)
    return bluesky.open_(_setup(settings, told.frames), told, settings.instrument.current)


BLUESKY = Kind(
    name="bluesky",
    capabilities=Capabilities(),
    open=_open_bluesky,
    files=_file,
    subject=_subject("an instrument under bluesky", _bluesky),
    brings=("specimen.",),
)
