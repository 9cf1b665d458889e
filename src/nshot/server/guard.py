"""Who may ask: only pages of this server, under the names that it is meant to have."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OPEN = ("/health", "/ready")
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Refuses names that are not the server's (DNS rebinding) and requests that other pages send (CSRF).

    Args:
        app: what is guarded.
        hosts: names that the server may be asked under; "*" for any, where a token is asked for.
        token: what every request must bring as ``Authorization: Bearer TOKEN``, but those that ask whether
            the server is alive and ready; None: nothing.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = LOCAL, token: str | None = None) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.token = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        if "*" not in self.hosts and _hostname(host) not in self.hosts:
            refused = JSONResponse({"error": f"this server is not called {host!r}"}, 421)
        elif origin is not None and urlsplit(origin).netloc != host:
            refused = JSONResponse({"error": f"pages of {origin} may not ask"}, 403)
        elif site not in ("none", "same-origin") and (scope["path"] != "/" or scope["method"] != "GET"):
            refused = JSONResponse({"error": "other pages may not ask"}, 403)
        elif self.token is not None and scope["path"] not in _OPEN and not self._known(headers):
            refused = JSONResponse(
                {"error": "the token is missing or wrong: Authorization: Bearer TOKEN"},
                401,
                {"WWW-Authenticate": "Bearer"},
            )
        else:
            await self.app(scope, receive, _with_headers(send))
            return
        await refused(scope, receive, send)

    def _known(self, headers: Headers) -> bool:
        assert self.token is not None
        return hmac.compare_digest(headers.get("authorization", "").encode(), self.token)


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
