"""What one request may take: bytes, time for sending them, and memory shared by all bodies."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from nshot.errors import RequestError


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a request may take.

    Attributes:
        body: bytes of one request's body.
        bodies: bytes of all bodies that are held at once.
        items: images of one request.
        waiting: images of all requests between their arrival and their answer; also how many requests may be.
        sending: seconds for a body to arrive.
        answering: seconds for an answer.
    """

    body: int = 64 * 2**20
    bodies: int = 256 * 2**20
    items: int = 256
    waiting: int = 256
    sending: float = 30.0
    answering: float = 60.0


class Bodies:
    """Counts the bytes of the bodies under way; used in one thread, the event loop's."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.held = 0

    def bounded(self, request: Request) -> tuple[Request, Held]:
        """The request, with bytes and time counted as it is received, and what to release at the end.

        Raises:
            HTTPException: 413, its Content-Length is too large; 400, it is no number.
        """
        told = request.headers.get("content-length")
        if told is not None and not told.isdecimal():
            raise HTTPException(400, "Content-Length is not a number")
        if told is not None and int(told) > self.bounds.body:
            raise _too_large(self.bounds)
        held = Held(self)
        return Request(request.scope, held.counting(request.receive)), held


class Held:
    """The bytes of one body."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._size = 0
        self._until = time.monotonic() + bodies.bounds.sending
        self._over = False

    def counting(self, receive: Receive) -> Receive:
        """``receive`` that raises HTTPException: 413 too many bytes, 408 too slow, 429 too many at once."""

        async def counted() -> Message:
            if self._over:  # what comes after the body: a client that goes away
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, self._until - time.monotonic()))
            except TimeoutError as error:
                seconds = f"{self._bodies.bounds.sending:g}"
                raise HTTPException(408, f"the body did not arrive within {seconds} s", _CLOSE) from error
            size = len(message.get("body", b""))
            self._size += size
            self._bodies.held += size
            self._over = not message.get("more_body", False)
            if self._size > self._bodies.bounds.body:
                raise _too_large(self._bodies.bounds)
            if self._bodies.held > self._bodies.bounds.bodies:
                raise HTTPException(429, "too many bytes are under way", {"Retry-After": "1"} | _CLOSE)
            return message

        return counted

    def release(self) -> None:
        """The body is not needed any more."""
        self._bodies.held -= self._size
        self._size = 0


async def read_json(request: Request) -> Any:
    """The body as JSON.

    Raises:
        RequestError: it is none.
    """
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the request is not JSON: {error}") from error


_CLOSE = {"Connection": "close"}


def _too_large(bounds: Bounds) -> HTTPException:
    return HTTPException(413, f"more than {bounds.body:,} bytes", _CLOSE)
