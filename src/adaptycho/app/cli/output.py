"""What commands share: threads, progress, what they print, and how they end that cannot do what they were asked."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import click


def use(count: int | None) -> None:
    """Takes so many processor cores, or all that this process may run on."""
    import torch

    torch.set_num_threads(count or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count or os.cpu_count() or 1)


def placed(device: str) -> str:
    """The name of a device, if this machine has it.

    Raises:
        ValueError: it has not, or torch cannot use it.
    """
    import torch

    try:
        float(torch.zeros(1, dtype=torch.float64, device=device).sum())  # some hold no numbers, or none of double precision
    except Exception as error:  # as torch has it: another one for each way in which there is none
        raise ValueError(f"--device: expected a device that torch can use here, such as cpu, found {device!r} ({_first(error)})") from None
    return device


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0]


def say(text: str, *, err: bool = False) -> None:
    """Prints text in which anything may stand that a file or a user said: a terminal is shown escapes and never told them."""
    shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    click.echo(shown, err=err)


def warn(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """A warning as one line, as errors are; what arithmetic on damaged data provokes in a library is left to the error that follows."""
    if not issubclass(category, RuntimeWarning) or os.environ.get("ADAPTYCHO_DEBUG"):
        say(f"adaptycho: {' '.join(str(message).split())}", err=True)


def let_go() -> None:
    """Forgets what standard output cannot take, or Python would fail over it once more at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def explain(error: Exception) -> tuple[int, str]:
    """Exit code and sentence of a command that ended with an exception."""
    match error:
        case click.ClickException():
            return 2, error.format_message()
        case ValueError() | OSError():
            return 2, str(error)
        case MemoryError():
            return 2, f"memory: expected enough for this, found too little ({str(error) or 'none could be allocated'})"
        case RuntimeError() if "out of memory" in str(error):  # of a GPU, as torch says it
            return 2, f"memory: expected enough for this on the device, found too little ({_first(error)})"
        case RuntimeError() if "allocate memory" in str(error):  # as torch says it
            return 2, f"memory: expected enough for this, found too little ({str(error).partition(': ')[2]})"
        case _:
            return 1, f"unexpected {type(error).__name__}: {error}; ADAPTYCHO_DEBUG=1 shows where"


def teller() -> Callable[[str], None]:
    """Says what is going on, on a terminal only."""
    return (lambda text: say(text, err=True)) if sys.stderr.isatty() else (lambda text: None)


def progress(items: Any, total: int, what: str) -> Any:
    """A progress bar on a terminal, nothing when piped."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=what, disable=None, leave=False)


def patient_progress(items: Any, total: int, what: str) -> Any:
    """Like `progress`; into a pipe or a log, a line every minute with the time that is left."""
    if sys.stderr.isatty() or not total:
        yield from progress(items, total, what)
        return
    started = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said > 60:
            said, left = now, (now - started) * (total - done) / done
            say(f"{what}: {done} of {total}, about {left / 60:.0f} min left", err=True)


def tell(found: dict[str, Any], text: list[str], as_json: bool) -> None:
    """Prints what was found, as text or as JSON."""
    say(to_json(found) if as_json else "\n".join(text))


def to_json(found: dict[str, Any]) -> str:
    """As JSON, which has no NaN: a loss or score of a reconstruction that diverged is null."""
    return json.dumps(json.loads(json.dumps(found), parse_constant=lambda name: None))
