"""Who may ask: only pages of this server, under the names that it is meant to have, and who has its token."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nshot.server.login import COOKIE, Login, pass_of

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OPEN = frozenset({"/health", "/ready"})
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
        token: what every request must bring as ``Authorization: Bearer TOKEN`` or in the cookie that the
            login gives, but those that ask whether the server is alive and ready; None: nothing.
        origins: other origins whose pages may ask, such as ``https://example.org``.
        login: where a browser without the token is sent; what is under it needs none. None without a page.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Collection[str] = LOCAL,
        token: str | None = None,
        origins: Collection[str] = (),
        login: Login | None = None,
    ) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.token = token
        self.origins = frozenset(origins)
        self.login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        named = origin if origin in self.origins else None
        refused = self._refusal(scope, headers, named)
        answer: ASGIApp = self.app
        if refused is not None:
            answer = refused
        elif named is not None and scope["method"] == "OPTIONS":
            answer = _preflight()
        await answer(scope, receive, _with_headers(send, named))

    def _refusal(self, scope: Scope, headers: Headers, named: str | None) -> Response | None:
        host, origin, path = headers.get("host", ""), headers.get("origin"), scope["path"]
        site = headers.get("sec-fetch-site", "none")
        if "*" not in self.hosts and _hostname(host) not in self.hosts:
            return JSONResponse({"error": f"this server is not called {host!r}"}, 421)
        if named is None:
            if origin is not None and urlsplit(origin).netloc != host:
                return JSONResponse({"error": f"pages of {origin} may not ask"}, 403)
            if site not in ("none", "same-origin") and (path != "/" or scope["method"] != "GET"):
                return JSONResponse({"error": "other pages may not ask"}, 403)
        if self.token is None or path in _OPEN or self._known(headers):
            return None
        if named is not None and scope["method"] == "OPTIONS":  # browsers send no token with it
            return None
        if self.login is not None:
            if self.login.opens(path):
                return None
            if path == "/" and scope["method"] == "GET":
                return self.login.form()
        return JSONResponse(
            {"error": "the token is missing or wrong: Authorization: Bearer TOKEN"},
            401,
            {"WWW-Authenticate": "Bearer"},
        )

    def _known(self, headers: Headers) -> bool:
        assert self.token is not None
        given = headers.get("authorization", "").encode("utf-8", "replace")
        if hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            return True
        if self.login is None:
            return False
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return hmac.compare_digest(cookie.encode("utf-8", "replace"), pass_of(self.token).encode())


def _preflight() -> Response:
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": "authorization, content-type, accept, x-request-id",
            "Access-Control-Max-Age": "600",
        },
    )


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _with_headers(send: Send, named: str | None) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if named is not None:
                headers["Access-Control-Allow-Origin"] = named
                headers["Access-Control-Expose-Headers"] = "x-request-id, retry-after"
                headers.add_vary_header("Origin")
        await send(message)

    return sending
