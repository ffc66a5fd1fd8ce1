"""`adaptycho monitor`: a page in the browser that shows a scan while it runs, or one order from the terminal."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from adaptycho.app.cli.output import say
from adaptycho.app.options import source
from adaptycho.runs.orders import WORDS


@click.command()
@click.argument("run", type=source)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on. Others than this machine's own take a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8650, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option(
    "--limit",
    type=click.FloatRange(0, min_open=True),
    metavar="E/Å²",
    help="Most electrons per Å² anywhere, to be marked on the dose map; `safety.local` of the scan if left out.",
)
@click.option("--order", "word", type=click.Choice(WORDS), help="Give this order to the scan instead of showing a page.")
def monitor(run: Path, host: str, port: int, limit: float | None, word: str | None) -> None:
    """Show the scan in the folder RUN on a page in the browser while it runs: reconstruction, positions, dose, budget, times.

    The page has buttons to pause, resume and stop the scan, and to approve or reject what it proposes. The monitor reads the folder and
    leaves orders in it: it can be started, ended or killed at any time, and the scan goes on.
    """
    from adaptycho.runs.scans import Run

    target = Run.open(run)
    if word is not None:
        _give(target, word)
        return
    try:
        from adaptycho.runs.monitor.serving import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn", "anyio"):
            raise
        raise ValueError(f"monitor: expected the extra `monitor` (pip install 'adaptycho[monitor]'), found no {error.name}") from None
    import torch

    from adaptycho.runs.monitor.watch import Watch

    torch.set_num_threads(1)
    with suppress(OSError):
        os.nice(19)  # the scan goes first
    serve(
        Watch(target, limit or target.settings.safety.local),
        host,
        port,
        lambda address: say(f"{address}  (Ctrl-C ends the monitor; the scan goes on)"),
    )


def _give(target: Any, word: Any) -> None:
    """One order; a verdict is on what the scan waits with.

    Raises:
        ValueError: there is nothing to approve or reject.
    """
    from adaptycho.runs import orders

    order = None if word in ("approve", "reject") else orders.Order(word=word)
    if order is None:
        status = orders.read_status(target.path)
        if status is None or status.doing != "waits":
            raise ValueError(f"{target.path}: expected a scan that waits for a verdict, found none")
        order = orders.Order(word=word, number=status.number, attempt=status.attempt)
    say(f"order {orders.give(target.path, order)}: {word}")
