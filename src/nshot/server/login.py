"""The token for a browser: given once in a form, held in a cookie that only this server gets."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from nshot.pages.engine import environment

COOKIE = "nshot"
_WRONG = 1.0  # seconds that a wrong token costs; one at a time, so that guessing takes for ever
_LONGEST = 10_000  # bytes of the form
_DIGITS = 9  # of their number
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # without a referrer a browser sends the form with no origin either
}


class Login:
    """The form, and what is done with it.

    Args:
        token: the server's.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._template = environment(Path(__file__).parent / "templates").get_template("login.html")
        self._wrong: asyncio.Lock | None = None

    def routes(self) -> list[Route]:
        """Where the form is sent."""
        return [Route("/login", self._login, methods=["POST"])]

    def opens(self, path: str) -> bool:
        """Whether a path needs no token: the form's own, and styles and scripts, which tell nothing."""
        return path in ("/login", "/theme.css") or path.startswith("/static/")

    def form(self, note: str = "") -> Response:
        """The form, in the place of what was asked for."""
        text = self._template.render(title="nshot", note=note)
        return Response(text, 401, _HEADERS, "text/html")

    async def _login(self, request: Request) -> Response:
        length = request.headers.get("content-length", "")
        if not length.isdecimal() or len(length) > _DIGITS or int(length) > _LONGEST:
            return self.form("That is no token.")
        async with request.form(max_files=0, max_fields=1) as form:
            given = str(form.get("token") or "").strip()
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
            self._wrong = self._wrong or asyncio.Lock()
            async with self._wrong:
                await asyncio.sleep(_WRONG)
            return self.form("That is not the token of this server.")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, pass_of(self._token), httponly=True, samesite="strict")
        return answer


def pass_of(token: str) -> str:
    """What the cookie holds in place of the token: it does not tell the token, and outlives a restart."""
    return hmac.new(token.encode(), b"nshot serve: the page", hashlib.sha256).hexdigest()
