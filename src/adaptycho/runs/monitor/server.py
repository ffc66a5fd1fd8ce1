"""The pages and what they ask for: facts of the run, pictures, a stream of events, orders.

No part of an address becomes the name of a file: pages are read when the server starts, and numbers in addresses are looked up.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any, get_args

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from adaptycho.runs import orders
from adaptycho.runs.monitor.access import Gate
from adaptycho.runs.monitor.pictures import Kind, picture
from adaptycho.runs.monitor.watch import Watch
from adaptycho.runs.orders import Order
from adaptycho.support import document

INTERVAL = 0.25  # seconds between two looks into the folder
QUIET = 10.0  # seconds without news after which a browser is told that there are none
STREAMS = 32  # browsers at once
LARGEST = 1024  # bytes of an order
KEPT = 64  # pictures and answers that are kept for other browsers
PAGES = {"/": ("index.html", "text/html"), "/monitor.css": ("monitor.css", "text/css"), "/monitor.js": ("monitor.js", "text/javascript")}


class Hub:
    """Reads the run for all browsers at once, so that more of them cost next to nothing, and wakes them when there is news."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.streams, self.facts, self.version = watch, 0, "", 0
        self._news, self._one, self._kept = asyncio.Event(), asyncio.Lock(), OrderedDict[Any, Any]()
        self._ended = False

    async def look(self) -> None:
        """Looks into the folder once."""
        async with self._one:
            if await to_thread.run_sync(self.watch.look):
                self.version += 1
                facts = await to_thread.run_sync(self.watch.facts)
                self.facts = json.dumps({**facts, "version": self.version})
                self._news.set()
                self._news = asyncio.Event()

    async def follow(self) -> None:
        """Looks into the folder for as long as the server runs."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)

    async def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What was made for another browser, or is made now, by one at a time."""
        async with self._one:
            if key not in self._kept:
                self._kept[key] = await to_thread.run_sync(make)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return self._kept[key]

    def end(self) -> None:
        """Ends all streams."""
        self._ended = True
        self._news.set()

    async def events(self) -> AsyncIterator[str]:
        """Facts as server-sent events: at once, and whenever there is news."""
        told = -1
        self.streams += 1
        try:
            while not self._ended:
                news = self._news
                if self.version != told:
                    told = self.version
                    yield f"data: {self.facts}\n\n"
                    continue
                try:
                    await asyncio.wait_for(news.wait(), QUIET)
                except TimeoutError:
                    yield ": nothing new\n\n"
        finally:
            self.streams -= 1


def application(watch: Watch, token: str | None = None) -> Starlette:
    """The server's application.

    Args:
        watch: the run.
        token: that has to be shown; None lets in this machine and nobody else.
    """

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        app.state.hub = Hub(watch)
        await app.state.hub.look()
        following = asyncio.create_task(app.state.hub.follow())
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    routes = [Route(path, _page(*page), methods=["GET"]) for path, page in PAGES.items()]
    routes += [
        Route("/api/events", _events, methods=["GET"]),
        Route("/api/facts", _facts, methods=["GET"]),
        Route("/api/specimen/{specimen:int}", _specimen, methods=["GET"]),
        Route("/api/picture/{kind}/{specimen:int}/{number:int}.png", _picture, methods=["GET"]),
        Route("/api/orders", _order, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Gate, token=token)], lifespan=life)


def _page(name: str, kind: str) -> Callable[[Request], Any]:
    text = files("adaptycho.runs.monitor").joinpath("page", name).read_text(encoding="utf-8")

    async def answer(request: Request) -> Response:
        return Response(text, media_type=kind)

    return answer


async def _facts(request: Request) -> Response:
    return Response(request.app.state.hub.facts, media_type="application/json")


async def _events(request: Request) -> Response:
    hub: Hub = request.app.state.hub
    if hub.streams >= STREAMS:
        raise HTTPException(503, f"expected at most {STREAMS} pages at once, found as many")
    return StreamingResponse(hub.events(), media_type="text/event-stream")


async def _specimen(request: Request) -> Response:
    hub: Hub = request.app.state.hub
    specimen = _known(request.path_params["specimen"], hub.watch.run.batch)
    text = await hub.kept(("specimen", specimen, hub.watch.content), lambda: json.dumps(hub.watch.specimen(specimen)))
    return Response(text, media_type="application/json")


async def _picture(request: Request) -> Response:
    hub: Hub = request.app.state.hub
    kind = request.path_params["kind"]
    if kind not in get_args(Kind):
        raise HTTPException(404)
    specimen = _known(request.path_params["specimen"], hub.watch.run.batch)
    number = _known(request.path_params["number"], len(hub.watch.frames))
    try:
        png, low, high = await hub.kept((kind, specimen, number), lambda: picture(hub.watch, kind, specimen, number))
    except (OSError, ValueError) as error:
        raise HTTPException(422, str(error)) from None
    return Response(png, media_type="image/png", headers={"X-Low": f"{low:.6g}", "X-High": f"{high:.6g}"})


async def _order(request: Request) -> Response:
    """Takes an order; the sentence says why not if not."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "expected application/json, found another type")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            raise HTTPException(413, f"expected an order of at most {LARGEST} bytes, found more")
    watch: Watch = request.app.state.hub.watch
    try:
        order = document.parse(bytes(body), Order, "order")
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    if not watch.controlled():
        raise HTTPException(409, "expected a scan at work, found one that has ended")
    if order.number is not None and (order.number, order.attempt) != watch.asked():
        raise HTTPException(409, "expected a verdict on what the scan waits with, found one on something else")
    try:
        number = await to_thread.run_sync(orders.give, watch.run.path, order)
    except (OSError, ValueError) as error:
        raise HTTPException(503, str(error)) from None
    return JSONResponse({"order": number}, status_code=202)


def _known(number: int, count: int) -> int:
    if not 0 <= number < count:
        raise HTTPException(404)
    return number
