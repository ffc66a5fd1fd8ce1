"""What a decision says in words: what no measurement covers, why, and the next command to type."""

import json
import shlex

from adaptycho.compare.advice.decide import Decision, Scan, dense_fits, stand_in
from adaptycho.compare.advice.place import SUBSEQUENCES, UNIFORM, dense_positions
from adaptycho.compare.advice.table import UNLEARNED, Estimate, Table

FULL = 0.8  # a specimen with structure in more of the field than this is much like the recorded one, which has it everywhere
STRATEGIES = ("raster", "hexagonal", "spiral", "dense")  # that a learned scan was compared with

NAMES: dict[str, str] = {
    "dense": "full raster at reduced dwell",
    "adaptive": "learned adaptive scan",
    "adaptive-dense": "learned adaptive scan at reduced dwell",
    **{name: f"adaptive scan `{name}`, nothing learned" for name in UNLEARNED},
}
POLICIES = {"dense": "raster", "adaptive-dense": "adaptive"}  # of scans that are another one on more positions


def gaps(found: Decision, table: Table) -> list[str]:
    """What no measurement covers, with the nearest that one does."""
    question, where, nearest = found.question, found.place, found.ends[0].nearest
    said = []
    if (other := stand_in(question.family, table)) != question.family:
        said.append(f"No measurement covers the family {question.family}: nearest is {other}.")
    if question.filling is not None and question.filling < 1 and question.family not in UNIFORM:
        low, high = found.known
        if question.filling < low:
            said.append(f"No measurement covers a filling of {question.filling:g}: nearest is {_fillings(found)}.")
        elif question.filling > high:
            said.append(f"No measurement covers fillings between {high:g} and 1: the interval reaches from one end to the other.")
    if not all(end.inside for end in found.ends):
        worth = f" (worth {number(where.worth)} of {table.beam.energy / 1e3:g} keV)" if where.scaled else ""
        there = where.density * nearest.positions / where.equivalent
        said.append(
            f"No measurement covers {count(where.electrons, 'electron')} per position{worth} at {where.density:.2g} positions per squared "
            f"probe width: nearest is {number(nearest.electrons)} at {there:.2g}, and its numbers stand here."
        )
    if where.far:
        measured = where.width / where.width_ratio
        y, x = table.beam.field
        said.append(
            f"No measurement covers such a microscope or field: a probe of {where.width:.3g} Å, {_pair(where.across)} probe widths across "
            f"and phases {where.phase_ratio:.2f} times those at {table.beam.energy / 1e3:g} keV. Nearest is a probe of {measured:.3g} Å, "
            f"{_pair((y / measured, x / measured))} across."
        )
    return said


def reasons(found: Decision, table: Table) -> list[str]:
    """Why, in two or three sentences."""
    said = [_main_reason(found, table)]
    if found.base == "sparse" and found.question.counting:
        dense = dense_positions(found.question, table.beam, found.place.positions)
        said.append(f"The full raster at reduced dwell, {count(dense, 'position')}, takes longer than the scan may.")
    elif found.question.counting is None and (against := found.ends[0].nearest.against["all"]).scan == "dense":
        dense = dense_positions(found.question, table.beam, found.place.positions)
        each = found.place.positions * found.place.electrons / dense
        said.append(
            f"If the detector counts single electrons, a full raster of {count(dense, 'position')} of {count(each, 'electron')} is the "
            f"best conventional scan ({against.score:.2f} in the nearest measurement): ask again with --counting."
        )
    uniform = found.question.family in UNIFORM or (found.question.filling or 0) >= FULL
    if uniform and table.recorded:
        low, high = (f(r.gain.mean for r in table.recorded) for f in (min, max))
        said.append(
            f"Recorded particles in ice with structure from edge to edge: {percent(low)} to {percent(high)} in score by the best adaptive "
            f"scan without learning ({count(table.recorded[0].windows, 'window')})."
        )
    return said


