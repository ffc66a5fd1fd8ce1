"""What commands share: threads, progress, and what they print."""

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


def teller() -> Callable[[str], None]:
    """Says what is going on, on a terminal only."""
    return (lambda text: click.echo(text, err=True)) if sys.stderr.isatty() else (lambda text: None)


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
            click.echo(f"{what}: {done} of {total}, about {left / 60:.0f} min left", err=True)


def tell(found: dict[str, Any], text: list[str], as_json: bool) -> None:
    """Prints what was found, as text or as JSON."""
    click.echo(to_json(found) if as_json else "\n".join(text))


def to_json(found: dict[str, Any]) -> str:
    """As JSON, which has no NaN: a loss or score of a reconstruction that diverged is null."""
    return json.dumps(json.loads(json.dumps(found), parse_constant=lambda name: None))
