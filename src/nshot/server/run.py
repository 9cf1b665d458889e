"""Sockets and signals: an application is served until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import ceil
from types import FrameType

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from nshot.errors import RequestError

_GRACE = 5  # seconds for requests under way once it is to stop
_HEAD = 10  # seconds for the head of a request
_LAST = 0.3  # seconds in which a request that is on its way may still come, once it is to stop


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        RequestError: the port is taken, or may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named: else an answer waits 40 ms
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise RequestError(
            f"cannot listen on {host}:{port} ({error.strerror}): name another port with --port"
        ) from error
    return listening


def run(
    app: ASGIApp,
    listening: socket.socket,
    *,
    stopping: Callable[[], None],
    verbose: bool = False,
    grace: float = _GRACE,
    drain: float = 0.0,
) -> None:
    """Serve until SIGINT or SIGTERM; after SIGTERM it returns once all requests are answered.

    Args:
        app: the application.
        listening: where; closed at the end.
        stopping: called once when it is to stop, so that streams end by themselves.
        verbose: log every request on stderr.
        grace: seconds for requests under way once it is to stop.
        drain: seconds after SIGTERM in which connections are still taken, while it says that it is not
            ready: a load balancer needs some to notice.
    """
    with listening:
        server = server_of(app, stopping=stopping, verbose=verbose, grace=grace, drain=drain)
        server.run(sockets=[listening])


def server_of(
    app: ASGIApp,
    *,
    stopping: Callable[[], None],
    verbose: bool = False,
    grace: float = _GRACE,
    drain: float = 0.0,
) -> uvicorn.Server:
    """The server that ``run`` runs."""
    config = uvicorn.Config(
        app,
        http=_Connection,
        log_level="info" if verbose else "warning",
        timeout_graceful_shutdown=ceil(grace),
        lifespan="off",
    )
    return _Server(config, stopping, drain)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None], drain: float) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._drain = drain
        self._leaving_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping()
        if sig == signal.SIGTERM:  # not raised again at the end: the exit status is 0
            if self._drain and self._leaving_at is None:
                self._leaving_at = time.monotonic() + self._drain
            else:
                self.should_exit = True
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn's, ten times a second; and the end of the time in which connections are still taken."""
        over = self._leaving_at is not None and time.monotonic() >= self._leaving_at
        return await super().on_tick(counter) or over

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and connections that the system has taken on already are still answered."""
        waiting = [each for listening in sockets or () for each in _pending(listening)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for each in waiting:
            with suppress(OSError):
                await loop.connect_accepted_socket(self._connection, each)
        await super().shutdown(sockets)

    def _connection(self) -> _Connection:
        return _Connection(self.config, self.server_state, self.lifespan.state)


def _pending(listening: socket.socket) -> Iterator[socket.socket]:
    """Connections that wait to be accepted; the socket does not block."""
    with suppress(OSError):
        while listening.gettimeout() == 0:
            yield listening.accept()[0]


class _Connection(H11Protocol):
    """A connection that is closed where no whole request comes, and that answers what came before the end.

    uvicorn waits for a request's head without a limit, and closes idle connections at once when it is to
    stop, also those on which a request is on its way.
    """

    _waiting: asyncio.TimerHandle | None = None
    _leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()
        if self._leaving:
            self._tell()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._leaving or (self.cycle is not None and not self.cycle.response_complete):
            self._tell()
            self._leave()
        else:
            self._leaving = True
            self.loop.call_later(_LAST, self._leave)

    def _leave(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _tell(self) -> None:
        """Let the answer say that it is the last one, so that the client sends no other request here."""
        if self.cycle is not None and not self.cycle.response_complete and self.cycle.keep_alive:
            self.cycle.keep_alive = False
            self.cycle.default_headers = [*self.cycle.default_headers, (b"connection", b"close")]

    def _wait(self) -> None:
        """Start or stop the clock, as a request's head is awaited or not."""
        if self.conn.their_state is h11.IDLE:
            if self._waiting is None:
                self._waiting = self.loop.call_later(_HEAD, self._give_up)
        elif self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()
