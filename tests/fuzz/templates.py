"""Valid inputs, small enough for a command to take a fraction of a second. Making them also loads all that the commands need."""

import contextlib
import gzip
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from adaptycho import formats, settings
from adaptycho.app import cli
from adaptycho.learn import trainings
from adaptycho.runs import execution, scans
from adaptycho.scan.networks import library, weights
from adaptycho.scan.networks.autoencoder import Encoder
from adaptycho.scan.networks.field import Field
from adaptycho.scan.networks.recurrent import Recurrent
from adaptycho.settings import Settings

SMALL = ("--geometry.field", "[8.0, 6.0]", "--geometry.object", "auto")
QUICK = ("--threads", "1", "--positions", "8", "--subsequences", "2", "--reconstruct.iterations", "1", "--reconstruct.reference_side", "3")
TREE = {
    "geometry": {"field": [8.0, 6.0], "object": "auto"},
    "specimen": {"structure": "MoS2", "options": {"rotation": 12.0}},
    "scan": {"policy": "raster", "positions": 36, "subsequences": 2, "dose": 1e4, "rows": [0.0, 1.0]},
    "beam": {"energy": 6e4, "aberrations": {"C30": 100.0}},
    "instrument": {"jitter": 0.1, "background": 0.1, "source_size": 0.1},
    "reconstruct": {"iterations": 1, "reference_side": 3},
}
TRAINING = {
    "geometry": {"field": [6.0, 6.0], "object": "auto"},
    "scan": {"subsequences": 2},
    "practice": {"positions": [12], "pool": 2, "validation": 1, "scored": 2},
    "reconstruct": {"iterations": 1, "reference_side": 6},
    "network": {"widths": [8, 8]},
    "train": {"every": 1, "imitate_batch": 2, "imitate_steps": 2},
}
EVALUATE = (
    *("evaluate", "--protocol", "paper", "--family", "crystal", "--positions", "8", "--strategies", "random", "halton", "--specimens", "2"),
    *("--scan.subsequences", "2", "--reconstruct.reference_side", "6", "--workers", "1", *SMALL, "--out", "ev", "--json"),
)
CIF = """data_MoS2
_cell_length_a 3.16
_cell_length_b 3.16
_cell_length_c 12.3
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Mo1 Mo 0.3333 0.6667 0.25
S1 S 0.6667 0.3333 0.37
S2 S 0.6667 0.3333 0.13
"""
POSCAR = """MoS2
1.0
3.16 0.0 0.0
-1.58 2.7366 0.0
0.0 0.0 12.3
Mo S
1 2
Direct
0.3333 0.6667 0.25
0.6667 0.3333 0.37
0.6667 0.3333 0.13
"""


def command(*arguments: str) -> None:
    """Runs the program here; it has to do what it is told."""
    with contextlib.redirect_stdout(io.StringIO()):
        if code := cli.main(arguments):
            raise RuntimeError(f"{' '.join(arguments)}: expected exit 0 for a valid input, got {code}")


def recording(folder: Path) -> None:
    """rec.h5, simulated."""
    command("simulate", "rec.h5", *SMALL, "--positions", "36", "--workers", "1", "--beam.aberrations", "{C30 = 100.0}")


def probed(folder: Path) -> None:
    """The same with a measured probe, in whole counts."""
    recording(folder)
    found = formats.read(folder / "rec.h5")
    setup = replace(found.setup, measured_probe=found.setup.probe().to(torch.complex64))
    counts = replace(found.measurement, patterns=found.measurement.patterns.to(torch.uint16))
    (folder / "rec.h5").unlink()
    formats.write(folder / "rec.h5", replace(found, setup=setup, measurement=counts, path=None))


