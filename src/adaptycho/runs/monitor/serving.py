"""The server itself: an address, a token if the address is open to others, and uvicorn behind it."""

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from adaptycho.runs.monitor.access import loopback
from adaptycho.runs.monitor.server import STREAMS, application
from adaptycho.runs.monitor.watch import Watch
from adaptycho.runs.orders import FOLDER

EVERYWHERE = ("", "0.0.0.0", "::", "[::]")  # which no browser can be sent to


def serve(watch: Watch, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Serves a run until somebody presses Ctrl-C.

    Args:
        watch: the run.
        host: address or name to listen on; beyond the loopback address everything takes a token.
        port: number to listen on; 0 takes one that is free.
        tell: says where the page is.

    Raises:
        ValueError: nobody can listen there.
    """
    token = None if loopback(host) else secrets.token_urlsafe(32)
    with suppress(OSError):  # a folder that is only read is shown all the same
        (watch.run.path / FOLDER).mkdir(exist_ok=True)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host.strip("[]"), port), family=family)
    except (OSError, OverflowError) as error:
        raise ValueError(f"--host, --port: expected an address to listen on, found {host}, {port} ({error})") from None
    with listening:
        found = listening.getsockname()[1]
        name = socket.gethostname() if host in EVERYWHERE else host
        shown = f"[{name}]" if ":" in name and not name.startswith("[") else name
        tell(f"http://{shown}:{found}/" + (f"?token={token}" if token else ""))
        Server(configuration(watch, token)).run(sockets=[listening])


class Server(uvicorn.Server):
    """Uvicorn, which waits for streams to end when it is to end: here they are told."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Somebody pressed Ctrl-C."""
        super().handle_exit(sig, frame)
        if isinstance(self.config.app, Starlette):
            self.config.app.state.hub.end()


def configuration(watch: Watch, token: str | None = None) -> uvicorn.Config:
    """How uvicorn runs: quietly, believing no headers that a proxy might have set, and ending although pages are open."""
    return uvicorn.Config(
        application(watch, token),
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",
        limit_concurrency=2 * STREAMS,
        timeout_graceful_shutdown=1,
    )
