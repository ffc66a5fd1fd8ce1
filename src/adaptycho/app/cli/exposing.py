"""What is said before the specimen is exposed."""

import math
from typing import TYPE_CHECKING, Any

from adaptycho.app.cli.output import tell

if TYPE_CHECKING:
    from adaptycho.settings import Settings


def rehearse(chosen: "Settings", as_json: bool) -> None:
    """Prints the first positions of a scan, and what they would do to the specimen."""
    from adaptycho.app import tasks

    found = tasks.rehearse(chosen)
    lines = [f"{y:10.3f} {x:10.3f}" for specimen in found["positions"] for y, x in specimen]
    told = _told(len(found["positions"][0]), **{name: _number(found[name]) for name in ("dose", "local", "jump", "outside")})
    tell(found, [f"{'y in Å':>10} {'x in Å':>10}", *lines, told, "nothing was exposed"], as_json)


def _told(count: int, dose: float, local: float, jump: float, outside: float) -> str:
    beyond = f", up to {outside:.3g} Å outside the field" if outside else ""
    sent = f"{dose:.4g} electrons in all, at most {local:.4g} per Å²" if not math.isnan(dose) else "nobody tells how many electrons"
    return f"{count} positions, up to {jump:.3g} Å from one to the next{beyond}: {sent}"


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