def arrays(folder: Path) -> None:
    """The same as other programs have it: patterns and positions in files of all kinds."""
    recording(folder)
    with h5py.File(folder / "rec.h5") as file:
        patterns, positions = file["patterns"][...], file["positions"][...]
    np.save(folder / "patterns.npy", patterns)
    np.savez_compressed(folder / "patterns.npz", patterns=patterns, other=np.arange(3.0))
    np.save(folder / "positions.npy", positions)
    np.savez(folder / "positions.npz", positions=positions)
    (folder / "positions.csv").write_text("".join(f"{y!r}, {x!r}\n" for y, x in positions.tolist()))
    with h5py.File(folder / "foreign.h5", "w") as file:
        file.create_dataset("data/patterns", data=patterns, chunks=(6, 32, 32), compression="gzip")
        file["data/dark"] = np.zeros((32, 32), np.float32)
    rota = folder / "rota"
    rota.mkdir()
    row, column = np.indices((6, 6))
    counts = patterns.astype(np.uint16).reshape(6, 6, 32, 32)
    for first in (0, 3):
        part = slice(first, first + 3)
        np.savez(rota / f"counts_rows_{first:03d}.npz", counts=counts[part], scan_row=row[part], scan_col=column[part])
    np.savez(rota / "probe_start.npz", probe=np.fft.fftshift(formats.read(folder / "rec.h5").setup.probe().numpy()))
    facts = {
        "energy_kev": 60.0,
        "convergence_semiangle_mrad_nominal": 33.0,
        "scan_step_angstrom": 1.6,
        "scan_rotation_deg_fitted": -40.0,
        "defocus_angstrom_fitted": 100.0,
        "real_space_pixel_angstrom": 0.308,
        "detector_pixel_mrad": 4.937,
        "remark": "as fitted",
    }
    (rota / "metadata.json").write_text(json.dumps(facts))


def run(folder: Path) -> None:
    """A scan that was interrupted after the first of two sub-sequences."""
    chosen = settings.update(settings.preset("light"), {**TREE, "scan": {**TREE["scan"], "policy": "heuristic", "positions": 8}}, "fuzz")
    steps = execution.execute(scans.Run.create(folder / "run", chosen))
    next(steps)
    steps.close()


def finished(folder: Path) -> None:
    """A scan of recorded data that is done, with its report."""
    recording(folder)
    command("scan", "run", "--microscope", "recorded", "--file", "rec.h5", *QUICK)


def toml(folder: Path) -> None:
    """Settings, and a recording to use them on."""
    recording(folder)
    (folder / "s.toml").write_text(settings.dump(_small(TREE)), encoding="utf-8")


def field_policy(folder: Path) -> None:
    """Weights of a small field policy."""
    torch.manual_seed(0)
    network = Field((8, 8), survey="halton", lattice="hexagonal")
    weights.save(
        folder / "w.safetensors", network, library.described(network) | {"course": "imitate", "step": 3, "validation": {"score": 0.5}}
    )


def recurrent_policy(folder: Path) -> None:
    """Weights of a small recurrent policy."""
    torch.manual_seed(0)
    network = Recurrent([4, 4], Encoder(size=64), hidden=16, location=8, structure=8, start="halton")
    weights.save(folder / "w.safetensors", network, library.described(network))


def evaluation(folder: Path) -> None:
    """Results of an evaluation of two strategies, in all forms."""
    command(*EVALUATE)
    (folder / "cells.json.gz").write_bytes(gzip.compress((folder / "ev" / "cells.json").read_bytes(), mtime=0))
    command("figures", "ev", "--out", "fig")


def training(folder: Path) -> None:
    """A training that was interrupted after one of two steps, from weights that were given."""
    field_policy(folder)
    trainings.create(folder / "t", _small(TRAINING), ["imitate"], folder / "w.safetensors")
    with contextlib.suppress(KeyboardInterrupt):
        trainings.execute(folder / "t", _one)


def trained(folder: Path) -> None:
    """A training that is done."""
    trainings.create(folder / "t", _small(TRAINING), ["imitate"], None)
    trainings.execute(folder / "t", lambda items, total, what: items)


def structures(folder: Path) -> None:
    """Files of atoms."""
    (folder / "a.cif").write_text(CIF)
    (folder / "POSCAR").write_text(POSCAR)
    rows = [line.split() for line in CIF.splitlines() if line.startswith(("Mo1", "S"))]
    atoms = "".join(f"{r[1]} {3 * float(r[2]):.3f} {3 * float(r[3]):.3f} {12.3 * float(r[4]):.3f}\n" for r in rows)
    (folder / "a.xyz").write_text(f'3\nLattice="3.16 0 0 -1.58 2.7366 0 0 0 12.3" Properties=species:S:1:pos:R:3 pbc="T T T"\n{atoms}')


def nothing(folder: Path) -> None:
    """An empty folder."""


def _small(tree: dict[str, Any]) -> Settings:
    return settings.update(settings.preset("light"), tree, "fuzz")


def _one(items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
    for item in items:
        yield item
        raise KeyboardInterrupt
