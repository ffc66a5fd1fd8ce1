"""Writes structure files to practise on, of many two-dimensional materials, without those that policies are tried on.

    python experiments/materials.py STRUCTURES.jsonl.xz FOLDER [--count N] [--seed N]

STRUCTURES has a JSON object in each line, as the database of catalyticLAM gives them (`structure_db/2D.tgz`, GPL-3.0, not part of this
project): `name`, `cell` (3 x 3 in Å), `species`, `counts`, `frac`. Left out are all compounds of the elements of a material that
`generalise.py` tries besides MoS2, in any proportion: graphene and boron nitride (boron, carbon and nitrogen alone), SnS2 (tin with
sulphur, selenium or tellurium), FeSe (iron with them), phosphorene (phosphorus and arsenic alone); MoS2's relatives, that is molybdenum and
tungsten with sulphur, selenium and tellurium; structures with hydrogen, which no electron sees; and slabs thicker than 8 Å.
"""

import argparse
import json
import lzma
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

THICKEST = 8.0  # Å
CHALCOGENS = {"S", "Se", "Te"}


def tried(species: set[str]) -> bool:
    """Whether something of these elements is tried, or too near to what is."""
    alone = any(species <= some for some in ({"B", "C", "N"}, {"P", "As"}))
    return alone or any(species <= CHALCOGENS | {metal} for metal in ("Sn", "Fe", "Mo", "W")) or species <= CHALCOGENS | {"Mo", "W"}


def sheet(row: dict[str, Any]) -> Atoms | None:
    """The structure of a line, or None if it is left out."""
    species = set(row["species"])
    symbols = [s for s, n in zip(row["species"], row["counts"], strict=True) for _ in range(n)]
    made = Atoms(symbols, cell=row["cell"], pbc=True, scaled_positions=row["frac"])
    # The slab may lie across the cell's border along the beam: its thickness is what its widest gap leaves.
    heights = np.sort(made.get_scaled_positions()[:, 2])
    gaps = np.diff([*heights, heights[0] + 1])
    thickness = (1 - gaps.max()) * made.cell.cellpar()[2]
    return None if "H" in species or tried(species) or thickness > THICKEST else made


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with lzma.open(given.structures, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    given.folder.mkdir(parents=True)
    formulas: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        formulas.setdefault(tuple(sorted(row["species"])), []).append(row)
    random, written = np.random.default_rng(given.seed), 0
    for key in random.permutation(len(formulas)):  # one of each set of elements, so that no family of compounds has many
        some = list(formulas.values())[key]
        row = some[int(random.integers(len(some)))]
        if (made := sheet(row)) is not None and written < given.count:
            ase.io.write(given.folder / f"{row['name']}.xyz", made)
            written += 1
    print(json.dumps({"structures": len(rows), "written": written}))


if __name__ == "__main__":
    main()
