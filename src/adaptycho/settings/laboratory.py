"""The kinds of microscopes that are instruments, driven through their makers' software. `scan.file` names the file that describes one.

They are found by entry point (decision 14), and what they need of that software is imported when one is opened. Beam, field and pixels are
those of the settings; the file says where the field lies on the instrument and how its frames become patterns.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptycho.instruments import Capabilities, Session
from adaptycho.settings.microscopes import File, Kind, Subject

if TYPE_CHECKING:
    from adaptycho.instruments.description import Frames
    from adaptycho.physics.optics import Setup
    from adaptycho.settings.sections import Settings


def _instrument(name: str, title: str, capabilities: Capabilities) -> Kind:
    """A kind whose module of `adaptycho.instruments` has a `Description` of the file and `open_`."""

    def described(settings: "Settings") -> tuple[Any, Any]:
        module, description = (import_module(f"adaptycho.instruments.{part}") for part in (name, "description"))
        return module, description.read(settings.scan.file, module.Description)

    def open_(settings: "Settings") -> Session:
        module, told = described(settings)
        session: Session = module.open_(_setup(settings, told.frames), told, settings.instrument.current)
        return session

    def subject(settings: "Settings") -> Subject:
        _, told = described(settings)
        return Subject(title, _setup(settings, told.frames), counts_per_electron=told.frames.counts_per_electron)

    return Kind(name=name, capabilities=capabilities, open=open_, files=_file, subject=subject, brings=("specimen.",))


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


NION = _instrument("nion", "a Nion microscope", Capabilities())
DIRECTELECTRON = _instrument("directelectron", "a microscope with a Direct Electron camera", Capabilities(anywhere=False))
BLUESKY = _instrument("bluesky", "an instrument under bluesky", Capabilities())
