"""What all tests share: shape checking, one thread, hypothesis settings, and the two reference setups."""

import importlib.util
import os
import signal
from pathlib import Path
from typing import runtime_checkable

import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Annotated shapes are checked here and nowhere else (docs/decisions/0008), in the modules that have some: a check costs more than many a
# function. `int` passes for `float`, as for a type checker.
TYPECHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
# The hook would hand its wrappers to numba, which compiles plain functions only.
UNCHECKED = {"kernels", "mkl", "noise"}


def _check_shapes() -> None:
    spec = importlib.util.find_spec("adaptycho")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("adaptycho: expected it to be installed, got no such package; run `make test`")
    (root,) = map(Path, spec.submodule_search_locations)
    annotated = (f.relative_to(root).with_suffix("") for f in root.rglob("*.py") if "from jaxtyping" in f.read_text(encoding="utf-8"))
    names = [".".join(("adaptycho", *f.parts)).removesuffix(".__init__") for f in annotated if f.name not in UNCHECKED]
    install_import_hook(names, TYPECHECKER)


# The numbers are the same without it, for those who look at nothing else.
if "ADAPTYCHO_UNCHECKED" not in os.environ:
    _check_shapes()
torch.set_num_threads(1)
# A process that was started in the background may ignore interruptions, and its children with it; some tests are about them.
signal.signal(signal.SIGINT, signal.default_int_handler)

_common = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("local", _common)
settings.register_profile("ci", _common, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


# Only after the hook is there.
from adaptycho.instruments import Microscope  # noqa: E402
from adaptycho.physics.grid import Grid  # noqa: E402
from adaptycho.physics.optics import Setup  # noqa: E402
from adaptycho.types import Scanner  # noqa: E402

# Checking an argument means isinstance, which a protocol has to allow, before a module that takes one is imported.
for _protocol in (Microscope, Scanner):
    runtime_checkable(_protocol)


def _reference(pixels: int, pixel: float, window: int) -> Setup:
    return Setup(
        field=(20.0, 20.0),
        object=Grid((pixels, pixels), pixel),
        window=Grid((window, window), pixel),
        detector=(window, window),
        semiangle=33.0,
        energy=60e3,
    )


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Each test starts with one thread, whatever the command line was told in the one before."""
    torch.set_num_threads(1)


@pytest.fixture
def light() -> Setup:
    """The quick reference: 32 x 32 patterns, 100 x 100 pixels of 0.308 Å."""
    return _reference(100, 0.308, 32)


@pytest.fixture
def paper() -> Setup:
    """Table II as read in docs/decisions/0003: 64 x 64 patterns, 200 x 200 pixels of 0.154 Å."""
    return _reference(200, 0.154, 64)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
