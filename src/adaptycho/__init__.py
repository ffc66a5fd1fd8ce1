"""adaptycho: adaptive ptychography. It decides, while the scan runs, where the next electrons go.

    import adaptycho as ad

    chosen = ad.settings.preset("light")
    microscope = ad.build.simulated(chosen)
    for state in ad.run(microscope, ad.build.scanner(chosen), ad.build.reconstructor(chosen, microscope.setup), [25] * 4, seed=0):
        ...

Data of one's own:

    recording = ad.open("scan.h5", energy=300e3, semiangle=20.0)  # or ad.Recording.from_arrays(patterns, positions, ...)
    phase = ad.reconstruction(recording).phase[0]

These names are loaded when they are first used, so that importing the package takes no time; everything else is in its rooms, a package
each: `physics`, `reconstruct`, `scan`, `instruments`, `formats`, `samples`, `learn`, `compare`, `metrics`, `draw`, `runs`, `settings`.
"""

TYPE_CHECKING = False  # for type checkers it is true; the module of that name takes time to load
if TYPE_CHECKING:
    from adaptycho import settings as settings
    from adaptycho.formats import Recording as Recording
    from adaptycho.formats import example as example
    from adaptycho.formats import read as read
    from adaptycho.physics.optics import Setup as Setup
    from adaptycho.reconstruct.descent import Reconstructor as Reconstructor
    from adaptycho.scan.episode import run as run
    from adaptycho.settings import build as build
    from adaptycho.settings.build import reconstruction as reconstruction
    from adaptycho.types import Action as Action
    from adaptycho.types import Measurement as Measurement
    from adaptycho.types import Observation as Observation

    open = read

_HOMES = {
    "Action": "types",
    "Measurement": "types",
    "Observation": "types",
    "Reconstructor": "reconstruct.descent",
    "Recording": "formats",
    "Setup": "physics.optics",
    "example": "formats",
    "read": "formats",
    "reconstruction": "settings.build",
    "run": "scan.episode",
}
__all__ = [
    "Action", "Measurement", "Observation", "Reconstructor", "Recording", "Setup", "build", "example", "read", "reconstruction", "run",
    "settings",
]  # fmt: skip
# `open` is left out of these, so that a star import does not hide Python's own.
_ALSO = {"open": ("formats", "read")}

_MODULES = {"build": "settings.build", "settings": "settings"}


def __getattr__(name: str) -> object:
    """Loads a name at its first use."""
    from importlib import import_module, metadata

    if name == "__version__":
        return metadata.version("adaptycho")
    if name in _MODULES:
        return import_module(f"adaptycho.{_MODULES[name]}")
    if name in _ALSO:
        home, known = _ALSO[name]
        return getattr(import_module(f"adaptycho.{home}"), known)
    if name in _HOMES:
        return getattr(import_module(f"adaptycho.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'adaptycho' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ALSO, "__version__"})
