"""The next command to type: the recommended scan, simulated; where nothing was measured, the measurement."""

import json
import shlex

from adaptycho.compare.advice import effort
from adaptycho.compare.advice.decide import Decision, dense_fits
from adaptycho.compare.advice.place import SUBSEQUENCES, UNIFORM, dense_positions
from adaptycho.compare.advice.table import Table
from adaptycho.physics.specimen.lattice import SHEETS

STRATEGIES = ("raster", "hexagonal", "spiral", "dense")  # that a learned scan was compared with
DEFOCI = (0, 30, 60, 90, 120)  # Å, of which the best was found
POLICIES = {"dense": "raster", "adaptive-dense": "adaptive"}  # of scans that are another one on more positions


def command(found: Decision, table: Table, outside: bool) -> str:
    """The recommended scan, simulated; where nothing was measured, the measurement."""
    scan, question = found.ours if found.adaptive else found.conventional, found.question
    words = ["adaptycho"]
    if outside:
        words += ["evaluate", "--protocol", "best", "--family", question.family]
        words += ["--positions", str(found.place.positions), "--dose", f"{found.place.electrons:.4g}"]
        words += ["--strategies", *_strategies(found), *_options(found)]
        dense = dense_positions(question, table.beam, found.place.positions)
        words += ["--evaluate.dense", str(dense)] if dense_fits(question, table, found.place.positions) else []
        if defoci := _defoci(found):
            words += ["--evaluate.defoci", json.dumps(defoci)]
    else:
        # In sub-sequences only if something is decided between them.
        parts = SUBSEQUENCES if found.adaptive else 1
        words += ["scan", "advised", "--protocol", "best", "--policy", POLICIES.get(scan.name, scan.name)]
        words += ["--positions", str(scan.positions), "--dose", f"{scan.electrons:.4g}", "--subsequences", str(parts)]
        words += ["--specimen.family", question.family, *_options(found)]
        words += ["--scan.defocus", f"{scan.defocus:.3g}"] if scan.defocus else []
    if found.place.scaled:
        words += ["--beam.energy", f"{question.energy:g}", "--beam.semiangle", f"{question.semiangle:g}"]
        words += ["--geometry.field", json.dumps(list(question.field)), "--geometry.object", "auto"]
        words += ["--geometry.pixel", f"{0.308 * found.place.width_ratio:.4g}"]  # as many pixels to the probe as in the measurements
    if (made := _made(found, table)) != table.beam.structure:
        words += ["--specimen.structure", made]
    return shlex.join(words)


def does(found: Decision, table: Table, outside: bool) -> str:
    """What that command does, and how long it takes, as a sentence."""
    question, scan = found.question, found.ours if found.adaptive else found.conventional
    made, wanted = _made(found, table), question.material or table.beam.structure
    other = "" if wanted.lower() == made.lower() else f"; for {wanted} add --specimen.structure FILE (CIF, POSCAR, ...)"
    if not outside:
        seconds = effort.scan_seconds(scan.positions)
        return f"It simulates this scan of {made}, without a microscope, in {effort.duration(seconds)}{other}."
    dense = dense_positions(question, table.beam, found.place.positions)
    seconds = effort.evaluate_seconds(_strategies(found), len(_defoci(found) or DEFOCI), found.place.positions, dense)
    return f"It measures this on simulated specimens of {made}, in {effort.duration(seconds)} on one core{other}."


def _made(found: Decision, table: Table) -> str:
    """What can be simulated by its name: the material that was asked for, or that of the measurements."""
    return {name.lower(): name for name in SHEETS}.get((found.question.material or "").lower(), table.beam.structure)


def _defoci(found: Decision) -> list[float] | None:
    """Defoci in Å to choose from in a comparison; None if the usual ones will do."""
    question = found.question
    if question.focused:
        return [0]
    if question.defocus_at is not None:
        return [question.defocus_at]
    return [round(d * found.place.defocus_unit, 1) for d in DEFOCI] if found.place.scaled else None


def _strategies(found: Decision) -> list[str]:
    nearest = found.ends[0].nearest
    own = nearest.scan if nearest.policies else nearest.strategy
    names = [*(n for n in STRATEGIES if n != "dense" or found.base == "all"), own]
    return [f"{n}:focused" for n in names] if found.question.focused else names


def _options(found: Decision) -> list[str]:
    """The filling to simulate; unknown, that of the measurements."""
    question = found.question
    if question.family in UNIFORM:
        return []
    chosen = list(found.known) if question.filling is None else question.filling
    return ["--specimen.options", f"{{filling = {json.dumps(chosen)}}}"]
