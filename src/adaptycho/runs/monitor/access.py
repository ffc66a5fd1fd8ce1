"""Who may see the page and give orders: this machine, or whoever has the token.

On the loopback address the name that a browser uses has to be one of this machine's, so that no page from elsewhere reaches it under a name
of its own (DNS rebinding), and orders have to come from the page itself. On any other address everything takes the token.
"""

import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "adaptycho_token"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Gate:
    """Lets through who may come in, and adds headers that keep a browser from doing more than the page needs."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refusal(scope)
        await (self.app if refused is None else refused)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """What is answered instead; None lets the request through."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and origin != f"{scope['scheme']}://{host}":
            return _text(403, "expected a request from the monitor's own page, found one from another")
        if self.token is not None:
            return self._unless_known(scope, headers)
        peer = (scope.get("client") or ("",))[0]
        if not loopback(peer):
            return _text(403, "expected a request from this machine, found one from another")
        if not loopback(host.rpartition(":")[0]) and not loopback(host):
            return _text(403, "expected a name of this machine, found another")
        return None

    def _unless_known(self, scope: Scope, headers: Headers) -> Response | None:
        asked = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=10) if len(scope["query_string"]) < 1000 else {}
        given = (asked.pop("token", [""]))[0]
        if scope["method"] == "GET" and scope["path"] == "/" and self._right(given):
            answer = RedirectResponse(f"/?{urlencode(asked, doseq=True)}" if asked else "/", status_code=303)
            answer.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return answer
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if (kind.lower() == "bearer" and self._right(bearer.strip())) or self._right(_cookie(headers)):
            return None
        return _text(401, "expected the token that the monitor printed (?token=...), found none that is right")

    def _right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), (self.token or "").encode()) and bool(given)


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")[:4096]).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _text(code: int, sentence: str) -> Response:
    return PlainTextResponse(f"{sentence}\n", status_code=code)