def _main_reason(found: Decision, table: Table) -> str:
    end = found.ends[0]
    if found.question.family in UNIFORM or end.nearest.family in UNIFORM:
        text = "The specimen is alike everywhere"
        groups = table.groups(end.nearest.family, focused=not found.question.defocus)
        oracles = [oracle.mean for group in groups for row in group if (oracle := row.against[found.base].oracle)]
        if not oracles:
            return f"{text}."
        return f"{text}: oracles, which know it beforehand, gain at most {percent(max(oracles))} in score wherever they were measured."
    if len(found.ends) > 1:
        other = found.ends[1]
        text = f"The more of the field is empty, the more is to be won: {interval(end.gain)} in score at {_fillings(found)}"
        most = f" No placing of electrons saves more than {1 / fills:.2g} times." if (fills := found.question.filling) else ""
        return f"{text}, {interval(other.gain)} if structure fills it.{most}"
    if found.adaptive and found.gain.low > 0:
        return "Electrons beside the structure tell nothing about it; a quarter of the positions find it, and the rest go there."
    if found.adaptive:
        return f"The gain in score, {interval(found.gain)}, may be nothing, but more can be won than lost."
    return f"The gain in score, {interval(found.gain)}, is not worth it: either there is little left to gain, or too little to find it by."


def command(found: Decision, table: Table, outside: bool) -> str:
    """The next to type: the recommended scan, simulated; where nothing was measured, the measurement."""
    scan, question = found.ours if found.adaptive else found.conventional, found.question
    words = ["adaptycho"]
    if outside:
        words += ["evaluate", "--protocol", "best", "--family", question.family]
        words += ["--positions", str(found.place.positions), "--dose", f"{found.place.electrons:.4g}"]
        words += ["--strategies", *_strategies(found), *_options(found)]
        dense = dense_positions(question, table.beam, found.place.positions)
        words += ["--evaluate.dense", str(dense)] if dense_fits(question, table, found.place.positions) else []
        if not question.defocus:
            words += ["--evaluate.defoci", "[0]"]
        elif found.place.scaled:
            words += ["--evaluate.defoci", json.dumps([round(d * found.place.defocus_unit, 1) for d in (0, 30, 60, 90, 120)])]
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
    return shlex.join(words)


def scan_text(scan: Scan) -> str:
    """A scan as one phrase."""
    what = NAMES.get(scan.name, f"{scan.name} scan") + (f" (weights `{scan.weights}`)" if scan.weights else "")
    where = f"about {number(float(f'{scan.defocus:.2g}'))} Å underfocus" if scan.defocus else "in focus"
    return f"{what}, {count(scan.positions, 'position')} of {count(scan.electrons, 'electron')}, {where}"


def number(value: float) -> str:
    """Three digits, thousands apart: 1,020 and 0.35."""
    return f"{float(f'{value:.3g}'):,.10g}"


def count(value: float, noun: str) -> str:
    """So many things: 1 position, 1,024 positions; all digits of a whole number, three of another."""
    said = f"{value:,}" if isinstance(value, int) else number(value)
    return f"{said} {noun}{'' if said == '1' else 's'}"


def percent(value: float) -> str:
    """A relative change in per cent."""
    return f"{100 * value:+.1f} %"


def interval(gain: Estimate) -> str:
    """Ends of an interval of a relative change."""
    return f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f} %"


def _strategies(found: Decision) -> list[str]:
    nearest = found.ends[0].nearest
    own = nearest.scan if nearest.policies else nearest.strategy
    names = [*(n for n in STRATEGIES if n != "dense" or found.base == "all"), own]
    return names if found.question.defocus else [f"{n}:focused" for n in names]


def _options(found: Decision) -> list[str]:
    """The filling to simulate; unknown, that of the measurements."""
    question = found.question
    if question.family in UNIFORM:
        return []
    chosen = list(found.known) if question.filling is None else question.filling
    return ["--specimen.options", f"{{filling = {json.dumps(chosen)}}}"]


def _fillings(found: Decision) -> str:
    low, high = found.known
    return f"a filling of {low:g}" + (f" to {high:g}" if high > low else "")


def _pair(sides: tuple[float, float]) -> str:
    return " x ".join(f"{side:.3g}" for side in sides)
