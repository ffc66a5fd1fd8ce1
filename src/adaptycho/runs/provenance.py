"""What `run.json` says of a run: when, by what and from what it began."""

import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from adaptycho.runs import checksums
from adaptycho.runs.journal import FORMAT
from adaptycho.settings import Settings, microscopes, policies
from adaptycho.support import plugins

PACKAGES = ("adaptycho", "torch", "numpy", "scipy", "numba", "h5py", "scikit-image", "ase")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="ignore"))
class Provenance(checksums.Beginning):
    """What is read of it.

    Attributes:
        format: of the folder.
        created: when the scan began.
        seed: of specimens, noise and random scans.
        versions: of the packages that matter, and of those that brought the microscope or the policy.
    """

    format: Literal["adaptycho run 2", "adaptycho run 1"]
    created: str
    seed: int
    versions: dict[str, str]


def facts(settings_file: Path, chosen: Settings) -> dict[str, Any]:
    """What a new run writes, ready for JSON."""
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in PACKAGES} | _brought(chosen),
        "threads": torch.get_num_threads(),
        "seed": chosen.scan.seed,
        **checksums.facts(settings_file, chosen),
    }


def _brought(chosen: Settings) -> dict[str, str]:
    """Versions of the packages that brought the microscope and the policy, if any did."""
    asked = (
        (microscopes.GROUP, chosen.scan.microscope, [kind.name for kind in microscopes.BUILT_IN]),
        (policies.GROUP, chosen.scan.policy, policies.POLICIES),
    )
    packages = (plugins.find(group, name).dist for group, name, own in asked if name not in own)
    return {package.name: package.version for package in packages if package is not None}
