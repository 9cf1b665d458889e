"""What requests may take: bytes, time for sending them, and memory, which all of them share."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from nshot.bounded import received, weight
from nshot.errors import RequestError

_DIGITS = 20  # of the bytes of a body: more are no number that anybody means, and Python reads only 4300


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a request may take.

    Attributes:
        body: bytes of one request's body.
        bodies: bytes of memory that all requests may hold at once: bodies, and what their JSON is read into.
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
        if told is not None and (len(told) > _DIGITS or int(told) > self.bounds.body):
            raise _too_large(self.bounds)
        held = Held(self)
        bounded = Request(request.scope, held.counting(request.receive))
        bounded.state.held = held
        return bounded, held


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
            self._check()
            return message

        return counted

    def read_into(self, size: int) -> None:
        """The body has been read into objects of this many bytes, in whose place it need not be held.

        Raises:
            HTTPException: 413, it never may; 429, too much is held already.
        """
        if size > self._bodies.bounds.bodies:
            raise HTTPException(413, "reading this JSON would take too much memory", _CLOSE)
        self._bodies.held += size - self._size
        self._size = size
        self._check()

    def _check(self) -> None:
        if self._bodies.held > self._bodies.bounds.bodies:
            raise HTTPException(429, "too many bytes are under way", {"Retry-After": "1"} | _CLOSE)

    def release(self) -> None:
        """The request is over."""
        self._bodies.held -= self._size
        self._size = 0


async def read_json(request: Request) -> Any:
    """The body, of a request within bounds, as JSON.

    It is weighed before it is read: brackets take fifty times their own bytes.

    Raises:
        RequestError: it is none.
        HTTPException: 413 or 429, see ``Held.read_into``.
    """
    parts = [part async for part in request.stream()]
    body = b"".join(parts)
    del parts
    held: Held = request.state.held
    size = weight([body])
    held.read_into(size)
    try:
        content = received(body)
    except ValueError as error:
        raise RequestError(f"the request is not JSON: {error}") from error
    held.read_into(max(len(body), size - 2 * len(body)))  # the body and its text are gone
    return content


_CLOSE = {"Connection": "close"}


def _too_large(bounds: Bounds) -> HTTPException:
    return HTTPException(413, f"more than {bounds.body:,} bytes", _CLOSE)
