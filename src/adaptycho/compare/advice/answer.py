"""The answer to one question, as an object for programs and as one screen of text."""

from dataclasses import asdict
from typing import Any

from adaptycho.compare.advice import command, words
from adaptycho.compare.advice.decide import Decision, Scan, decide
from adaptycho.compare.advice.place import UNIFORM, Question
from adaptycho.compare.advice.read import Reading
from adaptycho.compare.advice.table import Estimate, Table

SHOWN = ("family", "electrons", "positions", "scan", "strategy", "specimens", "policies", "source")  # of the nearest row
TITLE = {"yes": "YES", "perhaps": "PERHAPS", "no": "NO"}
TRUST = {
    "measured": "high: measured with this microscope and field",
    "scaled": "fair: measured on another microscope or field, carried over in units of the probe width",
    "outside": "low: outside of what was measured",
}


def advise(question: Question, table: Table) -> tuple[Decision, dict[str, Any]]:
    """Whether an adaptive scan helps: what was decided, and the same as an object ready for JSON.

    Keys of the object: `helps` (yes, perhaps, no; never yes outside of what was measured); `recommended` and `instead`, the scan to take
    and the best of the other kind (`name`, `weights`, `defocus` in Å, `positions`, `electrons`); `dose_saving` and `gain` of the adaptive
    scan over the best conventional one as mean and 95 % interval, with no mean between two ends; `dose_saving_bounded`; `ends`, what the
    table says, one for each filling that counts (`dense_score` is that of the nearest cell); `local_dose`, where the structure is (95th
    percentile over the field), of the `adaptive` and of the `conventional` scan in e/Å² with as many electrons each, and how many times as
    much the adaptive one puts there at `same_score`, None if that was not measured; `place`, the scan in its own units; `limits`, the dose
    that does the damage; `trust` (measured, scaled, outside), `warnings`, `reasons`; and `next`, a command, with what it does.

    Raises:
        ValueError: the table does not know the family, or no scan fits the time or the dose limit.
    """
    found = decide(question, table)
    warnings = words.gaps(found, table)
    scans = [_scan(found.ours), _scan(found.conventional)]
    recommended, instead = scans if found.adaptive else scans[::-1]
    spared = question.limits == "mean" or (found.local is not None and found.local.same_score.high < 1)
    sure = found.gain.low > 0 and spared and not warnings
    return found, {
        "helps": ("yes" if sure else "perhaps") if found.adaptive else "no",
        "recommended": recommended,
        "instead": instead,
        "dose_saving": _listed(found, found.saving),
        "dose_saving_bounded": found.bounded,
        "gain": _listed(found, found.gain),
        "ends": [_end(found, end) for end in found.ends],
        "limits": question.limits,
        "local_dose": _local(found),
        "place": {name: _round(value) for name, value in asdict(found.place).items()},
        "trust": "outside" if warnings else "scaled" if found.place.scaled else "measured",
        "warnings": warnings,
        "reasons": words.reasons(found, table),
        "next": command.command(found, table, bool(warnings)),
        "next_does": command.does(found, table, bool(warnings)),
    }


