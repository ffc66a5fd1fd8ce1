"""The kinds of microscopes by name: those that come along, and those that installed packages bring (docs/how-to/microscope.md).

A package brings one by an entry point of the group `adaptycho.microscopes`, which names a `Kind`. What a kind can do is known before
anything is loaded; torch and its friends are loaded when one is opened.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adaptycho.instruments import Capabilities, Session
from adaptycho.support import plugins

if TYPE_CHECKING:
    from adaptycho.physics.optics import Setup
    from adaptycho.settings.sections import Settings

GROUP = "adaptycho.microscopes"
File = Literal["input", "structure"]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is scanned, as a run folder is read without its microscope.

    Attributes:
        title: what it is called.
        setup: geometry and beam.
        batch: number of specimens.
        counts_per_electron: detector counts that one electron makes.
    """

    title: str
    setup: "Setup"
    batch: int = 1
    counts_per_electron: float = 1.0


def _no_files(settings: "Settings") -> Mapping[File, Path]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of microscope.

    Attributes:
        name: what `scan.microscope` calls it.
        capabilities: what it can do.
        open: makes it ready for one scan with some settings.
        files: what it depends on besides the settings: `input` is what is replayed or configures it, `structure` the specimen's. A run goes
            on with the same files or not at all.
        subject: tells what is scanned without opening it; None if geometry and beam are as the settings describe them, of one specimen.
        noun: in a sentence.
        verb: what a report says was done with the subject.
        against: what a report says that scores refer to.
        brings: settings that it has of its own, so that nobody can ask for others: beginnings of dotted names.
        policy: the learned policy that comes along for it; None takes one of those for crystals.
    """

    name: str
    capabilities: Capabilities
    open: "Callable[[Settings], Session]"
    files: "Callable[[Settings], Mapping[File, Path]]" = _no_files
    subject: "Callable[[Settings], Subject] | None" = None
    noun: str = "an instrument"
    verb: str = "Scanned"
    against: str = "what is known of it"
    brings: tuple[str, ...] = ()
    policy: str | None = None

    @property
    def samples(self) -> bool:
        """Whether it gives the same specimen again and again, to compare strategies and train policies on."""
        return self.capabilities.specimens or self.capabilities.windows

    def look(self, settings: "Settings") -> Subject:
        """What is scanned with some settings, without opening the microscope."""
        if self.subject is not None:
            return self.subject(settings)
        from adaptycho.settings import build

        return Subject(self.name, build.setup(settings))


def _open_simulated(settings: "Settings") -> Session:
    from adaptycho.settings import build

    return build.simulated(settings)


def _structure(settings: "Settings") -> Mapping[File, Path]:
    structure = Path(settings.specimen.structure)
    return {"structure": structure} if structure.is_file() else {}


def _ordered(settings: "Settings") -> Subject:
    from adaptycho.settings import build

    wanted = settings.specimen
    return Subject(f"{wanted.structure}, {wanted.family}", build.setup(settings), wanted.count)


def _open_recorded(settings: "Settings") -> Session:
    from adaptycho.settings import build

    return build.recorded(settings)


def _recording(settings: "Settings") -> Mapping[File, Path]:
    from adaptycho import formats

    return {"input": Path(settings.scan.file) if settings.scan.file else formats.example()}


def _replayed(settings: "Settings") -> Subject:
    from adaptycho.settings import build

    found = build.recording(settings)
    return Subject(found.title, found.setup, 1, found.counts_per_electron)


BUILT_IN = (
    Kind(
        name="simulated",
        capabilities=Capabilities(specimens=True, defocus=True, dose=True),
        open=_open_simulated,
        files=_structure,
        subject=_ordered,
        noun="a simulation",
        verb="Simulated",
        against="a full scan",
    ),
    Kind(
        name="recorded",
        capabilities=Capabilities(windows=True, anywhere=False),
        open=_open_recorded,
        files=_recording,
        subject=_replayed,
        noun="a recording",
        verb="Replayed",
        against="everything that was recorded",
        brings=("beam.", "geometry.", "specimen.", "instrument."),
        policy="recorded",
    ),
)
_OWN = {kind.name: kind for kind in BUILT_IN}


def of(settings: "Settings") -> Kind:
    """The kind of microscope that some settings ask for."""
    return find(settings.scan.microscope)


def find(name: str) -> Kind:
    """The kind of microscope of a name: one that comes along, else one that an installed package brings.

    Raises:
        ValueError: there is none of that name, several packages bring one, or what a package brings is none.
    """
    if name in _OWN:
        return _OWN[name]
    there = plugins.names(GROUP, _OWN)
    if name not in there:
        raise ValueError(f"scan.microscope: expected {plugins.one_of(there)}, found {name!r}")
    point = plugins.find(GROUP, name)
    found = plugins.load(point)
    if not isinstance(found, Kind) or found.name != name:
        other = f"a microscope called {found.name!r}" if isinstance(found, Kind) else f"a {type(found).__name__}"
        raise ValueError(f"{GROUP}: expected {point.value} to be a microscope called {name!r}, found {other}")
    return found


def known(name: str) -> str:
    """The name, if there is a microscope of that name; nothing is loaded.

    Raises:
        ValueError: there is none; says only what there is, for the settings name the key and what was found.
    """
    if name not in _OWN and name not in (there := plugins.names(GROUP, _OWN)):
        raise ValueError(plugins.one_of(there))
    return name


def check_samples(settings: "Settings") -> None:
    """Refuses a microscope on which nothing can be compared or learnt.

    Raises:
        ValueError: it does not come along, or does not give the same specimen again and again.
    """
    some = {kind.name: kind for kind in BUILT_IN if kind.samples}
    if settings.scan.microscope not in some:
        raise ValueError(f"scan.microscope: expected {' or '.join(some)} to compare or train on, found {settings.scan.microscope}")
