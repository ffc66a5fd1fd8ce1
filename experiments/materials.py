"""Writes structure files to practise on, of many two-dimensional materials, without those that policies are tried on.

    python experiments/materials.py STRUCTURES.jsonl.xz FOLDER [--count N] [--light SHARE] [--seed N]

STRUCTURES has a JSON object in each line, as the database of catalyticLAM gives them (`structure_db/2D.tgz`, GPL-3.0, not part of this
project): `name`, `cell` (3 x 3 in Å), `species`, `counts`, `frac`. Left out are all compounds of the elements of a material that
`generalise.py` tries besides MoS2, in any proportion: graphene and boron nitride (boron, carbon and nitrogen alone), SnS2 (tin with
sulphur, selenium or tellurium), FeSe (iron with them), phosphorene (phosphorus and arsenic alone); MoS2's relatives, that is molybdenum and
tungsten with sulphur, selenium and tellurium; structures with hydrogen, which no electron sees; and slabs thicker than 8 Å. Layers of
boron, carbon and nitrogen with alkali metals between them count as such layers.

Of the structures chosen, SHARE are light with short bonds, as far as there are so many: nothing heavier than calcium, and atoms nearer to
each other than 1.8 Å. They are hard to see, and few among all: up to four of a set of elements are taken, instead of one.
"""

import argparse
import json
import lzma
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

THICKEST = 8.0  # Å
CHALCOGENS = {"S", "Se", "Te"}
ALKALI = {"Li", "Na", "K", "Rb", "Cs"}
HEAVIEST, SHORT = 20, 1.8  # atomic number and bond in Å of what counts as light with short bonds


def tried(species: set[str]) -> bool:
    """Whether something of these elements is tried, or too near to what is."""
    alone = any(species - ALKALI <= some for some in ({"B", "C", "N"}, {"P", "As"}))
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


def light(made: Atoms) -> bool:
    """Whether it is hard to see: light atoms near to each other."""
    return bool(made.numbers.max() <= HEAVIEST and len(neighbor_list("i", made, SHORT)) > 0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--light", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with lzma.open(given.structures, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    given.folder.mkdir(parents=True)
    formulas: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        formulas.setdefault(tuple(sorted(row["species"])), []).append(row)
    random, left = (
        np.random.default_rng(given.seed),
        {True: round(given.light * given.count), False: round((1 - given.light) * given.count)},
    )
    for key in random.permutation(len(formulas)):  # one of each set of elements, so that no family of compounds has many
        some, room = list(formulas.values())[key], {True: 4, False: 1}
        for row in (some[i] for i in random.permutation(len(some))):
            made = sheet(row)
            kind = given.light > 0 and made is not None and light(made)
            if made is not None and min(left[kind], room[kind]) > 0:
                ase.io.write(given.folder / f"{row['name']}.xyz", made)
                left[kind], room[kind] = left[kind] - 1, room[kind] - 1
    print(json.dumps({"structures": len(rows), "written": given.count - sum(left.values())}))


if __name__ == "__main__":
    main()