def lines(answer: dict[str, Any]) -> list[str]:
    """The answer as one screen of text."""
    place, ends = answer["place"], answer["ends"]
    saving, gain = answer["dose_saving"], answer["gain"]
    text = [
        f"Will an adaptive scan help? {TITLE[answer['helps']]}{_unless(answer)}",
        "",
        f"  take        {words.scan_text(Scan(**answer['recommended']))}",
        f"  rather than {_instead(answer)}",
        f"  dose saved  {words.saved(saving, answer['dose_saving_bounded'])} over the whole field, adaptive against the best conventional "
        "scan (95 % interval)",
        *_local_lines(answer),
        f"  score       {_gain(*gain)}, correlation with the true phase inside the structure",
    ]
    for end in ends:
        near, (low, high) = end["nearest"], end["filling"]
        text.append(
            f"  measured    {end['family']}, filling {low:g}{f' to {high:g}' if high > low else ''}: score {end['score']:.2f} against "
            f"{end['best_conventional_score']:.2f}, dose saved {words.saved(end['dose_saving'], end['dose_saving_bounded'])}"
        )
        text.append(
            f"              nearest measurement {words.count(near['electrons'], 'electron')}, "
            f"{words.count(near['positions'], 'position')}; {words.count(near['specimens'], 'specimen')}"
            f"{', policies: ' + str(near['policies']) if near['policies'] else ''}"
        )
    text += [
        f"  your scan   {words.number(place['dose'])} e/Å², probe {place['width']:.3g} Å wide; for each squared probe width "
        f"{place['density']:.2g} positions, {words.count(place['per_element'], 'electron')}",
        f"  trust       {TRUST[answer['trust']]}",
        *(f"            ! {warning}" for warning in answer["warnings"]),
        "",
        *answer["reasons"],
        "",
        f"Next: {answer['next']}",
        answer["next_does"],
    ]
    return text


def _instead(answer: dict[str, Any]) -> str:
    """The other scan; one that is chosen on training specimens may be the very scan that is recommended."""
    instead = answer["instead"]
    if instead["name"] == answer["recommended"]["name"]:
        return "an adaptive scan, which chose not to adapt on training specimens"
    return words.scan_text(Scan(**instead))


def _unless(answer: dict[str, Any]) -> str:
    """What the answer depends on where nobody has said which dose does the damage, and the adaptive scan puts more on the structure."""
    local = answer["local_dose"]
    if answer["helps"] == "no" or answer["limits"] == "local" or local is None:
        return ""
    _, low, high = local["same_score"]
    return ", unless the electrons that hit the structure do the damage" if low * high >= 1 else ""


def _gain(mean: float | None, low: float, high: float) -> str:
    return words.interval(low, high) if mean is None else f"{100 * mean:+.1f} % [{100 * low:+.1f}, {100 * high:+.1f}]"


def _local_lines(answer: dict[str, Any]) -> list[str]:
    """The dose where the structure is, beside the mean over the field."""
    local = answer["local_dose"]
    if local is None:
        return []
    ours, theirs, mean = (words.number(dose) for dose in (local["adaptive"], local["conventional"], answer["place"]["dose"]))
    where = "at the hardest-hit places" if answer["ends"][0]["family"] in UNIFORM else "on the structure"
    return [
        f"  local dose  with as many electrons ({mean} e/Å² over the whole field): {ours} e/Å² {where} by the adaptive scan, "
        f"{theirs} by the conventional one",
        f"              for the same score the adaptive scan puts {words.times(local['same_score'], local['bounded'])} as much there",
    ]


def _local(found: Decision) -> dict[str, Any] | None:
    if (local := found.local) is None:
        return None
    return {
        "adaptive": _round(local.adaptive * found.place.dose),
        "conventional": _round(local.conventional * found.place.dose),
        "same_score": _listed(found, local.same_score),
        "bounded": local.bounded,
    }


def _scan(scan: Scan) -> dict[str, Any]:
    return {name: _round(value) for name, value in asdict(scan).items()}


def _listed(found: Decision, estimate: Estimate) -> list[float | None]:
    mean, low, high = (_round(v) for v in estimate)
    return [mean if len(found.ends) == 1 else None, low, high]


def _end(found: Decision, end: Reading) -> dict[str, Any]:
    near = end.nearest
    return {
        "family": near.family,
        "filling": list(near.filling),
        "gain": [_round(v) for v in end.gain],
        "dose_saving": [_round(v) for v in end.saving],
        "dose_saving_bounded": end.bounded,
        "score": _round(end.score),
        "best_conventional_score": _round(end.base_score),
        "dense_score": near.dense,
        "best_conventional": near.against[found.base].scan,
        "inside": end.inside,
        "nearest": {name: getattr(near, name) for name in SHOWN},
    }


def _round(value: Any) -> Any:
    """Five digits are more than is known."""
    if isinstance(value, tuple):
        return [_round(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
