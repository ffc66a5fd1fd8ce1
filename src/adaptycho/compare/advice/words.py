"""What a decision says in words: what no measurement covers, and why."""

from collections.abc import Sequence

from adaptycho.compare.advice.decide import Decision, Scan, stand_in
from adaptycho.compare.advice.place import UNIFORM, dense_positions
from adaptycho.compare.advice.table import ROUNDED, UNLEARNED, Bound, Table

FULL = 0.8  # a specimen with structure in more of the field than this is much like the recorded one, which has it everywhere
FEW = 3000.0  # electrons for each squared probe width, below which a prior gained 0.02 to 0.23 of the correlation (docs/results/prior.md)
NEAR = 15.0  # Å; of defoci that lie twice as far apart the best was measured

NAMES: dict[str, str] = {
    "dense": "full raster at reduced dwell",
    "adaptive": "learned adaptive scan",
    "adaptive-dense": "learned adaptive scan at reduced dwell",
    **{name: f"adaptive scan `{name}`, nothing learned" for name in UNLEARNED},
}


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
    said += _material(found, table) + _held(found)
    if question.limits == "local" and found.local is None:
        said.append(f"No measurement covers the dose on the structure of such scans{' in focus' if found.focused else ''}.")
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
    """Why, in a few sentences."""
    said = [_main_reason(found, table), *_local_reasons(found)]
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
        gains = [r.gain.mean for r in table.recorded]
        said.append(
            f"Recorded particles in ice with structure from edge to edge: {interval(min(gains), max(gains))} in score by the best adaptive "
            f"scan without learning, chosen on other windows ({count(table.recorded[0].windows, 'window')} that overlap)."
        )
    if found.place.per_element < FEW:
        said.append("So few electrons are worth a prior in the reconstruction, whatever the scan is: --protocol regularised.")
    return said


def _main_reason(found: Decision, table: Table) -> str:
    end = found.ends[0]
    if found.question.family in UNIFORM or end.nearest.family in UNIFORM:
        text = "The specimen is alike everywhere"
        groups = table.groups(end.nearest.family, focused=found.focused)
        oracles = [oracle.mean for group in groups for row in group if (oracle := row.against[found.base].oracle)]
        if not oracles:
            return f"{text}."
        best = max(oracles)
        return (
            f"{text}: oracles, which know it beforehand, gain at most {100 * best:.1f} % in score over the best conventional scan, "
            f"wherever the family {end.nearest.family} was measured."
        )
    if len(found.ends) > 1:
        other = found.ends[1]
        text = f"The more of the field is empty, the more is to be won: {interval(*end.gain[1:])} in score at {_fillings(found)}"
        most = f" No placing of electrons saves more than {1 / fills:.2g} times." if (fills := found.question.filling) else ""
        return f"{text}, {interval(*other.gain[1:])} if structure fills it.{most}"
    if found.gain.low > 0:
        return "Electrons beside the structure tell nothing about it; a quarter of the positions find it, and the rest go there."
    if found.adaptive:
        return f"The gain in score, {interval(*found.gain[1:])}, may be nothing, but more can be won than lost."
    return f"The gain in score, {interval(*found.gain[1:])}, is not worth it: there is little left to gain, or too little to find it by."


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


def interval(low: float, high: float) -> str:
    """From one relative change to another, in per cent."""
    return f"{100 * low:+.1f} to {100 * high:+.1f} %"


def times(factor: Sequence[float | None], bounded: Bound | None) -> str:
    """A factor with its interval; without a mean, between two ends."""
    mean, low, high = factor
    less, more = (" or less" if bounded == "below" else ""), (" or more" if bounded == "above" else "")
    if mean is None:
        return f"{low:.2f}{less} to {high:.2f}{more} times"
    return f"{mean:.2f}{less}{more} [{low:.2f}{less}, {high:.2f}{more}] times"


def saved(factor: Sequence[float | None], bounded: Bound | None) -> str:
    """A dose saved; where even the smallest conventional scan scores higher than the adaptive one, none."""
    mean, _, high = factor
    if bounded != "below":
        return times(factor, bounded)
    return f"none to {high:.2f} times" if mean is None else f"none (at most {high:.2f} times)"


def _material(found: Decision, table: Table) -> list[str]:
    """That the specimen is of something else, and what is known of that."""
    asked, measured = found.question.material, table.beam.structure
    if asked is None or asked.lower() == measured.lower():
        return []
    said = f"No measurement covers {asked}: the numbers are of {measured}."
    kept = {name.lower(): (name, estimate) for name, estimate in table.kept.items()}
    if asked.lower() in kept:
        name, (mean, low, high) = kept[asked.lower()]
        share = f"{100 * mean:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
        return [f"{said} Another policy, for crystals in focus, kept {share} of its gain on {name}."]
    if kept:
        worst, best = (f(estimate.mean for _, estimate in kept.values()) for f in (min, max))
        share = f"{100 * worst:.0f} to {100 * best:.0f} %"
        said += f" On {len(kept)} other materials another policy, for crystals in focus, kept {share} of its gain."
    return [said]


def _held(found: Decision) -> list[str]:
    """That the defocus at which the beam is held is none of those that were measured."""
    held, unit = found.question.defocus_at, found.place.defocus_unit
    if held is None:
        return []
    nearest = found.ends[0].nearest
    ours, theirs = (0.0, 0.0) if found.focused else (nearest.defocus, nearest.against[found.base].defocus)
    if all(abs(held / unit - defocus) <= NEAR for defocus in (ours, theirs)):
        return []
    best = f"{number(ours * unit)} Å for the adaptive scan and {number(theirs * unit)} Å for the conventional one, each at its best"
    where = "in focus" if found.focused else best
    return [f"No measurement covers a beam held at {number(held)} Å underfocus: nearest is {where}, and those numbers stand here."]


def _local_reasons(found: Decision) -> list[str]:
    """What the dose on the structure means for the answer."""
    local, question = found.local, found.question
    if local is None:
        return []
    said, factor = [], times((None if len(found.ends) > 1 else local.same_score.mean, *local.same_score[1:]), local.bounded)
    if question.limits == "local" and found.gains and not local.spared:
        said.append(
            f"For the same score the adaptive scan puts {factor} as much on the structure as the conventional one. The electrons "
            f"that hit it do the damage here, so take the conventional scan."
        )
    elif question.limits == "mean" and found.adaptive and not local.spared:
        surely = "" if local.same_score.low >= 1 else "probably "
        said.append(f"If the electrons that hit the structure do the damage, this {surely}spares nothing: ask again with --limits local.")
    over_mean = local.adaptive if found.adaptive else local.conventional
    if question.limits == "local" and question.dose_limit is not None and over_mean * found.place.dose > question.dose_limit * ROUNDED:
        said.append(
            f"--dose-limit is a mean over the field: where the structure is, this scan puts {number(over_mean * found.place.dose)} e/Å²."
        )
    return said


def _fillings(found: Decision) -> str:
    low, high = found.known
    return f"a filling of {low:g}" + (f" to {high:g}" if high > low else "")


def _pair(sides: tuple[float, float]) -> str:
    return " x ".join(f"{side:.3g}" for side in sides)
